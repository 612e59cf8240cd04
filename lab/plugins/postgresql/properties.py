"""The shape of a resource type: properties, defaults, replacements. Checks, plans and differences derive from it.

Names, defaults and rules are those of pulumi-postgresql 3.18, which wraps cyrilgdn/terraform-provider-postgresql.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lab.plugins.postgresql.server import Session
from lab.plugins.postgresql.wire import UNKNOWN, Values, provider, terraform_name

DEFAULTS = "__defaults"
"""Key of the names of inputs that the provider filled in; it is recorded with the inputs."""

Type = Literal["string", "integer", "boolean", "array"]

ZERO: Mapping[Type, Any] = {"string": "", "integer": 0, "boolean": False, "array": []}
PYTHON: Mapping[Type, Any] = {"string": str, "integer": int, "boolean": bool, "array": list}


@dataclass(frozen=True)
class Property:
    """`is_computed`: the server decides when it is not given, and that is no difference.

    `is_write_only`: never read back, never a difference. `is_set`: the order of the array does not matter.
    `empty`: how an empty text or array is recorded.
    """

    type: Type = "string"
    is_required: bool = False
    default: Any = None
    is_computed: bool = False
    replaces: bool = False
    is_secret: bool = False
    is_write_only: bool = False
    is_set: bool = False
    is_supported: bool = True
    minimum: int | None = None
    choices: tuple[str, ...] = ()
    empty: Any = None

    def record(self, value: Any) -> Any:
        if value in (None, "", []):
            return self.empty if self.type in ("string", "array") else ZERO[self.type]
        return value


@dataclass(frozen=True)
class Resource:
    """A resource type. `token` is the last part of Pulumi's; states have all properties, with plain values.

    `read` gives what is there now, or None; `identity` makes the id, or names the properties that it consists of.
    `is_named`: without `name` the provider makes one of the resource's name and random digits.
    `is_transactional`: its statements may be in a transaction.
    """

    token: str
    properties: Mapping[str, Property]
    create: Callable[[Session, Values], None]
    read: Callable[[Session, Values], Values | None]
    update: Callable[[Session, Values, Values], None]
    delete: Callable[[Session, Values], None]
    identity: tuple[str, ...] | Callable[[Values], str]
    is_named: bool = False
    is_transactional: bool = True
    deletes_before_replace: bool = False


def flag(**more: Any) -> Property:
    return Property("boolean", **more)


def number(**more: Any) -> Property:
    return Property("integer", **more)


def set_of_texts(**more: Any) -> Property:
    return Property("array", is_set=True, **more)


FIXED = Property(is_required=True, replaces=True)


def identity(resource: Resource, state: Values) -> str:
    known = resource.identity
    return known(state) if callable(known) else ".".join(str(state[key]) for key in known)


def secrets(resource: Resource) -> frozenset[str]:
    return frozenset(key for key, one in resource.properties.items() if one.is_secret)


def check(resource: Resource, name: str, olds: Values, news: Values, seed: bytes) -> tuple[Values, list[str]]:
    """Inputs with defaults and a generated name, and their problems. `olds` is empty for a new resource."""
    inputs = {key: value for key, value in news.items() if value is not None and key != DEFAULTS}
    filled = {key: one.default for key, one in resource.properties.items() if one.default is not None}
    if resource.is_named:
        digits = hashlib.sha256(seed or os.urandom(16)).hexdigest()[:7]
        filled["name"] = olds["name"] if "name" in (olds.get(DEFAULTS) or ()) else f"{name}-{digits}"
    filled = {key: value for key, value in filled.items() if key not in inputs}
    inputs |= filled
    failures = [
        f'Missing required argument. The argument "{terraform_name(key)}" is required, but no definition was found.. '
        f"Examine values at '{name}.{key}'."
        for key, one in resource.properties.items()
        if one.is_required and key not in inputs
    ]
    for key in sorted(inputs):
        reason = _wrong(key, resource.properties.get(key), inputs[key])
        failures += [f"{reason}. Examine values at '{name}.{key}'."] if reason else []
    return inputs | {DEFAULTS: sorted(filled)}, failures


def _wrong(key: str, known: Property | None, value: Any) -> str:
    if known is None:
        return "Invalid or unknown key"
    if value is UNKNOWN:
        return ""
    if not known.is_supported and value != []:
        return f"'{key}' is not supported by the lab's stand-in for the postgresql provider"
    if type(value) is not PYTHON[known.type]:
        return f"expected a {known.type}, got a {type(value).__name__}"
    if known.minimum is not None and int(value) < known.minimum:
        return f"expected {terraform_name(key)} to be at least ({known.minimum}), got {value}"
    if known.choices and value not in known.choices:
        allowed = " ".join(f'"{one}"' for one in known.choices)
        return f"expected {terraform_name(key)} to be one of [{allowed}], got {value}"
    return ""


def complete(resource: Resource, values: Mapping[str, Any]) -> Values:
    """Every property; one that is not given has the zero value of its type."""
    return {key: ZERO[one.type] if values.get(key) is None else values[key] for key, one in resource.properties.items()}


def plan(resource: Resource, inputs: Values, old: Values | None = None) -> Values:
    """The outputs that a preview knows. Values that the server decides are unknown, or as before."""
    outputs = {
        key: (UNKNOWN if old is None else old.get(key)) if one.is_computed else one.record(None)
        for key, one in resource.properties.items()
    }
    given = {key for key, one in resource.properties.items() if key in inputs and not one.is_write_only}
    return outputs | {key: inputs[key] for key in given}


def record(resource: Resource, live: Values) -> Values:
    return {key: one.record(live[key]) for key, one in resource.properties.items()}


def follow(resource: Resource, inputs: Values, old: Values, new: Values) -> Values:
    """The old inputs, changed where the outputs have changed, so that they give the outputs `new`."""
    if not inputs:
        return {key: value for key, value in new.items() if value not in (None, [], "")}
    changed = {key for key in resource.properties if key in inputs and key in old and new.get(key) != old[key]}
    return inputs | {key: new[key] for key in changed}


def diff(resource: Resource, old: Values, new: Values, ignored: Collection[str]) -> Any:
    """Compare the recorded outputs with the wanted inputs, as a `DiffResponse`."""
    detailed = {}
    for key, one in resource.properties.items():
        if one.is_write_only or key in ignored or (key not in new and one.is_computed):
            continue
        for path, kind in _differences(key, one, old.get(key), new.get(key)).items():
            # In the protocol the kind of a difference that replaces is the next one.
            detailed[path] = provider.PropertyDiff(kind=kind + one.replaces)
    changed = list(dict.fromkeys(path.partition("[")[0] for path in detailed))
    replaces = [key for key in changed if resource.properties[key].replaces]
    # Two objects cannot have one name; a generated name changes with each replacement.
    is_name_fixed = resource.is_named and "name" not in (new.get(DEFAULTS) or ())
    return provider.DiffResponse(
        changes=provider.DiffResponse.DIFF_SOME if detailed else provider.DiffResponse.DIFF_NONE,
        replaces=replaces,
        deleteBeforeReplace=bool(replaces) and (resource.deletes_before_replace or is_name_fixed),
        diffs=changed,
        detailedDiff=detailed,
        hasDetailedDiff=True,
    )


def _differences(key: str, one: Property, old: Any, new: Any) -> dict[str, int]:
    add, delete, update = (provider.PropertyDiff.Kind.Value(kind) for kind in ("ADD", "DELETE", "UPDATE"))
    zero = ZERO[one.type]
    old = zero if old is None else old
    new = zero if new is None else new
    if new is UNKNOWN:
        return {key: update}
    if one.is_set:
        return {f"{key}[{index}]": add for index, item in enumerate(new) if item not in old} | {
            f"{key}[{index}]": delete for index, item in enumerate(old) if item not in new
        }
    if old == new:
        return {}
    if old == zero:
        return {key: add}
    return {key: delete if new == zero and one.type != "boolean" else update}


def schema(resource: Resource) -> Values:
    """The type's schema, as far as code generators need it."""
    array = {"items": {"type": "string"}}
    inputs = {
        key: {"type": one.type} | (array if one.type == "array" else {}) for key, one in resource.properties.items()
    }
    return {"inputProperties": inputs}
