"""Runs the checks that `services.py` names for each service, and refuses to destroy what others still need.

It has names, not functions, so that listing the tasks loads no check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from runbooks.checks import apps, cert_manager, cf_tunnel, clickhouse, cluster, cnpg, inside, postgres, tailscale
from runbooks.core.errors import Refused, VerificationFailed
from runbooks.core.findings import Finding, State, Verdict, summarize_verdicts
from runbooks.core.parallel import SIDE_BY_SIDE, work_in_order
from runbooks.core.reporter import LaterReporter
from runbooks.stacks.preparation import has_stack, state_of
from runbooks.stacks.service import Service, consumers
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import metadata

CHECKS: Mapping[str, Callable[[Session, Service], list[Finding]]] = {
    "tailscale": tailscale.verify,
    "cnpg": cnpg.verify,
    "postgres": postgres.verify,
    "cf_tunnel": cf_tunnel.verify,
    "cert_manager": cert_manager.verify,
    "clickhouse": clickhouse.verify,
    "generic": apps.verify,
    **dict.fromkeys(apps.APPS, apps.verify),
}
LAB_UNTRIED = (
    tailscale.NEEDS_TAILNET
    | inside.NEEDS_CONTAINERS
    | cf_tunnel.NEEDS_INTERNET
    | frozenset({cert_manager.CERTIFICATES_VALID})
)
"""The checks that stay untried in the lab, all of them.

It has no tailnet, runs no container and is not public; and nothing of the platform asks for a certificate.
"""


def verify_service(session: Session, service: Service) -> Verdict:
    """Run the service's checks, report what they found, and count. Does not raise for a check that failed."""
    name = f"verify.{service.name}"
    session.reporter.announce(f"{name}: each check from operator to client, with what it saw. Nothing is changed.")
    with session.reporter.step(name):
        service = cluster.in_its_namespace(session, service)
        findings = [finding for check in service.checks or ("generic",) for finding in CHECKS[check](session, service)]
    # The handbook's `kubectl get all -n <namespace>`, as kubectl prints it. It decides nothing: the checks do.
    listed = session.runner.run(session.kubectl.get_all(service.namespace))
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
    seen = [{**asdict(finding), "state": finding.state.value} for finding in verdict.findings]
    session.journal.write("verdict", **facts, findings=seen)
    return verdict


def verify_each(session: Session, services: Sequence[Service]) -> dict[str, Verdict]:
    """Verify the services side by side; returns the verdicts by name.

    Each is reported as a whole, in their order. For several services, one line counts all checks.
    """
    if len(services) == 1:
        return {services[0].name: verify_service(session, services[0])}
    verdicts = {}
    reports = {service: LaterReporter() for service in services}

    def work(service: Service) -> Verdict:
        return verify_service(session.with_reporter(reports[service]), service)

    pool = ThreadPoolExecutor(max_workers=SIDE_BY_SIDE, thread_name_prefix="verify")
    try:
        finished = work_in_order(pool, [(service,) for service in services], {}, work, keep_going=True)
        for service in services:
            with session.reporter.step(f"verify.{service.name}"):
                (future,) = next(finished)
            reports[service].show_on(session.reporter)
            verdicts[service.name] = future.result()
    finally:
        pool.shutdown(cancel_futures=True)
    session.reporter.line(f"verify.all: {summarize_verdicts(verdicts)}")
    return verdicts


def prove(session: Session, services: Sequence[Service], *, done: Sequence[str]) -> None:
    """Verify each service; `done` are the services that this run changed.

    Raises `VerificationFailed` after all were checked.
    """
    verdicts = verify_each(session, services)
    unproven = [name for name, verdict in verdicts.items() if not verdict.ok]
    if unproven:
        name, changed = unproven[0], any(each in done for each in unproven)
        by_hand = f"; ./inv drift.{name} shows what was changed by hand in the cluster, ./inv repair.{name} undoes it"
        raise VerificationFailed(
            f"{', '.join(unproven)}: {'applied' if changed else 'there was nothing to apply'}, but not proven to work",
            expected="every deciding check to pass",
            next_step=f"./inv verify.{name}{'' if changed else by_hand}",
        )


# What would be left behind, before it is destroyed

CONTROLLED_KINDS: Mapping[str, tuple[str, ...]] = {
    "cert-manager": ("certificates.cert-manager.io",),
    "cnpg": ("clusters.postgresql.cnpg.io", "databases.postgresql.cnpg.io"),
}


def controlled_by(session: Session, service: str) -> list[str]:
    """`namespace/name` of every object in the cluster that needs the service's controller.

    Objects on the tailnet have a finalizer of the Tailscale operator, public Ingresses one of the tunnel's controller.
    Without their controller they could never be deleted. A Postgres cluster does not run without CloudNativePG, and a
    certificate is not renewed without cert-manager. Raises `KubectlFailed`.
    """
    if service == "tailscale":
        return [item.subject for item in tailscale.exposures(session)]
    if service == "cf-tunnel":
        return [item.subject for item in cf_tunnel.public_ingresses(session)]
    kinds = CONTROLLED_KINDS.get(service, ())
    return ["/".join(metadata(item)) for kind in kinds for item in cluster.list_if_known(session, kind)]


def refuse_while_needed(session: Session, service: Service) -> None:
    """Raise `Refused` while a service that needs this one is still deployed."""
    standing = []
    for consumer in consumers(service.name, session.services):
        stack = session.stack(consumer)
        if has_stack(session, stack) and state_of(session, stack).own_resources:
            standing.append(consumer.name)
    if standing:
        verbs = "is still deployed and needs" if len(standing) == 1 else "are still deployed and need"
        raise Refused(
            f"{', '.join(standing)} {verbs} {service.name}",
            expected="consumers to be destroyed before what they need, exposed objects before their controllers",
            next_step=f"./inv destroy.{standing[-1]}",
        )


def refuse_while_controlling(session: Session, service: Service) -> None:
    """Raise `Refused` while the cluster holds objects, of any owner, that only this service's controller cleans up."""
    standing = controlled_by(session, service.name)
    if standing:
        raise Refused(
            f"{len(standing)} objects in the cluster still need the controller of {service.name}: "
            f"{', '.join(standing[:5])}{', …' if len(standing) > 5 else ''}",
            expected="exposed objects and clusters to be removed before their controller",
            next_step="remove them by the stack or manifest that made them, then repeat the command",
        )
