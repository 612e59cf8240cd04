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
        check_app(run, app)


@task(positional=["app"], help={"app": APP, "yes": "Deploy without asking, where no terminal is there."})
def deploy(c: Any, app: str, yes: bool = False) -> None:
    """Deploy an app to Modal, after everything it refers to was found and a person agreed."""
    from runbooks.core.errors import NotApproved
    from runbooks.core.files import ROOT
    from runbooks.run import open_run
    from runbooks.tools import modal

    with open_run(c, "modal.deploy") as run:
        cli = check_app(run, app)
        if not (yes or run.reporter.ask_yes(f"Deploy {app} to Modal?")):
            raise NotApproved(
                f"{app} was not deployed: it was not approved",
                expected="y at the question, or --yes where no terminal is there",
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


def check_app(run: RunContext, app: str) -> Modal:
    """Check from the login to everything the app needs. Raises `LoginMissing`, or `VerificationFailed`."""
    from runbooks.core.errors import VerificationFailed
    from runbooks.core.files import ROOT
    from runbooks.core.findings import passed
    from runbooks.tools import modal

    needs = modal.needs_of(modal.app_file(ROOT, app).read_text(encoding="utf-8"))
    cli = modal.find_modal(os.environ)
    run.masker.register_all(modal.tokens(os.environ, Path.home()))
    run.reporter.announce(f"Checking Modal's login and what {app} refers to. Nothing is changed.")
    login = run.runner.run(cli.token())
    if not login.ok:
        raise modal.failure(login)
    findings = [passed("Modal's login is there", "a token that Modal takes")]
    findings += [need_is_there(run, cli, need) for need in needs]
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


def need_is_there(run: RunContext, cli: Modal, need: Need) -> Finding:
    from runbooks.core.findings import failed, passed
    from runbooks.tools.modal import read_names

    check = f"{need.kind} {need.name} is there"
    if need.made_by_deploy:
        return passed(check, "the deploy creates it where it is missing")
    keys = ", ".join(need.keys)
    if need.name in read_names(run.runner.run(cli.list(need.kind))):
        return passed(check, "listed" + (f"; its keys ({keys}) cannot be checked from here" if keys else ""))
    if need.kind == "Secret":
        with_keys = f" with the key {keys}" if keys else ""
        # `modal secret create` takes the value as an argument, which the process list shows.
        step = (
            f"create it{with_keys} on Modal's Secrets page; `modal secret create` would show the value to other users"
        )
    else:
        step = f"modal {need.kind.lower()} create {need.name}"
    return failed(check, "not among those listed", next_step=step)
