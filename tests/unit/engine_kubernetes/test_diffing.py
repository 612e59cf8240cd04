"""Detailed diffs: what changed, at which path, and whether it replaces."""

from __future__ import annotations

from typing import Any

import pytest

from lab.engine.providers.kubernetes.diffing import detailed_diff, is_ignored, path_text
from lab.engine.providers.kubernetes.replacing import Mutability, replacing_paths
from lab.engine.values import UNKNOWN


def config_map(**data: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "n"}, "data": data}


def kinds(
    old: dict[str, Any], new: dict[str, Any], *, inputs: dict[str, Any] | None = None, mutable: bool = False
) -> Any:
    patterns = replacing_paths(new, Mutability(config_map=mutable, secret=mutable))
    found = detailed_diff(old, new, inputs if inputs is not None else old, patterns)
    return {path: (diff.kind, diff.input_diff) for path, diff in found.items()}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 1.0}, {}),
        ({"a": 1}, {"a": True}, {"a": ("update", False)}),
        ({"a": "1"}, {"a": "2"}, {"a": ("update", False)}),
        ({}, {"a": {"b": 1}}, {"a": ("add", False)}),
        ({"a": {"b": 1}}, {}, {"a": ("delete", True)}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}, {"a.b": ("delete", True)}),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, {"a[1]": ("update", False), "a[2]": ("add", False)}),
        ({"a": [{"x": 1, "y": 1}]}, {"a": [{"x": 1}]}, {"a[0].y": ("delete", True)}),
        ({"a": [1, 2]}, {"a": [1]}, {"a[1]": ("delete", True)}),
        ({"a": {"b": 1}}, {"a": "text"}, {"a": ("update", False)}),
        ({"a": 1}, {"a": UNKNOWN}, {"a": ("update", False)}),
        ({}, {"a": UNKNOWN}, {"a": ("add", False)}),
    ],
)
def test_differences_by_path(old: dict[str, Any], new: dict[str, Any], expected: dict[str, Any]) -> None:
    assert kinds(old, new) == expected


def test_an_empty_value_that_the_server_did_not_store_is_no_difference() -> None:
    given = {"env": [{"name": "E", "value": ""}], "labels": {}, "hostNetwork": False}
    stored = {"env": [{"name": "E"}]}
    assert kinds(stored, given, inputs=given) == {}


def test_an_empty_value_that_is_new_is_a_difference() -> None:
    assert kinds({}, {"automount": False}, inputs={}) == {"automount": ("add", False)}


def test_changed_data_of_a_config_map_replaces_unless_mutable() -> None:
    old, new = config_map(colour="blue"), config_map(colour="green")
    assert kinds(old, new) == {"data.colour": ("update-replace", False)}
    assert kinds(old, new, mutable=True) == {"data.colour": ("update", False)}


def test_immutable_objects_replace_in_any_case() -> None:
    old, new = config_map(a="1") | {"immutable": True}, config_map(a="2") | {"immutable": True}
    assert kinds(old, new, mutable=True) == {"data.a": ("update-replace", False)}


def test_another_name_replaces() -> None:
    old, new = config_map(a="1"), config_map(a="1")
    new["metadata"] = {"name": "other", "namespace": "n"}
    assert kinds(old, new) == {"metadata.name": ("update-replace", False)}


def workload(kind: str, version: str = "apps/v1", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "w"}, "spec": spec}


def spec_of(path: str, value: Any) -> dict[str, Any]:
    """A nested map: ``a.b`` and 1 give ``{"a": {"b": 1}}``."""
    for step in reversed(path.split(".")):
        value = {step: value}
    return dict(value)


@pytest.mark.parametrize(
    ("kind", "version", "path", "expected"),
    [
        ("Deployment", "apps/v1", "selector.matchLabels.a", "update-replace"),
        ("Deployment", "apps/v1", "replicas", "update"),
        ("StatefulSet", "apps/v1", "serviceName", "update-replace"),
        ("StatefulSet", "apps/v1", "replicas", "update"),
        ("Job", "batch/v1", "template.spec.x", "update-replace"),
        ("Service", "v1", "clusterIP", "update-replace"),
        ("PersistentVolumeClaim", "v1", "storageClassName", "update-replace"),
        ("PersistentVolumeClaim", "v1", "resources.requests.storage", "update"),
    ],
)
def test_fields_that_cannot_change_in_place(kind: str, version: str, path: str, expected: str) -> None:
    old, new = (workload(kind, version, **spec_of(path, value)) for value in ("a", "b"))
    assert kinds(old, new)[f"spec.{path}"][0] == expected


def test_containers_of_a_pod_cannot_change_in_place() -> None:
    old, new = (workload("Pod", "v1", containers=[{"image": image}]) for image in "ab")
    assert kinds(old, new) == {"spec.containers[0].image": ("update-replace", False)}
    assert kinds(workload("Pod", "v1"), new) == {"spec.containers": ("add-replace", False)}


def test_paths_with_dots_and_slashes_are_quoted() -> None:
    assert path_text(("metadata", "annotations", "a.b/c")) == 'metadata.annotations["a.b/c"]'
    assert path_text(("spec", "ports", 0, "port")) == "spec.ports[0].port"


@pytest.mark.parametrize(
    ("path", "ignored", "expected"),
    [
        ("spec.replicas", ["spec.replicas"], True),
        ("spec.template.spec.x", ["spec.template"], True),
        ("spec", ["spec.template"], False),
        ("spec.containers[1].image", ["spec.containers[*].image"], True),
        ('metadata.annotations["a.b/c"]', ['metadata.annotations["a.b/c"]'], True),
    ],
)
def test_ignored_paths(path: str, ignored: list[str], expected: bool) -> None:
    assert is_ignored(path, ignored) is expected
