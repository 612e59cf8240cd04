"""YAML manifests as resources: read, complete and order them, and register each with the engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import yaml

from lab.engine.providers import MonitorHandle, ProviderError, RegisteredResource, ResourceOptions
from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.discovery import (
    Discovery,
    NoMatch,
    canonical_version,
    group_of,
    namespaced_by_table,
)
from lab.engine.providers.kubernetes.objects import (
    SKIP_AWAIT,
    annotate,
    api_version_of,
    is_definition,
    is_secret,
    kind_of,
    name_of,
    namespace_of,
    pluck,
    qualified_name,
    text,
)
from lab.engine.values import ResourceReference, Secret

DEPENDS_ON = "config.kubernetes.io/depends-on"
AT_ONCE = 32
"""Objects of one component that are dealt with side by side."""

_FIRST = (
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
)
_LAST = ("ValidatingWebhookConfiguration",)


class ManifestLoader(yaml.CSafeLoader):
    """YAML as Go's Kubernetes libraries read it: no dates, no base-60 numbers, ``1e3`` is a number."""


ManifestLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", "yYnNtTfFoO"),
    (
        "float",
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$",
        "-+0123456789.",
    ),
    ("int", r"^[-+]?(?:0b[01]+|0x[0-9a-fA-F]+|0o?[0-7]+|0|[1-9][0-9_]*)$", "-+0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
):
    ManifestLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def parse_manifests(document: str) -> list[Object]:
    """Every non-empty object of a YAML stream. Raises ``ProviderError``."""
    try:
        parsed = list(yaml.load_all(document, Loader=ManifestLoader))
    except yaml.YAMLError as error:
        raise ProviderError(f"decoding YAML: {error}") from error
    objects = [one for one in parsed if one]
    for one in objects:
        if not isinstance(one, dict):
            raise ProviderError(f"decoding YAML: expected an object, found {type(one).__name__}")
    return objects


def expand_lists(objects: Iterable[Object]) -> list[Object]:
    """Lists (``v1/List``, ``ConfigMapList``) become their items."""
    found: list[Object] = []
    for obj in objects:
        if kind_of(obj).endswith("List") and isinstance(obj.get("items"), list):
            found += expand_lists(obj["items"])
        else:
            found.append(obj)
    return found


def complete(objects: Iterable[Object], namespace: str, discovery: Discovery) -> tuple[list[Object], list[str]]:
    """Objects with the default namespace where one belongs, and the kinds of which that is not known.

    Raises ``ProviderError`` for an object without kind, version or name.
    """
    completed = expand_lists(objects)
    definitions = {
        _defined_kind(obj): pluck(obj, "spec", "scope") == "Namespaced" for obj in completed if is_definition(obj)
    }
    unresolved: list[str] = []
    for obj in completed:
        if not kind_of(obj) or not api_version_of(obj):
            raise ProviderError(f"Kubernetes resources require a kind and apiVersion: `{_shown(obj)}`")
        if not name_of(obj):
            raise ProviderError(f"Kubernetes resources require a .metadata.name: `{_shown(obj)}`")
        obj["apiVersion"] = canonical_version(api_version_of(obj))
        if namespace_of(obj):
            continue
        scope = _scope(obj, definitions, discovery)
        if scope is None:
            unresolved.append(f"{api_version_of(obj)}, Kind={kind_of(obj)}")
        elif scope:
            obj["metadata"]["namespace"] = namespace
    return completed, sorted(set(unresolved))


def unresolved_warning(kinds: Sequence[str]) -> str:
    return (
        "Unable to determine whether the following kinds are namespaced without a reachable cluster or a matching"
        f" CustomResourceDefinition, so they are rendered without a namespace: {', '.join(kinds)}. Set"
        " .metadata.namespace explicitly, or include the CustomResourceDefinition, to control the namespace."
    )


def _scope(obj: Object, definitions: dict[tuple[str, str], bool], discovery: Discovery) -> bool | None:
    version, kind = api_version_of(obj), kind_of(obj)
    known = namespaced_by_table(version, kind)
    if known is not None:
        return known
    key = (group_of(version), kind)
    if key in definitions:
        return definitions[key]
    declared = discovery.declared_scope(version, kind)
    if declared is not None:
        return declared
    try:
        return discovery.find(version, kind).namespaced
    except NoMatch:
        return None


def _defined_kind(definition: Object) -> tuple[str, str]:
    return text(pluck(definition, "spec", "group")), text(pluck(definition, "spec", "names", "kind"))


