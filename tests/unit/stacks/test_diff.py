"""The property difference of a step, as a person reads it."""

from __future__ import annotations

from typing import Any

from runbooks.stacks.diff import UNKNOWN, property_lines
from runbooks.tools.pulumi import State, Step


def created(inputs: dict[str, Any]) -> list[str]:
    return property_lines(Step(op="create", urn="urn:pulumi:mx::sample::a:b:C::x", new=State(inputs=inputs)))


def test_values_not_known_before_they_are_applied_are_called_so() -> None:
    assert created({"host": UNKNOWN, "args": [UNKNOWN], "port": 1}) == [
        "+ host: (unknown until applied)",
        "+ args[0]: (unknown until applied)",
        "+ port: 1",
    ]
    step = Step(op="update", urn="urn:x", old=State(inputs={"a": {"b": 1}}), new=State(inputs={"a": {"b": UNKNOWN}}))
    assert property_lines(step) == ['~ a: {"b": 1} => {"b": (unknown until applied)}']


def test_a_component_has_no_properties_to_show() -> None:
    assert created({}) == []
    assert created({"labels": {}}) == ["+ labels: {}"]
