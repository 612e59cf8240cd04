"""Modal apps: check everything that an app refers to, then deploy it."""

from __future__ import annotations

from typing import Any

from invoke import task

APP = "The app: a folder below modal/ with a file of the same name, such as golink."


@task(positional=["app"], help={"app": APP})
def check(c: Any, app: str) -> None:
    """Check that Modal's login is there, and every Secret, Dict and Volume the app refers to. Changes nothing.

    Example: ./inv modal.check golink
    """
    from runbooks.checks.modal import check_app
    from runbooks.run import open_run

    with open_run(c, "modal.check") as run:
        check_app(run, app)


@task(positional=["app"], help={"app": APP, "yes": "Deploy without asking, where there is no terminal."})
def deploy(c: Any, app: str, yes: bool = False) -> None:
    """Deploy an app to Modal, after everything it refers to was found and the user approved.

    Example: ./inv modal.deploy golink
    """
    from runbooks.checks.modal import check_app
    from runbooks.core.files import ROOT
    from runbooks.core.reporter import require_yes
    from runbooks.run import open_run
    from runbooks.tools import modal

    with open_run(c, "modal.deploy") as run:
        cli = check_app(run, app)
        if not yes:
            refusal = f"{app} was not deployed: it was not approved"
            require_yes(run.reporter, f"Deploy {app} to Modal?", refusal=refusal, again=f"./inv modal.deploy {app}")
        run.journal.write("approved", services=[app], destructive=[])
        with run.reporter.step(f"deploy {app}"):
            done = run.runner.run(cli.deploy(modal.app_file(ROOT, app), ROOT))
        for line in done.shown_stdout.splitlines():
            run.reporter.quote(line)
        if not done.ok:
            raise modal.failure(done)
        run.reporter.line(f"{app} is deployed; undo: modal app rollback {app}")
