"""Pulumi type tokens (``kubernetes:apps/v1:Deployment``) and what is behind them."""

from __future__ import annotations

from lab.engine.providers.kubernetes.components import TYPES
from lab.engine.providers.kubernetes.discovery import canonical_version, is_built_in

_NOT_RESOURCES = ("helm.sh/", "yaml", "kustomize")


def gvk_of(type: str) -> tuple[str, str]:
    """API version and kind; ``core/v1`` is ``v1``."""
    _, version, kind = type.split(":", 2)
    return canonical_version(version), kind


def is_patch(type: str) -> bool:
    """``NamespacePatch`` and its like of Kubernetes' own groups."""
    version, kind = gvk_of(type)
    return is_built_in(version) and kind.endswith("Patch") and kind != "Patch"


def is_list(type: str) -> bool:
    version, kind = gvk_of(type)
    return is_built_in(version) and kind.endswith("List") and kind != "List"


def is_supported(type: str) -> bool:
    """Any kind of object, and the components; not patches, Helm releases, kustomize and the functions."""
    if type in TYPES:
        return True
    parts = type.split(":")
    if len(parts) != 3 or parts[0] != "kubernetes" or not parts[2][:1].isupper():
        return False
    if parts[1].startswith(_NOT_RESOURCES):
        return False
    return not is_patch(type)
