"""Shared by the checks: checks that several services have, how checks are run and shown, questions to the cluster.

A builder returns a `Check`, which asks the cluster anew each time it is tried. Objects are as `kubectl get -o json`
gives them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from runbooks.core.errors import OpsError
from runbooks.core.findings import Check, Finding, State, failed, not_tried, passed, run_checks
from runbooks.core.parallel import side_by_side
from runbooks.stacks.preparation import exports_of, has_stack, is_deployed
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import kubectl
from runbooks.tools.kubectl import Json, KubectlFailed, Trouble, condition, dig, is_current, metadata, text_at

DEPLOYMENTS = "deployments.apps"
INGRESSES = "ingresses.networking.k8s.io"
WORKLOADS = "deployments.apps,statefulsets.apps,daemonsets.apps"

STACK_DEPLOYED = "its stack is deployed"
WORKLOADS_READY = "everything in its namespace is ready"
CRD_MISSING = "CRDs not found: the operator that brings them was not applied, or not yet"
NOT_THERE = "its deployment did not finish, or it was deleted by hand"
NO_ENDPOINTS = "no Pod behind the Service is ready: look at the Pods' events, and whether it is scaled to zero"
NO_TAILNET = "the lab has no tailnet"
CONTROLLER_TAKES = 60.0
"""Seconds a controller may need until a Pod is ready or an object has its address: images are pulled first."""
LAB_PATIENCE = 20.0
"""Seconds; the lab's controllers answer within moments."""


# --- builders of checks ------------------------------------------------------------------------------------------


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
    """A check that asks the cluster. It fails when kubectl fails. `wait`: seconds it may take to pass."""

    def look() -> Finding:
        session.reporter.note(name)
        try:
            return judge()
        except KubectlFailed as error:
            cause = {
                Trouble.UNKNOWN_KIND: CRD_MISSING,
                Trouble.FORBIDDEN: "the kubeconfig's user lacks the right to read this",
                Trouble.UNREACHABLE: "the API server stopped answering",
            }.get(error.trouble, "")
            return failed(name, error.summary, cause=cause, next_step=error.next_step or next_step)

    return Check(
        name=name,
        look=look,
        patience=patience(session, wait),
        deciding=deciding,
        continue_on_failure=continue_on_failure,
    )


def patience(session: Session, seconds: float) -> float:
    return min(seconds, LAB_PATIENCE) if session.target.ephemeral else seconds


def object_check(
    session: Session,
    check: str,
    address: tuple[str, str, str],
    judge: Callable[[Json], Finding],
    *,
    next_step: str = "",
    absent: str = NOT_THERE,
    wait: float = 0.0,
    continue_on_failure: bool = False,
) -> Check:
    """A check of one object, by kind, namespace and name. `absent`: the likely cause when it does not exist."""
    kind, namespace, name = address
    step = next_step or f"kubectl {f'-n {namespace} ' if namespace else ''}describe {kind} {name}"

    def look() -> Finding:
        obj = find_object(session, kind, name, namespace)
        if obj is None:
            evidence = f"{kind} {namespace + '/' if namespace else ''}{name} not found"
            return failed(check, evidence, cause=absent, next_step=step, final=True)
        return judge(obj)

    return make_check(session, check, look, next_step=step, wait=wait, continue_on_failure=continue_on_failure)


def untried(check: str, why: str = NO_TAILNET) -> Check:
    """A check that the lab cannot try; `LAB_UNTRIED` in `of_service.py` lists them all."""
    return Check(name=check, look=lambda: not_tried(check, why))


def stack_is_deployed(session: Session, service: Service) -> Check:
    def judge() -> Finding:
        stack = session.stack(service)
        if is_deployed(session, stack):
            return passed(STACK_DEPLOYED, stack.reference)
        evidence = "its state is empty" if has_stack(session, stack) else f"there is no stack {stack.reference}"
        return failed(STACK_DEPLOYED, evidence, cause="not deployed here", next_step=f"./inv deploy.{service.name}")

    return Check(name=STACK_DEPLOYED, look=judge)


