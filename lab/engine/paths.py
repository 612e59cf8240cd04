"""Property paths: ``spec.ports[0].port``, ``metadata.annotations["a.b/c"]``, ``spec.containers[*].image``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lab.engine.values import PropertyMap, Secret, Value

_PART = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+|\*)\]|\.?([^.\[\]]+)')

Path = tuple[str | int, ...]


def read_path(text: str) -> Path:
    """Raises ``ValueError`` when the text is not a path. ``*`` stands for every element."""
    parts: list[str | int] = []
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        if match is None:
            raise ValueError(f"'{text}' is not a property path (at '{text[position:]}')")
        quoted, index, name = match.groups()
        if quoted is not None:
            parts.append(re.sub(r"\\(.)", r"\1", quoted))
        elif index is not None:
            parts.append("*" if index == "*" else int(index))
        else:
            parts.append(name)
        position = match.end()
    return tuple(parts)


def write_path(path: Path) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w$-]+", part):
            text += f".{part}" if text else part
        else:
            text += '["' + part.replace("\\", "\\\\").replace('"', '\\"') + '"]'
    return text


def covers(pattern: Path, path: Path) -> bool:
    """Whether ``path`` is ``pattern`` or below it."""
    return len(pattern) <= len(path) and all(want in ("*", have) for want, have in zip(pattern, path, strict=False))


def keep_ignored(new: PropertyMap, old: PropertyMap, ignored: Sequence[str]) -> PropertyMap:
    """``new`` with everything at the ``ignored`` paths as in ``old``; what ``old`` does not have is taken away."""
    result: Value = new
    for text in ignored:
        result = _keep(result, old, read_path(text))
    return result if isinstance(result, dict) else new


def _keep(new: Value, old: Value, path: Path) -> Value:
    if isinstance(old, Secret):
        old = old.value
    if isinstance(new, Secret):
        return Secret(_keep(new.value, old, path))
    head, rest = path[0], path[1:]
    if isinstance(new, dict) and isinstance(head, str):
        return _keep_in_map(new, old if isinstance(old, dict) else {}, head, rest)
    if isinstance(new, list):
        items = old if isinstance(old, list) else []
        wanted = range(len(new)) if head == "*" else [head] if isinstance(head, int) and head < len(new) else []
        result = list(new)
        for index in wanted:
            if index < len(items):
                result[index] = _keep(new[index], items[index], rest) if rest else items[index]
        return result
    return new


def _keep_in_map(new: PropertyMap, old: PropertyMap, head: str, rest: Path) -> PropertyMap:
    result = dict(new)
    for key in sorted(set(new) | set(old)) if head == "*" else (head,):
        if not rest:
            if key in old:
                result[key] = old[key]
            else:
                result.pop(key, None)
        elif key in new:
            result[key] = _keep(new[key], old.get(key), rest)
        elif key in old:
            # The program dropped the parent of an ignored path: the ignored part stays.
            kept = _keep({}, old[key], rest)
            if kept:
                result[key] = kept
    return result
