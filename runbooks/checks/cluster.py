"""What the checks share: questions to the cluster, how a check is built from one, and verdicts on common objects.

Objects are as `kubectl get -o json` gives them. The functions that judge (`…_is_…`, `…_has_…`, `…_are_…`) ask nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runbooks.core.errors import OpsError
from runbooks.core.findings import Check, Finding, State, failed, not_tried, passed
from runbooks.core.runner import Runner
from runbooks.stacks import states
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.states import has_stack, is_deployed
from runbooks.tools import kubectl, network
from runbooks.tools.kubectl import Json, Kubectl, KubectlFailed, Trouble, condition, dig, is_current, metadata, text_at
from runbooks.tools.network import Network

DEPLOYMENTS = "deployments.apps"
INGRESSES = "ingresses.networking.k8s.io"
WORKLOADS = "deployments.apps,statefulsets.apps,daemonsets.apps"

STACK_DEPLOYED = "its stack is deployed"
WORKLOADS_READY = "everything in its namespace is ready"
CRD_MISSING = "CRDs not found: the operator that brings them was not applied, or not yet"
NO_ENDPOINTS = "no Pod behind the Service is ready: look at the Pods' events"
NO_TAILNET = "the lab has no tailnet"
CONTROLLER_TAKES = 60.0
"""Seconds a controller may need until a Pod is ready or an object has its address: images are pulled first."""
LAB_PATIENCE = 20.0
"""Seconds; the lab's controllers answer within moments."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Questions to the checked cluster. Each queries again, so a check can be repeated. Each raises `KubectlFailed`."""

    runner: Runner
    kubectl: Kubectl

    def find(self, kind: str, name: str, namespace: str = "") -> Json | None:
        """One object; `None` when it does not exist."""
        command = self.kubectl.get(kind, name, namespace=namespace, confidential=kind == "secrets")
        return kubectl.find(self.runner, command)

    def list(self, kind: str, namespace: str = "", labels: str = "") -> list[Json]:
        """All objects of a kind in a namespace; in every namespace when that is empty."""
        command = self.kubectl.get(
            kind, namespace=namespace, everywhere=not namespace, labels=labels, confidential=kind == "secrets"
        )
        return kubectl.items(kubectl.ask(self.runner, command))

    def api_group(self, path: str) -> Json:
        """The resource list of `/apis/<group>/<version>`."""
        return kubectl.ask(self.runner, self.kubectl.raw(path))


def cluster_of(session: Session) -> Cluster:
    return Cluster(runner=session.runner, kubectl=session.kubectl)


def exports_of(session: Session, service: Service) -> Mapping[str, Any]:
    """What the service's stack exports; nothing where it was not deployed or its state cannot be read now."""
    try:
        stack = session.stack(service)
        return states.state_of(session, stack).outputs if has_stack(session, stack) else {}
    except OpsError:
        return {}


def in_its_namespace(session: Session, service: Service) -> Service:
    """The service with the namespace that its stack exports: its config may have moved it."""
    found = exports_of(session, service).get("k8s_namespace")
    return replace(service, namespace=found) if isinstance(found, str) and found else service


def namespace_of(session: Session, name: str) -> str:
    """The namespace of another service."""
    return in_its_namespace(session, session.service(name)).namespace


def network_of(session: Session) -> Network | None:
    """The ways to the tailnet and the internet; `None` in the lab, which has neither."""
    return None if session.target.ephemeral else network.this_machine(session.runner)


# --- how a check is built ----------------------------------------------------------------------------------------


def patience(session: Session, seconds: float) -> float:
    return min(seconds, LAB_PATIENCE) if session.target.ephemeral else seconds


def make_check(
    session: Session,
    name: str,
    judge: Callable[[], Finding],
    *,
    next_step: str = "./inv doctor",
    wait: float = 0.0,
    deciding: bool = True,
    continue_on_failure: bool = False,
) -> Check:
    """A check that asks the cluster; an answer the cluster does not give fails it. `wait`: seconds it may take."""
    return Check(
        name=name,
        look=lambda: judge_answer(name, judge, next_step=next_step),
        patience=patience(session, wait),
        deciding=deciding,
        continue_on_failure=continue_on_failure,
    )


def judge_answer(check: str, judge: Callable[[], Finding], *, next_step: str) -> Finding:
    """What `judge` finds; a kubectl that fails is a failed check, with its reason as evidence."""
    try:
        return judge()
    except KubectlFailed as error:
        cause = {
            Trouble.UNKNOWN_KIND: CRD_MISSING,
            Trouble.FORBIDDEN: "the kubeconfig's user lacks the right to read this",
            Trouble.UNREACHABLE: "the API server stopped answering",
        }.get(error.trouble, "")
        return failed(check, error.summary, cause=cause, next_step=error.next_step or next_step)


def untried(check: str, why: str = NO_TAILNET) -> Check:
    """A check that the lab cannot try; `LAB_UNTRIED` in `of_service.py` lists them all."""
    return Check(name=check, look=lambda: not_tried(check, why))


