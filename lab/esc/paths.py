"""Property paths as people write them: ``pulumiConfig.colour``, ``pulumiConfig["postgresql:host"]``, ``list[0]``."""

from __future__ import annotations

from typing import Any

from lab.engine.failures import UsageError
from lab.engine.paths import Path, read_path

MISSING = object()


def parse(text: str) -> Path:
    try:
        return read_path(text)
    except ValueError as error:
        raise UsageError(f"invalid path: {error}") from error


def under_values(path: Path) -> Path:
    """Where a path stands in a definition: everything but ``imports`` is below ``values``."""
    return path if path[:1] == ("imports",) else ("values", *path)


def value_at(properties: dict[str, Any], path: Path) -> Any:
    """An ESC value of an evaluated environment, ``MISSING`` when there is none; the whole of it for the empty path."""
    value: Any = {"value": properties}
    for step in path:
        inner = value.get("value")
        if not _has(inner, step):
            return {"unknown": True} if value.get("unknown") else MISSING
        value = inner[step]
    return value


def _has(container: Any, step: str | int) -> bool:
    if isinstance(step, int):
        return isinstance(container, list) and step < len(container)
    return isinstance(container, dict) and step in container


def node_at(document: Any, path: Path) -> Any:
    """A node of a definition, ``MISSING`` when there is none."""
    for step in path:
        if not _has(document, step):
            return MISSING
        document = document[step]
    return document


def put(document: Any, path: Path, value: Any) -> None:
    """Set a node; missing maps and the next element of a list are made."""
    *parents, last = path
    for step, following in zip(parents, path[1:], strict=True):
        child = node_at(document, (step,))
        if child is MISSING or child is None:
            child = [] if isinstance(following, int) else {}
            _set(document, step, child)
            child = node_at(document, (step,))
        document = child
    _set(document, last, value)


def _set(container: Any, step: str | int, value: Any) -> None:
    if _has(container, step) or (isinstance(container, dict) and isinstance(step, str)):
        container[step] = value
    elif isinstance(container, list) and step == len(container):
        container.append(value)
    else:
        raise UsageError(f"cannot set {step!r}: what is there is a {type(container).__name__}")


def drop(document: Any, path: Path) -> bool:
    """Remove a node; false when it is not there."""
    parent = node_at(document, path[:-1])
    if node_at(document, path) is MISSING:
        return False
    del parent[path[-1]]
    return True
