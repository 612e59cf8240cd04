"""Resources and snapshots as the back ends keep them (deployment schema version 3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from lab.engine import VERSION
from lab.engine.urns import provider_urn
from lab.engine.values import UNKNOWN, Archive, Asset, PropertyMap, ResourceReference, Secret, Value

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a type tag of the format
REFERENCE_SIGNATURE = "5cf8f73096256a8f31e491e813e4eb8e"
OUTPUT_SIGNATURE = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
ASSET_SIGNATURE = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE_SIGNATURE = "0def7320c3a5731c473e5ecbe6d01bc7"
UNKNOWN_STRING = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

Encrypt = Callable[[str], str]
Decrypt = Callable[[str], str]


def now() -> str:
    """RFC 3339, UTC, with fractions."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def encode(value: Value, encrypt: Encrypt) -> Any:
    """JSON form of a value. Secrets become ciphertexts of their JSON text."""
    if isinstance(value, Secret):
        text = json.dumps(encode(value.value, encrypt), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        return {SIGNATURE: SECRET_SIGNATURE, "ciphertext": encrypt(text)}
    if isinstance(value, dict):
        return {key: encode(value[key], encrypt) for key in sorted(value)}
    if isinstance(value, list):
        return [encode(item, encrypt) for item in value]
    return _encode_mark(value, encrypt)


def _encode_mark(value: Value, encrypt: Encrypt) -> Any:
    if value is UNKNOWN:
        return UNKNOWN_STRING
    if isinstance(value, ResourceReference):
        reference = {SIGNATURE: REFERENCE_SIGNATURE, "urn": value.urn}
        if value.id is not None:
            reference["id"] = "" if value.id is UNKNOWN else value.id
        if value.package_version:
            reference["packageVersion"] = value.package_version
        return reference
    if isinstance(value, Asset):
        return {SIGNATURE: ASSET_SIGNATURE, **_given(hash=value.hash, text=value.text, path=value.path, uri=value.uri)}
    if isinstance(value, Archive):
        content = None if value.assets is None else encode(dict(value.assets), encrypt)
        return {
            SIGNATURE: ARCHIVE_SIGNATURE,
            **_given(hash=value.hash, assets=content, path=value.path, uri=value.uri),
        }
    return value


def _given(**fields: Any) -> dict[str, Any]:
    return {key: item for key, item in fields.items() if item not in (None, "")}


def decode(value: Any, decrypt: Decrypt) -> Value:
    """The reverse of ``encode``. Plain-text secrets (an export with ``--show-secrets``) are read too."""
    if isinstance(value, list):
        return [decode(item, decrypt) for item in value]
    if not isinstance(value, dict):
        return UNKNOWN if value == UNKNOWN_STRING else value
    signature = value.get(SIGNATURE)
    if signature is None:
        return {key: decode(item, decrypt) for key, item in value.items()}
    if signature == SECRET_SIGNATURE:
        text = value["plaintext"] if "plaintext" in value else decrypt(value["ciphertext"])
        return Secret(decode(json.loads(text), decrypt))
    if signature == REFERENCE_SIGNATURE:
        return ResourceReference(value["urn"], value.get("id"), value.get("packageVersion", ""))
    if signature == ASSET_SIGNATURE:
        return Asset(value.get("text"), value.get("path"), value.get("uri"), value.get("hash", ""))
    if signature == ARCHIVE_SIGNATURE:
        assets = {key: decode(item, decrypt) for key, item in value["assets"].items()} if "assets" in value else None
        return Archive(assets, value.get("path"), value.get("uri"), value.get("hash", ""))
    raise ValueError(f"unknown signature {signature!r} in a state file")


@dataclass
class ResourceState:
    """One resource of a snapshot. ``extra`` keeps fields that only the real CLI writes."""

    urn: str
    type: str
    custom: bool
    delete: bool = False
    id: str = ""
    inputs: PropertyMap = field(default_factory=dict)
    outputs: PropertyMap = field(default_factory=dict)
    parent: str = ""
    protect: bool = False
    external: bool = False
    dependencies: list[str] = field(default_factory=list)
    init_errors: list[str] = field(default_factory=list)
    provider: str = ""
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    pending_replacement: bool = False
    additional_secret_outputs: list[str] = field(default_factory=list)
    custom_timeouts: dict[str, float] = field(default_factory=dict)
    retain_on_delete: bool = False
    deleted_with: str = ""
    created: str = ""
    modified: str = ""
    ignore_changes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def copy(self, **changes: Any) -> ResourceState:
        return replace(self, **changes)

    def dependency_urns(self) -> Iterator[str]:
        """Everything that has to exist while this resource does; may repeat."""
        yield from self.dependencies
        for urns in self.property_dependencies.values():
            yield from urns
        if self.parent:
            yield self.parent
        if self.provider:
            yield provider_urn(self.provider)
        if self.deleted_with:
            yield self.deleted_with


# Python name, JSON name, in the order of the file. ``urn``, ``custom`` and ``type`` are always written.
_FIELDS: tuple[tuple[str, str], ...] = (
    ("urn", "urn"),
    ("custom", "custom"),
    ("delete", "delete"),
    ("id", "id"),
    ("type", "type"),
    ("inputs", "inputs"),
    ("outputs", "outputs"),
    ("parent", "parent"),
    ("protect", "protect"),
    ("external", "external"),
    ("dependencies", "dependencies"),
    ("init_errors", "initErrors"),
    ("provider", "provider"),
    ("property_dependencies", "propertyDependencies"),
    ("pending_replacement", "pendingReplacement"),
    ("additional_secret_outputs", "additionalSecretOutputs"),
    ("custom_timeouts", "customTimeouts"),
    ("retain_on_delete", "retainOnDelete"),
    ("deleted_with", "deletedWith"),
    ("created", "created"),
    ("modified", "modified"),
    ("ignore_changes", "ignoreChanges"),
)
_ALWAYS = {"urn", "custom", "type"}
_JSON_NAMES = {json_name for _, json_name in _FIELDS}


def encode_resource(state: ResourceState, encrypt: Encrypt) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, json_name in _FIELDS:
        value = getattr(state, name)
        if not value and name not in _ALWAYS:
            continue
        document[json_name] = encode(value, encrypt) if name in ("inputs", "outputs") else value
    return {**document, **state.extra}


def decode_resource(document: dict[str, Any], decrypt: Decrypt) -> ResourceState:
    known: dict[str, Any] = {}
    for name, json_name in _FIELDS:
        if document.get(json_name) is None:
            continue
        value = document[json_name]
        known[name] = decode(value, decrypt) if name in ("inputs", "outputs") else value
    return ResourceState(**known, extra={key: item for key, item in document.items() if key not in _JSON_NAMES})


@dataclass
class PendingOperation:
    """``type``: creating, updating, deleting, reading."""

    resource: ResourceState
    type: str


@dataclass
class Snapshot:
    """A stack's resources in an order in which every resource follows what it depends on."""

    resources: list[ResourceState] = field(default_factory=list)
    pending: list[PendingOperation] = field(default_factory=list)
    secrets_provider: dict[str, Any] = field(default_factory=dict)
    """``type`` and ``state`` of the secrets manager, empty for a stack that has never been updated."""


def encode_deployment(snapshot: Snapshot, encrypt: Encrypt) -> dict[str, Any]:
    """The ``deployment`` of an export and the ``latest`` of a checkpoint file."""
    document: dict[str, Any] = {
        "manifest": {"time": now(), "magic": hashlib.sha256(VERSION.encode()).hexdigest(), "version": VERSION}
    }
    if snapshot.secrets_provider:
        document["secrets_providers"] = snapshot.secrets_provider
    if snapshot.resources:
        document["resources"] = [encode_resource(state, encrypt) for state in snapshot.resources]
    if snapshot.pending:
        document["pending_operations"] = [
            {"resource": encode_resource(operation.resource, encrypt), "type": operation.type}
            for operation in snapshot.pending
        ]
    document["metadata"] = {}
    return document


def decode_deployment(document: dict[str, Any], decrypt: Decrypt) -> Snapshot:
    return Snapshot(
        [decode_resource(item, decrypt) for item in document.get("resources") or ()],
        [
            PendingOperation(decode_resource(item["resource"], decrypt), item["type"])
            for item in document.get("pending_operations") or ()
        ],
        dict(document.get("secrets_providers") or {}),
    )
