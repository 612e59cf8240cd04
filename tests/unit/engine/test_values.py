"""Values, paths, URNs and the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.engine.paths import covers, keep_ignored, read_path, write_path
from lab.engine.registration import read_duration
from lab.engine.serde import read_struct, write_struct
from lab.engine.state import decode, encode
from lab.engine.urns import is_default_provider, make_urn, name_of, type_of
from lab.engine.values import (
    UNKNOWN,
    Archive,
    Asset,
    OutputValue,
    ResourceReference,
    Secret,
    has_secrets,
    has_unknowns,
    mark_like,
    output_dependencies,
    resolve_outputs,
    strip_secrets,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=8) | st.just(UNKNOWN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
marked = plain | plain.map(Secret) | st.lists(plain.map(Secret), max_size=2)


@given(st.dictionaries(st.text(max_size=5), marked, max_size=4))
def test_the_wire_keeps_values(values: dict[str, object]) -> None:
    assert read_struct(write_struct(values)) == values


@given(st.dictionaries(st.text(max_size=5), marked, max_size=4))
def test_the_state_file_keeps_values(values: dict[str, object]) -> None:
    assert decode(encode(values, lambda text: text[::-1]), lambda text: text[::-1]) == values


def test_marks_survive_the_wire() -> None:
    values = {
        "reference": ResourceReference("urn:pulumi:s::p::t::n", "id", "1.0"),
        "component": ResourceReference("urn:pulumi:s::p::t::c"),
        "asset": Asset(path="a.txt"),
        "archive": Archive(assets={"a": Asset(text="x")}),
        "output": OutputValue("x", True, ("urn:1",)),
        "unknown": OutputValue(UNKNOWN, False, ("urn:2",)),
    }

    assert read_struct(write_struct(values)) == values
    assert output_dependencies(values) == {"urn:1", "urn:2", "urn:pulumi:s::p::t::n", "urn:pulumi:s::p::t::c"}
    assert resolve_outputs(values["output"]) == Secret("x")


def test_without_secrets_the_wire_has_plain_values() -> None:
    assert read_struct(write_struct({"a": Secret({"b": 1})}, secrets=False)) == {"a": {"b": 1}}


def test_a_secret_never_shows_itself() -> None:
    assert "hunter2" not in repr({"a": Secret("hunter2")})


def test_outputs_are_secret_where_inputs_are() -> None:
    assert mark_like({"a": {"b": 1, "c": 2}, "l": [1, 2]}, {"a": {"b": Secret(0)}, "l": [Secret(0)]}) == {
        "a": {"b": Secret(1), "c": 2},
        "l": [Secret(1), 2],
    }
    assert strip_secrets([Secret({"a": Secret(1)})]) == [{"a": 1}]
    assert has_secrets({"a": [Secret(1)]})
    assert has_unknowns({"a": [Secret(UNKNOWN)]})


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("spec.ports[0].port", ("spec", "ports", 0, "port")),
        ('metadata.annotations["a.b/c"]', ("metadata", "annotations", "a.b/c")),
        ("spec.containers[*].image", ("spec", "containers", "*", "image")),
    ],
)
def test_paths(text: str, path: tuple[str | int, ...]) -> None:
    assert read_path(text) == path
    if "*" not in path:
        assert write_path(path) == text


def test_paths_that_are_none() -> None:
    with pytest.raises(ValueError, match="not a property path"):
        read_path("a[")


def test_patterns_cover_what_is_below() -> None:
    assert covers(("spec", "*"), ("spec", "x", 0))
    assert not covers(("spec", "x"), ("spec",))


def test_ignoring_works_at_any_depth() -> None:
    old = {"spec": {"ports": [{"port": 1, "name": "a"}], "keep": Secret("old")}, "extra": 1}
    new = {"spec": {"ports": [{"port": 2, "name": "b"}], "keep": Secret("new")}}

    assert keep_ignored(new, old, ["spec.ports[*].port", "spec.keep", "extra"]) == {
        "spec": {"ports": [{"port": 1, "name": "b"}], "keep": Secret("old")},
        "extra": 1,
    }
    assert keep_ignored({"a": 1}, {}, ["a"]) == {}


def test_urns() -> None:
    root = make_urn("mx", "sample", "", "pulumi:pulumi:Stack", "sample-mx")
    chart = make_urn("mx", "sample", root, "kubernetes:helm.sh/v4:Chart", "mini")
    child = make_urn("mx", "sample", chart, "kubernetes:core/v1:ConfigMap", "mini:rec-sample/mini-cm")

    assert child == (
        "urn:pulumi:mx::sample::kubernetes:helm.sh/v4:Chart$kubernetes:core/v1:ConfigMap::mini:rec-sample/mini-cm"
    )
    assert (type_of(child), name_of(child)) == ("kubernetes:core/v1:ConfigMap", "mini:rec-sample/mini-cm")
    assert is_default_provider("urn:pulumi:mx::sample::pulumi:providers:kubernetes::default_4_34_2")
    assert not is_default_provider("urn:pulumi:mx::sample::pulumi:providers:kubernetes::mine")


@pytest.mark.parametrize(("text", "seconds"), [("", 0), ("15s", 15), ("5m30s", 330), ("1h", 3600), ("90", 90)])
def test_durations(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds
