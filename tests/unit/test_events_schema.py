"""docs/events.schema.json: every line of `--json` keeps it, and it refuses what a program could not rely on."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from runbooks.core.findings import failed, not_tried, passed
from runbooks.core.mask import Masker
from runbooks.core.reporter import LASTING, JsonReporter, Step

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA = Draft202012Validator(json.loads((DOCS / "events.schema.json").read_text("utf-8")))
KINDS = {each["if"]["properties"]["event"]["const"] for each in SCHEMA.schema["allOf"]}


def printed() -> list[dict[str, Any]]:
    out = io.StringIO()
    reporter = JsonReporter(Masker(), out, out)
    reporter.announce("I deploy a.")
    reporter.plan(["preview a"])
    with reporter.step("preview a") as step:
        step.note("it runs")
    reporter._show_step(Step("preview a"), LASTING)
    reporter.line("a: 1 to create")
    reporter.quote("what a tool printed")
    reporter.table("outputs", ["output", "value"], [["host", "a"]])
    for finding in (passed("it works", "seen"), failed("it works", "seen", next_step="x"), not_tried("it works", "y")):
        reporter.finding(finding)
    reporter.event("fact of a task", anything=1)
    reporter.error(["a failed", "next: ./inv status"], exit_code=1)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_event_keeps_the_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA.schema)
    events = printed()
    for event in events:
        SCHEMA.validate(event)
    # `target` and `verdict` are facts of tasks.
    assert KINDS - {event["event"] for event in events} == {"target", "verdict"}


@pytest.mark.parametrize("record", sorted((DOCS / "runs").glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_recorded_run_keeps_the_schema(record: Path) -> None:
    for line in record.read_text("utf-8").splitlines():
        SCHEMA.validate(json.loads(line))


@pytest.mark.parametrize(
    "event", [{}, {"event": "step", "title": "a", "state": "over"}, {"event": "error", "summary": "a"}]
)
def test_it_refuses_what_a_program_could_not_rely_on(event: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid(event)
