"""Modal apps: what must exist first, then the deploy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from runbooks.core.findings import Finding
    from runbooks.stacks.session import RunContext
    from runbooks.tools.modal import Modal, Need

APP = "The app: a folder below modal/ with a file of the same name, such as golink."


@task(positional=["app"], help={"app": APP})
def check(c: Any, app: str) -> None:
    """Check that Modal's login is there, and every Secret, Dict and Volume the app refers to. Changes nothing."""
    from runbooks.run import open_run

    with open_run(c, "modal.check") as run:
        is_ready(run, app)


@task(positional=["app"], help={"app": APP, "yes": "Deploy without asking, where nobody can be asked."})
def deploy(c: Any, app: str, yes: bool = False) -> None:
    """Deploy an app to Modal, after everything it refers to was found and somebody agreed."""
    from runbooks.core.errors import NotApproved
    from runbooks.core.files import ROOT
    from runbooks.run import open_run
    from runbooks.tools import modal

    with open_run(c, "modal.deploy") as run:
        cli = is_ready(run, app)
        if not (yes or run.reporter.ask_yes(f"Deploy {app} to Modal?")):
            raise NotApproved(
                f"{app} was not deployed: nobody approved",
                expected="y at the question, or --yes where nobody can be asked",
                next_step=f"./inv modal.deploy {app}",
            )
        run.journal.write("approved", services=[app], destructive=[])
        with run.reporter.step(f"deploy {app}"):
            done = run.runner.run(cli.deploy(modal.app_file(ROOT, app), ROOT))
        for line in done.shown_stdout.splitlines():
            run.reporter.quote(line)
        if not done.ok:
            raise modal.failure(done)
        run.reporter.line(f"{app} is deployed; undo: modal app rollback {app}")


def is_ready(run: RunContext, app: str) -> Modal:
    """Check from the login to everything the app needs. Raises `LoginMissing`, or `VerificationFailed`."""
    from runbooks.core.errors import VerificationFailed
    from runbooks.core.files import ROOT
    from runbooks.tools import modal

    file = modal.app_file(ROOT, app)
    needs = modal.needs_of(file.read_text(encoding="utf-8"))
    cli = modal.find_modal(os.environ)
    run.masker.register_all(modal.tokens(os.environ, Path.home()))
    run.reporter.announce(f"Looking at Modal's login and at what {app} refers to. Nothing is changed.")
    findings = [logged_in(run, cli), *(exists(run, cli, need) for need in needs)]
    for finding in findings:
        run.reporter.finding(finding)
    missing = [finding for finding in findings if not finding.ok]
    if missing:
        raise VerificationFailed(
            f"{app} cannot be deployed yet: {missing[0].check}: {missing[0].evidence}",
            expected="everything its source refers to",
            next_step=missing[0].next_step,
        )
    return cli


def logged_in(run: RunContext, cli: Modal) -> Finding:
    """Raises `LoginMissing` when nobody is: nothing else could be looked at then."""
    from runbooks.core.findings import passed
    from runbooks.tools import modal

    outcome = run.runner.run(cli.token())
    if not outcome.ok:
        raise modal.failure(outcome)
    return passed("Modal's login is there", "a token that Modal takes")


def exists(run: RunContext, cli: Modal, need: Need) -> Finding:
    from runbooks.core.findings import failed, passed
    from runbooks.tools import modal

    check = f"{need.kind} {need.name} is there"
    if need.made_by_deploy:
        return passed(check, "the deploy makes it where it is missing")
    names = modal.read_names(run.runner.run(cli.listed(need.kind)))
    if need.name in names:
        keys = f"; its keys ({', '.join(need.keys)}) cannot be looked at from here" if need.keys else ""
        return passed(check, f"listed{keys}")
    keys = f" with the key {', '.join(need.keys)}" if need.keys else ""
    step = (
        f"make it{keys} on Modal's Secrets page: in `modal secret create` the value would be in the process list"
        if need.kind == "Secret"
        else f"modal {modal.LISTED[need.kind]} create {need.name}"
    )
    return failed(check, "not among those listed", next_step=step)