def deployment_check(
    session: Session, check: str, service: Service, *, name: str = "", labels: str = "", cause: str, deploy: str = ""
) -> Check:
    """The Deployment of an operator runs, by its name or by its labels where the chart chooses the name.

    `deploy` is the service that the user asked about, if it needs the operator: its deploy brings the operator too.
    """
    namespace = service.namespace
    step = f"kubectl -n {namespace} get deploy,pods; kubectl -n {namespace} logs "
    step += f"deploy/{name} --tail=20" if name else f"-l {labels} --tail=20"

    def judge() -> Finding:
        if name:
            found = find_object(session, DEPLOYMENTS, name, namespace)
        else:
            found = next(iter(list_objects(session, DEPLOYMENTS, namespace, labels)), None)
        if found is None:
            evidence = f"{DEPLOYMENTS} {namespace}/{name or labels} not found"
            bring = f"./inv deploy.{deploy or service.name}"
            return failed(check, evidence, cause=NOT_THERE, next_step=bring, final=True)
        shown, problem = "/".join(metadata(found)), rollout_problem(found)
        if problem:
            return failed(check, f"{shown}: {problem}", cause=cause, next_step=step)
        if not (wanted := wanted_pods(found)):
            return failed(
                check, f"{shown} is scaled to zero", cause=SCALED_DOWN, next_step=f"./inv repair.{service.name}"
            )
        return passed(check, f"{shown}: {wanted} of {wanted} ready")

    return make_check(session, check, judge, next_step=step, wait=CONTROLLER_TAKES)


def workloads_check(session: Session, service: Service, *, required: bool = False) -> Check:
    """Every Deployment, StatefulSet and DaemonSet of its namespace is rolled out.

    Without any workload it does not pass. It fails if workloads are `required` and there are none, or all of them are
    scaled to zero.
    """
    namespace = service.namespace
    step = f"kubectl -n {namespace} get pods,events"

    def judge() -> Finding:
        found = list_objects(session, WORKLOADS, namespace)
        if not found:
            nothing = f"namespace {namespace} holds no Deployment, StatefulSet or DaemonSet"
            if required:
                return failed(WORKLOADS_READY, nothing, cause=NOT_THERE, next_step=step, final=True)
            return not_tried(WORKLOADS_READY, nothing, deciding=False)
        behind = [
            f"{text_at(obj, 'kind')} {metadata(obj)[1]}: {problem}"
            for obj in found
            if (problem := rollout_problem(obj))
        ]
        if behind:
            held: list[ContainerTrouble] = []
            with contextlib.suppress(KubectlFailed):  # the Pods are not needed to see what is not ready
                held += filter(None, map(container_trouble, list_objects(session, "pods", namespace)))
            cause, look = "Pods that do not get ready: look at their events", step
            if held:
                cause, look = CONTAINER_CAUSES.get(held[0].reason, cause), held[0].next_step
            evidence = "; ".join([*behind, *(each.evidence for each in held[:MOST_PODS])])
            return failed(WORKLOADS_READY, evidence, cause=cause, next_step=look)
        evidence = f"{len(found)} of {len(found)}: " + ", ".join(metadata(obj)[1] + remark_on(obj) for obj in found)
        if required and not any(wanted_pods(obj) for obj in found):
            return failed(WORKLOADS_READY, evidence, cause=SCALED_DOWN, next_step=f"./inv repair.{service.name}")
        return passed(WORKLOADS_READY, evidence)

    return make_check(session, WORKLOADS_READY, judge, next_step=step, wait=CONTROLLER_TAKES)


CONTAINER_CAUSES = {
    "CrashLoopBackOff": "its program exits repeatedly: see its log",
    "ImagePullBackOff": "its image cannot be pulled: check name and tag, the registry's login, and the node's network",
    "ErrImagePull": "its image cannot be pulled: check name and tag, the registry's login, and the node's network",
    "CreateContainerConfigError": "a Secret or ConfigMap that it reads, or a key of it, is missing",
    "Unschedulable": "no node can run it: too little CPU or memory, a taint, or a volume that is on another node",
}
"""Reason → what it means, of the reasons that the kubelet and the scheduler give."""
STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
MOST_PODS, LONGEST_MESSAGE = 3, 160


@dataclass(frozen=True, kw_only=True)
class ContainerTrouble:
    """Why a Pod's container does not run, and what shows more."""

    reason: str
    evidence: str
    next_step: str


def container_trouble(pod: Json) -> ContainerTrouble | None:
    """The first container that waits for more than its start, or why no node takes the Pod."""
    namespace, name = metadata(pod)
    describe = f"kubectl -n {namespace} describe pod {name}"
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and not scheduled.is_true:
        evidence = f"{name}: {scheduled.reason} ({scheduled.message[:LONGEST_MESSAGE]})"
        return ContainerTrouble(reason=scheduled.reason, evidence=evidence, next_step=describe)
    for key in ("initContainerStatuses", "containerStatuses"):
        for status in dig(pod, "status", key) or ():
            reason = text_at(status, "state", "waiting", "reason")
            if reason in STARTING:
                continue
            container = text_at(status, "name")
            ended = text_at(status, "lastState", "terminated", "message")
            message = (ended or text_at(status, "state", "waiting", "message")).strip()[:LONGEST_MESSAGE]
            evidence = f"{name}/{container}: {reason}" + (f" ({message})" if message else "")
            logs = f"kubectl -n {namespace} logs {name} -c {container} --previous"
            step = logs if reason == "CrashLoopBackOff" else describe
            return ContainerTrouble(reason=reason, evidence=evidence, next_step=step)
    return None


