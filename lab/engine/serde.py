"""Values on the wire: ``google.protobuf.Struct`` to and from the marks of ``values``.

Source of the signatures: pulumi sdk/go/common/resource (sig), sdk/python runtime/rpc.py.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2

from lab.engine.state import (
    ARCHIVE_SIGNATURE,
    ASSET_SIGNATURE,
    OUTPUT_SIGNATURE,
    REFERENCE_SIGNATURE,
    SECRET_SIGNATURE,
    SIGNATURE,
    UNKNOWN_STRING,
)
from lab.engine.values import (
    UNKNOWN,
    Archive,
    Asset,
    OutputValue,
    PropertyMap,
    ResourceReference,
    Secret,
    Value,
)

# One string for each type the SDKs know an unknown of.
UNKNOWN_STRINGS = frozenset(
    {
        UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)


def read_struct(message: Any) -> PropertyMap:
    """Values of a ``Struct``; ``OutputValue`` marks are kept."""
    return {key: _read(item) for key, item in message.fields.items()}


def _read(message: Any) -> Value:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _read_object(read_struct(message.struct_value))
    if kind == "list_value":
        return [_read(item) for item in message.list_value.values]
    if kind == "string_value":
        text = message.string_value
        return UNKNOWN if len(text) == 36 and text in UNKNOWN_STRINGS else text
    if kind == "number_value":
        number = message.number_value
        return int(number) if number.is_integer() else number
    return message.bool_value if kind == "bool_value" else None


def _read_object(fields: PropertyMap) -> Value:
    signature = fields.get(SIGNATURE)
    if signature is None:
        return fields
    if signature == SECRET_SIGNATURE:
        inner = fields.get("value")
        return inner if isinstance(inner, Secret) else Secret(inner)
    if signature == OUTPUT_SIGNATURE:
        return OutputValue(
            fields.get("value", UNKNOWN),
            bool(fields.get("secret", False)),
            tuple(fields.get("dependencies") or ()),
        )
    if signature == REFERENCE_SIGNATURE:
        identity = fields.get("id")
        return ResourceReference(
            fields["urn"], UNKNOWN if identity == "" else identity, fields.get("packageVersion", "")
        )
    if signature == ASSET_SIGNATURE:
        return Asset(fields.get("text"), fields.get("path"), fields.get("uri"), fields.get("hash", ""))
    if signature == ARCHIVE_SIGNATURE:
        return Archive(fields.get("assets"), fields.get("path"), fields.get("uri"), fields.get("hash", ""))
    raise ValueError(f"unknown signature {signature!r} in a message of the program")


def write_struct(values: PropertyMap, *, secrets: bool = True) -> Any:
    """A ``Struct``. Without ``secrets`` the marks are left out, for a caller that does not understand them."""
    message = struct_pb2.Struct()
    for key, value in values.items():
        _write(message.fields[key], value, secrets)
    return message


def _write(message: Any, value: Value, secrets: bool) -> None:
    if isinstance(value, dict):
        fields = message.struct_value.fields
        message.struct_value.SetInParent()
        for key, item in value.items():
            _write(fields[key], item, secrets)
    elif isinstance(value, list | tuple):
        message.list_value.SetInParent()
        for item in value:
            _write(message.list_value.values.add(), item, secrets)
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        message.number_value = value
    elif value is None:
        message.null_value = 0
    else:
        _write_mark(message, value, secrets)


def _write_mark(message: Any, value: Value, secrets: bool) -> None:
    if value is UNKNOWN:
        message.string_value = UNKNOWN_STRING
    elif isinstance(value, Secret):
        _write(message, {SIGNATURE: SECRET_SIGNATURE, "value": value.value} if secrets else value.value, secrets)
    elif isinstance(value, OutputValue):
        _write(message, _output_fields(value), secrets)
    elif isinstance(value, ResourceReference):
        _write(message, _reference_fields(value), secrets)
    elif isinstance(value, Asset):
        _write(message, {SIGNATURE: ASSET_SIGNATURE, **_given(value)}, secrets)
    elif isinstance(value, Archive):
        _write(message, {SIGNATURE: ARCHIVE_SIGNATURE, **_given(value)}, secrets)
    else:
        raise TypeError(f"a {type(value).__name__} is not a property value")


def _output_fields(value: OutputValue) -> PropertyMap:
    fields: PropertyMap = {SIGNATURE: OUTPUT_SIGNATURE}
    if value.value is not UNKNOWN:
        fields["value"] = value.value
    if value.secret:
        fields["secret"] = True
    if value.dependencies:
        fields["dependencies"] = list(value.dependencies)
    return fields


def _reference_fields(value: ResourceReference) -> PropertyMap:
    fields: PropertyMap = {SIGNATURE: REFERENCE_SIGNATURE, "urn": value.urn}
    if value.id is not None:
        fields["id"] = "" if value.id is UNKNOWN else value.id
    if value.package_version:
        fields["packageVersion"] = value.package_version
    return fields


def _given(value: Asset | Archive) -> PropertyMap:
    return {name: item for name, item in vars(value).items() if item not in (None, "")}
