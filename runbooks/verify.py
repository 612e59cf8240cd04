"""Is it really working? Each service's checks as a ladder, with evidence, in the order a connection takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runbooks.collection import each_service

if TYPE_CHECKING:
    from runbooks.lib.checks import Verdict
    from runbooks.services import Service
    from runbooks.session import Session


@each_service(everything=True)
def verify(c: Any, names: tuple[str, ...]) -> None:
    """Prove that {service} works, rung by rung with evidence. Changes nothing."""
    from runbooks.lib.checks import told_together
    from runbooks.lib.errors import VerificationFailed
    from runbooks.services import SERVICES
    from runbooks.session import open_session

    task = f"verify.{names[0]}" if len(names) == 1 else "verify.all"
    with open_session(c, task) as session:
        wanted = [service for service in SERVICES if service.name in names]
        if len(names) > 1:
            wanted = _deployed(session, wanted)
        verdicts = {service.name: verify_service(session, service) for service in wanted}
        if len(verdicts) > 1:
            session.reporter.line(f"verify.all: {told_together(verdicts)}")
        broken = [name for name, verdict in verdicts.items() if not verdict.ok]
        if broken:
            problem = verdicts[broken[0]].problem
            raise VerificationFailed(
                f"not verified: {', '.join(broken)}" + (f"; first: {problem.rung}" if problem else ""),
                expected="every deciding rung passed",
                next_step=problem.next_step if problem and problem.next_step else f"./inv verify.{broken[0]}",
            )


def _deployed(session: Session, services: list[Service]) -> list[Service]:
    """Those that were ever deployed here; the others are named. Raises `VerificationFailed` when there are none."""
    from runbooks.lib.errors import VerificationFailed

    there = [service for service in services if session.is_deployed(session.stack(service))]
    absent = [service.name for service in services if service not in there]
    if not there:
        raise VerificationFailed(
            "nothing is deployed here", expected="at least one service", next_step="./inv deploy.postgres"
        )
    if absent:
        session.reporter.line(f"Not deployed here, so not looked at: {', '.join(absent)}.")
    return there


def verify_service(session: Session, service: Service) -> Verdict:
    """Climb the service's ladders, show what they found, and count. Does not raise for a rung that failed."""
    from runbooks.checks.cluster import LAB_UNTRIED, at_home
    from runbooks.checks.ladders import ladders_of
    from runbooks.lib.checks import Verdict

    name = f"verify.{service.name}"
    session.reporter.announce(f"{name}: each rung from operator to client, with what it saw. Nothing is changed.")
    with session.reporter.step(name):
        findings = [finding for ladder in ladders_of(service) for finding in ladder(session, service)]
    _tell_objects(session, at_home(session, service))
    allowed = LAB_UNTRIED if session.target.ephemeral else frozenset[str]()
    verdict = Verdict(findings=tuple(findings), may_stay_untried=allowed)
    _tell(session, service, verdict)
    return verdict


def _tell_objects(session: Session, service: Service) -> None:
    """The handbook's `kubectl get all -n <namespace>`, as kubectl prints it. Shown, not judged: the rungs judge."""
    listed = session.runner.run(session.kubectl.get_all(service.namespace))
    for line in (listed.shown_stdout or listed.shown_stderr).splitlines():
        session.reporter.quote(f"    {line}".rstrip())


def _tell(session: Session, service: Service, verdict: Verdict) -> None:
    from runbooks.lib.checks import State

    state = "verified" if verdict.ok else "NOT verified"
    session.reporter.line(f"verify.{service.name}: {state}: {verdict.summary()}")
    for finding in () if verdict.failures else verdict.undecided:
        session.reporter.line(f"  decides, and was not tried: {finding.rung}: {finding.evidence}")
    rungs = {"failed": verdict.rungs(State.FAILED), "not_tried": verdict.rungs(State.NOT_TRIED)}
    facts = {"service": service.name, "ok": verdict.ok, "summary": verdict.summary(), **rungs}
    session.reporter.event("verdict", **facts)
    session.journal.write("verdict", **facts)
