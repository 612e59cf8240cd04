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
