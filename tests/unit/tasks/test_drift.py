"""drift.*: changes behind pulumi's back are reported with exit 7, and nothing is changed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.errors import NotFound, OpsError, Refused, UnexpectedChanges
from runbooks.tasks import drift
from tests.unit.house import House

RECORDED = Path(__file__).parents[2] / "contract" / "recorded" / "pulumi" / "16-drift.json"
TASKS = {task.name: task for task in drift.drift.__dict__["tasks"]}


def recorded() -> dict[str, Any]:
    """What the real `refresh --preview-only --json` printed after a Deployment was scaled by hand."""
    steps = json.loads(RECORDED.read_text())["steps"]
    answer = next(s for s in steps if {"refresh", "--json", "--preview-only"} <= set(s.get("argv", ())))
    document: dict[str, Any] = json.loads(answer["stdout"])
    return document


@pytest.fixture
def home(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    house.has_stacks("postgresql")
    settings = house.root / "pulumi" / "data" / "databases" / "postgres" / "Pulumi.mx.yaml"
    settings.write_text("config:\n  postgresql:superuser_password:\n    secure: v1:abc\n")
    house.answer("pulumi", ["config", "--show-secrets"], {})
    monkeypatch.setattr("runbooks.core.reporter._in_use", [])
    return house


def test_drift_is_told_property_by_property(home: House, capsys: pytest.CaptureFixture[str]) -> None:
    home.answer("pulumi", ["refresh", "--preview-only"], recorded())
    with pytest.raises(UnexpectedChanges, match="postgres") as drifted:
        TASKS["postgres"].body(home.c)
    assert drifted.value.exit_code == 7
    output = capsys.readouterr().out
    assert "changed: kubernetes:apps/v1:Deployment web" in output
    assert "~ spec.replicas: 1 => 3" in output
    assert "pulumi:pulumi:Stack" not in output
    assert not any("up" in argv.split() or "destroy" in argv for argv in home.argvs("pulumi"))
    assert all("--preview-only" in argv for argv in home.argvs("pulumi") if "refresh" in argv)


def test_no_drift_is_exit_0(home: House, capsys: pytest.CaptureFixture[str]) -> None:
    answer = recorded()
    answer["steps"] = [step for step in answer["steps"] if step["op"] == "refresh"]
    home.answer("pulumi", ["refresh", "--preview-only"], answer)
    TASKS["postgres"].body(home.c)
    assert "postgres: as applied" in capsys.readouterr().out


def test_all_looks_at_what_is_deployed(home: House, capsys: pytest.CaptureFixture[str]) -> None:
    home.answer("pulumi", ["refresh", "--preview-only"], recorded() | {"steps": []})
    TASKS["all"].body(home.c)
    output = capsys.readouterr().out
    assert "tailscale" in output
    (refresh,) = [argv for argv in home.argvs("pulumi") if "refresh" in argv]
    assert "databases/postgres" in refresh


def test_what_is_not_deployed_cannot_drift(home: House) -> None:
    with pytest.raises(NotFound, match="not deployed"):
        TASKS["cnpg"].body(home.c)


def test_a_failing_refresh_is_explained(home: House) -> None:
    home.answer("pulumi", ["refresh", "--preview-only"], (1, "", "error: incorrect passphrase\n"))
    with pytest.raises(OpsError, match="passphrase"):
        TASKS["postgres"].body(home.c)


@pytest.mark.parametrize("value", ["elsewhere", "[secret]"])
def test_an_answer_from_another_cluster_is_refused(home: House, value: str) -> None:
    answer = recorded() | {"config": {"kubernetes:context": value}}
    home.answer("pulumi", ["refresh", "--preview-only"], answer)
    with pytest.raises(Refused, match="kubernetes:context in the settings of postgres") as refused:
        TASKS["postgres"].body(home.c)
    assert "home" in refused.value.expected or value == "[secret]"
