"""Inputs and live objects in comparable form, and what is secret of them."""

from __future__ import annotations

import pytest

from lab.engine.providers.kubernetes.normal import (
    checkpoint,
    mark_secrets,
    normalize,
    prune,
    read_checkpoint,
    to_object,
    to_properties,
    with_dropped,
)
from lab.engine.providers.kubernetes.quantities import canonical_quantity
from lab.engine.values import UNKNOWN, Secret


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("500m", "500m"),
        ("0.5", "500m"),
        ("1000m", "1"),
        (2, "2"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1000Ki", "1000Ki"),
        ("1500", "1500"),
        ("2000", "2k"),
        ("0", "0"),
        ("100Mi", "100Mi"),
        ("1e3", "1e3"),
        ("0.1", "100m"),
        ("auto", "auto"),
    ],
)
def test_quantities_read_as_the_server_writes_them(given: str | int, canonical: str) -> None:
    assert canonical_quantity(given) == canonical


def test_quantities_are_rewritten_only_where_they_are_quantities() -> None:
    container = {"args": ["1000m"], "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}}
    assert normalize(pod)["spec"]["containers"][0] == {
        "args": ["1000m"],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
    }


def test_custom_resources_keep_their_texts() -> None:
    cluster = {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "spec": {"resources": {"limits": {"cpu": "0.5"}}},
    }
    assert normalize(cluster)["spec"]["resources"]["limits"]["cpu"] == "0.5"


def test_string_data_becomes_data_and_base64_is_rewritten() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "x"}, "data": {"a": "b", "c": "eA==\n"}}
    assert normalize(secret) == {"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA==", "c": "eA=="}}


def test_unknown_values_leave_the_object_alone() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {"a": UNKNOWN}}
    assert normalize(dict(secret)) == secret


def test_read_only_metadata_is_removed() -> None:
    obj = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n", "uid": "u", "managedFields": [], "generation": 1}}
    assert normalize(obj)["metadata"] == {"name": "n"}


def test_nulls_and_marks_do_not_reach_the_server() -> None:
    assert to_object({"a": None, "b": Secret({"c": Secret("x"), "d": None})}) == {"b": {"c": "x"}}


def test_schema_extensions_change_between_dashes_and_underscores() -> None:
    assert to_object({"x_kubernetes_list_type": "map"}) == {"x-kubernetes-list-type": "map"}
    assert to_properties({"x-kubernetes-list-type": "map"}) == {"x_kubernetes_list_type": "map"}


def test_live_objects_are_cut_to_the_shape_of_inputs() -> None:
    live = {"a": 1, "b": {"c": 1, "d": 2}, "e": [{"f": 1, "g": 2}, {"f": 3}], "h": "server"}
    assert prune(live, {"b": {"c": 0}, "e": [{"f": 0}], "i": 0}) == {"b": {"c": 1}, "e": [{"f": 1}]}


def test_dropped_empty_values_come_back_for_inputs() -> None:
    shape = {"env": [{"name": "E", "value": ""}], "labels": {}}
    assert with_dropped({"env": [{"name": "E"}]}, shape) == shape


def test_data_of_a_secret_is_always_secret() -> None:
    outputs = {"kind": "Secret", "data": {"a": "eA=="}, "metadata": {"name": "n"}}
    mark_secrets(outputs, {})
    assert outputs["data"] == Secret({"a": "eA=="})


def test_other_secrets_are_marked_where_they_are_and_lists_as_a_whole() -> None:
    outputs = {"kind": "ConfigMap", "data": {"a": "1", "b": "2"}, "list": [1, 2]}
    mark_secrets(outputs, {"data": {"a": Secret("1")}, "list": [1, Secret(2)]})
    assert outputs == {"kind": "ConfigMap", "data": {"a": Secret("1"), "b": "2"}, "list": Secret([1, 2])}


def test_a_checkpoint_can_be_read_back() -> None:
    inputs = {"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA=="}}
    live = {**inputs, "metadata": {"uid": "u"}}
    outputs = checkpoint(inputs, live, {}, "v1", "pulumi-kubernetes-0a4b487c")
    assert outputs["__fieldManager"] == "pulumi-kubernetes-0a4b487c"
    assert outputs["__inputs"]["data"] == outputs["data"] == Secret({"a": "eA=="})
    assert read_checkpoint(outputs) == (inputs, live)
