"""Is it really working? Each service's checks, with evidence, in the order a connection takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runbooks.collection import each_service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runbooks.core.findings import Verdict
    from runbooks.stacks.service import Service
    from runbooks.stacks.session import Session


@each_service(everything=True)
def verify(c: Any, names: tuple[str, ...]) -> None:
    """Prove that {service} works, check by check with evidence. Changes nothing."""
    from runbooks.core.errors import VerificationFailed
    from runbooks.core.findings import summarize_verdicts
    from runbooks.run import open_session
    from runbooks.services import SERVICES
    from runbooks.stacks.states import is_deployed

    task = f"verify.{names[0]}" if len(names) == 1 else "verify.all"
    with open_session(c, task) as session:
        wanted = [service for service in SERVICES if service.name in names]
        if len(names) > 1:
            absent = [service.name for service in wanted if not is_deployed(session, session.stack(service))]
            wanted = [service for service in wanted if service.name not in absent]
            if not wanted:
                raise VerificationFailed(
                    "nothing is deployed here", expected="at least one service", next_step="./inv deploy.postgres"
                )
            if absent:
                session.reporter.line(f"Not deployed here, so not checked: {', '.join(absent)}.")
        verdicts = {service.name: verify_service(session, service) for service in wanted}
        if len(verdicts) > 1:
            session.reporter.line(f"verify.all: {summarize_verdicts(verdicts)}")
        broken = [name for name, verdict in verdicts.items() if not verdict.ok]
        if broken:
            problem = verdicts[broken[0]].problem
            raise VerificationFailed(
                f"not verified: {', '.join(broken)}" + (f"; first: {problem.check}" if problem else ""),
                expected="every deciding check passed",
                next_step=problem.next_step if problem and problem.next_step else f"./inv verify.{broken[0]}",
            )


def verify_service(session: Session, service: Service) -> Verdict:
    """Run the service's checks, report what they found, and count. Does not raise for a check that failed."""
    from runbooks.checks.cluster import in_its_namespace
    from runbooks.checks.of_service import LAB_UNTRIED, run_checks_of
    from runbooks.core.findings import State, Verdict

    name = f"verify.{service.name}"
    session.reporter.announce(f"{name}: each check from operator to client, with what it saw. Nothing is changed.")
    with session.reporter.step(name):
        findings = run_checks_of(session, service)
    # The handbook's `kubectl get all -n <namespace>`, as kubectl prints it. It decides nothing: the checks do.
    listed = session.runner.run(session.kubectl.get_all(in_its_namespace(session, service).namespace))
    for line in (listed.shown_stdout or listed.shown_stderr).splitlines():
        session.reporter.quote(f"    {line}".rstrip())
    allowed = LAB_UNTRIED if session.target.ephemeral else frozenset[str]()
    verdict = Verdict(findings=tuple(findings), may_stay_untried=allowed)
    state = "verified" if verdict.ok else "NOT verified"
    session.reporter.line(f"{name}: {state}: {verdict.summary()}")
    for finding in () if verdict.failures else verdict.undecided:
        session.reporter.line(f"  decides, and was not tried: {finding.check}: {finding.evidence}")
    checks = {"failed": verdict.checks(State.FAILED), "not_tried": verdict.checks(State.NOT_TRIED)}
    facts = {"service": service.name, "ok": verdict.ok, "summary": verdict.summary(), **checks}
    session.reporter.event("verdict", **facts)
    session.journal.write("verdict", **facts)
    return verdict


def prove(session: Session, services: Sequence[Service], *, done: Sequence[str]) -> None:
    """Verify each service; `done` are those that this run changed.

    Raises `VerificationFailed` after all were checked.
    """
    from runbooks.core.errors import VerificationFailed
    from runbooks.core.findings import summarize_verdicts

    verdicts = {service.name: verify_service(session, service) for service in services}
    if len(verdicts) > 1:
        session.reporter.line(f"verify.all: {summarize_verdicts(verdicts)}")
    unproven = [name for name, verdict in verdicts.items() if not verdict.ok]
    if unproven:
        name, changed = unproven[0], any(each in done for each in unproven)
        by_hand = f"; ./inv drift.{name} shows what was changed by hand in the cluster, ./inv repair.{name} undoes it"
        raise VerificationFailed(
            f"{', '.join(unproven)}: {'applied' if changed else 'there was nothing to apply'}, but not proven to work",
            expected="every deciding check to pass",
            next_step=f"./inv verify.{name}{'' if changed else by_hand}",
        )