SCALED_DOWN = "it was scaled to zero, by a person or an autoscaler, so nothing runs"


def rollout_problem(workload: Json) -> str:
    """Why a workload is not rolled out, as `kubectl rollout status` judges it; empty when it is.

    Ready Pods prove nothing alone: those of the last version stay while the new ones do not start.
    Source: kubectl, pkg/polymorphichelpers/rollout_status.go.
    """
    if not is_current(workload):
        return "its newest version is not rolled out yet"
    kind, wanted = text_at(workload, "kind"), wanted_pods(workload)
    ready, updated = "readyReplicas", "updatedReplicas"
    if kind == "DaemonSet":
        ready, updated = "numberReady", "updatedNumberScheduled"
    counts = {key: dig(workload, "status", key) or 0 for key in (ready, updated, "replicas")}
    seen = f"{counts[ready]} of {wanted} ready"
    if counts[ready] < wanted:
        available = condition(workload, "Available")
        return seen if available is None or available.is_true else f"{seen}; {available}"
    if is_on_delete(workload):
        return ""
    if kind == "StatefulSet":
        partition = dig(workload, "spec", "updateStrategy", "rollingUpdate", "partition") or 0
        newest, running = (text_at(workload, "status", key) for key in ("updateRevision", "currentRevision"))
        is_behind = counts[updated] < wanted - partition if partition else newest != running
    else:
        # More Pods than updated ones: the old ones are not gone.
        is_behind = counts[updated] < wanted or (kind == "Deployment" and counts["replicas"] > counts[updated])
    if is_behind:
        stopped = "; it is paused" if dig(workload, "spec", "paused") else ""
        return f"{seen}, {min(counts[updated], wanted)} of them of the newest version{stopped}"
    available = condition(workload, "Available")
    return f"{seen}; {available}" if available and not available.is_true else ""


def wanted_pods(workload: Json) -> int:
    if text_at(workload, "kind") == "DaemonSet":
        return dig(workload, "status", "desiredNumberScheduled") or 0
    replicas = dig(workload, "spec", "replicas")
    return 1 if replicas is None else int(replicas)


def is_on_delete(workload: Json) -> bool:
    """Whether its Pods keep their version until they are deleted, so that older Pods are intended."""
    return text_at(workload, "spec", "updateStrategy", "type") == "OnDelete"


def remark_on(workload: Json) -> str:
    """A note on the workload that its readiness does not show."""
    if not wanted_pods(workload):
        return " (scaled to zero)" if text_at(workload, "kind") != "DaemonSet" else " (no node takes it)"
    revisions = {text_at(workload, "status", key) for key in ("updateRevision", "currentRevision")}
    if is_on_delete(workload) and len(revisions) > 1:
        return " (OnDelete: Pods of the last version run until they are deleted)"
    return ""


def endpoint_check(session: Session, check: str, namespace: str, service: str, *, cause: str = NO_ENDPOINTS) -> Check:
    """A ready Pod is behind a Service, by its EndpointSlices."""
    step = f"kubectl -n {namespace} get endpointslices,pods"

    def judge() -> Finding:
        labels = f"kubernetes.io/service-name={service}"
        ready: list[str] = []
        waiting = 0
        for found in list_objects(session, "endpointslices.discovery.k8s.io", namespace, labels):
            port = dig(found, "ports", 0, "port")
            for endpoint in dig(found, "endpoints") or []:
                addresses = [f"{address}:{port}" if port else str(address) for address in endpoint["addresses"]]
                # The API's own rule: an endpoint without a value for `ready` is ready.
                if dig(endpoint, "conditions", "ready") is False:
                    waiting += len(addresses)
                else:
                    ready += addresses
        if ready:
            return passed(check, f"{service}: {', '.join(ready)}")
        evidence = f"{service}: no ready endpoint" + (f", {waiting} not ready" if waiting else "")
        return failed(check, evidence, cause=cause, next_step=step)

    return make_check(session, check, judge, next_step=step, wait=CONTROLLER_TAKES)


def kinds_check(
    session: Session, check: str, service: Service, path: str, plurals: Sequence[str], *, cause: str
) -> Check:
    """An operator's kinds are in the resource list of `/apis/<group>/<version>`."""
    name = service.name
    step = f"./inv repair.{name} puts back CRDs that were deleted; ./inv preview.{name} --diff shows pending ones"

    def judge() -> Finding:
        group = kubectl.ask(session.runner, session.kubectl.raw(path))
        served = {text_at(entry, "name") for entry in dig(group, "resources") or []}
        missing = [plural for plural in plurals if plural not in served]
        if missing:
            return failed(check, f"{path} does not serve {', '.join(missing)}", cause=cause, next_step=step)
        return passed(check, f"{text_at(group, 'groupVersion')}: {', '.join(plurals)}")

    return make_check(session, check, judge, next_step=step, wait=30.0)


