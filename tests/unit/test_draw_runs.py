"""The pictures of runs show what the reporter of a terminal prints for the recorded events."""

from __future__ import annotations

import re
from typing import Any

import pytest

from scripts.draw_runs import replay

FINDING = {"subject": "a/b", "evidence": "it is here", "cause": "", "next_step": ""}
EVENTS: list[dict[str, Any]] = [
    {"event": "announce", "text": "I deploy a."},
    {"event": "target", "name": "lab"},
    {"event": "plan", "steps": ["preview a", "preview b"]},
    {"event": "step", "title": "preview a", "state": "in progress"},
    {"event": "step", "title": "preview a", "state": "done", "seconds": 1.2},
    {"event": "line", "text": "between the steps"},
    {"event": "step", "title": "preview b", "state": "failed", "seconds": 2.0},
    {"event": "quote", "text": "what a tool said"},
    {"event": "finding", "check": "it works", "state": "passed", **FINDING},
    {"event": "finding", "check": "it answers", "state": "failed", **FINDING, "next_step": "./inv repair.a"},
    {"event": "error", "summary": "a is not verified", "details": ["next: ./inv repair.a"], "exit_code": 4},
]


def test_what_a_terminal_would_have_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TERM", "COLUMNS", "NO_COLOR"):
        monkeypatch.setenv(variable, "")  # so that they are put back
    shown = replay(EVENTS)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert lines[0] == "I deploy a."
    # Finished steps are shown together, when none of their plan is pending.
    assert [line.partition(":")[0] for line in lines[1:4]] == ["between the steps", "✓ preview a", "✗ preview b"]
    assert any(line.endswith("it answers [a/b]: it is here") for line in lines)
    assert lines[-1] == "  next: ./inv repair.a"
    assert shown != "\n".join(lines)
