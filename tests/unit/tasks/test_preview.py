"""A preview shows every stack that can be previewed, and each failure once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runbooks.collection import task_for
from runbooks.core.errors import OpsError, ToolFailed, UnexpectedChanges, Usage
from runbooks.stacks import preview
from runbooks.stacks.summary import show_plan
from runbooks.tasks import preview as tasks
from tests.fixtures import TREE, Repo, ScriptedSession, creating, preview_answer, step

LAYERS = [TREE[:2], TREE[2:3]]


def previewed(session: ScriptedSession) -> Mapping[str, OpsError]:
    plan = preview.plan_run(session, LAYERS, keep_going=True)
    show_plan(session, plan)
    return plan.failures


def script(**failing: str) -> dict[tuple[str, str], Any]:
    """What each preview answers: one object to create, or the error given."""
    answers = {name: creating(name) for name in ("net", "op", "db")}
    answers |= {name: (255, "", text) for name, text in failing.items()}
    return {("preview", name): answer for name, answer in answers.items()} | {("get", "cluster"): ""}


def test_one_stack_that_fails_does_not_hide_the_others(tmp_path: Path) -> None:
    """`db` needs `op`, and is previewed all the same: it reads what the state of `op` holds."""
    session = ScriptedSession(tmp_path, script(op="error: boom"))
    failures = previewed(session)
    assert list(failures) == ["op"]
    assert "net: 1 to create" in session.reporter.text and "db: 1 to create" in session.reporter.text
    with pytest.raises(ToolFailed, match="boom"):
        preview.raise_worst(session, failures)


@pytest.mark.parametrize(
    ("how", "of_db", "of_app"),
    [
        ({}, {"net", "op"}, {"db"}),
        # What it reads decides whether it is on record.
        ({"keep_going": True}, set(), {"db"}),
        ({"keep_going": True, "fresh": True}, set(), set()),
    ],
)
def test_what_a_stack_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, bool], of_db: set[str], of_app: set[str]
) -> None:
    awaited: dict[str, set[str]] = {}

    def work_in_order(_pool: Any, _layers: Any, needs: Mapping[Any, Any], *_: Any, **__: Any) -> Any:
        awaited.update({each.name: {need.name for need in of} for each, of in needs.items()})
        raise ToolFailed("enough")

    monkeypatch.setattr(preview, "work_in_order", work_in_order)
    with pytest.raises(ToolFailed, match="enough"):
        preview.plan_run(ScriptedSession(tmp_path, {}), [TREE[:2], TREE[2:3], TREE[3:]], **how)
    assert (awaited["db"], awaited["app"]) == (of_db, of_app)


def test_one_cause_is_one_row(tmp_path: Path) -> None:
    words = 'error: Get "https://backend.example/api": connection refused'
    session = ScriptedSession(tmp_path, script(net=words, op=words, db=words))
    with pytest.raises(ToolFailed):
        preview.raise_worst(session, previewed(session))
    assert session.reporter.text.count("not previewed") == 1
    assert "net, op, db: not previewed" in session.reporter.text


def test_the_worst_exit_code_counts_and_the_others_are_shown(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, script(net="error: boom", op="error: incorrect passphrase"))
    with pytest.raises(Usage):
        preview.raise_worst(session, previewed(session))
    assert "boom" in session.reporter.text


@pytest.mark.parametrize(
    ("changes", "options", "shown"),
    [
        (True, {}, "next: ./inv --target home deploy.cnpg applies"),
        (True, {"only": True}, "next: ./inv --target home deploy.cnpg --only applies"),
        (False, {}, ""),
    ],
)
def test_a_preview_with_changes_names_the_command_that_applies_them(
    repo: Repo, changes: bool, options: dict[str, bool], shown: str
) -> None:
    repo.has_stacks("cnpg")
    operation = "update" if changes else "same"
    repo.answer("pulumi", ["preview", "--json"], preview_answer(step("cnpg", operation)))
    task_for(tasks.preview, "cnpg").body(repo.c, **options)
    printed = repo.printed()
    assert ("next: " in printed) == bool(shown) and shown in printed


def test_a_preview_that_expects_no_changes_ends_with_7(repo: Repo) -> None:
    repo.has_stacks("cnpg")
    repo.answer("pulumi", ["preview", "--json"], preview_answer(step("cnpg", "update")))
    with pytest.raises(UnexpectedChanges, match="cnpg") as found:
        task_for(tasks.preview, "cnpg").body(repo.c, only=True, expect_no_changes=True)
    assert "preview.cnpg" in found.value.next_step
