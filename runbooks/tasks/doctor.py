"""`doctor`: show what is missing on this machine and on the target, each with its fix, even if nothing works."""

from __future__ import annotations

import contextlib
from typing import Any

from invoke import task

COLUMNS = ("what", "state", "found", "fix")


@task
def doctor(c: Any) -> None:
    """Check tools, logins, target, cluster, stacks and secrets; each failing row has its fix. Changes nothing."""
    from lab import platform
    from runbooks.checks import machine
    from runbooks.core.errors import VerificationFailed
    from runbooks.core.findings import Verdict
    from runbooks.run import load_chosen_target, open_run
    from runbooks.services import SERVICES
    from runbooks.stacks.guard import build_session

    with open_run(c, "doctor") as run, contextlib.ExitStack() as closing:
        on_target = machine.target_rows(
            run,
            SERVICES,
            load=lambda: load_chosen_target(c, run),
            lab_is_up=lambda: platform.is_up(run.state_dir),
            open_on=lambda target: build_session(target, run, SERVICES, closing),
        )
        findings = [*machine.tools(run.runner), *on_target]
        rows = []
        for finding in findings:
            found = ". ".join(part for part in (finding.evidence, finding.cause) if part)
            rows.append((finding.check, finding.state.value, found, finding.next_step))
            run.reporter.event("row", what=finding.check, state=finding.state.value, found=finding.evidence)
        run.reporter.table("Doctor", COLUMNS, rows)
        verdict = Verdict(findings=tuple(findings))
        run.reporter.line(verdict.summary())
        if verdict.failures:
            first = verdict.failures[0]
            raise VerificationFailed(
                f"{len(verdict.failures)} of {len(findings)} checks failed; first: {first.check}",
                expected="every row ok",
                next_step=first.next_step,
            )
