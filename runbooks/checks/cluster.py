"""What the checks read from the cluster, fresh at each look, and what its target lets it try."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from runbooks.checks import exposure, inside, tunnel
from runbooks.checks.inside import Inside
from runbooks.checks.workloads import has_endpoints, seen, workloads_are_ready
from runbooks.core.errors import OpsError
from runbooks.core.findings import Check, Finding, not_tried
from runbooks.core.runner import Runner
from runbooks.stacks import states
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.states import has_stack
from runbooks.tools import network
from runbooks.tools.kubectl import Json, Kubectl, ask, find, items
from runbooks.tools.network import Network

CERTIFICATES_VALID = "every certificate is valid for two weeks or more"
LAB_UNTRIED = exposure.NEEDS_TAILNET | inside.NEEDS_CONTAINERS | tunnel.NEEDS_INTERNET | frozenset({CERTIFICATES_VALID})
"""The checks that stay untried in the lab, all of them.

It has no tailnet, runs no container and is not public; and nothing of the platform asks for a certificate.
"""
NO_TAILNET = "the lab has no tailnet"
NO_INTERNET = "the lab is not on the internet"
SIMULATED = "simulated pod"
WORKLOADS_READY = "everything in its namespace is ready"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Questions to the checked cluster. Each asks anew, so that a check may be looked at again."""

    runner: Runner
    kubectl: Kubectl

    def deployment(self, namespace: str, name: str) -> Json | None:
        return find(self.runner, self.kubectl.get("deployments.apps", name, namespace=namespace))

    def one_labelled(self, kind: str, namespace: str, labels: str) -> Json | None:
        found = items(ask(self.runner, self.kubectl.get(kind, namespace=namespace, labels=labels)))
        return found[0] if found else None

    def object(self, kind: str, namespace: str, name: str) -> Json | None:
        return find(self.runner, self.kubectl.get(kind, name, namespace=namespace))

    def secret(self, namespace: str, name: str) -> Json | None:
        return find(self.runner, self.kubectl.get("secrets", name, namespace=namespace, confidential=True))

    def secrets(self, namespace: str, labels: str) -> Json:
        return ask(self.runner, self.kubectl.get("secrets", namespace=namespace, labels=labels, confidential=True))

    def endpoint_slices(self, namespace: str, service: str) -> Json:
        labels = f"kubernetes.io/service-name={service}"
        kind = "endpointslices.discovery.k8s.io"
        return ask(self.runner, self.kubectl.get(kind, namespace=namespace, labels=labels))

    def everywhere(self, kind: str) -> Json:
        return self.within("", kind)

    def within(self, namespace: str, kind: str) -> Json:
        """All of a kind in a namespace; in every namespace when that is empty."""
        return ask(self.runner, self.kubectl.get(kind, namespace=namespace, everywhere=not namespace))

    def workloads(self, namespace: str) -> Json:
        kinds = "deployments.apps,statefulsets.apps,daemonsets.apps"
        return ask(self.runner, self.kubectl.get(kinds, namespace=namespace))

    def api_group(self, path: str) -> Json:
        return ask(self.runner, self.kubectl.raw(path))


def cluster_of(session: Session) -> Cluster:
    return Cluster(runner=session.runner, kubectl=session.kubectl)


def exports_of(session: Session, service: Service) -> Mapping[str, Any]:
    """What the service's stack exports; nothing where it was not deployed or its state cannot be read now."""
    try:
        stack = session.stack(service)
        return states.state_of(session, stack).outputs if has_stack(session, stack) else {}
    except OpsError:
        return {}


def at_home(session: Session, service: Service) -> Service:
    """The service in the namespace that its stack says it lives in: a setting may have moved it."""
    found = exports_of(session, service).get("k8s_namespace")
    return replace(service, namespace=found) if isinstance(found, str) and found else service


def home_of(session: Session, name: str) -> str:
    """The namespace of another service."""
    return at_home(session, session.service(name)).namespace


def network_of(session: Session) -> Network | None:
    """The ways to the tailnet; `None` in the lab, which has none."""
    return None if session.target.ephemeral else network.this_machine(session.runner)


def patience(session: Session, seconds: float) -> float:
    """How long to wait for a controller: the lab's answer within moments."""
    return min(seconds, 20.0) if session.target.ephemeral else seconds


def looked_at(
    session: Session,
    check: str,
    judge: Callable[[], Finding],
    *,
    next_step: str = "./inv doctor",
    wait: float = 0.0,
    goes_on: bool = False,
) -> Check:
    """A check that asks the cluster; an answer it does not give fails it. `wait`: seconds a controller may take."""

    def look() -> Finding:
        return seen(check, judge, next_step=next_step)

    return Check(name=check, look=look, patience=patience(session, wait), goes_on=goes_on)


def endpoint(session: Session, cluster: Cluster, check: str, namespace: str, service: str) -> Check:
    """Somebody ready is behind a Service."""
    step = f"kubectl -n {namespace} get endpointslices,pods"

    def judge() -> Finding:
        return has_endpoints(check, cluster.endpoint_slices(namespace, service), service=service, next_step=step)

    return looked_at(session, check, judge, next_step=step, wait=60.0)


def workloads(session: Session, service: Service, *, required: bool = False) -> Check:
    """The handbook's `kubectl get all -n <namespace>`, as a check. `required`: an empty namespace fails."""
    where = service.namespace
    cluster = cluster_of(session)

    step = f"kubectl -n {where} get pods,events"

    def judge() -> Finding:
        found = cluster.workloads(where)
        return workloads_are_ready(WORKLOADS_READY, found, namespace=where, next_step=step, required=required)

    return looked_at(session, WORKLOADS_READY, judge, next_step=step, wait=60.0)


def shown(session: Session, findings: list[Finding]) -> list[Finding]:
    """The same findings, after the person has seen them."""
    for finding in findings:
        session.reporter.finding(finding)
    return findings


def untried(check: str, why: str = NO_TAILNET) -> Check:
    """A check of the lab's list."""
    return Check(name=check, look=lambda: not_tried(check, why))


def simulated(check: str, where: Inside) -> Check:
    """A check of the lab's list, for want of a container."""
    return untried(check, f"{SIMULATED} ({where})")
