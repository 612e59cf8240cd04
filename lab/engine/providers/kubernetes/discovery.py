"""What the API server can serve: kind to path. Read once (two requests) and again when a kind is missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.engine.providers.kubernetes.client import ApiClient, ApiError, Object

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
REFRESH_SECONDS = 0.5
"""A missing kind makes the server be asked again, at most this often."""

CLUSTER_SCOPED = frozenset(
    {
        "v1/ComponentStatus",
        "v1/Namespace",
        "v1/Node",
        "v1/PersistentVolume",
        "admissionregistration.k8s.io/v1/MutatingWebhookConfiguration",
        "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy",
        "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding",
        "admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration",
        "apiextensions.k8s.io/v1/CustomResourceDefinition",
        "apiregistration.k8s.io/v1/APIService",
        "certificates.k8s.io/v1/CertificateSigningRequest",
        "flowcontrol.apiserver.k8s.io/v1/FlowSchema",
        "flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration",
        "networking.k8s.io/v1/IngressClass",
        "networking.k8s.io/v1/IPAddress",
        "networking.k8s.io/v1/ServiceCIDR",
        "node.k8s.io/v1/RuntimeClass",
        "rbac.authorization.k8s.io/v1/ClusterRole",
        "rbac.authorization.k8s.io/v1/ClusterRoleBinding",
        "scheduling.k8s.io/v1/PriorityClass",
        "storage.k8s.io/v1/CSIDriver",
        "storage.k8s.io/v1/CSINode",
        "storage.k8s.io/v1/StorageClass",
        "storage.k8s.io/v1/VolumeAttachment",
    }
)
"""Kinds of Kubernetes itself that have no namespace: known without a server."""

BUILT_IN_GROUPS = frozenset(
    {
        "",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "apps",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "extensions",
        "flowcontrol.apiserver.k8s.io",
        "networking.k8s.io",
        "node.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "resource.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
        "storagemigration.k8s.io",
    }
)


class NoMatch(Exception):
    """The server does not serve this kind."""

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(f'no matches for kind "{kind}" in version "{api_version}"')
        self.api_version = api_version
        self.kind = kind


@dataclass(frozen=True)
class Kind:
    """One served kind. ``plural`` is the path's word."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        """Collection (``name`` empty) or object; a namespaced kind without ``namespace`` is the whole cluster's."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{middle}/{self.plural}" + (f"/{name}" if name else "")


def group_of(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def is_built_in(api_version: str) -> bool:
    """Whether the group is Kubernetes' own (its objects have typed defaults, see ``normal.normalize``)."""
    return group_of(api_version) in BUILT_IN_GROUPS


def canonical_version(api_version: str) -> str:
    """``core/v1``, as in type tokens, is ``v1`` for the server."""
    return api_version.removeprefix("core/")


class Discovery:
    """Thread-safe cache of one server's kinds, plus the definitions the program is about to create."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._declared: dict[tuple[str, str], bool] = {}
        self._read_at = 0.0
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    def read(self) -> None:
        """Ask the server now. Raises what ``ApiClient`` raises."""
        kinds: dict[tuple[str, str], Kind] = {}
        for path in ("/api", "/apis"):
            for kind in _kinds_of(self._client.get(path, accept=AGGREGATED)):
                kinds.setdefault((kind.api_version, kind.kind), kind)
        with self._lock:
            self._kinds = kinds
            self._read_at = time.monotonic()

    def forget(self) -> None:
        """A definition was made or removed: the next missing kind asks at once."""
        with self._lock:
            self._read_at = 0.0

    def find(self, api_version: str, kind: str) -> Kind:
        """Raises ``NoMatch``."""
        key = (canonical_version(api_version), kind)
        found = self._kinds.get(key)
        if found is None:
            self._refresh()
            found = self._kinds.get(key)
        if found is None:
            raise NoMatch(*key)
        return found

    def _refresh(self) -> None:
        """Several threads that miss a kind at once cause one look at the server."""
        with self._reading:
            if time.monotonic() - self._read_at > REFRESH_SECONDS:
                self.read()

    def find_or_none(self, api_version: str, kind: str) -> Kind | None:
        try:
            return self.find(api_version, kind)
        except NoMatch:
            return None

    def declare(self, definition: Object) -> None:
        """Remember a CustomResourceDefinition that the program creates: its kind's scope is then known in previews."""
        spec = definition.get("spec")
        names = spec.get("names") if isinstance(spec, dict) else None
        if isinstance(spec, dict) and isinstance(names, dict):
            key = (str(spec.get("group", "")), str(names.get("kind", "")))
            self._declared[key] = spec.get("scope") == "Namespaced"

    def declared_scope(self, api_version: str, kind: str) -> bool | None:
        return self._declared.get((group_of(api_version), kind))

    def api_versions(self) -> list[str]:
        """As Helm's ``.Capabilities.APIVersions`` has them: ``apps/v1`` and ``apps/v1/Deployment``."""
        names: set[str] = set()
        for kind in self._kinds.values():
            names.update((kind.api_version, f"{kind.api_version}/{kind.kind}"))
        return sorted(names)


def namespaced_by_table(api_version: str, kind: str) -> bool | None:
    """Whether a kind of Kubernetes itself lives in a namespace; ``None`` for other groups."""
    version = canonical_version(api_version)
    if not is_built_in(version):
        return None
    return f"{version}/{kind}" not in CLUSTER_SCOPED


def _kinds_of(answer: Mapping[str, Any]) -> list[Kind]:
    if answer.get("kind") != "APIGroupDiscoveryList":
        raise ApiError(
            406, "NotAcceptable", "the API server does not serve aggregated discovery (Kubernetes 1.30 or newer)"
        )
    found: list[Kind] = []
    for group in answer.get("items") or []:
        name = str((group.get("metadata") or {}).get("name", ""))
        for version in group.get("versions") or []:
            api_version = f"{name}/{version['version']}" if name else str(version["version"])
            found += _kinds_of_version(api_version, version.get("resources") or [])
    return found


def _kinds_of_version(api_version: str, resources: Sequence[Mapping[str, Any]]) -> list[Kind]:
    return [
        Kind(api_version, str(one["responseKind"]["kind"]), str(one["resource"]), one.get("scope") == "Namespaced")
        for one in resources
        if (one.get("responseKind") or {}).get("kind")
    ]
