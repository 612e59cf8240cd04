"""Modal: is the login there, and everything that an app refers to?"""

from __future__ import annotations

import os
from pathlib import Path

from runbooks.core.errors import VerificationFailed
from runbooks.core.files import ROOT
from runbooks.core.findings import Finding, failed, passed
from runbooks.stacks.session import RunContext
from runbooks.tools import modal


def check_app(run: RunContext, app: str) -> modal.Modal:
    """Check from the login to everything the app needs. Raises `LoginMissing`, or `VerificationFailed`."""
    needs = modal.needs_of(modal.app_file(ROOT, app).read_text(encoding="utf-8"))
    cli = modal.find_modal(os.environ)
    run.masker.register_all(modal.tokens(os.environ, Path.home()))
    run.reporter.announce(f"Checking Modal's login and what {app} refers to. Nothing is changed.")
    login = run.runner.run(cli.token())
    if not login.ok:
        raise modal.failure(login)
    findings = [passed("Modal's login is there", "a token that Modal accepts")]
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


def need_is_there(run: RunContext, cli: modal.Modal, need: modal.Need) -> Finding:
    check = f"{need.kind} {need.name} is there"
    if need.made_by_deploy:
        return passed(check, "the deploy creates it where it is missing")
    keys = ", ".join(need.keys)
    if need.name in modal.read_names(run.runner.run(cli.list(need.kind))):
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
