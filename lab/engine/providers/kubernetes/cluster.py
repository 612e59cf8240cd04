"""The configured cluster: reachable with all that works on it, or unreachable for a reason that is told later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from lab.engine.cancellation import CancellationToken
from lab.engine.guard import lab_folder
from lab.engine.providers import ProviderError
from lab.engine.providers.kubernetes.client import ApiClient, ApiError, ConnectionFailed
from lab.engine.providers.kubernetes.discovery import Discovery
from lab.engine.providers.kubernetes.kubeconfig import ClusterAccess, KubeconfigError, load_access
from lab.engine.providers.kubernetes.objects import pluck, text
from lab.engine.providers.kubernetes.operations import Operations
from lab.engine.providers.kubernetes.settings import Settings
from lab.engine.providers.kubernetes.watching import WatchHub

OPENAPI = "/openapi/v2?timeout=32s"
"""What the real provider asks first: its failures name this address."""


@dataclass
class Cluster:
    """A reachable one. ``close`` ends connections and threads."""

    access: ClusterAccess
    client: ApiClient
    discovery: Discovery
    hub: WatchHub
    operations: Operations

    def kube_version(self) -> str:
        return text(self.client.get("/version").get("gitVersion"))

    def close(self) -> None:
        self.hub.close()
        self.client.close()


@dataclass(frozen=True)
class Unreachable:
    """``reason`` follows "configured Kubernetes cluster is unreachable: ". ``access`` when at least that is known."""

    reason: str
    access: ClusterAccess | None = None


def connect(
    settings: Settings, environment: Mapping[str, str], cancellation: CancellationToken
) -> Cluster | Unreachable:
    """Raises ``ProviderError`` for a cluster that is not the lab's."""
    try:
        access = load_access(settings.kubeconfig, settings.overrides, environment)
    except KubeconfigError as error:
        return Unreachable(_config_reason(str(error), settings))
    if not access.is_loopback:
        raise ProviderError(
            f"the lab's stand-in works on the lab's cluster only, and the kubeconfig leads to {access.server}:"
            " use the real pulumi for it"
        )
    try:
        client = ApiClient(access)
    except KubeconfigError as error:
        return Unreachable(_config_reason(str(error), settings), access)
    discovery = Discovery(client)
    try:
        discovery.read()
        _check_identity(client, access, environment)
    except ConnectionFailed as error:
        client.close()
        return Unreachable(f'{_NO_SCHEMA}: Get "{access.server}{OPENAPI}": {error.cause}', access)
    except ApiError as error:
        client.close()
        return Unreachable(f"{_NO_SCHEMA}: {error}", access)
    hub = WatchHub(client)
    operations = Operations(
        client,
        discovery,
        hub,
        cancellation,
        always_force=settings.enable_patch_force,
        upsert=settings.upsert_existing_objects,
    )
    return Cluster(access, client, discovery, hub, operations)


_NO_SCHEMA = "unable to load schema information from the API server"


def _config_reason(error: str, settings: Settings) -> str:
    if settings.kubeconfig and error.startswith("couldn't"):
        return f"failed to parse kubeconfig data in `kubernetes:config:kubeconfig`- {error}"
    return (
        "unable to load Kubernetes client configuration from kubeconfig file. Make sure you have: \n\n"
        " \t • set up the provider as per https://www.pulumi.com/registry/packages/kubernetes/installation-configuration/"
        f" \n\n {error}"
    )


def _check_identity(client: ApiClient, access: ClusterAccess, environment: Mapping[str, str]) -> None:
    """Another cluster on loopback (kind, minikube) is not the lab's either: its ``kube-system`` has another UID."""
    try:
        expected = json.loads((lab_folder(environment) / "target.json").read_text(encoding="utf-8")).get("cluster_uid")
    except (OSError, ValueError):
        return
    found = pluck(client.get("/api/v1/namespaces/kube-system"), "metadata", "uid")
    if expected and found != expected:
        raise ProviderError(
            f"the lab's stand-in works on the lab's cluster only: {access.server} is cluster {found}, the lab is"
            f" {expected}. Use the real pulumi for it, or `./inv lab.env` for the lab's kubeconfig"
        )
