"""The lab's stand-in of Prometheus' operator, with the definitions of the lab's own chart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.command_line import Lab, until
from tests.lab.objects import Object, apply, deployment, made

pytestmark = pytest.mark.lab

CRDS = Path(__file__).resolve().parents[2] / "lab/charts/kube-prometheus-stack/charts/crds/crds"
NAMESPACE = "watching"
OPERATOR = {"app.kubernetes.io/component": "prometheus-operator"}


def watcher(kind: str, storage: Object | None = None) -> Object:
    spec = {"replicas": 1} | ({"storage": storage} if storage else {})
    return made("monitoring.coreos.com/v1", kind, NAMESPACE, "main", spec=spec)


def conditions(lab: Lab, kind: str) -> dict[str, str]:
    status = lab.get(kind, "main", f"--namespace={NAMESPACE}").get("status", {})
    return {entry["type"]: entry["status"] for entry in status.get("conditions", [])}


def stateful_sets(lab: Lab) -> list[str]:
    return [item["metadata"]["name"] for item in lab.get("statefulset", f"--namespace={NAMESPACE}")["items"]]


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
    apply(watching, watcher("Prometheus", storage), watcher("Alertmanager"))
    assert stateful_sets(watching) == []

    apply(watching, deployment(NAMESPACE, "operator", OPERATOR))
    for kind in ("prometheus", "alertmanager"):
        assert until(lambda kind=kind: conditions(watching, kind).get("Available") == "True")
        assert conditions(watching, kind)["Reconciled"] == "True"
    labels = watching.get("pod", "prometheus-main-0", f"--namespace={NAMESPACE}")["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "prometheus"
    assert labels["operator.prometheus.io/name"] == "main"
    claim = watching.get("pvc", "prometheus-main-db-prometheus-main-0", f"--namespace={NAMESPACE}")
    assert claim["status"]["phase"] == "Bound"

    watching.kubectl("delete", "alertmanager", "main", f"--namespace={NAMESPACE}")
    until(lambda: stateful_sets(watching) == ["prometheus-main"])