def report(session: Session, findings: list[Finding]) -> list[Finding]:
    """Print the findings and return them."""
    for finding in findings:
        session.reporter.finding(finding)
    return findings


CELLS = {State.PASSED: "ok", State.FAILED: "FAIL", State.NOT_TRIED: "--"}


def report_unless_expected(session: Session, findings: list[Finding], expected: frozenset[str]) -> list[Finding]:
    """Print what did not pass, except what the lab never tries: that is in the table, once."""
    for finding in findings:
        if not finding.ok and not (session.target.ephemeral and finding.check in expected):
            session.reporter.finding(finding)
    return findings


# --- checks that several services have ---------------------------------------------------------------------------


def stack_is_deployed(session: Session, service: Service) -> Check:
    def judge() -> Finding:
        stack = session.stack(service)
        if is_deployed(session, stack):
            return passed(STACK_DEPLOYED, stack.reference)
        evidence = "its state holds nothing" if has_stack(session, stack) else "there is no such stack yet"
        return failed(STACK_DEPLOYED, evidence, cause="not deployed here", next_step=f"./inv deploy.{service.name}")

    return Check(name=STACK_DEPLOYED, look=judge)


def workloads_check(session: Session, service: Service, *, required: bool = False) -> Check:
    """The handbook's `kubectl get all -n <namespace>`, as a check. `required`: an empty namespace fails."""
    where = service.namespace
    step = f"kubectl -n {where} get pods,events"

    def judge() -> Finding:
        found = cluster_of(session).list(WORKLOADS, where)
        return workloads_are_ready(WORKLOADS_READY, found, namespace=where, next_step=step, required=required)

    return make_check(session, WORKLOADS_READY, judge, next_step=step, wait=CONTROLLER_TAKES)


def endpoint_check(session: Session, check: str, namespace: str, service: str, *, cause: str = NO_ENDPOINTS) -> Check:
    """A ready Pod is behind a Service."""
    step = f"kubectl -n {namespace} get endpointslices,pods"

    def judge() -> Finding:
        labels = f"kubernetes.io/service-name={service}"
        slices = cluster_of(session).list("endpointslices.discovery.k8s.io", namespace, labels)
        return has_endpoints(check, slices, service=service, cause=cause, next_step=step)

    return make_check(session, check, judge, next_step=step, wait=CONTROLLER_TAKES)


def deployment_check(
    session: Session, check: str, service: Service, *, name: str = "", labels: str = "", cause: str
) -> Check:
    """The Deployment of an operator, by its name or by its labels where the chart chooses the name."""
    namespace = service.namespace
    shown = f"deploy/{name}" if name else f"-l {labels}"
    step = f"kubectl -n {namespace} get deploy,pods; kubectl -n {namespace} logs {shown} --tail=20"

    def judge() -> Finding:
        cluster = cluster_of(session)
        if name:
            found = cluster.find(DEPLOYMENTS, name, namespace)
        else:
            found = next(iter(cluster.list(DEPLOYMENTS, namespace, labels)), None)
        deploy = f"./inv deploy.{service.name}"
        return deployment_is_available(check, found, cause=cause, next_step=step, deploy=deploy)

    return make_check(session, check, judge, next_step=step, wait=CONTROLLER_TAKES)


def kinds_check(
    session: Session, check: str, service: Service, path: str, plurals: Sequence[str], *, cause: str
) -> Check:
    """An operator's kinds are served by the API server, at `/apis/<group>/<version>`."""

    def judge() -> Finding:
        step = f"./inv preview.{service.name} --diff shows pending CRDs"
        return kinds_are_served(check, cluster_of(session).api_group(path), plurals, cause=cause, next_step=step)

    return make_check(session, check, judge, next_step=f"./inv deploy.{service.name}", wait=30.0)


def secret_check(
    session: Session, check: str, service: Service, name: str, keys: Sequence[str], *, cause: str
) -> Check:
    step = f"./inv repair.{service.name}"

    def judge() -> Finding:
        secret = cluster_of(session).find("secrets", name, service.namespace)
        return secret_has_keys(check, secret, keys, cause=cause, next_step=step)

    return make_check(session, check, judge, next_step=step)


def class_check(session: Session, check: str, name: str, controller: str, *, cause: str) -> Check:
    """The ingress class belongs to the controller; the checks after it do not depend on it."""

    def judge() -> Finding:
        found = cluster_of(session).find("ingressclasses.networking.k8s.io", name)
        seen = text_at(found, "spec", "controller")
        if seen != controller:
            evidence = f"its controller is {seen}" if found else f"there is no ingress class {name}"
            return failed(check, evidence, cause=cause, next_step="kubectl get ingressclass")
        return passed(check, f"{name}: {controller}")

    return make_check(session, check, judge, continue_on_failure=True)


# --- verdicts on objects -----------------------------------------------------------------------------------------


