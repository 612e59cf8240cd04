"""What the machine-readable forms show of a step."""

from __future__ import annotations

import io
import json

import pytest

from lab.engine.display import SecretFilter
from lab.engine.display.documents import Digest
from lab.engine.events import Step, StepStarted, Summary
from lab.engine.state import ResourceState

URN = "urn:pulumi:mx::sample::kubernetes:core/v1:Namespace::ns"


@pytest.mark.parametrize(("halves", "shown"), [(False, ["replace"]), (True, ["delete-replaced", "replace"])])
def test_halves_of_a_replace_are_shown_when_asked_for(halves: bool, shown: list[str]) -> None:
    out = io.StringIO()
    digest = Digest(out, SecretFilter(()), halves=halves)
    state = ResourceState(URN, "kubernetes:core/v1:Namespace", True)
    digest.show(StepStarted(Step("delete-replaced", URN, state.type, state, None, logical=False)))
    digest.show(StepStarted(Step("replace", URN, state.type, state, state)))
    digest.show(Summary({"replace": 1}, True, "succeeded", 0.1))
    assert [step["op"] for step in json.loads(out.getvalue())["steps"]] == shown


@pytest.mark.parametrize(("before", "after", "shown"), [(True, True, 0), (False, False, 0), (True, False, 1)])
def test_of_what_stays_the_same_a_change_of_protection_is_shown(before: bool, after: bool, shown: int) -> None:
    states = [ResourceState(URN, "kubernetes:core/v1:Namespace", True, protect=protect) for protect in (before, after)]
    out = io.StringIO()
    digest = Digest(out, SecretFilter(()))
    digest.show(StepStarted(Step("same", URN, "kubernetes:core/v1:Namespace", *states)))
    digest.show(Summary({"same": 1}, True, "succeeded", 0.1))
    steps = json.loads(out.getvalue())["steps"]
    assert [step["op"] for step in steps] == ["same"] * shown
    if shown:
        assert steps[0]["oldState"]["protect"] and "protect" not in steps[0]["newState"]
