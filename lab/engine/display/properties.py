"""Property values and their differences as indented text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lab.engine.values import UNKNOWN

_MISSING = object()


def value_lines(value: Any, indent: int) -> list[str]:
    """First line without indentation, the others with it."""
    if value is UNKNOWN:
        return ["[unknown]"]
    if isinstance(value, dict):
        if not value:
            return ["{}"]
        return ["{", *property_lines(value, indent + 4), f"{' ' * indent}}}"]
    if isinstance(value, list):
        if not value:
            return ["[]"]
        lines = ["["]
        for index, item in enumerate(value):
            first, *rest = value_lines(item, indent + 8)
            lines += [f"{' ' * (indent + 4)}[{index}]: {first}", *rest]
        return [*lines, f"{' ' * indent}]"]
    if isinstance(value, str):
        return ["[secret]" if value == "[secret]" else json.dumps(value, ensure_ascii=False)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return ["<null>" if value is None else str(value)]


def property_lines(values: Mapping[str, Any], indent: int, mark: str = "") -> list[str]:
    """``key: value`` lines with aligned colons; ``mark`` stands in front of each key."""
    width = max((len(key) for key in values), default=0)
    lines: list[str] = []
    for key in sorted(values):
        first, *rest = value_lines(values[key], indent)
        lines += [f"{_lead(indent, mark)}{key.ljust(width)}: {first}", *rest]
    return lines


def _lead(indent: int, mark: str) -> str:
    return f"{' ' * (indent - 2)}{mark} " if mark else " " * indent


def difference_lines(old: Mapping[str, Any], new: Mapping[str, Any], indent: int) -> list[str]:
    """Only what differs, marked ``+``, ``-`` and ``~``."""
    changed = [key for key in sorted({*old, *new}) if old.get(key, _MISSING) != new.get(key, _MISSING)]
    width = max((len(key) for key in changed), default=0)
    lines: list[str] = []
    for key in changed:
        lines += _difference(key.ljust(width), old.get(key, _MISSING), new.get(key, _MISSING), indent)
    return lines


def _difference(label: str, old: Any, new: Any, indent: int) -> Iterator[str]:
    if old is _MISSING or new is _MISSING:
        mark = "+" if old is _MISSING else "-"
        value = new if old is _MISSING else old
        first, *rest = _marked_lines(value, indent, mark)
        yield f"{_lead(indent, mark)}{label}: {first}"
        yield from rest
    elif isinstance(old, dict) and isinstance(new, dict):
        yield f"{_lead(indent, '~')}{label}: {{"
        yield from difference_lines(old, new, indent + 4)
        yield f"{' ' * indent}}}"
    elif isinstance(old, list) and isinstance(new, list):
        yield f"{_lead(indent, '~')}{label}: ["
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else _MISSING
            after = new[index] if index < len(new) else _MISSING
            if before != after:
                yield from _difference(f"[{index}]", before, after, indent + 4)
        yield f"{' ' * indent}]"
    else:
        first, *rest = value_lines(new, indent)
        yield f"{_lead(indent, '~')}{label}: {' '.join(line.strip() for line in value_lines(old, 0))} => {first}"
        yield from rest


def _marked_lines(value: Any, indent: int, mark: str) -> list[str]:
    if isinstance(value, dict) and value:
        return ["{", *property_lines(value, indent + 4, mark), f"{' ' * indent}}}"]
    return value_lines(value, indent)


def output_lines(old: Mapping[str, Any] | None, new: Mapping[str, Any], *, only_changed: bool) -> list[str]:
    """A stack's outputs. Without ``old``, or unchanged, they are unmarked."""
    if old is None:
        return property_lines(new, 4)
    keys = sorted({*old, *new})
    width = max((len(key) for key in keys), default=0)
    if only_changed:
        keys = [key for key in keys if old.get(key, _MISSING) != new.get(key, _MISSING)]
    lines: list[str] = []
    for key in keys:
        before, after = old.get(key, _MISSING), new.get(key, _MISSING)
        if before == after:
            first, *rest = value_lines(after, 4)
            lines += [f"    {key.ljust(width)}: {first}", *rest]
        else:
            lines += _difference(key.ljust(width), before, after, 4)
    return lines
