"""What the resource types have: properties, defaults, what forces a replacement; checks and differences from that.

Names, defaults and rules follow pulumi-postgresql 3.18, which wraps cyrilgdn/terraform-provider-postgresql.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lab.engine.providers import CheckFailure, CheckResult, DiffKind, DiffResult, PropertyDiff
from lab.engine.urns import name_of
from lab.engine.values import UNKNOWN, PropertyMap, Value, strip_secrets

DEFAULTS = "__defaults"
"""Names of the inputs that the provider filled in; recorded with the inputs."""

Kind = Literal["string", "integer", "boolean", "set", "list"]

_ZERO: dict[str, Any] = {"string": "", "integer": 0, "boolean": False, "set": [], "list": []}
_PYTHON: dict[str, Any] = {
    "string": (str,),
    "integer": (int, float),
    "boolean": (bool,),
    "set": (list,),
    "list": (list,),
}
_REPLACING: dict[DiffKind, DiffKind] = {
    "add": "add-replace",
    "delete": "delete-replace",
    "update": "update-replace",
}


@dataclass(frozen=True)
class Property:
    """``computed``: when it is not given the server decides, and that is no difference.

    ``least``: smallest number allowed. ``one_of``: the only texts allowed. ``is_written_only``: never read back, never
    a difference.
    """

    kind: Kind = "string"
    required: bool = False
    default: Value = None
    computed: bool = False
    replaces: bool = False
    secret: bool = False
    least: int | None = None
    one_of: tuple[str, ...] = ()
    is_written_only: bool = False
    is_supported: bool = True


@dataclass(frozen=True)
class Shape:
    """A resource type. ``is_named``: ``name`` is made up (resource name and random digits) when it is not given."""

    properties: Mapping[str, Property]
    is_named: bool = False
    deletes_before_replace: bool = False


def _boolean(**more: Any) -> Property:
    return Property("boolean", **more)


_OBJECT_TYPES = (
    "database",
    "function",
    "procedure",
    "routine",
    "schema",
    "sequence",
    "table",
    "foreign_data_wrapper",
    "foreign_server",
    "column",
)
_FIXED = Property(required=True, replaces=True)

ROLE = Shape(
    {
        "name": Property(required=True),
        "password": Property(secret=True),
        "passwordWo": Property(secret=True, is_written_only=True),
        "passwordWoVersion": Property(),
        "encrypted": Property(is_supported=False),
        "roles": Property("set"),
        "searchPaths": Property("list"),
        "encryptedPassword": _boolean(default=True),
        "validUntil": Property(default="infinity"),
        "connectionLimit": Property("integer", default=-1, least=-1),
        "superuser": _boolean(),
        "createDatabase": _boolean(),
        "createRole": _boolean(),
        "idleInTransactionSessionTimeout": Property("integer", least=0),
        "inherit": _boolean(default=True),
        "login": _boolean(),
        "replication": _boolean(),
        "bypassRowLevelSecurity": _boolean(),
        "skipDropRole": _boolean(),
        "skipReassignOwned": _boolean(),
        "statementTimeout": Property("integer", least=0),
        "assumeRole": Property(),
    },
    is_named=True,
)
DATABASE = Shape(
    {
        "name": Property(required=True),
        "owner": Property(computed=True),
        "template": Property(computed=True, replaces=True),
        "encoding": Property(computed=True, replaces=True),
        "lcCollate": Property(computed=True, replaces=True),
        "lcCtype": Property(computed=True, replaces=True),
        "tablespaceName": Property(computed=True),
        "connectionLimit": Property("integer", default=-1, least=-1),
        "allowConnections": _boolean(default=True),
        "isTemplate": _boolean(computed=True),
        "alterObjectOwnership": _boolean(),
    },
    is_named=True,
)
EXTENSION = Shape(
    {
        "name": Property(required=True, replaces=True),
        "schema": Property(computed=True),
        "version": Property(computed=True),
        "database": Property(computed=True, replaces=True),
        "dropCascade": _boolean(),
        "createCascade": _boolean(),
    },
    is_named=True,
)
SCHEMA = Shape(
    {
        "name": Property(required=True),
        "database": Property(computed=True, replaces=True),
        "owner": Property(computed=True),
        "ifNotExists": _boolean(default=True),
        "dropCascade": _boolean(),
        "policies": Property("set", computed=True, is_supported=False),
    },
    is_named=True,
)
GRANT = Shape(
    {
        "role": _FIXED,
        "database": _FIXED,
        "schema": Property(replaces=True),
        "objectType": Property(required=True, replaces=True, one_of=_OBJECT_TYPES),
        "objects": Property("set", replaces=True),
        "columns": Property("set", replaces=True),
        "privileges": Property("set", required=True),
        "withGrantOption": _boolean(replaces=True),
    },
    deletes_before_replace=True,
)
GRANT_ROLE = Shape({"role": _FIXED, "grantRole": _FIXED, "withAdminOption": _boolean(replaces=True)})
DEFAULT_PRIVILEGES = Shape(
    {
        "role": _FIXED,
        "database": _FIXED,
        "owner": _FIXED,
        "schema": Property(replaces=True),
        "objectType": Property(
            required=True, replaces=True, one_of=("table", "sequence", "function", "routine", "type", "schema")
        ),
        "privileges": Property("set", required=True),
        "withGrantOption": _boolean(replaces=True),
    }
)


def check(shape: Shape, urn: str, olds: PropertyMap | None, news: PropertyMap, seed: bytes) -> CheckResult:
    """Defaults and a generated name filled in; what is missing, unknown or of the wrong kind is told."""
    inputs = {key: value for key, value in news.items() if value is not None and key != DEFAULTS}
    filled = []
    for key, described in shape.properties.items():
        if key not in inputs and described.default is not None:
            inputs[key] = described.default
            filled.append(key)
    if shape.is_named and "name" not in inputs:
        inputs["name"] = _old_name(olds) or f"{name_of(urn)}-{hashlib.sha256(seed).hexdigest()[:7]}"
        filled.append("name")
    failures = [
        *(_missing(urn, key) for key, one in shape.properties.items() if one.required and key not in inputs),
        *(failure for key in sorted(inputs) if (failure := _wrong(shape, urn, key, strip_secrets(inputs[key])))),
    ]
    inputs[DEFAULTS] = sorted(filled)
    return CheckResult(inputs, tuple(failures))


def _old_name(olds: PropertyMap | None) -> Value:
    return olds.get("name") if olds and "name" in (olds.get(DEFAULTS) or ()) else None


def _missing(urn: str, key: str) -> CheckFailure:
    return CheckFailure(
        "",
        f'Missing required argument. The argument "{terraform_name(key)}" is required, but no definition was found.. '
        f"Examine values at '{name_of(urn)}.{key}'.",
    )


def _wrong(shape: Shape, urn: str, key: str, value: Value) -> CheckFailure | None:
    described = shape.properties.get(key)
    where = f"Examine values at '{name_of(urn)}.{key}'."
    if described is None:
        return CheckFailure("", f"Invalid or unknown key. {where}")
    if value is UNKNOWN:
        return None
    expected = _PYTHON[described.kind]
    if not isinstance(value, expected) or (described.kind == "integer" and isinstance(value, bool)):
        return CheckFailure("", f"expected a {described.kind}, got a {type(value).__name__}. {where}")
    if described.least is not None and value < described.least:
        return CheckFailure(
            "", f"expected {terraform_name(key)} to be at least ({described.least}), got {value}. {where}"
        )
    if described.one_of and value not in described.one_of:
        allowed = " ".join(f'"{one}"' for one in described.one_of)
        return CheckFailure("", f"expected {terraform_name(key)} to be one of [{allowed}], got {value}. {where}")
    return None


def terraform_name(key: str) -> str:
    """``connectionLimit`` is ``connection_limit``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)


