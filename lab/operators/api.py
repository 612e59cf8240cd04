"""The controllers' client of the API server: read, apply, patch, delete, events. Plain HTTP with the lab's token.

Objects are dictionaries as the API answers them. Calls may come from several threads. Why not kr8s: decision 15.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx
import kopf

Object = dict[str, Any]
TIMEOUT = 15.0
"""Seconds for one call; the server is on this machine."""
MISSING = 404
PASSING = frozenset({409, 429, 503})
"""Conflict, too many requests, not available yet."""


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
        """Whether a CustomResourceDefinition brings the kind; the server's own groups read otherwise."""
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
    """Where an object is served, from its `apiVersion` and `kind`."""
    meta = thing["metadata"]
    return KINDS[thing["apiVersion"], thing["kind"]].path(meta.get("namespace", ""), meta["name"])


class ApiError(Exception):
    """The API server refused. `status` is the HTTP code, `reason` its word for it (`Conflict`, `Forbidden`, …)."""

    def __init__(self, answer: httpx.Response) -> None:
        body = _body(answer)
        self.status, self.reason = answer.status_code, str(body.get("reason", ""))
        message = str(body.get("message", answer.text[:200]))
        super().__init__(f"{self.status} {self.reason}: {message}")
        self.is_passing = self.status in PASSING or "because it is being terminated" in message
        """A conflict with another writer, a server that is starting, a namespace that is being deleted: try again."""


def _body(answer: httpx.Response) -> Object:
    body = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    return body if isinstance(body, dict) else {}


def connect(login: kopf.ConnectionInfo) -> httpx.Client:
    """A connection to the API server with what kopf read from the kubeconfig: a token and the authority (base64)."""
    return httpx.Client(
        base_url=login.server,
        headers={"Authorization": f"Bearer {login.token}", "Accept": "application/json"},
        verify=ssl.create_default_context(cadata=base64.b64decode(str(login.ca_data)).decode("ascii")),
        timeout=TIMEOUT,
        trust_env=False,
    )