def deployment_is_available(check: str, deployment: Json | None, *, cause: str, next_step: str, deploy: str) -> Finding:
    """Every wanted replica of the newest generation is there, and `Available` is True.

    `deploy` is the command that brings a Deployment that is not there at all.
    """
    if deployment is None:
        absent = "it was not applied here, or was deleted by hand"
        return failed(check, "there is no such Deployment", cause=absent, next_step=deploy, final=True)
    wanted = dig(deployment, "spec", "replicas")
    wanted = 1 if wanted is None else wanted
    ready = dig(deployment, "status", "readyReplicas") or 0
    updated = dig(deployment, "status", "updatedReplicas") or 0
    evidence = f"{'/'.join(metadata(deployment))}: {ready} of {wanted} ready"
    available = condition(deployment, "Available")
    if not is_current(deployment):
        evidence += "; its newest version is not rolled out yet"
    elif available is None or not available.is_true or wanted == 0 or updated < wanted:
        evidence += f"; {available or 'no condition Available yet'}"
    else:
        return passed(check, evidence)
    return failed(check, evidence, cause=cause, next_step=next_step)


def workloads_are_ready(
    check: str, found: Sequence[Json], *, namespace: str, next_step: str, required: bool = False
) -> Finding:
    """Every Deployment, StatefulSet and DaemonSet has its Pods ready.

    None at all is not a pass; it is a failure where some are `required`.
    """
    if not found:
        nothing = f"namespace {namespace} holds no Deployment, StatefulSet or DaemonSet"
        if required:
            cause = "its deployment did not finish, or it was deleted by hand"
            return failed(check, nothing, cause=cause, next_step=next_step, final=True)
        return not_tried(check, nothing, deciding=False)
    behind = [problem for obj in found if (problem := _missing_pods(obj))]
    if behind:
        cause = "Pods that do not get ready: look at their events"
        return failed(check, "; ".join(behind), cause=cause, next_step=next_step)
    return passed(check, f"{len(found)} of {len(found)}: " + ", ".join(metadata(obj)[1] for obj in found))


def _missing_pods(workload: Json) -> str:
    """What keeps a workload from being ready; empty when it is."""
    kind, name = text_at(workload, "kind"), metadata(workload)[1]
    if kind == "DaemonSet":
        wanted, ready = dig(workload, "status", "desiredNumberScheduled"), dig(workload, "status", "numberReady")
    else:
        wanted, ready = dig(workload, "spec", "replicas"), dig(workload, "status", "readyReplicas")
        wanted = 1 if wanted is None else wanted
    if not is_current(workload):
        return f"{kind} {name}: its newest version is not rolled out yet"
    return "" if (ready or 0) >= (wanted or 0) else f"{kind} {name}: {ready or 0} of {wanted} ready"


def has_endpoints(check: str, slices: Sequence[Json], *, service: str, cause: str, next_step: str) -> Finding:
    """At least one ready address in the Service's EndpointSlices (`discovery.k8s.io/v1`)."""
    ready: list[str] = []
    waiting: list[str] = []
    for found in slices:
        port = dig(found, "ports", 0, "port")
        for one in dig(found, "endpoints") or []:
            addresses = [f"{address}:{port}" if port else str(address) for address in dig(one, "addresses") or []]
            # The API's own rule: an endpoint without a value for `ready` is ready.
            (waiting if dig(one, "conditions", "ready") is False else ready).extend(addresses)
    if ready:
        return passed(check, f"{service}: {', '.join(ready)}")
    evidence = f"{service}: no ready endpoint" + (f", {len(waiting)} not ready" if waiting else "")
    return failed(check, evidence, cause=cause, next_step=next_step)


def kinds_are_served(check: str, group: Json, plurals: Sequence[str], *, cause: str, next_step: str) -> Finding:
    """Each kind is in the API group's resource list."""
    served = {text_at(entry, "name") for entry in dig(group, "resources") or []}
    name = text_at(group, "groupVersion")
    missing = [plural for plural in plurals if plural not in served]
    if missing:
        evidence = f"{name or 'the API group'} does not serve {', '.join(missing)}"
        return failed(check, evidence, cause=cause, next_step=next_step)
    return passed(check, f"{name}: {', '.join(plurals)}")


def secret_has_keys(check: str, secret: Json | None, keys: Sequence[str], *, cause: str, next_step: str) -> Finding:
    """The Secret is there and each key holds something. Its evidence names keys, never values."""
    if secret is None:
        return failed(check, "there is no such Secret", cause=cause, next_step=next_step)
    data = dig(secret, "data") or {}
    empty = [key for key in keys if not data.get(key)]
    if empty:
        return failed(check, f"no value for {', '.join(empty)}", cause=cause, next_step=next_step)
    return passed(check, f"{'/'.join(metadata(secret))} has {', '.join(keys)}")


def secret_value(secret: Json, key: str) -> str:
    """A decoded value of a Secret; empty when it is missing or not text."""
    try:
        return base64.b64decode(text_at(secret, "data", key), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""
