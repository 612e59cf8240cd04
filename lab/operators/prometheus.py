"""Prometheus' operator: Prometheus and Alertmanager objects become StatefulSets; nothing is scraped.

Works only while the operator's Deployment is available. Names, labels and conditions as operator 0.93.
Source: prometheus-operator/prometheus-operator, pkg/prometheus and pkg/alertmanager.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.operators import objects
from lab.operators.api import Api
from lab.operators.objects import Kind, Object
from lab.operators.work import Controller

MANAGER = "PrometheusOperator"
OPERATOR = {"app.kubernetes.io/component": "prometheus-operator"}
MANAGED = {"managed-by": "prometheus-operator"}
RETRY = 2.0


@dataclass(frozen=True)
class Program:
    """The program that one kind of object runs."""

    kind: Kind
    name: str
    port: int

    def stateful_set(self, name: str) -> str:
        return f"{self.name}-{name}"

    def pod_labels(self, name: str) -> dict[str, str]:
        own = {"operator.prometheus.io/name": name} if self.kind is objects.PROMETHEUS else {}
        names = {"app.kubernetes.io/name": self.name, "app.kubernetes.io/instance": name, self.name: name}
        return names | own | MANAGED


PROGRAMS = (Program(objects.PROMETHEUS, "prometheus", 9090), Program(objects.ALERTMANAGER, "alertmanager", 9093))


def controllers(api: Api) -> dict[str, Controller]:
    api = api.acting_as(MANAGER)
    return {program.name: Monitoring(api, program).reconcile for program in PROGRAMS}


@dataclass(frozen=True)
class Monitoring:
    """The controller of Prometheus or Alertmanager objects, by its `program`."""

    api: Api
    program: Program

    def reconcile(self, namespace: str, name: str) -> float | None:
        wanted = self.api.get(self.program.kind, namespace, name)
        if wanted is None or objects.is_leaving(wanted):
            return None
        if not self.api.runs(OPERATOR):
            return RETRY
        self.api.apply(governing_service(self.program, namespace))
        made = self.api.apply(stateful_set(self.program, wanted))
        return None if self._report(wanted, made) else RETRY

    def _report(self, wanted: Object, made: Object) -> bool:
        """Write the status; return whether everything that should run does."""
        replicas = wanted["spec"].get("replicas", 1)
        ready = (made.get("status") or {}).get("readyReplicas", 0)
        state = "True" if ready >= replicas else "Degraded" if ready else "False"
        message = "" if state == "True" else f"{ready} of {replicas} pods are ready"
        seen = {"observedGeneration": wanted["metadata"]["generation"]}
        conditions = objects.with_conditions(
            wanted,
            {"type": "Available", "status": state, "message": message} | seen,
            {"type": "Reconciled", "status": "True", "message": ""} | seen,
        )
        self.api.update_status(wanted, {"replicas": replicas, "availableReplicas": ready, "conditions": conditions})
        return state == "True"


def governing_service(program: Program, namespace: str) -> Object:
    """The headless Service that all StatefulSets of the namespace share."""
    name = f"{program.name}-operated"
    labels = MANAGED | {f"operated-{program.name}": "true"}
    spec = {
        "clusterIP": "None",
        "selector": {"app.kubernetes.io/name": program.name},
        "ports": [{"name": "web", "port": program.port, "targetPort": "web"}],
    }
    return objects.SERVICE.new({"name": name, "namespace": namespace, "labels": labels}, spec=spec)


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
    own = {
        "name": program.stateful_set(meta["name"]),
        "namespace": meta["namespace"],
        "labels": MANAGED | {"app.kubernetes.io/name": program.name},
        "ownerReferences": [objects.owner_reference(wanted)],
    }
    wanted_spec = {
        "replicas": spec.get("replicas", 1),
        "serviceName": f"{program.name}-operated",
        "podManagementPolicy": "Parallel",  # as the operator's: it cannot be changed later
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
        "volumeClaimTemplates": claims,
    }
    return objects.STATEFUL_SET.new(own, spec=wanted_spec)


def claim_templates(program: Program, wanted: Object) -> list[Object]:
    """The claim that the object's `storage` describes, if any."""
    template = (wanted["spec"].get("storage") or {}).get("volumeClaimTemplate")
    if not template:
        return []
    name = f"{program.stateful_set(wanted['metadata']['name'])}-db"
    return [objects.CLAIM.new({"name": name}, spec=template["spec"])]
