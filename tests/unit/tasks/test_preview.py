"""A preview shows every stack that can be previewed, and each failure once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from runbooks.core.errors import OpsError, ToolFailed, Usage
from runbooks.stacks import preview
from runbooks.stacks.summary import show_plan
from tests.unit.stage import TREE, Answer, Stage, creating

LAYERS = [TREE[:2], TREE[2:3]]


def previewed(stage: Stage) -> Mapping[str, OpsError]:
    plan = preview.plan_run(stage, LAYERS, keep_going=True)  # type: ignore[arg-type]
    show_plan(stage, plan)  # type: ignore[arg-type]
    return plan.failures


def script(**failing: str) -> dict[tuple[str, str], list[Answer]]:
    """What each preview answers: one object to create, or the error given."""
    answers = {name: creating(name) for name in ("net", "op", "db")}
    answers |= {name: [Answer(stderr=text, exit_code=255)] for name, text in failing.items()}
    return {("preview", name): answer for name, answer in answers.items()} | {("get", "cluster"): [Answer()]}


def test_one_stack_that_fails_does_not_hide_the_others(tmp_path: Path) -> None:
    """`db` needs `op`, and is previewed all the same: it reads what the state of `op` holds."""
    stage = Stage(tmp_path, script(op="error: boom"))
    failures = previewed(stage)
    assert list(failures) == ["op"]
    assert "net: 1 to create" in stage.reporter.text and "db: 1 to create" in stage.reporter.text
    with pytest.raises(ToolFailed, match="boom"):
        preview.raise_worst(stage, failures)  # type: ignore[arg-type]


def test_one_cause_is_one_row(tmp_path: Path) -> None:
    words = 'error: Get "https://backend.example/api": connection refused'
    stage = Stage(tmp_path, script(net=words, op=words, db=words))
    with pytest.raises(ToolFailed):
        preview.raise_worst(stage, previewed(stage))  # type: ignore[arg-type]
    assert stage.reporter.text.count("not previewed") == 1
    assert "net, op, db: not previewed" in stage.reporter.text


def test_the_worst_exit_code_counts_and_the_others_are_shown(tmp_path: Path) -> None:
    stage = Stage(tmp_path, script(net="error: boom", op="error: incorrect passphrase"))
    with pytest.raises(Usage):
        preview.raise_worst(stage, previewed(stage))  # type: ignore[arg-type]
    assert "boom" in stage.reporter.text
