"""Is what asks to be on the internet really there? For one namespace, or for the whole cluster."""

from __future__ import annotations

from collections.abc import Callable

from runbooks.checks import tunnel
from runbooks.checks.cluster import NO_INTERNET, Cluster, network_of, patience, shown, untried
from runbooks.checks.tunnel import Public
from runbooks.checks.workloads import seen
from runbooks.core.findings import Check, Finding, failed, run_checks
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import KubectlFailed, items, metadata

PUBLIC_KNOWN = "Ingresses on the internet can be listed"
CONTROLLER_TAKES = 60.0
COLUMNS = ("object", "address", "taken up", "routed", "answers")
_CELL = {"passed": "ok", "failed": "FAIL", "not tried": "--"}


def exposed(session: Session, cluster: Cluster, namespace: str = "") -> list[Finding]:
    """Every such Ingress of a namespace, or of the cluster: one table, and in full what did not pass."""
    try:
        found = tunnel.public_ingresses(cluster.within(namespace, "ingresses.networking.k8s.io"))
    except KubectlFailed as error:
        return shown(session, [failed(PUBLIC_KNOWN, error.summary, next_step="kubectl get ingress -A")])
    if not found:
        return []
    looked = [(item, run_checks(checks(session, cluster, item), subject=item.subject)) for item in found]
    session.reporter.table("On the internet", COLUMNS, [row(item, told) for item, told in looked])
    findings = [finding for _, told in looked for finding in told]
    shown(session, [finding for finding in findings if not finding.ok and not _is_expected(session, finding)])
    return findings


def _is_expected(session: Session, finding: Finding) -> bool:
    """What the lab never tries is told once, in the table."""
    return session.target.ephemeral and finding.check in tunnel.NEEDS_INTERNET


def row(item: Public, findings: list[Finding]) -> list[str]:
    cells = [_CELL[finding.state.value] for finding in findings]
    return [item.subject, ", ".join(item.urls), *cells]


def checks(session: Session, cluster: Cluster, item: Public) -> list[Check]:
    """Taken up, routed, and answering to a client that comes from the internet."""
    network = network_of(session)
    checks = [
        Check(
            name=tunnel.TAKEN_UP,
            look=_fresh(cluster, item, tunnel.TAKEN_UP, tunnel.is_taken_up),
            patience=patience(session, CONTROLLER_TAKES),
        ),
        Check(name=tunnel.ROUTED, look=_fresh(cluster, item, tunnel.ROUTED, _routed(cluster))),
    ]
    if network is None:
        return [*checks, untried(tunnel.PUBLIC_ANSWERS, NO_INTERNET)]
    fetch = network.fetch

    def look() -> Finding:
        found = [tunnel.public_answers(url, fetch) for url in item.urls]
        return next((one for one in found if not one.ok), found[0])

    return [*checks, Check(name=tunnel.PUBLIC_ANSWERS, look=look, patience=patience(session, CONTROLLER_TAKES))]


def _fresh(cluster: Cluster, item: Public, check: str, judge: Callable[[Public], Finding]) -> Callable[[], Finding]:
    """The check on the Ingress as it is now."""

    def look() -> Finding:
        obj = cluster.object("ingresses.networking.k8s.io", item.namespace, item.name)
        if obj is None:
            cause = "somebody deleted it while this was looking"
            return failed(check, f"{item.subject} is gone", cause=cause, next_step=item.show)
        return judge(Public(namespace=item.namespace, name=item.name, obj=obj))

    return lambda: seen(check, look, next_step=item.show)


def _routed(cluster: Cluster) -> Callable[[Public], Finding]:
    def judge(public: Public) -> Finding:
        services = {metadata(obj)[1]: obj for obj in items(cluster.within(public.namespace, "services"))}
        return tunnel.is_routed(public, services)

    return judge
