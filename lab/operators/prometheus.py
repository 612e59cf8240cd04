"""Prometheus' operator: Prometheus and Alertmanager objects become StatefulSets; nothing is scraped.

Works only while the operator's Deployment is available. Names, labels and conditions as operator 0.93.
Source: prometheus-operator/prometheus-operator, pkg/prometheus and pkg/alertmanager.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.operators.api import (
    ALERTMANAGER,
    DEPLOYMENT,
    PROMETHEUS,
    Api,
    Kind,
    Object,
    owner_reference,
    runs,
    with_condition,
)

MANAGER = "PrometheusOperator"
OPERATOR = {"app.kubernetes.io/component": "prometheus-operator"}
MANAGED = {"managed-by": "prometheus-operator"}
RETRY = 2.0


@dataclass(frozen=True)
class Program:
    """What one kind of object becomes."""

    kind: Kind
    name: str
    port: int

    def stateful_set(self, name: str) -> str:
        return f"{self.name}-{name}"

    def pod_labels(self, name: str) -> dict[str, str]:
        own = {"operator.prometheus.io/name": name} if self.kind is PROMETHEUS else {}
        return (
            {"app.kubernetes.io/name": self.name, "app.kubernetes.io/instance": name, self.name: name} | own | MANAGED
        )


PROGRAMS = (Program(PROMETHEUS, "prometheus", 9090), Program(ALERTMANAGER, "alertmanager", 9093))


class Monitoring:
    """The controller of one kind of them."""

    def __init__(self, api: Api, program: Program) -> None:
        self._api = api
        self._program = program

    def reconcile(self, namespace: str, name: str) -> float | None:
        wanted = self._api.get(self._program.kind, namespace, name)
        if wanted is None or wanted["metadata"].get("deletionTimestamp"):
            return None
        if not self._operator_is_ready():
            return RETRY
        self._api.apply(governing_service(self._program, namespace), MANAGER)
        made = self._api.apply(stateful_set(self._program, wanted), MANAGER)
        return None if self._report(wanted, made) else RETRY

    def _operator_is_ready(self) -> bool:
        return any(runs(found) for found in self._api.list(DEPLOYMENT, labels=OPERATOR))

    def _report(self, wanted: Object, made: Object) -> bool:
        """Write the status; whether everything that should run does."""
        replicas = wanted["spec"].get("replicas", 1)
        ready = (made.get("status") or {}).get("readyReplicas", 0)
        available = {"True": ready >= replicas, "Degraded": 0 < ready < replicas}
        state = next((word for word, holds in available.items() if holds), "False")
        message = "" if state == "True" else f"{ready} of {replicas} pods are ready"
        generation = wanted["metadata"]["generation"]
        status = wanted.get("status") or {}
        conditions = status.get("conditions") or []
        for kind, value, text in (("Available", state, message), ("Reconciled", "True", "")):
            condition = {"type": kind, "status": value, "message": text, "observedGeneration": generation}
            conditions = with_condition(conditions, condition)
        reported = {"replicas": replicas, "availableReplicas": ready, "conditions": conditions}
        if {key: status.get(key) for key in reported} != reported:
            self._api.patch(wanted, {"status": reported}, MANAGER, status=True)
        return state == "True"


def governing_service(program: Program, namespace: str) -> Object:
    """The headless Service all StatefulSets of the namespace share."""
    name = f"{program.name}-operated"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": MANAGED | {f"operated-{program.name}": "true"}},
        "spec": {
            "clusterIP": "None",
            "selector": {"app.kubernetes.io/name": program.name},
            "ports": [{"name": "web", "port": program.port, "targetPort": "web"}],
        },
    }


def stateful_set(program: Program, wanted: Object) -> Object:
    meta, spec = wanted["metadata"], wanted["spec"]
    labels = program.pod_labels(meta["name"])
    pod: dict[str, Any] = {
        "serviceAccountName": spec.get("serviceAccountName", "default"),
        "containers": [
            {
                "name": program.name,
                "image": spec.get("image", program.name),
                "ports": [{"name": "web", "containerPort": program.port}],
            }
        ],
        "terminationGracePeriodSeconds": 1,
    }
    claims = claim_templates(program, wanted)
    if not claims:
        pod["volumes"] = [{"name": f"{program.stateful_set(meta['name'])}-db", "emptyDir": {}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": program.stateful_set(meta["name"]),
            "namespace": meta["namespace"],
            "labels": MANAGED | {"app.kubernetes.io/name": program.name},
            "ownerReferences": [owner_reference(wanted)],
        },
        "spec": {
            "replicas": spec.get("replicas", 1),
            "serviceName": f"{program.name}-operated",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "volumeClaimTemplates": claims,
        },
    }


def claim_templates(program: Program, wanted: Object) -> list[Object]:
    """The claim that the object's `storage` describes, if any."""
    template = (wanted["spec"].get("storage") or {}).get("volumeClaimTemplate")
    if not template:
        return []
    name = f"{program.stateful_set(wanted['metadata']['name'])}-db"
    marks = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    return [marks | {"metadata": {"name": name}, "spec": template["spec"]}]
