"""The checks of every service without checks of its own: deployed, running, reachable."""

from __future__ import annotations

from collections.abc import Sequence

from runbooks.checks import tailscale
from runbooks.checks.cluster import Cluster, cluster_of, patience, shown, workloads
from runbooks.checks.exposure import INGRESS_CLASS, NO_CONTROLLER, Exposure, Kind
from runbooks.checks.workloads import seen
from runbooks.core.findings import Check, Finding, failed, passed, run_checks
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.states import has_stack, is_deployed
from runbooks.tools.kubectl import Json, items, metadata, text_at

STACK_DEPLOYED = "its stack is deployed"
INGRESSES_SERVED = "its other Ingresses have an address from their controller"
ALL_EXPOSED = "what it puts on the tailnet is there"
CONTROLLER_TAKES = 60.0


def verify(session: Session, service: Service) -> list[Finding]:
    """Stack, workloads, Ingresses of other classes, then the exposure checks for each object on the tailnet."""
    cluster = cluster_of(session)
    checks = [
        stack_is_deployed(session, service),
        workloads(session, service, required=True),
        ingresses_are_served(session, service, cluster),
        *([all_are_exposed(service, cluster)] if service.exposed else []),
    ]
    findings = shown(session, run_checks(checks))
    if not service.exposed or not all(finding.ok for finding in findings):
        return findings
    return findings + tailscale.exposed(session, cluster, service.namespace)


def stack_is_deployed(session: Session, service: Service) -> Check:
    def look() -> Finding:
        stack = session.stack(service)
        if is_deployed(session, stack):
            return passed(STACK_DEPLOYED, stack.reference)
        told = "its state holds nothing" if has_stack(session, stack) else "there is no such stack yet"
        return failed(STACK_DEPLOYED, told, cause="never deployed here", next_step=f"./inv deploy.{service.name}")

    return Check(name=STACK_DEPLOYED, look=look)


def ingresses_are_served(session: Session, service: Service, cluster: Cluster) -> Check:
    def look() -> Finding:
        return seen(INGRESSES_SERVED, lambda: judged(_ingresses(cluster, service.namespace), service.namespace))

    return Check(name=INGRESSES_SERVED, look=look, patience=patience(session, CONTROLLER_TAKES))


def _ingresses(cluster: Cluster, namespace: str) -> list[Json]:
    return items(cluster.within(namespace, "ingresses.networking.k8s.io"))


def judged(ingresses: Sequence[Json], namespace: str) -> Finding:
    """Every Ingress that is not the tailnet's has a host name or an address in its status. None at all passes."""
    others = [obj for obj in ingresses if text_at(obj, "spec", "ingressClassName") != INGRESS_CLASS]
    waiting = [obj for obj in others if not _address(obj)]
    if waiting:
        told = ", ".join(
            f"{metadata(obj)[1]} of class {text_at(obj, 'spec', 'ingressClassName') or '?'}" for obj in waiting
        )
        cause = NO_CONTROLLER.replace("`tailscale`", "`tailscale` or `cloudflare-tunnel`")
        step = f"kubectl -n {namespace} describe ingress"
        return failed(INGRESSES_SERVED, f"no address yet: {told}", cause=cause, next_step=step)
    told = ", ".join(f"{metadata(obj)[1]}: {_address(obj)}" for obj in others)
    return passed(INGRESSES_SERVED, told or "it has none")


def _address(ingress: Json) -> str:
    where = ("status", "loadBalancer", "ingress", 0)
    return text_at(ingress, *where, "hostname") or text_at(ingress, *where, "ip")


def all_are_exposed(service: Service, cluster: Cluster) -> Check:
    """`services.py` says what is on the tailnet; the cluster must agree, or nobody would notice what is missing."""

    def judge() -> Finding:
        kinds = {"svc": "Service", "ingress": "Ingress"}
        wanted = {(kinds[kind], name) for kind, _, name in (entry.partition("/") for entry in service.exposed)}
        there = {(_kind(item), item.name) for item in tailscale.exposures(cluster, service.namespace)}
        missing = sorted(f"{kind} {name}" for kind, name in wanted - there)
        if missing:
            cause = "annotations or ingressClassName are not what the operator looks for, or the object is not there"
            step = f"kubectl -n {service.namespace} get svc,ingress"
            return failed(ALL_EXPOSED, f"not exposed: {', '.join(missing)}", cause=cause, next_step=step)
        return passed(ALL_EXPOSED, ", ".join(sorted(f"{kind} {name}" for kind, name in wanted)))

    return Check(name=ALL_EXPOSED, look=lambda: seen(ALL_EXPOSED, judge))


def _kind(item: Exposure) -> str:
    return "Service" if item.kind is Kind.SERVICE else "Ingress"
