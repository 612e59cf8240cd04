"""Reading Kubernetes objects as plain data, and the ``pulumi.com/*`` annotations on them."""

from __future__ import annotations

from typing import Any

from lab.engine.providers.kubernetes.client import Object
from lab.engine.values import UNKNOWN

AUTONAMED = "pulumi.com/autonamed"
SKIP_AWAIT = "pulumi.com/skipAwait"
WAIT_FOR = "pulumi.com/waitFor"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
REPLACE_UNREADY = "pulumi.com/replaceUnready"
PATCH_FORCE = "pulumi.com/patchForce"
PATCH_FIELD_MANAGER = "pulumi.com/patchFieldManager"
DELETION_PROPAGATION = "pulumi.com/deletionPropagationPolicy"
HELM_HOOK = "helm.sh/hook"

DELETE_WITHOUT_WAIT = frozenset(
    {
        "v1/Namespace",
        "v1/Pod",
        "v1/ReplicationController",
        "apps/v1/DaemonSet",
        "apps/v1/Deployment",
        "apps/v1/StatefulSet",
        "batch/v1/Job",
    }
)
"""Kinds whose ``skipAwait`` also holds for deletes, as the real provider has it for historical reasons."""


def pluck(value: Any, *path: str) -> Any:
    """The value at ``path``, or ``None`` when any step is missing or not a map."""
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def api_version_of(obj: Object) -> str:
    return text(obj.get("apiVersion"))


def kind_of(obj: Object) -> str:
    return text(obj.get("kind"))


def full_kind(obj: Object) -> str:
    """``apps/v1/Deployment``, ``v1/Secret``."""
    return f"{api_version_of(obj)}/{kind_of(obj)}"


def name_of(obj: Object) -> str:
    return text(pluck(obj, "metadata", "name"))


def namespace_of(obj: Object) -> str:
    return text(pluck(obj, "metadata", "namespace"))


def qualified_name(obj: Object) -> str:
    """The resource's ID: ``namespace/name`` or ``name``."""
    namespace = namespace_of(obj)
    return f"{namespace}/{name_of(obj)}" if namespace else name_of(obj)


def split_id(id: str) -> tuple[str, str]:
    """Namespace ("" for cluster-scoped objects) and name."""
    namespace, slash, name = id.partition("/")
    return (namespace, name) if slash else ("", namespace)


def annotation(obj: Object, key: str) -> str:
    return text(pluck(obj, "metadata", "annotations", key))


def is_annotated(obj: Object, key: str) -> bool:
    return annotation(obj, key) == "true"


def annotate(obj: Object, key: str, value: str) -> None:
    """Set an annotation, unless what holds it is unknown in this preview."""
    metadata = obj.setdefault("metadata", {})
    if metadata is UNKNOWN:
        return
    annotations = metadata.get("annotations")
    if annotations is UNKNOWN:
        return
    metadata["annotations"] = {**(annotations or {}), key: value}


def is_named(obj: Object) -> bool:
    """A name that is not known yet is a name."""
    metadata = obj.get("metadata")
    return metadata is UNKNOWN or pluck(metadata, "name") is UNKNOWN or bool(name_of(obj))


def has_generated_name(obj: Object) -> bool:
    generate = pluck(obj, "metadata", "generateName")
    return not is_named(obj) and (generate is UNKNOWN or bool(generate))


def is_secret(obj: Object) -> bool:
    return full_kind(obj) == "v1/Secret"


def is_config_map(obj: Object) -> bool:
    return full_kind(obj) == "v1/ConfigMap"


def is_definition(obj: Object) -> bool:
    return kind_of(obj) == "CustomResourceDefinition" and api_version_of(obj).startswith("apiextensions.k8s.io/")


def is_owned_by(obj: Object, owner: Object | None) -> bool:
    uid = pluck(owner, "metadata", "uid")
    references = pluck(obj, "metadata", "ownerReferences")
    return bool(uid) and any(reference.get("uid") == uid for reference in references or [])


def timeout_of(obj: Object, custom: float, default: float) -> float:
    """Seconds to wait: the resource option, else the annotation, else ``default``."""
    if custom:
        return custom
    try:
        return float(int(annotation(obj, TIMEOUT_SECONDS)))
    except ValueError:
        return default


def propagation_of(obj: Object) -> str:
    """``propagationPolicy`` of deletes, foreground unless the annotation says otherwise."""
    policy = annotation(obj, DELETION_PROPAGATION).lower()
    return {"orphan": "Orphan", "background": "Background"}.get(policy, "Foreground")
