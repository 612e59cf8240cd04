"""Server-side apply: which field managers hold what the program sets, and list items whose keys they changed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbooks.stacks.plan import PATH_PART

HOLDERS = re.compile(
    r"conflicts? with \"(?P<manager>[^\"]+)\"(?: with subresource \"[^\"]*\")?(?: using \S+?)?(?: at \S+?)?:"
    r"(?P<fields>(?:\s+(?:- )?\.[^\n]+)+)"
)
"""One manager with its fields (apimachinery pkg/util/managedfields/internal/conflict.go, NewConflictError)."""
FIELD = re.compile(r"\.\S[^\n]*")

Fields = dict[str, Any]
"""The `fieldsV1` of a manager: `f:NAME` for a field, `k:{…}` for an item of a list by its key, nested."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A field manager and the fields it holds, e.g. `kubectl-annotate` and `.metadata.annotations.example.com/name`."""

    manager: str
    fields: tuple[str, ...]


def read_holders(text: str) -> tuple[Holder, ...]:
    """The managers that a refused apply names; empty where it was refused for another reason, or not at all."""
    found = HOLDERS.finditer(text)
    return tuple(Holder(manager=each["manager"], fields=tuple(FIELD.findall(each["fields"]))) for each in found)


KEY_CHANGED = re.compile(r"\]\.[^.\[\]]+$")
"""Of a path: a property of a list item, which may be its key."""


def take_items(obj: Mapping[str, Any], paths: Iterable[str], manager: str) -> tuple[list[Any], tuple[str, ...]]:
    """The object's `managedFields` with the list items whose keys stand at these paths given to the manager.

    Also gives who held them. A key is what an item is known by, e.g. the number of a Service's port. When another
    manager changes it, an apply would add a second item; one that the manager alone holds goes when it is not applied.
    """
    entries: list[Any] = copy.deepcopy(list(obj["metadata"].get("managedFields") or ()))
    own = next((each for each in entries if each["manager"] == manager and each["operation"] == "Apply"), None)
    if own is None:
        return entries, ()
    others = [each for each in entries if each is not own and each.get("apiVersion") == own["apiVersion"]]
    holders = []
    for path in filter(KEY_CHANGED.search, paths):
        item, _, key = path.rpartition(".")
        way = _way_to(obj, item)
        for other in others if way else ():
            taken = _pop(other["fieldsV1"], way, key)
            if taken is not None:
                _merge(own["fieldsV1"], taken)
                holders.append(other["manager"])
    return [each for each in entries if each["fieldsV1"]], tuple(dict.fromkeys(holders))


def _way_to(obj: Any, path: str) -> list[tuple[str, Any]]:
    """The way to a list item: fields (`f`) by their names, items (`k`) by what they are; empty where there is none."""
    way: list[tuple[str, Any]] = []
    for name, index, quoted in (part.groups() for part in PATH_PART.finditer(path)):
        step: Any = int(index) if index is not None else name if name is not None else quoted.replace('\\"', '"')
        try:
            obj = obj[step]
        except (KeyError, IndexError, TypeError):
            return []
        way.append(("f", step) if index is None else ("k", obj))
    return way


def _key(fields: Fields, step: tuple[str, Any]) -> str | None:
    """The key of a field, or of the item whose key values are those of the item in the object."""
    kind, what = step
    if kind == "f":
        return f"f:{what}" if f"f:{what}" in fields else None
    keys = ((each, json.loads(each[2:])) for each in fields if each.startswith("k:"))
    return next((each for each, key in keys if isinstance(what, dict) and key.items() <= what.items()), None)


def _pop(fields: Fields, way: Sequence[tuple[str, Any]], named: str) -> Fields | None:
    """Take out the item at the way's end, below the keys that lead there; what becomes empty goes, too.

    `None` when it is not held here, or `named` is not a part of its key.
    """
    key = _key(fields, way[0])
    if key is None:
        return None
    if len(way) == 1:
        return {key: fields.pop(key)} if named in json.loads(key[2:]) else None
    taken = _pop(fields[key], way[1:], named)
    if not fields[key]:
        del fields[key]
    return None if taken is None else {key: taken}


def _merge(fields: Fields, more: Fields) -> None:
    for key, inner in more.items():
        _merge(fields.setdefault(key, {}), inner)