@dataclass(frozen=True)
class Api:
    """A small client. `manager` is the field manager that its writes are recorded under, and the source of events."""

    http: httpx.Client
    manager: str = ""

    def acting_as(self, manager: str) -> Api:
        return replace(self, manager=manager)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None when the server answers that there is none (or no such resource)."""
        return self._call("GET", kind.path(namespace, name), missing_ok=True)

    def is_gone(self, kind: Kind, namespace: str, name: str) -> bool:
        """True only when the server knows the resource and has no such object, or its definition is not there at all.

        A bare 404 is not enough: a server that is still starting gives it for every custom resource.
        """
        answer = self.http.get(kind.path(namespace, name))
        if answer.status_code != MISSING:
            return False
        if (_body(answer).get("details") or {}).get("name") == name:
            return True
        return self.get(CRD, "", f"{kind.plural}.{kind.group}") is None

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Object]:
        """All objects of a kind, of one namespace or of all; empty when the kind is not served (yet)."""
        chosen = ",".join(f"{key}={value}" if value else key for key, value in (labels or {}).items())
        parameters = {"labelSelector": chosen} if chosen else {}
        found = self._call("GET", kind.path(namespace), params=parameters, missing_ok=True) or {}
        marks = {"apiVersion": kind.api_version, "kind": kind.kind}
        return [marks | item for item in found.get("items") or []]

    def apply(self, wanted: Object) -> Object:
        """Server-side apply: the fields given become ours, all others stay as they are."""
        parameters = {"fieldManager": self.manager, "force": "true"}
        kind = "application/apply-patch+yaml"
        return (
            self._call("PATCH", path_of(wanted), json=wanted, headers={"Content-Type": kind}, params=parameters) or {}
        )

    def create(self, wanted: Object) -> Object | None:
        """A new object; None when one of that name is there already."""
        path = path_of(wanted).rpartition("/")[0]
        try:
            return self._call("POST", path, json=wanted, params={"fieldManager": self.manager})
        except ApiError as problem:
            if problem.reason == "AlreadyExists":
                return None
            raise

    def patch(self, current: Object, change: Object, *, status: bool = False) -> Object | None:
        """Merge patch on the object as it was read: a change by others since then is a conflict. None when gone."""
        meta = current["metadata"]
        pinned = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
        return self._call(
            "PATCH",
            path_of(current) + ("/status" if status else ""),
            json=change | {"metadata": change.get("metadata", {}) | pinned},
            headers={"Content-Type": "application/merge-patch+json"},
            params={"fieldManager": self.manager},
            missing_ok=True,
        )

    def update_status(self, current: Object, status: Mapping[str, Any]) -> Object:
        """Write what differs of the status; the object as it is then."""
        before = current.get("status") or {}
        change = {key: value for key, value in status.items() if before.get(key) != value}
        return (self.patch(current, {"status": change}, status=True) if change else None) or current

    def add_finalizer(self, thing: Object, finalizer: str) -> Object:
        """The object with the finalizer, which is there before something is made outside the object."""
        present = thing["metadata"].get("finalizers") or []
        if finalizer in present:
            return thing
        return self.patch(thing, {"metadata": {"finalizers": [*present, finalizer]}}) or thing

    def remove_finalizer(self, thing: Object, finalizer: str) -> None:
        if has_finalizer(thing, finalizer):
            kept = [entry for entry in thing["metadata"]["finalizers"] if entry != finalizer]
            self.patch(thing, {"metadata": {"finalizers": kept}})

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete in the background; nothing happens when it is gone already."""
        self._call("DELETE", kind.path(namespace, name), params={"propagationPolicy": "Background"}, missing_ok=True)

    def runs(self, labels: Mapping[str, str]) -> bool:
        """Whether a Deployment with these labels runs: the operator of which a controller does the work."""
        return any(runs(found) for found in self.list(DEPLOYMENT, labels=labels))

    def warn(self, about: Object, reason: str, message: str, *, normal: bool = False) -> None:
        """An Event on an object; the same reason and message again raises its count."""
        meta, now = about["metadata"], timestamp()
        digest = hashlib.sha256(f"{meta['uid']} {reason} {message}".encode()).hexdigest()[:12]
        name, namespace = f"{meta['name'][:200]}.{digest}", meta.get("namespace") or "default"
        known = self.get(EVENT, namespace, name)
        if known is not None:
            self.patch(known, {"count": known.get("count", 1) + 1, "lastTimestamp": now})
            return
        involved = {key: meta.get(key) for key in ("name", "namespace", "uid", "resourceVersion") if meta.get(key)}
        self.create(
            EVENT.new(
                {"name": name, "namespace": namespace},
                involvedObject={"apiVersion": about["apiVersion"], "kind": about["kind"]} | involved,
                type="Normal" if normal else "Warning",
                reason=reason,
                message=message[:1000],
                source={"component": self.manager},
                firstTimestamp=now,
                lastTimestamp=now,
                count=1,
            )
        )

    def _call(self, method: str, path: str, *, missing_ok: bool = False, **request: Any) -> Object | None:
        answer = self.http.request(method, path, **request)
        if answer.is_success:
            found: Object = answer.json()
            return found
        if answer.status_code == MISSING and missing_ok:
            return None
        raise ApiError(answer)


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
    """Makes the garbage collector delete the dependant with its owner."""
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


def is_true(thing: Object, condition: str) -> bool:
    """Whether a condition of the object's status is True."""
    return any(
        entry.get("type") == condition and entry.get("status") == "True"
        for entry in (thing.get("status") or {}).get("conditions") or []
    )


def runs(deployment: Object) -> bool:
    """Whether a Deployment does its work: one scaled to nothing is Available as well."""
    return is_true(deployment, "Available") and (deployment.get("status") or {}).get("availableReplicas", 0) > 0


def condition(thing: Object, kind: str, holds: bool, **more: str) -> Object:
    """An entry of `status.conditions` about the object as it is now; `more` is reason and message."""
    generation = thing["metadata"].get("generation", 0)
    return {"type": kind, "status": "True" if holds else "False", "observedGeneration": generation, **more}


def with_condition(conditions: Sequence[Object], wanted: Object) -> list[Object]:
    """The conditions with one set; its transition time moves only when its status does."""
    before = next((entry for entry in conditions if entry.get("type") == wanted["type"]), None)
    if before is None:
        return [*conditions, wanted | {"lastTransitionTime": timestamp()}]
    kept = before.get("lastTransitionTime") if before.get("status") == wanted["status"] else None
    after = wanted | {"lastTransitionTime": kept or timestamp()}
    return [after if entry is before else entry for entry in conditions]


def decode(secret: Object | None) -> dict[str, str]:
    """The plaintext values of a Secret; empty when there is none. Never print them."""
    data = (secret or {}).get("data") or {}
    return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in data.items()}


def encode(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode("ascii") for key, value in values.items()}
