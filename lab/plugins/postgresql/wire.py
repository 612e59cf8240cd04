"""Pulumi's messages, and property values as they are inside them.

Every property of this provider is a text, a number, a boolean or a list of texts, so a property is secret as a whole:
`read` separates the values from the names of the secret ones and `write` marks those names again.
Source of the signatures: pulumi sdk/go/common/resource/sig.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from google.protobuf import struct_pb2

Values = dict[str, Any]

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - only marks a secret
OUTPUT_SIGNATURE = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNKNOWN_TEXT = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


class Unknown:
    """A value that is not known before the update; compare with `is UNKNOWN`."""

    def __repr__(self) -> str:
        return "[unknown]"


UNKNOWN: Final = Unknown()


def _load(*names: str) -> list[Any]:
    """Import modules of `pulumi.runtime.proto` without the SDK, as `import pulumi` takes 0.4 s and 67 MB.

    The generated modules import each other only. While they load, empty modules that know where the files are take the
    place of the two packages above them.
    """
    found = importlib.util.find_spec("pulumi")
    if found is None or found.origin is None:
        raise ImportError("the Pulumi SDK for Python is not installed in this environment; run `uv sync`")
    folder = Path(found.origin).parent
    placeholders = {"pulumi": folder, "pulumi.runtime": folder / "runtime"} if "pulumi" not in sys.modules else {}
    for name, path in placeholders.items():
        module = ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module
    try:
        return [importlib.import_module(f"pulumi.runtime.proto.{name}") for name in names]
    finally:
        for name in placeholders:
            del sys.modules[name]


provider, plugin, engine, status = _load("provider_pb2", "plugin_pb2", "engine_pb2", "status_pb2")


def read(message: Any) -> tuple[Values, frozenset[str]]:
    """Read the values of a `Struct`, and the names of those that are secret or contain a secret."""
    values: Values = {}
    secrets = set()
    for key, item in message.fields.items():
        values[key], is_secret = _read(item)
        if is_secret:
            secrets.add(key)
    return values, frozenset(secrets)


def _read(message: Any) -> tuple[Any, bool]:
    kind = message.WhichOneof("kind")
    if kind == "list_value":
        items = [_read(item) for item in message.list_value.values]
        return [value for value, _ in items], any(is_secret for _, is_secret in items)
    if kind == "struct_value":
        fields, secrets = read(message.struct_value)
        signature = fields.get(SIGNATURE)
        if signature == SECRET_SIGNATURE:
            return fields.get("value"), True
        if signature == OUTPUT_SIGNATURE:
            return fields.get("value", UNKNOWN), bool(secrets or fields.get("secret"))
        return fields, bool(secrets)
    if kind == "number_value":
        number = message.number_value
        return (int(number) if number.is_integer() else number), False
    if kind == "string_value":
        return UNKNOWN if message.string_value == UNKNOWN_TEXT else message.string_value, False
    return (message.bool_value if kind == "bool_value" else None), False


def write(values: Values, secrets: Collection[str] = ()) -> Any:
    """Make a `Struct` whose properties `secrets` are marked as secret."""
    message = struct_pb2.Struct()
    for key, value in values.items():
        plain = _plain(value)
        message.update({key: {SIGNATURE: SECRET_SIGNATURE, "value": plain} if key in secrets else plain})
    return message


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return UNKNOWN_TEXT if value is UNKNOWN else value


def terraform_name(key: str) -> str:
    """The Terraform name: `connection_limit` for `connectionLimit`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
