"""The kinds of objects that the controllers read and write, and functions for any object."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
"""An object as the API returns it."""


@dataclass(frozen=True)
class Kind:
    """A resource of the API: where it is served and how its objects name their type."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    @property
    def is_defined(self) -> bool:
        """Whether a CustomResourceDefinition defines the kind, and not the server itself."""
        return "." in self.group and not self.group.endswith(".k8s.io")

    def new(self, meta: Object, **fields: Any) -> Object:
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": meta, **fields}

    def path(self, namespace: str = "", name: str = "") -> str:
        prefix = f"/{'apis' if self.group else 'api'}/{self.api_version}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{prefix}{where}/{self.plural}" + (f"/{name}" if name else "")


CNPG = "postgresql.cnpg.io/v1"
CLUSTER = Kind(CNPG, "clusters", "Cluster")
DATABASE = Kind(CNPG, "databases", "Database")
DATABASE_ROLE = Kind(CNPG, "databaseroles", "DatabaseRole")
SERVICE = Kind("v1", "services", "Service")
SECRET = Kind("v1", "secrets", "Secret")
SERVICE_ACCOUNT = Kind("v1", "serviceaccounts", "ServiceAccount")
POD = Kind("v1", "pods", "Pod")
EVENT = Kind("v1", "events", "Event")
CLAIM = Kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUME = Kind("v1", "persistentvolumes", "PersistentVolume", False)
STORAGE_CLASS = Kind("storage.k8s.io/v1", "storageclasses", "StorageClass", False)
DEPLOYMENT = Kind("apps/v1", "deployments", "Deployment")
STATEFUL_SET = Kind("apps/v1", "statefulsets", "StatefulSet")
PROMETHEUS = Kind("monitoring.coreos.com/v1", "prometheuses", "Prometheus")
ALERTMANAGER = Kind("monitoring.coreos.com/v1", "alertmanagers", "Alertmanager")
INGRESS = Kind("networking.k8s.io/v1", "ingresses", "Ingress")
INGRESS_CLASS = Kind("networking.k8s.io/v1", "ingressclasses", "IngressClass", False)
CERT_MANAGER = "cert-manager.io/v1"
CERTIFICATE = Kind(CERT_MANAGER, "certificates", "Certificate")
ISSUER = Kind(CERT_MANAGER, "issuers", "Issuer")
CLUSTER_ISSUER = Kind(CERT_MANAGER, "clusterissuers", "ClusterIssuer", False)
ADMISSION = "admissionregistration.k8s.io/v1"
VALIDATING_WEBHOOKS = Kind(ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False)
MUTATING_WEBHOOKS = Kind(ADMISSION, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False)
CLICKHOUSE = Kind("clickhouse.altinity.com/v1", "clickhouseinstallations", "ClickHouseInstallation")
CRD = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", False)


KINDS = {(kind.api_version, kind.kind): kind for kind in list(globals().values()) if isinstance(kind, Kind)}


def path_of(thing: Object) -> str:
    """The URL path of an object, from its `apiVersion` and `kind`."""
    meta = thing["metadata"]
    return KINDS[thing["apiVersion"], thing["kind"]].path(meta.get("namespace", ""), meta["name"])


def has_finalizer(thing: Object, finalizer: str) -> bool:
    return finalizer in (thing["metadata"].get("finalizers") or [])


def is_leaving(thing: Object) -> bool:
    """Whether the object is being deleted."""
    return bool(thing["metadata"].get("deletionTimestamp"))


def key_of(thing: Object) -> tuple[str, str]:
    """Namespace (empty for kinds without) and name."""
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def owner_reference(owner: Object) -> Object:
    """The reference by which the garbage collector deletes a dependent object with its owner."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_owned_by(thing: Object, owner: Object) -> bool:
    references = thing["metadata"].get("ownerReferences") or []
    return any(reference.get("uid") == owner["metadata"]["uid"] for reference in references)


def annotation(thing: Object, name: str) -> str:
    """The value of an annotation; empty if it is not set."""
    return str((thing["metadata"].get("annotations") or {}).get(name) or "")


def addresses(thing: Object) -> list[Object]:
    """The addresses in the status of an Ingress or a Service of type LoadBalancer."""
    return ((thing.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []


def conditions(thing: Object) -> list[Object]:
    return (thing.get("status") or {}).get("conditions") or []


def is_true(thing: Object, kind: str) -> bool:
    """Whether a condition of the object's status is True."""
    return any(entry.get("type") == kind and entry.get("status") == "True" for entry in conditions(thing))


def runs(deployment: Object) -> bool:
    """Whether a Deployment has running pods: one scaled to zero is Available as well."""
    return is_true(deployment, "Available") and (deployment.get("status") or {}).get("availableReplicas", 0) > 0


def condition(thing: Object, kind: str, holds: bool, **more: str) -> Object:
    """An entry of `status.conditions` for the object's current generation; `more` is reason and message."""
    generation = thing["metadata"].get("generation", 0)
    return {"type": kind, "status": "True" if holds else "False", "observedGeneration": generation, **more}


def with_conditions(thing: Object, *wanted: Object) -> list[Object]:
    """The object's conditions with these set. A transition time changes only with its status."""
    found = {entry["type"]: entry for entry in conditions(thing)}
    for entry in wanted:
        before = found.get(entry["type"], {})
        kept = before.get("lastTransitionTime") if before.get("status") == entry["status"] else None
        found[entry["type"]] = entry | {"lastTransitionTime": kept or timestamp()}
    return list(found.values())


def decode(secret: Object | None) -> dict[str, str]:
    """The plaintext values of a Secret; empty without a Secret. Never print them."""
    data = (secret or {}).get("data") or {}
    return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in data.items()}


def encode(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode("ascii") for key, value in values.items()}
