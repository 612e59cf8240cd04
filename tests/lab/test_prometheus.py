"""The lab's stand-in of Prometheus' operator, with the definitions of the lab's own chart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Lab

pytestmark = pytest.mark.lab

CRDS = Path(__file__).resolve().parents[2] / "lab/charts/kube-prometheus-stack/charts/crds/crds"
NAMESPACE = "watching"
OPERATOR = {"app.kubernetes.io/component": "prometheus-operator"}


def eventually(look: Callable[[], Any], seconds: float = 180.0) -> Any:
    """What `look` finds, as soon as that is something; kubectl's complaints count as nothing."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except AssertionError as complaint:
            last = str(complaint)
    raise AssertionError(f"not within {seconds} s: {last}")


def operator() -> dict[str, Any]:
    container = {"name": "operator", "image": "operator"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "operator", "namespace": NAMESPACE, "labels": OPERATOR},
        "spec": {
            "selector": {"matchLabels": OPERATOR},
            "template": {"metadata": {"labels": OPERATOR}, "spec": {"containers": [container]}},
        },
    }


def watcher(kind: str, storage: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": kind,
        "metadata": {"name": "main", "namespace": NAMESPACE},
        "spec": {"replicas": 1} | ({"storage": storage} if storage else {}),
    }


def conditions(lab: Lab, kind: str) -> dict[str, str]:
    status = lab.get(kind, "main", f"--namespace={NAMESPACE}").get("status", {})
    return {entry["type"]: entry["status"] for entry in status.get("conditions", [])}


@pytest.fixture
def watching(lab: Lab) -> Iterator[Lab]:
    lab.kubectl("apply", "--server-side", f"--filename={CRDS}")
    lab.kubectl("wait", "--for=condition=Established", f"--filename={CRDS}", "--timeout=180s")
    lab.kubectl("create", "namespace", NAMESPACE)
    yield lab
    lab.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s")


def test_they_become_pods_with_their_claims_once_the_operator_is_there(watching: Lab) -> None:
    template = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    storage = {"volumeClaimTemplate": template}
    wanted = {"apiVersion": "v1", "kind": "List", "items": [watcher("Prometheus", storage), watcher("Alertmanager")]}
    watching.kubectl("apply", "--filename=-", stdin=json.dumps(wanted))
    assert watching.get("statefulset", f"--namespace={NAMESPACE}")["items"] == []

    watching.kubectl("apply", "--filename=-", stdin=json.dumps(operator()))
    for kind in ("prometheus", "alertmanager"):
        assert eventually(lambda kind=kind: conditions(watching, kind).get("Available") == "True")
        assert conditions(watching, kind)["Reconciled"] == "True"
    labels = watching.get("pod", "prometheus-main-0", f"--namespace={NAMESPACE}")["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "prometheus"
    assert labels["operator.prometheus.io/name"] == "main"
    claim = watching.get("pvc", "prometheus-main-db-prometheus-main-0", f"--namespace={NAMESPACE}")
    assert claim["status"]["phase"] == "Bound"

    watching.kubectl("delete", "alertmanager", "main", f"--namespace={NAMESPACE}")
    names = eventually(
        lambda: [
            found
            for found in [watching.get("statefulset", f"--namespace={NAMESPACE}")["items"]]
            if [item["metadata"]["name"] for item in found] == ["prometheus-main"]
        ]
    )
    assert names, "what belongs to it goes with it"
