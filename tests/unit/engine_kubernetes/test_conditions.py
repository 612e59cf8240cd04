"""`pulumi.com/waitFor`: what is accepted, and when it holds."""

from __future__ import annotations

from typing import Any

import pytest

from lab.engine.providers import ProviderError
from lab.engine.providers.kubernetes.conditions import ExpectedWait, read_expectations
from lab.engine.providers.kubernetes.waiting import StatusLog


def annotated(expression: str) -> dict[str, Any]:
    return {"metadata": {"name": "o", "generation": 2, "annotations": {"pulumi.com/waitFor": expression}}}


def verdict(expression: str, status: dict[str, Any]) -> tuple[bool, list[str]]:
    said: list[str] = []
    obj = annotated(expression) | {"status": status}
    log = StatusLog(lambda _severity, message: said.append(message))
    return all(test(obj, log) for test in read_expectations(obj)), said


READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("expression", "status", "holds"),
    [
        ("condition=Ready", READY, True),
        ("condition=ready", READY, True),
        ("condition=Ready=False", READY, False),
        ("condition=Ready", {"conditions": [{"type": "Ready", "status": "False"}]}, False),
        ("condition=Ready", {"conditions": []}, False),
        ("condition=Ready", {}, False),
        ("condition=Ready", READY | {"observedGeneration": 1}, False),
        ("condition=Ready", READY | {"observedGeneration": 2}, True),
        ("jsonpath={.status.applied}=true", {"applied": True}, True),
        ("jsonpath={.status.applied}=true", {"applied": False}, False),
        ("jsonpath={.status.applied}", {"applied": False}, True),
        ("jsonpath={.status.phase}=completed", {"phase": "completed"}, True),
        ("jsonpath={.status.text}=a b", {"text": "a b"}, True),
        ("jsonpath={.status.count}=3", {"count": 3}, True),
        ("jsonpath={.status.list[0].host}", {"list": [{"host": "h"}]}, True),
        ("jsonpath={.status.list[0].host}", {"list": []}, False),
        ("jsonpath={.status.list[*].host}=h", {"list": [{"host": "h"}]}, True),
        ('jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', READY, True),
        ("jsonpath={.status}", {"x": 1}, True),
        ("jsonpath={.status.applied}=true", {"applied": True, "observedGeneration": 1}, False),
        ('["condition=Ready", "jsonpath={.status.a}=1"]', READY | {"a": 1}, True),
        ('["condition=Ready", "jsonpath={.status.a}=1"]', READY, False),
    ],
)
def test_expectations(expression: str, status: dict[str, Any], holds: bool) -> None:
    assert verdict(expression, status)[0] is holds


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("Ready", 'expected a "jsonpath=" or "condition=" prefix, got "Ready"'),
        ("jsonpath=.status.a", ".status.a should be wrapped in brackets { ... }"),
        ("jsonpath='{.a}'", "'{.a}' should omit shell quotes"),
        ("jsonpath={.a}=", "{.a}= requires a value"),
        ("jsonpath={.a}=b=c", "format should be {.path}=value or {.path}"),
        ("jsonpath={.a.[}", 'parsing "{.a.[}"'),
        ("[]", "at least one condition must be specified"),
    ],
)
def test_what_is_wrong_with_an_expression_is_said(expression: str, complaint: str) -> None:
    with pytest.raises(ProviderError) as caught:
        read_expectations(annotated(expression))
    assert complaint in str(caught.value)


def test_progress_is_told_in_the_real_providers_words() -> None:
    assert verdict("jsonpath={.status.a}=1", {"a": 2})[1] == ['Waiting for {.status.a}=1 (found "2")']
    assert verdict("jsonpath={.status.a}=1", {})[1] == ["{.status.a} selected nothing"]
    assert verdict("condition=Ready", {"conditions": [{"type": "Ready", "status": "False"}]})[1] == [
        "Resource has condition Ready=False (want True)"
    ]


def test_a_value_that_cannot_be_compared_is_the_reason_of_the_failure() -> None:
    obj = annotated("jsonpath={.status.a}=1") | {"status": {"a": {"b": 1}}}
    wait = ExpectedWait(obj, read_expectations(obj), StatusLog(lambda *_: None), "/p")
    assert not wait.is_ready()
    failure = wait.ending(is_cancelled=False)
    assert failure is not None
    assert str(failure) == '"{.status.a}" has a non-primitive value ({"b": 1})'
