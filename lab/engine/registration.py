"""Registration options: from the wire, through transforms, to a goal of the engine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab.engine import protocol
from lab.engine.failures import NotSupported
from lab.engine.providers import CustomTimeouts, ResourceOptions
from lab.engine.urns import make_urn, name_of
from lab.engine.values import PropertyMap, output_dependencies, resolve_outputs

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def read_duration(text: str) -> float:
    """Seconds of a Go duration such as ``5m30s``; "" is 0. A plain number is taken as seconds."""
    if not text:
        return 0
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        return float(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def write_duration(seconds: float) -> str:
    return f"{seconds:g}s" if seconds else ""


def read_options(request: Any) -> ResourceOptions:
    """Options of a ``RegisterResourceRequest``. An option that the stand-in lacks is refused by its name."""
    for option, given in (
        ("import_", request.importId),
        ("hooks", request.hooks.ByteSize()),
        ("replace_with", request.replace_with),
        ("replacement_trigger", request.replacement_trigger.WhichOneof("kind") not in (None, "null_value")),
        ("plugin_download_url", request.pluginDownloadURL),
        ("state_migrations", request.state_migrations),
    ):
        if given:
            raise NotSupported(f"the resource option '{option}' (of '{request.name}')")
    dbr = request.deleteBeforeReplace if request.deleteBeforeReplaceDefined or request.deleteBeforeReplace else None
    return ResourceOptions(
        parent=request.parent,
        depends_on=tuple(request.dependencies),
        property_dependencies={key: tuple(item.urns) for key, item in request.propertyDependencies.items()},
        provider=request.provider,
        providers=dict(request.providers),
        protect=request.protect if request.HasField("protect") else None,
        retain_on_delete=request.retainOnDelete if request.HasField("retainOnDelete") else None,
        ignore_changes=tuple(request.ignoreChanges),
        replace_on_changes=tuple(request.replaceOnChanges),
        delete_before_replace=dbr,
        additional_secret_outputs=tuple(request.additionalSecretOutputs),
        custom_timeouts=_read_timeouts(request.customTimeouts),
        deleted_with=request.deletedWith,
        version=request.version,
        aliases=(*request.aliases, *(protocol.alias.Alias(urn=urn) for urn in request.aliasURNs)),
        transforms=tuple(request.transforms),
    )


def _read_timeouts(message: Any) -> CustomTimeouts:
    return CustomTimeouts(read_duration(message.create), read_duration(message.update), read_duration(message.delete))


def write_transform_options(options: ResourceOptions) -> Any:
    message = protocol.resource.TransformResourceOptions(
        depends_on=options.depends_on,
        ignore_changes=options.ignore_changes,
        replace_on_changes=options.replace_on_changes,
        version=options.version,
        aliases=options.aliases,
        provider=options.provider,
        deleted_with=options.deleted_with,
        additional_secret_outputs=options.additional_secret_outputs,
        providers=options.providers,
    )
    for name in ("protect", "retain_on_delete", "delete_before_replace"):
        value = getattr(options, name)
        if value is not None:
            setattr(message, name, value)
    for name in ("create", "update", "delete"):
        seconds = getattr(options.custom_timeouts, name)
        if seconds:
            setattr(message.custom_timeouts, name, write_duration(seconds))
    return message


def apply_transform_options(options: ResourceOptions, message: Any) -> ResourceOptions:
    """``options`` with what transforms may change."""
    return replace(
        options,
        depends_on=tuple(message.depends_on),
        ignore_changes=tuple(message.ignore_changes),
        replace_on_changes=tuple(message.replace_on_changes),
        version=message.version,
        aliases=tuple(message.aliases),
        provider=message.provider,
        providers=dict(message.providers),
        deleted_with=message.deleted_with,
        additional_secret_outputs=tuple(message.additional_secret_outputs),
        protect=message.protect if message.HasField("protect") else None,
        retain_on_delete=message.retain_on_delete if message.HasField("retain_on_delete") else None,
        delete_before_replace=message.delete_before_replace if message.HasField("delete_before_replace") else None,
        custom_timeouts=_read_timeouts(message.custom_timeouts),
    )


@dataclass(frozen=True)
class Inputs:
    """Inputs without output values, and what each property and the whole depend on."""

    values: PropertyMap
    property_dependencies: Mapping[str, Sequence[str]]
    dependencies: tuple[str, ...]


def read_inputs(values: PropertyMap, options: ResourceOptions) -> Inputs:
    per_property = {
        key: tuple(dict.fromkeys([*options.property_dependencies.get(key, ()), *output_dependencies(value)]))
        for key, value in values.items()
    }
    every = [urn for urns in per_property.values() for urn in urns]
    resolved = {key: resolve_outputs(value) for key, value in values.items()}
    return Inputs(resolved, per_property, tuple(dict.fromkeys([*options.depends_on, *every])))


def alias_urns(options: ResourceOptions, *, stack: str, project: str, type: str, name: str) -> tuple[str, ...]:
    """URNs that the resource may have had."""
    found = []
    for alias in options.aliases:
        if not isinstance(alias, protocol.alias.Alias):
            continue
        if alias.urn:
            found.append(alias.urn)
            continue
        spec = alias.spec
        parent = spec.parentUrn or ("" if spec.noParent else options.parent)
        found.append(
            make_urn(
                spec.stack or stack,
                spec.project or project,
                parent,
                spec.type or type,
                _alias_name(spec.name or name, name, options.parent, parent),
            )
        )
    return tuple(dict.fromkeys(found))


def _alias_name(wanted: str, name: str, parent: str, alias_parent: str) -> str:
    """A child named after its parent was named after the parent's old name then."""
    if wanted != name or not parent or not alias_parent or parent == alias_parent:
        return wanted
    prefix = name_of(parent)
    return name_of(alias_parent) + name[len(prefix) :] if prefix and name.startswith(prefix) else name
