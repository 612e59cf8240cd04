"""The difference between what is recorded and what is wanted, as Pulumi's detailed diff."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lab.engine.paths import Path, covers, read_path
from lab.engine.providers import DiffKind, PropertyDiff
from lab.engine.providers.kubernetes.replacing import Pattern, forces_replacement
from lab.engine.values import UNKNOWN

_MISSING = object()
_REPLACING: dict[DiffKind, DiffKind] = {
    "add": "add-replace",
    "delete": "delete-replace",
    "update": "update-replace",
}


def detailed_diff(
    old: dict[str, Any], new: dict[str, Any], old_inputs: dict[str, Any], patterns: Sequence[Pattern]
) -> dict[str, PropertyDiff]:
    """Paths that differ between ``old`` (live, cut to the old inputs' shape) and ``new``.

    A whole added or removed value is one entry; ``inputDiff`` is true for removals only, as the real provider says it.
    ``old_inputs`` tell which empty values the server had dropped: those are no difference.
    """
    found: dict[str, PropertyDiff] = {}
    for path, kind, value in _changes((), old, new, old_inputs):
        is_replacing = forces_replacement(path, value, patterns)
        found[path_text(path)] = PropertyDiff(_REPLACING[kind] if is_replacing else kind, input_diff=kind == "delete")
    return dict(sorted(found.items()))


Change = tuple[Path, DiffKind, Any]


def _changes(path: Path, old: Any, new: Any, old_input: Any) -> list[Change]:
    if new is _MISSING:
        return [(path, "delete", None)]
    if old is _MISSING:
        return [] if _was_dropped(new, old_input) else [(path, "add", new)]
    if new is UNKNOWN:
        return [(path, "update", new)]
    if isinstance(old, dict) and isinstance(new, dict):
        return _map_changes(path, old, new, old_input)
    if isinstance(old, list) and isinstance(new, list):
        return _list_changes(path, old, new, old_input)
    return [] if _equal(old, new) else [(path, "update", new)]


def _map_changes(path: Path, old: dict[str, Any], new: dict[str, Any], old_input: Any) -> list[Change]:
    changes: list[Change] = []
    inputs = old_input if isinstance(old_input, dict) else {}
    for key in sorted({*old, *new}):
        changes += _changes((*path, key), old.get(key, _MISSING), new.get(key, _MISSING), inputs.get(key, _MISSING))
    return changes


def _list_changes(path: Path, old: list[Any], new: list[Any], old_input: Any) -> list[Change]:
    changes: list[Change] = []
    inputs = old_input if isinstance(old_input, list) else []
    for index in range(max(len(old), len(new))):
        changes += _changes(
            (*path, index),
            old[index] if index < len(old) else _MISSING,
            new[index] if index < len(new) else _MISSING,
            inputs[index] if index < len(inputs) else _MISSING,
        )
    return changes


def _was_dropped(new: Any, old_input: Any) -> bool:
    """The server stores no ``false``, 0, "" or empty collection for most fields: given before and not there now."""
    if isinstance(new, dict) and isinstance(old_input, dict):
        return set(new) == set(old_input) and all(_was_dropped(item, old_input[key]) for key, item in new.items())
    return new in (False, 0, "", [], {}) and old_input is not _MISSING and _equal(new, old_input)


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, bool) != isinstance(new, bool):
        return False
    return bool(old == new)


def path_text(path: Path) -> str:
    """``spec.ports[0].port``, ``metadata.annotations["a.b/c"]``."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif re.search(r'[."\[\]]', step):
            escaped = step.replace('"', '\\"')
            parts.append(f'["{escaped}"]')
        else:
            parts.append(f".{step}" if parts else step)
    return "".join(parts)


def is_ignored(path: str, ignored: Sequence[str]) -> bool:
    """Whether one of the ``ignoreChanges`` paths is ``path`` or above it."""
    steps = read_path(path)
    return any(covers(read_path(one), steps) for one in ignored)
