"""Property paths as the CLIs write them: `a.b`, `a["x:y"]`, `a[0]`."""

from __future__ import annotations

import re
from typing import Any

from lab.cloud.wire import Json, bad_request, not_found

# Between quotes a backslash before a quote is the one escape; any other stands for itself, as the CLIs read it.
_BRACKETS = r"""\["(?P<text>(?:[^"\\]|\\"|\\(?!"))*)"\]|\[(?P<index>\d+)\]"""
_FIRST = re.compile(rf"""(?P<name>[^.\[\]"]+)|{_BRACKETS}""")
_NEXT = re.compile(rf"""\.(?P<name>[^.\[\]"]+)|{_BRACKETS}""")


def read(path: str) -> list[str | int]:
    """The steps of a path, none of an empty one; raises `ApiError` 400 for what is no path."""
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        found = (_NEXT if steps else _FIRST).match(path, position)
        if found is None:
            raise bad_request(f"invalid property path {path!r}")
        steps.append(_step(found))
        position = found.end()
    return steps


def _step(found: re.Match[str]) -> str | int:
    if found["index"] is not None:
        return int(found["index"])
    if found["text"] is not None:
        return found["text"].replace('\\"', '"')
    return found["name"]


def value_at(environment: Json, path: str) -> Json:
    """The ESC value at a path. Raises `ApiError` 400 or 404."""
    value: Json = {"value": environment.get("properties") or {}}
    for step in read(path):
        inner: Any = value.get("value")
        keys = range(len(inner)) if isinstance(inner, list) else inner if isinstance(inner, dict) else ()
        if step not in keys:
            raise not_found(f"property {path!r} not found")
        value = inner[step]
    return value