def _shown(obj: Object) -> str:
    shown = json.dumps(obj, sort_keys=True)
    return shown if len(shown) <= 100 else shown[:97] + "..."


Key = tuple[str, str, str, str]


def _key(obj: Object) -> Key:
    return group_of(api_version_of(obj)), kind_of(obj), namespace_of(obj), name_of(obj)


def dependencies(objects: Sequence[Object]) -> dict[int, list[int]]:
    """Position to positions of what must be there first: Namespace, definition, and what an annotation names."""
    by_key = {_key(obj): index for index, obj in enumerate(objects)}
    defined = {_defined_kind(obj): index for index, obj in enumerate(objects) if is_definition(obj)}
    found: dict[int, list[int]] = {}
    for index, obj in enumerate(objects):
        needs = [
            by_key.get(("", "Namespace", "", namespace_of(obj))),
            defined.get((group_of(api_version_of(obj)), kind_of(obj))),
        ]
        written = text(pluck(obj, "metadata", "annotations", DEPENDS_ON))
        needs += [by_key.get(_read_reference(one)) for one in written.split(",") if one.strip()]
        found[index] = sorted({need for need in needs if need is not None and need != index})
    return found


def _read_reference(written: str) -> Key:
    """``group/namespaces/ns/Kind/name`` or ``group/Kind/name``."""
    parts = written.strip().split("/")
    if len(parts) == 5:
        return parts[0], parts[3], parts[2], parts[4]
    return (parts[0], parts[1], "", parts[2]) if len(parts) == 3 else ("", "", "", "")


def in_order(objects: Sequence[Object]) -> list[int]:
    """Positions, each after what it needs; what needs nothing of the others in the usual order of kinds.

    Raises ``ProviderError`` for a cycle.
    """
    needs = dependencies(objects)
    done: list[int] = []
    left = set(needs)
    while left:
        free = sorted((one for one in left if not left.intersection(needs[one])), key=lambda one: _rank(objects[one]))
        if not free:
            names = ", ".join(qualified_name(objects[one]) for one in sorted(left))
            raise ProviderError(f"the objects depend on each other in a circle: {names}")
        done += free
        left.difference_update(free)
    return done


def _rank(obj: Object) -> tuple[int, Key]:
    kind = kind_of(obj)
    if kind in _FIRST:
        return _FIRST.index(kind), _key(obj)
    return (len(_FIRST) + 1 if kind in _LAST else len(_FIRST)), _key(obj)


def type_token(obj: Object) -> str:
    """``kubernetes:core/v1:Secret``, ``kubernetes:apps/v1:Deployment``."""
    version = api_version_of(obj)
    return f"kubernetes:{'core/' if '/' not in version else ''}{version}:{kind_of(obj)}"


@dataclass(frozen=True)
class Registration:
    """How the objects of one component are registered. ``adjust`` may change the options of each."""

    parent: str
    prefix: str
    skip_await: bool
    options: ResourceOptions
    adjust: Callable[[Object, ResourceOptions], ResourceOptions] = lambda _obj, options: options


def register_all(objects: Sequence[Object], how: Registration, monitor: MonitorHandle) -> list[ResourceReference]:
    """Register every object, side by side where nothing stands between them. The first failure is raised at the end."""
    order = in_order(objects)
    needs = dependencies(objects)
    futures: dict[int, Future[RegisteredResource]] = {}
    with ThreadPoolExecutor(max_workers=max(1, min(AT_ONCE, len(order))), thread_name_prefix="register") as pool:
        for index in order:
            # Started in order, so what an object waits for is running or done before the object takes a thread.
            before = [futures[need] for need in needs[index]]
            futures[index] = pool.submit(_register, objects[index], before, how, monitor)
    registered = [futures[index].result() for index in order]
    return [ResourceReference(one.urn, one.id) for one in registered]


def _register(
    obj: Object, before: Sequence[Future[RegisteredResource]], how: Registration, monitor: MonitorHandle
) -> RegisteredResource:
    depends_on = tuple(future.result().urn for future in before)
    if how.skip_await:
        annotate(obj, SKIP_AWAIT, "true")
    options = how.adjust(obj, replace(how.options, parent=how.parent, depends_on=depends_on))
    inputs: dict[str, Any] = dict(obj)
    if is_secret(obj):
        inputs.update({key: Secret(inputs[key]) for key in ("data", "stringData") if key in inputs})
    prefix = f"{how.prefix}:" if how.prefix else ""
    return monitor.register(type_token(obj), prefix + qualified_name(obj), inputs, options)
