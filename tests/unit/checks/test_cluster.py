"""Workloads, endpoints, kinds and Secrets: right, wrong, late and missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runbooks.checks.cluster import (
    deployment_is_available,
    has_endpoints,
    judge_answer,
    kinds_are_served,
    secret_has_keys,
    secret_value,
    workloads_are_ready,
)
from runbooks.core.findings import Finding, State
from runbooks.tools.kubectl import KubectlFailed, Trouble, items
from tests.fixtures import deployment, listing, secret, slices


def available(obj: Any) -> Finding:
    return deployment_is_available("r", obj, cause="c", next_step="n", deploy="n")


def behind() -> dict[str, Any]:
    late = deployment("operator", "tailscale")
    late["metadata"]["generation"] = 3
    return late


def bare(**status: Any) -> dict[str, Any]:
    return {"kind": "Deployment", "metadata": {"name": "x", "namespace": "y"}, "spec": {}, "status": status}


def daemons(wanted: int, ready: int) -> dict[str, Any]:
    status = {"desiredNumberScheduled": wanted, "numberReady": ready}
    return {"kind": "DaemonSet", "metadata": {"name": "d", "namespace": "x"}, "status": status}


def ready(*objects: Any) -> Finding:
    return workloads_are_ready("r", [*objects], namespace="x", next_step="n")


def endpoints(answer: Any) -> Finding:
    return has_endpoints("r", items(answer), service="rw", cause="c", next_step="n")


GROUP = {"groupVersion": "postgresql.cnpg.io/v1", "resources": [{"name": "clusters"}, {"name": "clusters/status"}]}


def served(answer: Any, *plurals: str) -> Finding:
    return kinds_are_served("r", answer, plurals, cause="c", next_step="n")


def keys(obj: Any) -> Finding:
    return secret_has_keys("r", obj, ("username", "password"), cause="c", next_step="n")


VERDICTS: dict[str, tuple[Callable[[], Finding], State, str]] = {
    "available": (lambda: available(deployment("operator", "tailscale")), State.PASSED, "1 of 1 ready"),
    "absent": (lambda: available(None), State.FAILED, "no such Deployment"),
    "unavailable": (
        lambda: available(deployment("o", "t", ready=0, available="False")),
        State.FAILED,
        "Available=False",
    ),
    "old generation": (lambda: available(behind()), State.FAILED, "not rolled out yet"),
    "no status yet": (lambda: available(bare()), State.FAILED, "no condition Available yet"),
    "scaled to nothing": (lambda: available(deployment("o", "t", ready=0, wanted=0)), State.FAILED, "0 of 0"),
    "half updated": (
        lambda: available(deployment("o", "t", wanted=3, ready=3) | {"status": {"updatedReplicas": 1}}),
        State.FAILED,
        "of 3 ready",
    ),
    "all ready": (lambda: ready(deployment("a", "x"), daemons(2, 2)), State.PASSED, "2 of 2: a, d"),
    "one behind": (lambda: ready(deployment("a", "x", ready=0), daemons(2, 1)), State.FAILED, "a: 0 of 1"),
    "daemons behind": (lambda: ready(daemons(2, 1)), State.FAILED, "DaemonSet d: 1 of 2 ready"),
    "rolling": (lambda: ready(behind()), State.FAILED, "not rolled out yet"),
    "no workloads where some must be": (
        lambda: workloads_are_ready("r", [], namespace="x", next_step="n", required=True),
        State.FAILED,
        "holds no",
    ),
    "no workloads": (lambda: ready(), State.NOT_TRIED, "holds no"),
    "endpoint": (lambda: endpoints(slices("10.0.0.5")), State.PASSED, "10.0.0.5:5432"),
    "endpoint, ready unset": (lambda: endpoints(slices("10.0.0.5", ready=None)), State.PASSED, "10.0.0.5"),
    "endpoint not ready": (lambda: endpoints(slices("10.0.0.5", ready=False)), State.FAILED, "1 not ready"),
    "no endpoint": (lambda: endpoints(slices()), State.FAILED, "no ready endpoint"),
    "no slices": (lambda: endpoints(listing()), State.FAILED, "no ready endpoint"),
    "slice without endpoints": (lambda: endpoints(listing({"endpoints": None})), State.FAILED, "no ready endpoint"),
    "served": (lambda: served(GROUP, "clusters"), State.PASSED, "postgresql.cnpg.io/v1: clusters"),
    "not served": (lambda: served(GROUP, "clusters", "databases"), State.FAILED, "does not serve databases"),
    "no group": (lambda: served({}, "clusters"), State.FAILED, "does not serve clusters"),
    "keys": (lambda: keys(secret("s", "n", {"username": "u", "password": "p"})), State.PASSED, "n/s has username"),
    "empty key": (lambda: keys(secret("s", "n", {"username": "u", "password": ""})), State.FAILED, "password"),
    "no data": (lambda: keys({"metadata": {"name": "s"}}), State.FAILED, "username, password"),
    "no secret": (lambda: keys(None), State.FAILED, "no such Secret"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_each_check(name: str) -> None:
    look, state, evidence = VERDICTS[name]
    found = look()
    assert found.state is state, found
    assert evidence in found.evidence
    if state is State.FAILED:
        assert found.cause
        assert found.next_step == "n"


def test_evidence_never_holds_a_value() -> None:
    found = keys(secret("s", "n", {"username": "u-s3cret", "password": "p-s3cret"}))
    assert "s3cret" not in repr(found)


def test_values_decode_or_are_empty() -> None:
    assert secret_value(secret("s", "n", {"a": "ü"}), "a") == "ü"
    assert secret_value({"data": {"a": "%%%"}}, "a") == ""
    assert secret_value({"data": {"a": "/w=="}}, "a") == ""
    assert secret_value({}, "a") == ""


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (Trouble.UNKNOWN_KIND, "CRDs not found"),
        (Trouble.FORBIDDEN, "right"),
        (Trouble.UNREACHABLE, "stopped answering"),
        (Trouble.OTHER, ""),
    ],
)
def test_an_answer_the_cluster_did_not_give_is_a_failed_check(trouble: Trouble, cause: str) -> None:
    def look() -> Finding:
        raise KubectlFailed(trouble, "read x: failed")

    found = judge_answer("r", look, next_step="n")
    assert found.state is State.FAILED
    assert found.evidence == "read x: failed"
    assert cause in found.cause
    assert found.next_step == "n"
