"""Inputs in the form the server gives back, and live objects cut to the shape of inputs: what a diff may compare."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.discovery import is_built_in
from lab.engine.providers.kubernetes.objects import api_version_of, is_definition, is_secret
from lab.engine.providers.kubernetes.quantities import canonical_quantities
from lab.engine.values import Secret, has_unknowns, strip_secrets

READ_ONLY = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
)
"""``metadata`` fields that a program cannot set."""

_DASHED = (
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
_TO_DASH = {name.replace("-", "_"): name for name in _DASHED}
_TO_UNDERSCORE = {name: under for under, name in _TO_DASH.items()}


def to_object(properties: Any) -> Object:
    """Properties as the server wants them: no secret marks, no nulls, dashes in schema extensions. A deep copy."""
    converted = _convert(strip_secrets(properties))
    return converted if isinstance(converted, dict) else {}


def _convert(value: Any) -> Any:
    if isinstance(value, dict):
        return {_TO_DASH.get(key, key): _convert(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_convert(item) for item in value]
    return value


def to_properties(obj: Any) -> Any:
    """The other way round, for outputs: the SDK's typed classes expect underscores."""
    if isinstance(obj, dict):
        return {_TO_UNDERSCORE.get(key, key): to_properties(item) for key, item in obj.items()}
    if isinstance(obj, list):
        return [to_properties(item) for item in obj]
    return obj


def normalize(obj: Object) -> Object:
    """Change ``obj`` (and return it) so that what means the same reads the same.

    ``stringData`` becomes ``data``, base64 is rewritten, quantities are canonical, read-only metadata is removed. With
    unknown values only the last is done.
    """
    if not has_unknowns(obj) and is_built_in(api_version_of(obj)):
        if is_definition(obj):
            _normalize_definition(obj)
        elif is_secret(obj):
            _normalize_secret(obj)
        else:
            obj.update(canonical_quantities({key: item for key, item in obj.items() if key != "metadata"}))
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        for key in READ_ONLY:
            metadata.pop(key, None)
    return obj


def _normalize_definition(obj: Object) -> None:
    obj.pop("status", None)
    spec = obj.get("spec")
    if isinstance(spec, dict) and spec.get("preserveUnknownFields") is False:
        del spec["preserveUnknownFields"]


def _normalize_secret(obj: Object) -> None:
    strings = obj.get("stringData")
    data = dict(obj.get("data") or {})
    if isinstance(strings, dict) and strings:
        data.update({key: base64.b64encode(str(item).encode()).decode() for key, item in strings.items()})
        del obj["stringData"]
    if data:
        obj["data"] = {key: _rewritten(item) for key, item in data.items()}


def _rewritten(encoded: Any) -> Any:
    try:
        return base64.b64encode(base64.b64decode(encoded, validate=False)).decode()
    except (binascii.Error, TypeError, ValueError):
        return encoded


def prune(source: Any, shape: Any) -> Any:
    """Keep of ``source`` what ``shape`` has too: maps by key, lists by position (no longer than the shape)."""
    if isinstance(source, dict) and isinstance(shape, dict):
        return {key: prune(item, shape[key]) for key, item in source.items() if key in shape}
    if isinstance(source, list) and isinstance(shape, list):
        if not source or not shape or type(source[0]) is not type(shape[0]):
            return [] if not source or not shape else source
        return [prune(item, like) for item, like in zip(source, shape, strict=False)]
    return source


def with_dropped(pruned: Any, shape: Any) -> Any:
    """``pruned`` with the empty values that ``shape`` gives and the server does not store."""
    if isinstance(pruned, dict) and isinstance(shape, dict):
        kept = {key: with_dropped(item, shape.get(key)) for key, item in pruned.items()}
        return kept | {key: item for key, item in shape.items() if key not in kept and item in (False, 0, "", [], {})}
    if isinstance(pruned, list) and isinstance(shape, list):
        return [with_dropped(item, shape[i]) if i < len(shape) else item for i, item in enumerate(pruned)]
    return pruned


def mark_secrets(outputs: Any, inputs: Any) -> None:
    """Copy secretness from ``inputs`` to ``outputs`` in place; of a Secret, ``data`` and ``stringData`` always.

    Maps are walked; a list with any secret in it becomes one secret, because servers may reorder lists.
    """
    if not isinstance(outputs, dict):
        return
    if outputs.get("kind") == "Secret":
        for key in ("data", "stringData"):
            if key in outputs:
                outputs[key] = _secret(outputs[key])
        return
    if not isinstance(inputs, dict):
        return
    for key, item in inputs.items():
        if key not in outputs:
            continue
        if isinstance(outputs[key], dict) and isinstance(item, dict):
            mark_secrets(outputs[key], item)
        elif _holds_secret(item):
            outputs[key] = _secret(outputs[key])


def _secret(value: Any) -> Any:
    return value if isinstance(value, Secret) else Secret(strip_secrets(value))


def _holds_secret(value: Any) -> bool:
    if isinstance(value, Secret):
        return True
    if isinstance(value, dict):
        return any(_holds_secret(item) for item in value.values())
    return isinstance(value, list) and any(_holds_secret(item) for item in value)


def checkpoint(inputs: Object, live: Object, marks: Any, initial_version: str, manager: str) -> dict[str, Any]:
    """Outputs as they are recorded: the live object, the inputs that made it, and what the provider must remember."""
    outputs: dict[str, Any] = to_properties(live)
    recorded = to_properties(inputs)
    mark_secrets(outputs, marks)
    mark_secrets(recorded, marks)
    return {
        **outputs,
        "__inputs": recorded,
        "__initialApiVersion": initial_version,
        "__fieldManager": manager,
    }


def read_checkpoint(outputs: Any) -> tuple[Object, Object]:
    """Inputs and live object of recorded outputs."""
    live = to_object(outputs)
    inputs = live.pop("__inputs", {})
    live.pop("__initialApiVersion", None)
    live.pop("__fieldManager", None)
    return inputs, live
