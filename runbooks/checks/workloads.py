"""What a namespace holds, check by check: workloads that run, endpoints behind Services, CRDs, Secrets with their keys.

Each function looks at objects as `kubectl get -o json` gives them and says what it saw; none asks the cluster.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence

from runbooks.core.findings import Finding, failed, not_tried, passed
from runbooks.tools.kubectl import Json, KubectlFailed, Trouble, condition, dig, is_current, items, metadata, text_at

CRD_MISSING = "CRDs not found: the operator that brings them was not applied, or not yet"
NO_ENDPOINTS = "no Pod behind the Service is ready: look at the Pods' events"


def seen(check: str, look: Callable[[], Finding], *, next_step: str = "./inv doctor") -> Finding:
    """What `look` finds; an answer the cluster did not give is a failed check, with its reason as evidence."""
    try:
        return look()
    except KubectlFailed as error:
        cause = {
            Trouble.UNKNOWN_KIND: CRD_MISSING,
            Trouble.FORBIDDEN: "the kubeconfig's user lacks the right to read this",
            Trouble.UNREACHABLE: "the API server stopped answering",
        }.get(error.trouble, "")
        return failed(check, error.summary, cause=cause, next_step=error.next_step or next_step)


def deployment_is_available(check: str, deployment: Json | None, *, cause: str, next_step: str, deploy: str) -> Finding:
    """Every wanted replica of the newest generation is there, and `Available` is True.

    `deploy` is the command that brings a Deployment that is not there at all.
    """
    if deployment is None:
        absent = "it was not applied here, or was deleted by hand"
        return failed(check, "there is no such Deployment", cause=absent, next_step=deploy, final=True)
    name = "/".join(metadata(deployment))
    wanted = dig(deployment, "spec", "replicas")
    ready = dig(deployment, "status", "readyReplicas") or 0
    updated = dig(deployment, "status", "updatedReplicas") or 0
    told = f"{name}: {ready} of {1 if wanted is None else wanted} ready"
    available = condition(deployment, "Available")
    if not is_current(deployment):
        return failed(check, f"{told}; its newest version is not rolled out yet", cause=cause, next_step=next_step)
    if available is None or not available.is_true or wanted == 0 or updated < (1 if wanted is None else wanted):
        why = str(available) if available else "no condition Available yet"
        return failed(check, f"{told}; {why}", cause=cause, next_step=next_step)
    return passed(check, told)


def workloads_are_ready(check: str, answer: Json, *, namespace: str, next_step: str, required: bool = False) -> Finding:
    """Every Deployment, StatefulSet and DaemonSet in the answer has its Pods ready.

    None at all is not a pass; it is a failure where some are `required`.
    """
    found = items(answer)
    if not found:
        nothing = f"namespace {namespace} holds no Deployment, StatefulSet or DaemonSet"
        if required:
            cause = "it was not deployed to its end, or was deleted by hand"
            return failed(check, nothing, cause=cause, next_step=next_step, final=True)
        return not_tried(check, nothing, deciding=False)
    behind = [told for obj in found if (told := _behind(obj))]
    if behind:
        return failed(
            check, "; ".join(behind), cause="Pods that do not get ready: look at their events", next_step=next_step
        )
    return passed(check, f"{len(found)} of {len(found)}: " + ", ".join(metadata(obj)[1] for obj in found))


def _behind(workload: Json) -> str:
    """What is missing to readiness; empty when nothing is."""
    kind, name = text_at(workload, "kind"), metadata(workload)[1]
    if kind == "DaemonSet":
        wanted, ready = dig(workload, "status", "desiredNumberScheduled"), dig(workload, "status", "numberReady")
    else:
        wanted, ready = dig(workload, "spec", "replicas"), dig(workload, "status", "readyReplicas")
        wanted = 1 if wanted is None else wanted
    if not is_current(workload):
        return f"{kind} {name}: its newest version is not rolled out yet"
    return "" if (ready or 0) >= (wanted or 0) else f"{kind} {name}: {ready or 0} of {wanted} ready"


def jobs_are_complete(check: str, answer: Json, *, namespace: str, next_step: str) -> Finding:
    """There are Jobs, and every one of them came to a good end."""
    found = items(answer)
    if not found:
        cause = "they were dropped as Helm hooks, or deleted after their time to live"
        return failed(check, f"namespace {namespace} holds no Job", cause=cause, next_step=next_step, final=True)
    behind = [f"Job {metadata(job)[1]}: {_ended(job)}" for job in found if _ended(job) != "complete"]
    if behind:
        cause = "its Pods fail or do not start: look at their logs and events"
        return failed(check, "; ".join(behind), cause=cause, next_step=next_step)
    return passed(check, ", ".join(metadata(job)[1] for job in found))


def _ended(job: Json) -> str:
    for kind, told in (("Complete", "complete"), ("Failed", "failed")):
        state = condition(job, kind)
        if state is not None and state.is_true:
            return told if kind == "Complete" else f"{told}{state.why}"
    return f"{dig(job, 'status', 'active') or 0} Pods active, none succeeded yet"


def has_endpoints(check: str, slices: Json, *, service: str, next_step: str, cause: str = NO_ENDPOINTS) -> Finding:
    """At least one ready address in the Service's EndpointSlices (`discovery.k8s.io/v1`)."""
    ready, waiting = endpoint_addresses(slices)
    if ready:
        return passed(check, f"{service}: {', '.join(ready)}")
    told = f"{service}: no ready endpoint" + (f", {len(waiting)} not ready" if waiting else "")
    return failed(check, told, cause=cause, next_step=next_step)


def endpoint_addresses(slices: Json) -> tuple[list[str], list[str]]:
    """`address:port` of ready and of waiting endpoints. An unset `ready` means ready (the API's own rule)."""
    ready: list[str] = []
    waiting: list[str] = []
    for found in items(slices):
        port = dig(found, "ports", 0, "port")
        for endpoint in dig(found, "endpoints") or []:
            told = [f"{address}:{port}" if port else str(address) for address in dig(endpoint, "addresses") or []]
            (waiting if dig(endpoint, "conditions", "ready") is False else ready).extend(told)
    return ready, waiting


def kinds_are_served(check: str, group: Json, plurals: Sequence[str], *, cause: str, next_step: str) -> Finding:
    """Each kind is in the API group's resource list (`kubectl get --raw /apis/<group>/<version>`)."""
    served = {text_at(entry, "name") for entry in dig(group, "resources") or []}
    name = text_at(group, "groupVersion")
    missing = [plural for plural in plurals if plural not in served]
    if missing:
        told = f"{name or 'the API group'} does not serve {', '.join(missing)}"
        return failed(check, told, cause=cause, next_step=next_step)
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
