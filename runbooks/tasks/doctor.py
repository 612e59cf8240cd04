"""What is missing on this machine and on the target, each with its fix. Works when everything is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke import task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runbooks.core.findings import Finding
    from runbooks.stacks.session import RunContext

COLUMNS = ("what", "state", "found", "fix")


@task
def doctor(c: Any) -> None:
    """Check tools, logins, target, cluster, stacks and secrets; each failing row has its fix. Changes nothing."""
    from runbooks.checks import machine
    from runbooks.core.errors import VerificationFailed
    from runbooks.core.findings import Verdict
    from runbooks.run import open_run

    with open_run(c, "doctor") as run:
        findings = [*machine.tools(run.runner), *_target_rows(c, run)]
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


def _target_rows(c: Any, run: RunContext) -> Iterator[Finding]:
    """From the file to the stacks; a row whose precondition is broken is left out, or fails with the same cause."""
    import contextlib

    from lab import platform
    from runbooks.checks import machine
    from runbooks.core.errors import NotFound, OpsError
    from runbooks.core.files import ROOT
    from runbooks.core.findings import failed, not_tried, passed
    from runbooks.run import build_session, load_chosen_target, open_kubectl
    from runbooks.services import SERVICES
    from runbooks.stacks.target import LAB
    from runbooks.tools.diagnosis import look
    from runbooks.tools.stack_config import secrets_provider_of

    try:
        target = load_chosen_target(c, run)
    except OpsError as error:
        if isinstance(error, NotFound) and LAB in error.summary:
            why = "lab, which is not running; the rows below need it"
            yield not_tried("target", why, next_step="./inv lab.up", deciding=False)
        else:
            cause = f"expected: {error.expected}" if error.expected else ""
            yield failed("target", error.summary, cause=cause, next_step=error.next_step)
        return
    if target.ephemeral and not platform.is_up(run.state_dir):
        yield not_tried(
            "target", "lab, which is stopped; the rows below need it", next_step="./inv lab.up", deciding=False
        )
        return
    yield passed("target", f"{target.name}: stack {target.stack} on {target.shown_backend}")
    files = (ROOT / "pulumi" / service.folder / f"Pulumi.{target.stack}.yaml" for service in SERVICES)
    with_scheme = (secrets_provider_of(file).partition("://") for file in files)
    key_services = sorted({scheme for scheme, found, _ in with_scheme if found})
    yield look("passphrase", lambda: machine.passphrase_is_readable(target, key_services))
    yield machine.backend_is_there(target)
    if target.is_pinned:
        yield passed("pinned", target.cluster_uid)
    else:
        yield failed("pinned", "no cluster_uid", next_step=f"./inv --target {target.name} target.pin")
    with contextlib.ExitStack() as closing:
        try:
            context, kubectl = closing.enter_context(open_kubectl(target, run))
        except OpsError as error:
            yield failed("cluster", error.summary, cause=error.expected, next_step=error.next_step)
            return
        cluster = look("cluster", lambda: machine.cluster_answers(target, context, kubectl, run.runner))
        yield cluster
        if cluster.ok:
            yield look("kubectl", lambda: machine.kubectl_fits(kubectl, run.runner))
        else:
            yield not_tried("kubectl", "needs: cluster")
    with contextlib.ExitStack() as closing:
        try:
            session = build_session(target, run, closing)
        except OpsError as error:
            yield failed("pulumi", error.summary, cause=error.expected, next_step=error.next_step)
            return
        yield from machine.pulumi_rows(session)
