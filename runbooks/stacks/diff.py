"""The property difference of a step, from what `preview --json` says. Secrets stay `[secret]`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from runbooks.tools.pulumi import SECRET, SECRET_SIGNATURE, PropertyChange, State, Step

LONGEST_VALUE = 160
"""Characters of a value that are shown."""
HIDDEN = frozenset({"managedFields", "__inputs", "__fieldManager", "__initialApiVersion", "__internal"})
"""Bookkeeping of the provider and the API server, no property of the object as people know it."""
PATH_PART = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]|\[\"((?:[^\"\\]|\\.)*)\"\]")
SIGNS = {"add": "+", "delete": "-", "update": "~"}
ABSENT = object()
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What stands for a value that is not known before it is applied (pulumi pkg/resource/stack/deployment.go)."""
NOT_KNOWN_YET = "(unknown until applied)"


def property_lines(step: Step) -> list[str]:
    """One line a property that differs: `~ data.colour: "blue" => "green" (replaces)`.

    A create lists what will be there, a delete what will be gone.
    """
    if step.op == "delete":
        return [f"- {path}: {shown(value)}" for path, value in leaves(step.old.inputs if step.old else {})]
    if step.old is None or step.op == "create":
        return [f"+ {path}: {shown(value)}" for path, value in leaves(step.new.inputs if step.new else {})]
    if step.changes:
        return [_line(change, step.old, step.new) for change in sorted(step.changes, key=lambda change: change.path)]
    return [_compared(name, step) for name in step.reasons or _differing(step)]


def _line(change: PropertyChange, old: State, new: State | None) -> str:
    kind = change.kind.removesuffix("-replace")
    before = value_at(old.inputs, change.path) if change.of_inputs else ABSENT
    if before is ABSENT:
        before = value_at(old.outputs, change.path)
    if before is ABSENT:
        before = value_at(old.inputs, change.path)
    after = value_at(new.inputs, change.path) if new is not None else ABSENT
    sides = {"add": shown(after), "delete": shown(before)}.get(kind, f"{shown(before)} => {shown(after)}")
    return f"{SIGNS.get(kind, '~')} {change.path}: {sides}{' (replaces)' if change.forces_replace else ''}"


def _compared(name: str, step: Step) -> str:
    old = value_at(step.old.inputs if step.old else {}, name)
    new = value_at(step.new.inputs if step.new else {}, name)
    return f"~ {name}: {shown(old)} => {shown(new)}{' (replaces)' if name in step.replace_reasons else ''}"


def _differing(step: Step) -> list[str]:
    old = step.old.inputs if step.old else {}
    new = step.new.inputs if step.new else {}
    return sorted(key for key in {*old, *new} - HIDDEN if old.get(key) != new.get(key))


def value_at(properties: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as `spec.ports[0].port` or `metadata.labels["a/b"]`; `ABSENT` where there is none.

    Below a secret everything is `[secret]`.
    """
    value: Any = properties
    for part in PATH_PART.finditer(path):
        if value == SECRET:
            return SECRET
        name, index, quoted = part.groups()
        if index is not None:
            value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else ABSENT
        else:
            key = name if name is not None else quoted.replace('\\"', '"')
            value = value.get(key, ABSENT) if isinstance(value, Mapping) else ABSENT
        if value is ABSENT:
            return ABSENT
    return value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every property with its path; empty mappings and lists count as leaves."""
    if isinstance(value, Mapping) and value and SECRET_SIGNATURE not in value:
        for key, item in value.items():
            if key not in HIDDEN:
                yield from leaves(item, f"{path}.{key}" if path and _is_plain(key) else _step_into(path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    elif path or value != {}:
        yield path, value


def _is_plain(key: str) -> bool:
    return not re.search(r"[.\[\]\"]", key)


def _step_into(path: str, key: str) -> str:
    return key if not path and _is_plain(key) else f"{path}[{json.dumps(key)}]"


def shown(value: Any) -> str:
    """A value as one line of JSON, cut where it is long."""
    if value is ABSENT:
        return NOT_KNOWN_YET
    if value == SECRET or (isinstance(value, Mapping) and SECRET_SIGNATURE in value):
        return SECRET
    text = json.dumps(value, ensure_ascii=False).replace(f'"{UNKNOWN}"', NOT_KNOWN_YET)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"