def secret_check(
    session: Session, check: str, service: Service, name: str, keys: Sequence[str], *, cause: str
) -> Check:
    """The Secret is there and each key holds something. Its evidence names keys, never values."""
    step = f"./inv repair.{service.name}"

    def judge(secret: Json) -> Finding:
        data = dig(secret, "data") or {}
        empty = [key for key in keys if not data.get(key)]
        if empty:
            return failed(check, f"no value for {', '.join(empty)}", cause=cause, next_step=step)
        return passed(check, f"{'/'.join(metadata(secret))} has {', '.join(keys)}")

    return object_check(session, check, ("secrets", service.namespace, name), judge, next_step=step, absent=cause)


def class_check(session: Session, check: str, name: str, controller: str, *, cause: str) -> Check:
    """The ingress class belongs to the controller; the checks after it do not depend on it."""
    step = "kubectl get ingressclass"

    def judge(found: Json) -> Finding:
        seen = text_at(found, "spec", "controller")
        if seen != controller:
            return failed(check, f"its controller is {seen}", cause=cause, next_step=step)
        return passed(check, f"{name}: {controller}")

    address = ("ingressclasses.networking.k8s.io", "", name)
    return object_check(session, check, address, judge, next_step=step, absent=cause, continue_on_failure=True)


# --- trying checks, and showing what they found ------------------------------------------------------------------


def run_and_report(session: Session, checks: Sequence[Check]) -> list[Finding]:
    """Try the checks in order; print and return what they found."""
    return report(session, run_checks(checks))


def report(session: Session, findings: list[Finding]) -> list[Finding]:
    for finding in findings:
        session.reporter.finding(finding)
    return findings


class Subject(Protocol):
    """An object with checks of its own."""

    @property
    def subject(self) -> str: ...


Item = TypeVar("Item", bound=Subject)
CELLS = {State.PASSED: "ok", State.FAILED: "FAIL", State.NOT_TRIED: "--"}


def verify_objects(
    session: Session,
    title: str,
    heads: tuple[str, str],
    columns: Mapping[str, str],
    found: Sequence[Item],
    *,
    shown: Callable[[Item], str],
    checks: Callable[[Item], list[Check]],
    untried_in_lab: frozenset[str],
) -> list[Finding]:
    """Run the same checks on each object. Print one table, and each failed check in full.

    `heads`: the headings over the object and over its `shown` text; `columns`: heading → check. Checks that the lab
    never tries are in the table only.
    """
    # In parallel, as a check waits for each object that is not ready.
    looked = side_by_side(session.reporter, found, lambda item: run_checks(checks(item), subject=item.subject))
    rows = []
    for item, seen in zip(found, looked, strict=True):
        cells = {finding.check: CELLS[finding.state] for finding in seen}
        rows.append([item.subject, shown(item), *(cells.get(check, "") for check in columns.values())])
    findings = [finding for seen in looked for finding in seen]
    session.reporter.table(f"{title}: {len(findings)} checks", (*heads, *columns), rows)
    for finding in findings:
        if not finding.ok and not (session.target.ephemeral and finding.check in untried_in_lab):
            session.reporter.finding(finding)
    return findings


# --- questions to the cluster; each raises `KubectlFailed` --------------------------------------------------------


def find_object(session: Session, kind: str, name: str, namespace: str = "") -> Json | None:
    """One object; `None` when it does not exist."""
    return kubectl.find(session.runner, session.kubectl.get(kind, name, namespace=namespace))


def list_objects(session: Session, kind: str, namespace: str = "", labels: str = "") -> list[Json]:
    """All objects of a kind in a namespace; in every namespace when that is empty."""
    command = session.kubectl.get(kind, namespace=namespace, everywhere=not namespace, labels=labels)
    return kubectl.items(kubectl.ask(session.runner, command))


def list_if_known(session: Session, kind: str) -> list[Json]:
    """All objects of a kind in the cluster; none where the API server does not know the kind."""
    try:
        return list_objects(session, kind)
    except KubectlFailed as error:
        if error.trouble is not Trouble.UNKNOWN_KIND:
            raise
        return []


def in_its_namespace(session: Session, service: Service) -> Service:
    """The service with the namespace that its stack exports: its config may have moved it. Never raises."""
    try:
        found = exports_of(session, service).get("k8s_namespace")
    except OpsError:
        # A caller that needs more of the state reports why it cannot be read.
        found = None
    return replace(service, namespace=found) if isinstance(found, str) and found else service
