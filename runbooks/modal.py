"""Modal apps: what must exist first, then the deploy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from runbooks.lib.checks import Finding
    from runbooks.lib.modal import Modal, Need
    from runbooks.session import Bench

APP = "The app: a folder below modal/ with a file of the same name, such as golink."


@task(positional=["app"], help={"app": APP})
def check(c: Any, app: str) -> None:
    """Check that Modal's login is there, and every Secret, Dict and Volume the app refers to. Changes nothing."""
    from runbooks.session import open_bench

    with open_bench(c, "modal.check") as bench:
        is_ready(bench, app)


@task(positional=["app"], help={"app": APP, "yes": "Deploy without asking, where nobody can be asked."})
def deploy(c: Any, app: str, yes: bool = False) -> None:
    """Deploy an app to Modal, after everything it refers to was found and somebody agreed."""
    from runbooks.lib import modal
    from runbooks.lib.errors import NotApproved
    from runbooks.program import ROOT
    from runbooks.session import open_bench

    with open_bench(c, "modal.deploy") as bench:
        cli = is_ready(bench, app)
        if not (yes or bench.reporter.ask_yes(f"Deploy {app} to Modal?")):
            raise NotApproved(
                f"{app} was not deployed: nobody approved",
                expected="y at the question, or --yes where nobody can be asked",
                next_step=f"./inv modal.deploy {app}",
            )
        bench.journal.write("approved", services=[app], destructive=[])
        with bench.reporter.step(f"deploy {app}"):
            done = bench.runner.run(cli.deploy(modal.app_file(ROOT, app), ROOT))
        for line in done.shown_stdout.splitlines():
            bench.reporter.quote(line)
        if not done.ok:
            raise modal.failure(done)
        bench.reporter.line(f"{app} is deployed; undo: modal app rollback {app}")


def is_ready(bench: Bench, app: str) -> Modal:
    """Climb from the login to everything the app needs. Raises `LoginMissing`, or `VerificationFailed`."""
    from runbooks.lib import modal
    from runbooks.lib.errors import VerificationFailed
    from runbooks.program import ROOT

    file = modal.app_file(ROOT, app)
    needs = modal.needs_of(file.read_text(encoding="utf-8"))
    cli = modal.find_modal(os.environ)
    bench.masker.register_all(modal.tokens(os.environ, Path.home()))
    bench.reporter.announce(f"Looking at Modal's login and at what {app} refers to. Nothing is changed.")
    findings = [logged_in(bench, cli), *(exists(bench, cli, need) for need in needs)]
    for finding in findings:
        bench.reporter.finding(finding)
    missing = [finding for finding in findings if not finding.ok]
    if missing:
        raise VerificationFailed(
            f"{app} cannot be deployed yet: {missing[0].rung}: {missing[0].evidence}",
            expected="everything its source refers to",
            next_step=missing[0].next_step,
        )
    return cli


def logged_in(bench: Bench, cli: Modal) -> Finding:
    """Raises `LoginMissing` when nobody is: nothing else could be looked at then."""
    from runbooks.lib import modal
    from runbooks.lib.checks import passed

    outcome = bench.runner.run(cli.token())
    if not outcome.ok:
        raise modal.failure(outcome)
    return passed("Modal's login is there", "a token that Modal takes")


def exists(bench: Bench, cli: Modal, need: Need) -> Finding:
    from runbooks.lib import modal
    from runbooks.lib.checks import failed, passed

    rung = f"{need.kind} {need.name} is there"
    if need.made_by_deploy:
        return passed(rung, "the deploy makes it where it is missing")
    names = modal.read_names(bench.runner.run(cli.listed(need.kind)))
    if need.name in names:
        keys = f"; its keys ({', '.join(need.keys)}) cannot be looked at from here" if need.keys else ""
        return passed(rung, f"listed{keys}")
    keys = f" with the key {', '.join(need.keys)}" if need.keys else ""
    step = (
        f"make it{keys} on Modal's Secrets page: in `modal secret create` the value would be in the process list"
        if need.kind == "Secret"
        else f"modal {modal.LISTED[need.kind]} create {need.name}"
    )
    return failed(rung, "not among those listed", next_step=step)
