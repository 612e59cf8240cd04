"""The text of a pull request."""

from __future__ import annotations

from typing import Any

from invoke import task


@task(help={"base": "The branch that the change is for, or another commit (main)."})
def body(c: Any, base: str = "main") -> None:
    """Print the text of a pull request: summary, commands run, previews, settings touched, how to go back.

    It holds what git and the journals of runs know, and names what they do not. Changes nothing.

    Example: ./inv pr.body --base main
    """
    from runbooks.core.files import ROOT
    from runbooks.run import open_run
    from runbooks.services import SERVICES
    from runbooks.stacks import pull_request

    with open_run(c, "pr.body") as run:
        run.reporter.line(pull_request.write_text(run, ROOT, base, SERVICES))
