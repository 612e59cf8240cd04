"""What a fresh cluster has: nodes, a default storage class, the rights of KWOK; and the kubeconfigs that lead to it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lab.platform.api import Cluster
from lab.platform.control_plane import NODES, ControlPlane
from lab.platform.paths import CONTEXT, write_private
from lab.platform.processes import wait_until
from lab.toolchain import version_of
from runbooks.core.errors import ToolFailed

STORAGE_CLASS = "lab-local"
PROVISIONER = "lab.homelab-ops/local"
"""Who makes the volumes of that class: the claims controller of `lab.operators`."""

_RBAC = "/apis/rbac.authorization.k8s.io/v1"


def write_kubeconfigs(plane: ControlPlane) -> None:
    """The admin's (token) and those of the parts that have a client certificate. Rewritten when the port changed."""
    _write(plane, plane.paths.kubeconfig, {"token": plane.pki.admin_token()}, user="lab-admin")
    for client in ("controller-manager", "scheduler", "kwok"):
        files = {"client-certificate": plane.pki.certificate(client), "client-key": plane.pki.key(client)}
        _write(plane, plane.kubeconfig(client), {name: str(path) for name, path in files.items()}, user=client)


def _write(plane: ControlPlane, path: Path, credentials: dict[str, str], user: str) -> None:
    authority = base64.b64encode(plane.pki.ca.read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {"server": plane.server, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
        "current-context": CONTEXT,
    }
    text = yaml.safe_dump(content, sort_keys=False)
    if not path.exists() or path.read_text("utf-8") != text:
        write_private(path, text)


def lay_out(cluster: Cluster) -> str:
    """Applies the objects below and waits for what the controllers add; returns the cluster's identity.

    That is the UID of the namespace `kube-system`. Raises `ToolFailed` when the API server refuses something.
    """
    for path, item in _objects():
        cluster.apply(path, item)
    uid: str = cluster.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
    return uid


def await_default_account(cluster: Cluster) -> None:
    """Without its service account a namespace takes no pods; the controllers make it a moment after their start."""

    def is_there() -> bool:
        accounts = cluster.get("/api/v1/namespaces/default/serviceaccounts")["items"]
        return any(account["metadata"]["name"] == "default" for account in accounts)

    if not wait_until(is_there, 20.0):
        raise ToolFailed(
            "the service account default/default does not appear",
            expected="the controller manager makes it within 20 s",
            next_step="./inv lab.status, then read .ops/lab/logs/kube-controller-manager.log",
        )


def _objects() -> Iterator[tuple[str, dict[str, Any]]]:
    yield f"{_RBAC}/clusterroles/lab:kwok", _kwok_role()
    yield f"{_RBAC}/clusterrolebindings/lab:kwok", _kwok_binding()
    yield f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}", _storage_class()
    for name, address in NODES.items():
        yield f"/api/v1/nodes/{name}", _node(name, address)


def _kwok_role() -> dict[str, Any]:
    rules = (
        ([""], ["nodes", "pods"], ["get", "list", "watch", "update", "patch", "delete"]),
        ([""], ["nodes/status", "pods/status"], ["update", "patch"]),
        (["", "events.k8s.io"], ["events"], ["create", "update", "patch"]),
    )
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "lab:kwok"},
        "rules": [{"apiGroups": groups, "resources": kinds, "verbs": verbs} for groups, kinds, verbs in rules],
    }


def _kwok_binding() -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "lab:kwok"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "lab:kwok"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "lab:kwok"}],
    }


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
        "allowVolumeExpansion": True,
    }


def _node(name: str, address: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "node.kubernetes.io/instance-type": "lab",
            },
            # What KWOK's stage makes the node say in its status.
            "annotations": {
                "lab.homelab-ops/address": address,
                "lab.homelab-ops/kubelet-version": version_of("kube-apiserver"),
            },
        },
    }