def unsupported(shape: Shape, inputs: PropertyMap) -> list[str]:
    """Properties given that the real provider has and the stand-in has not."""
    return [key for key, one in shape.properties.items() if not one.is_supported and inputs.get(key) not in (None, [])]


def complete(shape: Shape, values: Mapping[str, Value]) -> dict[str, Any]:
    """Every property, without secret marks; those not given have their kind's zero value."""
    plain = strip_secrets(dict(values))
    return {
        key: _ZERO[described.kind] if plain.get(key) is None else plain[key]
        for key, described in shape.properties.items()
    }


def planned(shape: Shape, inputs: PropertyMap, old: PropertyMap | None = None) -> PropertyMap:
    """Outputs as a preview can tell them: what the server decides is unknown, or as it was."""
    outputs: PropertyMap = {}
    for key, described in shape.properties.items():
        if key in inputs and not described.is_written_only:
            outputs[key] = inputs[key]
        elif old is not None:
            outputs[key] = old.get(key)
        elif described.computed:
            outputs[key] = UNKNOWN
        else:
            outputs[key] = None if described.kind in ("set", "list", "string") else _ZERO[described.kind]
    return outputs


def diff(shape: Shape, old_outputs: PropertyMap, new_inputs: PropertyMap, ignored: tuple[str, ...]) -> DiffResult:
    """Live state, as recorded, against what is wanted."""
    old, new = strip_secrets(old_outputs), strip_secrets(new_inputs)
    detailed: dict[str, PropertyDiff] = {}
    for key, described in shape.properties.items():
        if described.is_written_only or key in ignored or (key not in new and described.computed):
            continue
        for path, kind in _differences(key, described, old.get(key), new.get(key)).items():
            detailed[path] = PropertyDiff(_REPLACING[kind] if described.replaces else kind, input_diff=False)
    replaces = tuple(dict.fromkeys(path.split("[")[0] for path, one in detailed.items() if "replace" in one.kind))
    return DiffResult(
        bool(detailed),
        replaces,
        dict(sorted(detailed.items())),
        delete_before_replace=bool(replaces) and _deletes_first(shape, new),
        diffs=tuple(dict.fromkeys(path.split("[")[0] for path in detailed)),
    )


def _deletes_first(shape: Shape, inputs: PropertyMap) -> bool:
    """Two objects of one name cannot be: a name that was not made up makes the old one go first."""
    return shape.deletes_before_replace or (shape.is_named and "name" not in (inputs.get(DEFAULTS) or ()))


def _differences(key: str, described: Property, old: Value, new: Value) -> dict[str, DiffKind]:
    zero = _ZERO[described.kind]
    old = zero if old is None else old
    new = zero if new is None else new
    if new is UNKNOWN:
        return {key: "update"}
    if described.kind == "set" and isinstance(old, list) and isinstance(new, list):
        return {
            **{f"{key}[{index}]": "add" for index, item in enumerate(new) if item is UNKNOWN or item not in old},
            **{f"{key}[{index}]": "delete" for index, item in enumerate(old) if item not in new},
        }
    if old == new:
        return {}
    if old == zero:
        return {key: "add"}
    return {key: "delete" if new == zero and described.kind != "boolean" else "update"}
