"""`destroy` only by name, not while another service needs it, and only what was shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runbooks.checks.of_service import refuse_while_needed
from runbooks.core.errors import Refused
from runbooks.stacks.apply import Approved
from runbooks.stacks.destroy import plan_end, refuse_if_changed
from runbooks.tools.pulumi import read_event
from tests.fixtures import TREE, ScriptedSession, event, preview_answer, step, urn

NET, _, DB, APP = TREE


def standing(service: str) -> list[dict[str, Any]]:
    kind = "kubernetes:core/v1:ConfigMap"
    return [{"urn": urn(service, kind, "cm"), "type": kind}]


def test_refused_while_a_consumer_stands(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, {})
    session.write_state("app", resources=standing("app"))
    session.write_state("db", resources=standing("db"))
    with pytest.raises(Refused, match="db, app are still deployed") as refused:
        refuse_while_needed(session, NET)
    assert refused.value.next_step == "./inv destroy.app"


def test_empty_consumers_do_not_hold_it(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, {})
    refuse_while_needed(session, NET)
    refuse_while_needed(session, APP)


def test_everything_it_deletes_is_destructive(tmp_path: Path) -> None:
    answer = preview_answer(step("db", "delete"), step("db", "delete", "pulumi:pulumi:Stack", "db-mx"))
    session = ScriptedSession(tmp_path, {("destroy-preview", "db"): answer})
    plan = plan_end(session, DB)
    assert plan.is_destructive and len(plan.changes) == 1


def test_what_a_broken_replace_left_belongs_to_the_end(tmp_path: Path) -> None:
    """pulumi's preview does not show it, and `destroy` deletes it first."""
    session = ScriptedSession(tmp_path, {("destroy-preview", "db"): preview_answer()})
    session.write_state("db", resources=[standing("db")[0] | {"delete": True}])
    plan = plan_end(session, DB)
    assert plan.has_changes
    (began, _) = (read_event(line) for line in event("db", "delete-replaced"))
    assert began is not None and Approved.of(plan).allows(began)


def test_refused_when_something_changed_since_it_was_shown(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, {("destroy-preview", "db"): preview_answer(step("db", "delete"))})
    plan = plan_end(session, DB)
    refuse_if_changed(session, DB, plan, again="./inv destroy.db")
    session.write_state("db", resources=standing("db"))
    with pytest.raises(Refused, match="state of db changed"):
        refuse_if_changed(session, DB, plan, again="./inv destroy.db")
