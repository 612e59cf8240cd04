"""The controllers' one way to the API server: read, apply, patch, delete, events. Plain HTTP with the lab's token.

Objects are dictionaries as the API answers them. Calls may come from several threads.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

Object = dict[str, Any]
TIMEOUT = 15.0
"""Seconds for one call; the server is on this machine."""
MISSING = 404
PASSING = frozenset({409, 429, 503})
"""Conflict, too many requests, not available yet."""


@dataclass(frozen=True)
class Kind:
    """A resource of the API: where it is served and how its objects name their type."""

    prefix: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return self.prefix.removeprefix("/apis/").removeprefix("/api/")

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

    def path(self, namespace: str = "", name: str = "") -> str:
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.prefix}{where}/{self.plural}" + (f"/{name}" if name else "")


CNPG = "/apis/postgresql.cnpg.io/v1"
CLUSTER = Kind(CNPG, "clusters", "Cluster")
DATABASE = Kind(CNPG, "databases", "Database")
DATABASE_ROLE = Kind(CNPG, "databaseroles", "DatabaseRole")
SERVICE = Kind("/api/v1", "services", "Service")
SECRET = Kind("/api/v1", "secrets", "Secret")
SERVICE_ACCOUNT = Kind("/api/v1", "serviceaccounts", "ServiceAccount")
POD = Kind("/api/v1", "pods", "Pod")
EVENT = Kind("/api/v1", "events", "Event")
CLAIM = Kind("/api/v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUME = Kind("/api/v1", "persistentvolumes", "PersistentVolume", namespaced=False)
STORAGE_CLASS = Kind("/apis/storage.k8s.io/v1", "storageclasses", "StorageClass", namespaced=False)
DEPLOYMENT = Kind("/apis/apps/v1", "deployments", "Deployment")
STATEFUL_SET = Kind("/apis/apps/v1", "statefulsets", "StatefulSet")
PROMETHEUS = Kind("/apis/monitoring.coreos.com/v1", "prometheuses", "Prometheus")
ALERTMANAGER = Kind("/apis/monitoring.coreos.com/v1", "alertmanagers", "Alertmanager")
INGRESS = Kind("/apis/networking.k8s.io/v1", "ingresses", "Ingress")
INGRESS_CLASS = Kind("/apis/networking.k8s.io/v1", "ingressclasses", "IngressClass", namespaced=False)
CERT_MANAGER = "/apis/cert-manager.io/v1"
CERTIFICATE = Kind(CERT_MANAGER, "certificates", "Certificate")
ISSUER = Kind(CERT_MANAGER, "issuers", "Issuer")
CLUSTER_ISSUER = Kind(CERT_MANAGER, "clusterissuers", "ClusterIssuer", namespaced=False)
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
VALIDATING_WEBHOOKS = Kind(
    ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", namespaced=False
)
MUTATING_WEBHOOKS = Kind(ADMISSION, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", namespaced=False)
CLICKHOUSE = Kind("/apis/clickhouse.altinity.com/v1", "clickhouseinstallations", "ClickHouseInstallation")
CRD = Kind("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)


class ApiError(Exception):
    """The API server said no. `status` is the HTTP code, `reason` its word for it (`Conflict`, `Forbidden`, …)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.is_passing = status in PASSING or "because it is being terminated" in message
        """Everyday life: somebody was faster, the server is starting, the namespace is on its way out."""


@dataclass(frozen=True)
class Access:
    """How to reach the lab's API server, from its kubeconfig."""

    server: str
    token: str
    ca_data: str
    """Base64 of the authority's PEM."""

    @classmethod
    def read(cls, kubeconfig: Path) -> Access:
        """The kubeconfig's current context: CA data and a token, as the lab writes them."""
        document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        named = {entry["name"]: entry["context"] for entry in document["contexts"]}
        context = named[document["current-context"]]
        cluster = next(entry["cluster"] for entry in document["clusters"] if entry["name"] == context["cluster"])
        user = next(entry["user"] for entry in document["users"] if entry["name"] == context["user"])
        return cls(cluster["server"], user["token"], cluster["certificate-authority-data"])


