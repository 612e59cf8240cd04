"""Workloads, endpoints, kinds and Secrets: right, wrong, late, missing, and in the forms that clusters have them."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

from runbooks.checks import cluster
from runbooks.checks.cluster import (
    class_check,
    deployment_check,
    endpoint_check,
    kinds_check,
    make_check,
    secret_check,
    workloads_check,
)
from runbooks.core.findings import Check, Finding, State
from runbooks.stacks.service import Service
from runbooks.tools.kubectl import KubectlFailed, Trouble, items, secret_value
from tests.fixtures import deployment, listing, secret, slices

SESSION = MagicMock()
SESSION.target.ephemeral = False
SERVICE = Service(name="shop", folder="apps/shop", about="a shop")


def workload(kind: str, name: str, *, spec: Any = None, **status: Any) -> dict[str, Any]:
    """As the API server writes it: what is zero is left out of a status."""
    meta = {"name": name, "namespace": "shop", "generation": 4}
    return {"kind": kind, "metadata": meta, "spec": spec or {}, "status": {"observedGeneration": 4, **status}}


def daemons(wanted: int, ready: int, **status: Any) -> dict[str, Any]:
    counts = {"desiredNumberScheduled": wanted, "updatedNumberScheduled": wanted, "numberReady": ready}
    return workload("DaemonSet", "d", **counts | status)


def stateful(strategy: Any = None, *, replicas: int = 2, newest: str = "db-1", **status: Any) -> dict[str, Any]:
    spec = {"replicas": replicas, "updateStrategy": strategy or {"type": "RollingUpdate"}}
    return workload("StatefulSet", "db", spec=spec, currentRevision="db-1", updateRevision=newest, **status)


ON_DELETE, PARTITION = {"type": "OnDelete"}, {"rollingUpdate": {"partition": 1}}
LEFT_ALONE = {"spec": {"updateStrategy": ON_DELETE}}
TWO_READY = {"readyReplicas": 2, "updatedReplicas": 1}


def rolling() -> dict[str, Any]:
    """The controller has not seen the newest version yet."""
    late = deployment("operator", "tailscale")
    late["metadata"]["generation"] = 3
    return late


BAD_IMAGE = deployment("web", "shop")
"""The Pod of the last version serves, the new one cannot pull its image."""
BAD_IMAGE["status"]["replicas"] = 2
PAUSED = workload("Deployment", "web", spec={"replicas": 2, "paused": True}, replicas=2, readyReplicas=2)
IDLE = workload("Deployment", "web", spec={"replicas": 0})
GROUP = {"groupVersion": "postgresql.cnpg.io/v1", "resources": [{"name": "clusters"}, {"name": "clusters/status"}]}
KEYS = ("username", "password")


def operator(found: Any) -> tuple[Any, Check]:
    return found, deployment_check(SESSION, "r", SERVICE, name="operator", cause="c")


def workloads(*found: Any, required: bool = False) -> tuple[Any, Check]:
    return list(found), workloads_check(SESSION, SERVICE, required=required)


def endpoints(answer: Any) -> tuple[Any, Check]:
    return items(answer), endpoint_check(SESSION, "r", "shop", "rw")


def kinds(answer: Any, *plurals: str) -> tuple[Any, Check]:
    return answer, kinds_check(SESSION, "r", SERVICE, "/apis/postgresql.cnpg.io/v1", plurals, cause="c")


def keys(found: Any) -> tuple[Any, Check]:
    return found, secret_check(SESSION, "r", SERVICE, "login", KEYS, cause="c")


def classes(found: Any) -> tuple[Any, Check]:
    return found, class_check(SESSION, "r", "tailscale", "tailscale.com/ts-ingress", cause="c")


VERDICTS: dict[str, tuple[tuple[Any, Check], State, str]] = {
    "available": (operator(deployment("operator", "tailscale")), State.PASSED, "1 of 1"),
    "absent": (operator(None), State.FAILED, "shop/operator"),
    "unavailable": (operator(deployment("o", "t", ready=0, available="False")), State.FAILED, "Available=False"),
    "old generation": (operator(rolling()), State.FAILED, "newest version"),
    "no status yet": (operator({"kind": "Deployment", "metadata": {"name": "x"}, "spec": {}}), State.FAILED, "0 of 1"),
    "an operator scaled to zero": (operator(deployment("o", "t", ready=0, wanted=0)), State.FAILED, "zero"),
    "an operator whose new Pod does not start": (operator(BAD_IMAGE), State.FAILED, "newest version"),
    "all ready": (workloads(deployment("a", "x"), daemons(2, 2)), State.PASSED, "2 of 2: a, d"),
    "one behind": (workloads(deployment("a", "x", ready=0), daemons(2, 1)), State.FAILED, "a: 0 of 1"),
    "daemons behind": (workloads(daemons(2, 1)), State.FAILED, "DaemonSet d: 1 of 2"),
    "no node takes the daemons": (workloads(daemons(0, 0)), State.PASSED, "no node"),
    "rolling": (workloads(rolling()), State.FAILED, "newest version"),
    "no workloads where some must be": (workloads(required=True), State.FAILED, "shop"),
    "no workloads": (workloads(), State.NOT_TRIED, "shop"),
    "one of two scaled to zero": (workloads(deployment("a", "x"), IDLE, required=True), State.PASSED, "web (scaled"),
    "all scaled to zero": (workloads(IDLE, required=True), State.FAILED, "web (scaled"),
    "stateful": (workloads(stateful(readyReplicas=2, updatedReplicas=2)), State.PASSED, "db"),
    "stateful, one Pod away": (workloads(stateful(readyReplicas=1)), State.FAILED, "1 of 2"),
    "stateful, rolling": (workloads(stateful(newest="db-2", readyReplicas=2, updatedReplicas=1)), State.FAILED, "1 of"),
    "OnDelete, older Pods": (workloads(stateful(ON_DELETE, newest="db-2", readyReplicas=2)), State.PASSED, "OnDelete"),
    "OnDelete, one Pod away": (workloads(stateful(ON_DELETE, newest="db-2", readyReplicas=1)), State.FAILED, "1 of 2"),
    "paused": (workloads(PAUSED), State.FAILED, "paused"),
    "daemons, rolling": (workloads(daemons(2, 2, updatedNumberScheduled=1)), State.FAILED, "1 of them"),
    "daemons, OnDelete": (workloads(daemons(2, 2, updatedNumberScheduled=1) | LEFT_ALONE), State.PASSED, "d"),
    "stateful, a partition": (workloads(stateful(PARTITION, newest="db-2", **TWO_READY)), State.PASSED, "db"),
    "stateful, behind a partition": (workloads(stateful(PARTITION, newest="db-2", readyReplicas=2)), State.FAILED, "0"),
    "stateful, scaled to zero": (workloads(stateful(replicas=0)), State.PASSED, "db (scaled"),
    "endpoint": (endpoints(slices("10.0.0.5")), State.PASSED, "10.0.0.5:5432"),
    "endpoint, ready unset": (endpoints(slices("10.0.0.5", ready=None)), State.PASSED, "10.0.0.5"),
    "endpoint not ready": (endpoints(slices("10.0.0.5", ready=False)), State.FAILED, "1 not ready"),
    "no endpoint": (endpoints(slices()), State.FAILED, "rw"),
    "no slices": (endpoints(listing()), State.FAILED, "rw"),
    "slice without endpoints": (endpoints(listing({"endpoints": None})), State.FAILED, "rw"),
    "served": (kinds(GROUP, "clusters"), State.PASSED, "postgresql.cnpg.io/v1: clusters"),
    "not served": (kinds(GROUP, "clusters", "databases"), State.FAILED, "databases"),
    "no group": (kinds({}, "clusters"), State.FAILED, "clusters"),
    "keys": (keys(secret("s", "n", {"username": "u", "password": "p"})), State.PASSED, "n/s has username"),
    "empty key": (keys(secret("s", "n", {"username": "u", "password": ""})), State.FAILED, "password"),
    "no data": (keys({"metadata": {"name": "s"}}), State.FAILED, "username, password"),
    "no secret": (keys(None), State.FAILED, "shop/login"),
    "its class": (classes({"spec": {"controller": "tailscale.com/ts-ingress"}}), State.PASSED, "tailscale"),
    "another's class": (classes({"spec": {"controller": "example.com/other"}}), State.FAILED, "example.com/other"),
    "no class": (classes(None), State.FAILED, "tailscale"),
}


def let_all_answer(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    """Every question to the cluster is answered with the same objects."""
    monkeypatch.setattr(cluster, "find_object", lambda *_: found)
    monkeypatch.setattr(cluster, "list_objects", lambda *_: found)
    monkeypatch.setattr(cluster.kubectl, "ask", lambda *_: found)


@pytest.mark.parametrize("name", VERDICTS)
def test_each_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (answer, check), state, evidence = VERDICTS[name]
    let_all_answer(monkeypatch, answer)
    found = check.look()
    SESSION.reporter.note.assert_called_with(check.name)  # a run that waits says what for
    assert found.state is state, found
    assert evidence in found.evidence
    if state is State.FAILED:
        assert found.cause
        assert found.next_step


def test_evidence_never_holds_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, check = keys(secret("s", "n", {"username": "u-s3cret", "password": "p-s3cret"}))
    let_all_answer(monkeypatch, answer)
    assert "s3cret" not in repr(check.look())


def test_values_decode_or_are_empty() -> None:
    assert secret_value(secret("s", "n", {"a": "ü"}), "a") == "ü"
    assert secret_value({"data": {"a": "%%%"}}, "a") == ""
    assert secret_value({"data": {"a": "/w=="}}, "a") == ""
    assert secret_value({}, "a") == ""


@pytest.mark.parametrize(
    ("trouble", "has_cause"),
    [(Trouble.UNKNOWN_KIND, True), (Trouble.FORBIDDEN, True), (Trouble.UNREACHABLE, True), (Trouble.OTHER, False)],
)
def test_an_answer_the_cluster_did_not_give_is_a_failed_check(trouble: Trouble, has_cause: bool) -> None:
    def judge() -> Finding:
        raise KubectlFailed(trouble, "read x: failed")

    found = make_check(SESSION, "r", judge, next_step="n").look()
    assert found.state is State.FAILED
    assert found.evidence == "read x: failed"
    assert bool(found.cause) is has_cause
    assert found.next_step == "n"


def pod(
    reason: str = "", message: str = "", *, ended: str = "", key: str = "containerStatuses", unschedulable: str = ""
) -> dict[str, Any]:
    """A Pod whose container waits, or which no node takes."""
    state: dict[str, Any] = {"waiting": {"reason": reason, "message": message}} if reason else {"running": {}}
    container = {"name": "main", "state": state, "lastState": {"terminated": {"message": ended}} if ended else {}}
    scheduled = {"type": "PodScheduled", "status": "False" if unschedulable else "True", "message": unschedulable}
    scheduled |= {"reason": "Unschedulable"} if unschedulable else {}
    return {"metadata": {"name": "web-1", "namespace": "shop"}, "status": {"conditions": [scheduled], key: [container]}}


@pytest.mark.parametrize(
    ("obj", "seen", "cause", "step"),
    [
        (pod("CrashLoopBackOff", "back-off 5m0s", ended="Expected version: 1.10"),
         "web-1/main: CrashLoopBackOff (Expected version: 1.10)", "log", "logs web-1 -c main --previous"),
        (pod("ImagePullBackOff", "no such image", key="initContainerStatuses"), "no such image", "image", "describe"),
        (pod("CreateContainerConfigError", 'secret "n8n" not found'), 'secret "n8n" not found', "Secret",
         "describe pod web-1"),
        (pod(unschedulable="0/1 nodes are available: insufficient memory"), "insufficient memory", "node", "describe"),
        (pod("ContainerCreating"), "a: 0 of 1", "events", "get pods"),
    ],
)  # fmt: skip
def test_why_a_pod_does_not_run_is_named(
    monkeypatch: pytest.MonkeyPatch, obj: dict[str, Any], seen: str, cause: str, step: str
) -> None:
    answers = {"pods": [obj]}
    behind = [deployment("a", "x", ready=0)]
    monkeypatch.setattr(cluster, "list_objects", lambda _, kind, _namespace: answers.get(kind, behind))
    found = workloads_check(SESSION, SERVICE).look()
    assert found.state is State.FAILED
    assert seen in found.evidence and cause in found.cause and step in found.next_step
