"""Property values as the engine and the providers see them: plain Python, with the few marks the protocol has.

A value is ``None``, ``bool``, ``int | float``, ``str``, ``list``, ``dict[str, Value]``, or one of the marks of this
module. Numbers of the wire are doubles; whole ones are given as ``int`` so that they print as the programs wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

Value: TypeAlias = Any
PropertyMap: TypeAlias = dict[str, Value]


@dataclass(frozen=True, repr=False)
class Secret:
    """A value that must not be shown. Never nested directly in another ``Secret``."""

    value: Value

    def __repr__(self) -> str:
        return "[secret]"


class Unknown:
    """The one value that is not known before the update: use the instance ``UNKNOWN`` and compare with ``is``."""

    _instance: Unknown | None = None

    def __new__(cls) -> Unknown:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __copy__(self) -> Unknown:
        return self

    def __deepcopy__(self, _memo: object) -> Unknown:
        return self

    def __repr__(self) -> str:
        return "[unknown]"


UNKNOWN: Final = Unknown()


@dataclass(frozen=True)
class Asset:
    """A blob given by exactly one of ``text``, ``path`` or ``uri``."""

    text: str | None = None
    path: str | None = None
    uri: str | None = None
    hash: str = ""


@dataclass(frozen=True)
class Archive:
    """A set of blobs given by exactly one of ``assets``, ``path`` or ``uri``."""

    assets: Mapping[str, Value] | None = None
    path: str | None = None
    uri: str | None = None
    hash: str = ""


@dataclass(frozen=True)
class ResourceReference:
    """A resource used as a value. ``id`` is ``None`` for components and ``UNKNOWN`` in a preview of a create."""

    urn: str
    id: Value = None
    package_version: str = ""


@dataclass(frozen=True)
class OutputValue:
    """A value with what it depends on. Only at the wire: ``resolve_outputs`` turns it into plain marks."""

    value: Value
    secret: bool = False
    dependencies: tuple[str, ...] = field(default=())


def secret(value: Value) -> Value:
    """Mark a value, once."""
    return value if isinstance(value, Secret) else Secret(value)


def _map(value: Value, change: Callable[[Value], Value]) -> Value:
    if isinstance(value, dict):
        return {key: change(item) for key, item in value.items()}
    if isinstance(value, list):
        return [change(item) for item in value]
    return value


def strip_secrets(value: Value) -> Value:
    """The same value without any ``Secret`` mark, at every depth."""
    if isinstance(value, Secret):
        return strip_secrets(value.value)
    return _map(value, strip_secrets)


def resolve_outputs(value: Value) -> Value:
    """Turn every ``OutputValue`` into its value, marked secret where it is."""
    if isinstance(value, OutputValue):
        inner = resolve_outputs(value.value)
        return secret(inner) if value.secret else inner
    if isinstance(value, Secret):
        inner = resolve_outputs(value.value)
        return secret(inner)
    return _map(value, resolve_outputs)


def _walk(value: Value) -> Iterator[Value]:
    yield value
    if isinstance(value, Secret | OutputValue):
        yield from _walk(value.value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)


def has_unknowns(value: Value) -> bool:
    return any(item is UNKNOWN for item in _walk(value))


def has_secrets(value: Value) -> bool:
    return any(isinstance(item, Secret) or (isinstance(item, OutputValue) and item.secret) for item in _walk(value))


def output_dependencies(value: Value) -> set[str]:
    """URNs of every ``OutputValue`` and ``ResourceReference`` inside."""
    found: set[str] = set()
    for item in _walk(value):
        if isinstance(item, OutputValue):
            found.update(item.dependencies)
        elif isinstance(item, ResourceReference):
            found.add(item.urn)
    return found


def mark_like(value: Value, pattern: Value) -> Value:
    """Mark ``value`` secret wherever ``pattern``, walked side by side, is: what a provider does to its outputs."""
    if isinstance(pattern, Secret):
        return secret(strip_secrets(value))
    if isinstance(value, Secret):
        return value
    if isinstance(value, dict) and isinstance(pattern, dict):
        return {key: mark_like(item, pattern[key]) if key in pattern else item for key, item in value.items()}
    if isinstance(value, list) and isinstance(pattern, list):
        return [mark_like(item, pattern[i]) if i < len(pattern) else item for i, item in enumerate(value)]
    return value