class Api:
    """A small client. `manager` is the field manager that its writes are recorded under."""

    def __init__(self, access: Access) -> None:
        trust = ssl.create_default_context(cadata=base64.b64decode(access.ca_data).decode("ascii"))
        self._http = httpx.Client(
            base_url=access.server,
            headers={"Authorization": f"Bearer {access.token}", "Accept": "application/json"},
            verify=trust,
            timeout=TIMEOUT,
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        """Whether the server says of itself that it is ready to serve."""
        return self._http.get("/readyz").is_success

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None when the server answers that there is none (or no such resource)."""
        return self._call("GET", kind.path(namespace, name), missing_ok=True)

    def is_gone(self, kind: Kind, namespace: str, name: str) -> bool:
        """True only when the server knows the resource and has no such object, or its definition is not there at all.

        A bare 404 is not enough: a server that is still starting gives it for every custom resource.
        """
        answer = self._http.get(kind.path(namespace, name))
        if answer.status_code != MISSING:
            return False
        if _details(answer).get("name") == name:
            return True
        return self.get(CRD, "", f"{kind.plural}.{kind.group}") is None

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Object]:
        """All objects of a kind, of one namespace or of all; empty when the kind is not served (yet)."""
        chosen = ",".join(f"{key}={value}" if value else key for key, value in (labels or {}).items())
        parameters = {"labelSelector": chosen} if chosen else {}
        found = self._call("GET", kind.path(namespace), params=parameters, missing_ok=True) or {}
        marks = {"apiVersion": kind.api_version, "kind": kind.kind}
        return [marks | item for item in found.get("items") or []]

    def apply(self, wanted: Object, manager: str) -> Object:
        """Server-side apply: the fields given become ours, all others stay as they are."""
        kind, meta = kind_of(wanted), wanted["metadata"]
        return self._write(
            "PATCH",
            kind.path(meta.get("namespace", ""), meta["name"]),
            wanted,
            content_type="application/apply-patch+yaml",
            params={"fieldManager": manager, "force": "true"},
        )

    def create(self, wanted: Object, manager: str) -> Object | None:
        """A new object; None when one of that name is there already."""
        kind = kind_of(wanted)
        path = kind.path(wanted["metadata"].get("namespace", ""))
        try:
            return self._write("POST", path, wanted, params={"fieldManager": manager})
        except ApiError as problem:
            if problem.reason == "AlreadyExists":
                return None
            raise

    def patch(self, current: Object, change: Object, manager: str, *, status: bool = False) -> Object | None:
        """Merge patch on the object as it was read: a change by others since then is a conflict. None when gone."""
        kind, meta = kind_of(current), current["metadata"]
        pinned = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
        body = change | {"metadata": change.get("metadata", {}) | pinned}
        path = kind.path(meta.get("namespace", ""), meta["name"]) + ("/status" if status else "")
        return self._call(
            "PATCH",
            path,
            json=body,
            headers={"Content-Type": "application/merge-patch+json"},
            params={"fieldManager": manager},
            missing_ok=True,
        )

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete in the background; nothing happens when it is gone already."""
        path = kind.path(namespace, name)
        self._call("DELETE", path, params={"propagationPolicy": "Background"}, missing_ok=True)

    def warn(self, about: Object, reason: str, message: str, component: str, *, normal: bool = False) -> None:
        """An Event on an object; the same reason and message again raises its count."""
        meta = about["metadata"]
        now = timestamp()
        digest = hashlib.sha256(f"{meta['uid']} {reason} {message}".encode()).hexdigest()[:12]
        name = f"{meta['name'][:200]}.{digest}"
        namespace = meta.get("namespace") or "default"
        known = self.get(EVENT, namespace, name)
        if known is not None:
            change = {"count": known.get("count", 1) + 1, "lastTimestamp": now}
            self.patch({"apiVersion": "v1", "kind": "Event"} | known, change, component)
            return
        involved = {key: meta.get(key) for key in ("name", "namespace", "uid", "resourceVersion") if meta.get(key)}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {"apiVersion": about["apiVersion"], "kind": about["kind"]} | involved,
            "type": "Normal" if normal else "Warning",
            "reason": reason,
            "message": message[:1000],
            "source": {"component": component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self.create(event, component)

    def _write(
        self,
        method: str,
        path: str,
        body: Object,
        *,
        params: Mapping[str, str],
        content_type: str = "application/json",
    ) -> Object:
        answer = self._call(method, path, json=body, headers={"Content-Type": content_type}, params=params)
        return answer or {}

    def _call(self, method: str, path: str, *, missing_ok: bool = False, **request: Any) -> Object | None:
        answer = self._http.request(method, path, **request)
        if answer.is_success:
            found: Object = answer.json()
            return found
        if answer.status_code == MISSING and missing_ok:
            return None
        status = _status(answer)
        raise ApiError(answer.status_code, str(status.get("reason", "")), str(status.get("message", answer.text[:200])))


def _status(answer: httpx.Response) -> Object:
    if "json" not in answer.headers.get("content-type", ""):
        return {}
    body = answer.json()
    return body if isinstance(body, dict) else {}


def _details(answer: httpx.Response) -> Object:
    details = _status(answer).get("details")
    return details if isinstance(details, dict) else {}


_KINDS = {(kind.api_version, kind.kind): kind for kind in list(globals().values()) if isinstance(kind, Kind)}


def kind_of(thing: Object) -> Kind:
    """The resource an object belongs to, from its `apiVersion` and `kind`."""
    return _KINDS[thing["apiVersion"], thing["kind"]]


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


def with_condition(conditions: Sequence[Object], wanted: Object) -> list[Object]:
    """The conditions with one set; its transition time moves only when its status does."""
    before = next((entry for entry in conditions if entry.get("type") == wanted["type"]), None)
    if before is None:
        return [*conditions, wanted | {"lastTransitionTime": timestamp()}]
    kept = before.get("lastTransitionTime") if before.get("status") == wanted["status"] else None
    after = wanted | {"lastTransitionTime": kept or timestamp()}
    return [after if entry is before else entry for entry in conditions]


def decode(secret: Object | None) -> dict[str, str]:
    """The clear values of a Secret; empty when there is none. Never print them."""
    data = (secret or {}).get("data") or {}
    return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in data.items()}


def encode(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode("ascii") for key, value in values.items()}
