"""Checks: order, what stops them, how long they wait, what counts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.core import findings
from runbooks.core.findings import (
    Check,
    Finding,
    State,
    Verdict,
    failed,
    not_tried,
    passed,
    run_checks,
    summarize_verdicts,
)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every sleep; time moves only by them."""
    sleeps: list[float] = []
    monkeypatch.setattr(findings, "time", SimpleNamespace(monotonic=lambda: sum(sleeps), sleep=sleeps.append))
    return sleeps


def check(name: str, *findings: Finding, **options: object) -> Check:
    left = list(findings)

    def look() -> Finding:
        return left.pop(0) if len(left) > 1 else left[0]

    return Check(name=name, look=look, **options)


def never() -> Finding:
    raise AssertionError("this check must not be tried")


def test_all_checks_in_order_with_their_subject() -> None:
    found = run_checks([check("a", passed("a", "1")), check("b", passed("b", "2"))], subject="ns/x")
    assert [(finding.check, finding.evidence, finding.subject) for finding in found] == [
        ("a", "1", "ns/x"),
        ("b", "2", "ns/x"),
    ]


@pytest.mark.parametrize(
    ("first", "options", "goes_on"),
    [
        (failed("a", "broken"), {}, False),
        (failed("a", "broken"), {"continue_on_failure": True}, True),
        (not_tried("a", "no tool"), {}, True),
    ],
)
def test_only_a_failure_stops_the_checks_behind_it(first: Finding, options: dict[str, Any], goes_on: bool) -> None:
    behind = check("b", passed("b", "")) if goes_on else Check(name="b", look=never)
    _, found = run_checks([check("a", first, **options), behind])
    assert (found.state, found.evidence) == ((State.PASSED, "") if goes_on else (State.NOT_TRIED, 'needs "a"'))


@pytest.mark.parametrize(
    ("answers", "patience", "evidence", "waited"),
    [
        ((failed("a", "not yet"), failed("a", "not yet"), passed("a", "now")), 30.0, "now", [2.0, 2.0]),
        ((failed("a", "not yet"),), 5.0, "not yet (after 5 s)", [2.0, 2.0, 1.0]),
        # What waiting cannot change.
        ((failed("a", "absent", final=True),), 30.0, "absent", []),
        ((not_tried("a", "no tool"),), 30.0, "no tool", []),
        ((failed("a", "no"),), 0.0, "no", []),
    ],
)
def test_how_long_an_answer_is_awaited(
    slept: list[float], answers: tuple[Finding, ...], patience: float, evidence: str, waited: list[float]
) -> None:
    (found,) = run_checks([check("a", *answers, patience=patience)])
    assert (found.evidence, found.state, slept) == (evidence, answers[-1].state, waited)


CASES: dict[str, tuple[tuple[Finding, ...], frozenset[str], bool]] = {
    "all passed": ((passed("a", ""), passed("b", "")), frozenset(), True),
    "nothing looked at": ((), frozenset(), False),
    "one failed": ((passed("a", ""), failed("b", "")), frozenset(), False),
    "untried and deciding": ((passed("a", ""), not_tried("b", "")), frozenset(), False),
    "untried, on the list": ((passed("a", ""), not_tried("b", "")), frozenset({"b"}), True),
    "untried, another on the list": ((passed("a", ""), not_tried("b", "")), frozenset({"c"}), False),
    "untried, decides nothing": ((passed("a", ""), not_tried("b", "", deciding=False)), frozenset(), True),
    "failed, on the list": ((failed("a", ""),), frozenset({"a"}), False),
}


@pytest.mark.parametrize("name", CASES)
def test_what_counts_as_verified(name: str) -> None:
    findings, allowed, ok = CASES[name]
    assert Verdict(findings=findings, may_stay_untried=allowed).ok is ok


def test_the_summary_counts_untried_checks_apart() -> None:
    verdict = Verdict(findings=(passed("a", ""), failed("b", ""), not_tried("c", ""), not_tried("d", "")))
    assert verdict.summary() == "1 passed, 1 failed, 2 not tried"
    assert verdict.problem is not None
    assert verdict.problem.check == "b"


def test_a_check_declared_as_not_deciding_stays_so() -> None:
    look: Callable[[], Finding] = lambda: not_tried("a", "no tool")  # noqa: E731
    assert Verdict(findings=tuple(run_checks([Check(name="a", look=look, deciding=False)]))).undecided == ()


def test_several_services_are_counted_in_one_line() -> None:
    good, bad = (
        Verdict(findings=(passed("a", ""), not_tried("b", "", deciding=False))),
        Verdict(findings=(failed("c", ""),)),
    )
    assert summarize_verdicts({"x": good, "y": good}) == "all 2 verified: 2 passed, 0 failed, 2 not tried"
    assert summarize_verdicts({"x": good, "y": bad}) == "NOT verified: y: 1 passed, 1 failed, 1 not tried"
