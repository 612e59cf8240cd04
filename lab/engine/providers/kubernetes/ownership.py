"""Field managers of server-side apply: who owns which field of an object, and taking over what a create made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.engine.paths import Path, read_path
from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.objects import PATCH_FORCE, is_annotated, pluck

CREATOR = "pulumi-kubernetes"
"""Manager of plain creates; the first update moves its fields to the resource's own manager."""

_TAKEN_OVER = {
    ("kubectl", "Apply"),
    ("kubectl", "Update"),
    ("before-first-apply", "Update"),
    (CREATOR, "Update"),
    ("pulumi-kubernetes.exe", "Update"),
    ("pulumi-resource-kubernetes", "Update"),
}


def managed_fields(live: Object) -> list[dict[str, Any]]:
    return [entry for entry in pluck(live, "metadata", "managedFields") or [] if isinstance(entry, dict)]


def takeover_patch(live: Object, manager: str) -> list[Object]:
    """A JSON patch that gives ``manager`` the fields of earlier creates and of kubectl; empty when there are none."""
    taken = [entry for entry in managed_fields(live) if _is_taken_over(entry)]
    if not taken:
        return []
    kept = [entry for entry in managed_fields(live) if not _is_taken_over(entry)]
    own = next((entry for entry in kept if entry.get("manager") == manager and entry.get("operation") == "Apply"), None)
    if own is None:
        own = {**taken[0], "manager": manager, "operation": "Apply", "fieldsV1": {}}
        kept.append(own)
    merged = own.get("fieldsV1") or {}
    for entry in taken:
        merged = _union(merged, entry.get("fieldsV1") or {})
    kept[kept.index(own)] = {**own, "fieldsV1": merged}
    return [
        {"op": "replace", "path": "/metadata/managedFields", "value": kept},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": pluck(live, "metadata", "resourceVersion")},
    ]


def _is_taken_over(entry: dict[str, Any]) -> bool:
    return (entry.get("manager"), entry.get("operation")) in _TAKEN_OVER and not entry.get("subresource")


def _union(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _union(merged[key], value) if both else merged.get(key, value)
    return merged


def forces_conflicts(inputs: Object, live: Object | None, *, always: bool, preview: bool) -> bool:
    """Whether an apply takes fields from other managers.

    In previews it does where the real update would have taken over first, or where nothing exists yet.
    """
    if always or is_annotated(inputs, PATCH_FORCE):
        return True
    if live is None:
        return preview
    entries = managed_fields(live)
    if preview and any(entry.get("operation") == "Update" and _is_creator(entry) for entry in entries):
        return True
    return not entries


def _is_creator(entry: dict[str, Any]) -> bool:
    return entry.get("manager") in (CREATOR, "pulumi-kubernetes.exe", "pulumi-resource-kubernetes")


def keep_ignored(inputs: Object, live: Object, ignored: Sequence[str], manager: str) -> None:
    """Change ``inputs`` so that an apply leaves the ``ignoreChanges`` paths as they are.

    A field that only others manage is left out; any other keeps its live value.
    """
    ours, theirs = _fields_of(live, lambda one: one == manager), _fields_of(live, lambda one: one != manager)
    for written in ignored:
        path = read_path(written)
        if _owns(theirs, path) and not _owns(ours, path):
            _remove(inputs, path)
            continue
        found, value = _lookup(live, path)
        if found:
            _store(inputs, path, value)


def _fields_of(live: Object, is_wanted: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for entry in managed_fields(live):
        if is_wanted(entry.get("manager")):
            merged = _union(merged, entry.get("fieldsV1") or {})
    return merged


def _owns(fields: dict[str, Any], path: Path) -> bool:
    node: Any = fields
    for step in path:
        node = node.get(f"f:{step}") if isinstance(node, dict) else None
        if node is None:
            return False
    return True


def _lookup(value: Any, path: Path) -> tuple[bool, Any]:
    for step in path:
        is_there = step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value))
        if not is_there:
            return False, None
        value = value[step]
    return True, value


def _remove(obj: Any, path: Path) -> None:
    found, holder = _lookup(obj, path[:-1])
    if found and isinstance(holder, dict):
        holder.pop(path[-1], None)


def _store(obj: Any, path: Path, value: Any) -> None:
    for index, step in enumerate(path):
        is_last = index == len(path) - 1
        if isinstance(step, int):
            if not isinstance(obj, list) or step >= len(obj):
                return
        elif not isinstance(obj, dict):
            return
        if is_last:
            obj[step] = value
        else:
            obj = obj[step] if isinstance(step, int) else obj.setdefault(step, {})
