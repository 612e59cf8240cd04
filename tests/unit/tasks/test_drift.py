"""drift.*: changes behind pulumi's back are reported with exit 7, and nothing is changed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbooks.collection import task_for
from runbooks.core.errors import NotFound, Refused, UnexpectedChanges
from runbooks.tasks import drift
from tests.fixtures import Repo

RECORDED = Path(__file__).parents[2] / "contract" / "recorded" / "pulumi" / "16-drift.json"
TASKS = {name: task_for(drift.drift, name) for name in drift.drift.__dict__["targets"]}


def recorded() -> dict[str, Any]:
    """What the real `refresh --preview-only --json` printed after a Deployment was scaled by hand."""
    steps = json.loads(RECORDED.read_text())["steps"]
    answer = next(s for s in steps if {"refresh", "--json", "--preview-only"} <= set(s.get("argv", ())))
    document: dict[str, Any] = json.loads(answer["stdout"])
    return document


@pytest.fixture
def repo(repo: Repo) -> Repo:
    repo.has_stacks("postgresql")
    repo.has_superuser_password()
    return repo


def test_drift_is_reported_property_by_property(repo: Repo) -> None:
    repo.answer("pulumi", ["refresh", "--preview-only"], recorded())
    with pytest.raises(UnexpectedChanges, match="postgres") as drifted:
        TASKS["postgres"].body(repo.c)
    assert drifted.value.exit_code == 7
    output = repo.printed()
    assert "changed: kubernetes:apps/v1:Deployment web" in output
    assert "~ spec.replicas: 1 => 3" in output
    assert "pulumi:pulumi:Stack" not in output
    assert not any("up" in argv.split() or "destroy" in argv for argv in repo.argvs("pulumi"))
    assert all("--preview-only" in argv for argv in repo.argvs("pulumi") if "refresh" in argv)


def test_all_looks_at_what_is_deployed_and_no_drift_is_exit_0(repo: Repo) -> None:
    answer = recorded()
    answer["steps"] = [step for step in answer["steps"] if step["op"] == "refresh"]
    repo.answer("pulumi", ["refresh", "--preview-only"], answer)
    TASKS["all"].body(repo.c)
    output = repo.printed()
    assert "tailscale" in output and "postgres: as applied" in output
    (refresh,) = [argv for argv in repo.argvs("pulumi") if "refresh" in argv]
    assert "databases/postgres" in refresh


def test_what_is_not_deployed_cannot_drift(repo: Repo) -> None:
    with pytest.raises(NotFound, match="not deployed"):
        TASKS["cnpg"].body(repo.c)


@pytest.mark.parametrize("value", ["elsewhere", "[secret]"])
def test_an_answer_from_another_cluster_is_refused(repo: Repo, value: str) -> None:
    answer = recorded() | {"config": {"kubernetes:context": value}}
    repo.answer("pulumi", ["refresh", "--preview-only"], answer)
    with pytest.raises(Refused, match="kubernetes:context in the settings of postgres") as refused:
        TASKS["postgres"].body(repo.c)
    assert "home" in refused.value.expected or value == "[secret]"
