"""Which changes of an object the API server refuses, so that the object must be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.objects import full_kind, is_config_map, is_secret, pluck

Pattern = tuple[str, ...]
"""Steps of a path; ``*`` stands for any position of a list."""

IDENTITY: tuple[Pattern, ...] = (("metadata", "name"), ("metadata", "namespace"))


def _patterns(*paths: str) -> tuple[Pattern, ...]:
    return tuple(tuple(path.split(".")) for path in paths)


_SELECTOR = _patterns("spec.selector")
# fmt: off
_POD_FIELDS = (
    "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostAliases",
    "hostIPC", "hostNetwork", "hostPID", "hostname", "imagePullSecrets", "nodeName", "nodeSelector", "overhead",
    "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "restartPolicy", "runtimeClassName",
    "schedulerName", "securityContext", "serviceAccount", "serviceAccountName", "shareProcessNamespace",
    "subdomain", "terminationGracePeriodSeconds", "volumes",
)
# fmt: on
# fmt: off
_CONTAINER_FIELDS = (
    "args", "command", "env", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "ports", "readinessProbe",
    "resources", "securityContext", "stdin", "stdinOnce", "terminationMessagePath", "terminationMessagePolicy",
    "tty", "volumeDevices", "volumeMounts", "workingDir",
)
# fmt: on
# fmt: off
_VOLUME_SOURCES = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker",
    "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs", "photonPersistentDisk",
    "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
)
# fmt: on

_POD = _patterns(
    *(f"spec.{field}" for field in _POD_FIELDS),
    *(f"spec.{group}.*.{field}" for group in ("containers", "initContainers") for field in _CONTAINER_FIELDS),
)
_VOLUME = _patterns(*(f"spec.{source}" for source in _VOLUME_SOURCES))

RULES: dict[str, tuple[Pattern, ...]] = {
    "apps/v1/DaemonSet": _SELECTOR,
    "apps/v1/Deployment": _SELECTOR,
    "apps/v1/StatefulSet": _patterns(
        "spec.podManagementPolicy",
        "spec.revisionHistoryLimit",
        "spec.selector",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    "batch/v1/Job": _patterns("spec.completions", "spec.parallelism", "spec.selector", "spec.template"),
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding": _patterns("roleRef"),
    "rbac.authorization.k8s.io/v1/RoleBinding": _patterns("roleRef"),
    "storage.k8s.io/v1/StorageClass": _patterns("parameters", "provisioner"),
    "v1/PersistentVolume": _VOLUME,
    "v1/PersistentVolumeClaim": _patterns(
        "spec.accessModes", "spec.selector", "spec.storageClassName", "spec.volumeName"
    ),
    "v1/Pod": _POD,
    "v1/ResourceQuota": _patterns("spec.scopes"),
    "v1/Service": _patterns("spec.clusterIP"),
}
"""Kind to what forces a replacement (source: pulumi-kubernetes provider/diff.go)."""


@dataclass(frozen=True)
class Mutability:
    """Provider settings: may the data of these kinds change in place?"""

    config_map: bool = False
    secret: bool = False


def replacing_paths(obj: Object, mutability: Mutability) -> tuple[Pattern, ...]:
    """Patterns for this object, identity included."""
    is_immutable = pluck(obj, "immutable") is True
    if is_secret(obj):
        data = () if mutability.secret and not is_immutable else _patterns("stringData", "data")
        return IDENTITY + _patterns("type") + data
    if is_config_map(obj) and (is_immutable or not mutability.config_map):
        return IDENTITY + _patterns("binaryData", "data")
    return IDENTITY + RULES.get(full_kind(obj), ())


def forces_replacement(path: Sequence[str | int], value: Any, patterns: Sequence[Pattern]) -> bool:
    """Whether a change at ``path`` to ``value`` (``None``: removed) touches one of the patterns.

    It does when the pattern is at or above the path, or is found inside the value that is set there.
    """
    return any(_touches(tuple(path), value, pattern) for pattern in patterns)


def _touches(path: tuple[str | int, ...], value: Any, pattern: Pattern) -> bool:
    for have, want in zip(path, pattern, strict=False):
        if want != ("*" if isinstance(have, int) else have):
            return False
    return len(path) >= len(pattern) or _contains(value, pattern[len(path) :])


def _contains(value: Any, rest: Pattern) -> bool:
    if not rest:
        return True
    if rest[0] == "*":
        return isinstance(value, list) and any(_contains(item, rest[1:]) for item in value)
    return isinstance(value, dict) and rest[0] in value and _contains(value[rest[0]], rest[1:])
