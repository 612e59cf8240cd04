"""What a person who reviews a change wants to know of it."""

from __future__ import annotations

from typing import Any

from invoke import task


@task(help={"base": "The branch that the change goes to, or another commit (main)."})
def body(c: Any, base: str = "main") -> None:
    """Print the text of a pull request: summary, commands run, previews, settings touched, how to go back.

    It says what is in git and in the records of runs, and names what it cannot know. Changes nothing.
    """
    from runbooks import branch, pull_request
    from runbooks.lib.runs import read_runs
    from runbooks.program import ROOT
    from runbooks.session import open_bench

    with open_bench(c, "pr.body") as bench:
        change = branch.compared(bench, ROOT, base)
        bench.reporter.line("\n".join(pull_request.lines(change, read_runs(bench.state_dir))).rstrip())
