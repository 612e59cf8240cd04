"""Property paths as the CLIs write them: `a.b`, `a["x:y"]`, `a[0]`."""

from __future__ import annotations

import json
import re
from typing import Any

from lab.cloud.wire import Json, bad_request, not_found

_FIRST = re.compile(r"""(?P<name>[^.\[\]"]+)|\[(?P<text>"(?:[^"\\]|\\.)*")\]|\[(?P<index>\d+)\]""")
_NEXT = re.compile(r"""\.(?P<name>[^.\[\]"]+)|\[(?P<text>"(?:[^"\\]|\\.)*")\]|\[(?P<index>\d+)\]""")


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
        return str(json.loads(found["text"]))
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
