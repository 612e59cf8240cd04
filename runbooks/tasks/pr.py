"""What a person who reviews a change wants to know of it."""

from __future__ import annotations

from typing import Any

from invoke import task


@task(help={"base": "The branch that the change goes to, or another commit (main)."})
def body(c: Any, base: str = "main") -> None:
    """Print the text of a pull request: summary, commands run, previews, settings touched, how to go back.

    It says what is in git and in the records of runs, and names what it cannot know. Changes nothing.
    """
    from runbooks.core.files import ROOT
    from runbooks.run import open_run
    from runbooks.services import SERVICES
    from runbooks.stacks import branch, pull_request
    from runbooks.stacks.runs import read_runs

    with open_run(c, "pr.body") as run:
        change = branch.compared(run, ROOT, base, services=SERVICES)
        run.reporter.line("\n".join(pull_request.lines(change, read_runs(run.state_dir))).rstrip())
