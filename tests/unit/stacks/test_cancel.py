"""What a killed update left is settled by what the cluster has, and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.errors import NotApproved, Refused, ToolFailed
from runbooks.stacks import cancel
from tests.fixtures import SUMMARY, TREE, Answer, ScriptedSession, urn

DB = TREE[2]
CONFIG_MAP, ROLE = "kubernetes:core/v1:ConfigMap", "postgresql:index/role:Role"


def operation(kind: str, type_: str, name: str) -> Any:
    inputs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "db"}}
    state = {"urn": urn("db", type_, name), "custom": True, "type": type_, "inputs": inputs}
    return {"type": kind, "resource": state}


OPERATIONS = (
    operation("creating", CONFIG_MAP, "made"),
    operation("creating", CONFIG_MAP, "absent"),
    operation("creating", CONFIG_MAP, "of-a-chart"),
    operation("creating", CONFIG_MAP, "recorded"),
    operation("creating", ROLE, "role"),
    operation("updating", CONFIG_MAP, "updated"),
)
RECORDED = [{**operation("", CONFIG_MAP, name)["resource"], "id": f"db/{name}"} for name in ("recorded", "updated")]
THERE = "v1\tConfigMap\tdb\tmade\t\t\nv1\tConfigMap\tdb\tof-a-chart\tchart\tdb\n"


def managed(manager: str) -> Answer:
    return Answer(stdout=json.dumps({"metadata": {"managedFields": [{"manager": manager, "operation": "Apply"}]}}))


def scripted(tmp_path: Path, *operations: Any, there: str = THERE, **more: Any) -> ScriptedSession:
    export = {"version": 3, "deployment": {"resources": RECORDED, "pending_operations": list(operations)}}
    script = {
        ("export", "db"): [Answer(stdout=json.dumps(export))],
        ("get", "cluster"): [Answer(stdout=there), managed("pulumi-kubernetes-1a2b"), managed("helm")],
        ("import", "db"): [Answer()],
        ("refresh", "db"): [Answer(stdout=SUMMARY)],
    }
    return ScriptedSession(tmp_path, script, **more)


def settle(session: ScriptedSession, *, yes: bool = False) -> None:
    cancel.settle(session, session.stack(DB), yes=yes, again="./inv cancel.db")


def written(session: ScriptedSession) -> Any:
    (command,) = (command for command in session.runner.commands if "import" in command.argv)
    assert command.mutates and command.stdin is not None
    return json.loads(command.stdin)["deployment"]


def test_what_exists_is_taken_into_the_state_and_the_rest_is_dropped(tmp_path: Path) -> None:
    session = scripted(tmp_path, *OPERATIONS, answers=["y"])
    settle(session)
    state = written(session)
    assert "pending_operations" not in state
    assert [resource["id"] for resource in state["resources"]] == ["db/recorded", "db/updated", "db/made"]
    assert state["resources"][-1]["outputs"] == {"__fieldManager": "pulumi-kubernetes-1a2b"}
    refresh = session.runner.commands[-1].argv
    assert [word for word in refresh if word.startswith("--target")] == [f"--target={urn('db', CONFIG_MAP, 'made')}"]
    for name in ("made", "absent", "of-a-chart", "recorded", "role", "updated"):
        assert f" {name}: " in session.reporter.text
    assert "pulumi import postgresql:index/role:Role role" in session.reporter.text
    assert "./inv deploy.db" in session.reporter.text


def test_nothing_pending_changes_nothing(tmp_path: Path) -> None:
    session = scripted(tmp_path)
    settle(session)
    assert [verb for verb, _ in session.runner.ran] == ["export"]


def test_without_objects_to_look_for_the_cluster_is_not_asked(tmp_path: Path) -> None:
    session = scripted(tmp_path, OPERATIONS[4], OPERATIONS[5], interactive=False)
    settle(session)
    assert session.runner.guarded == 0
    assert [verb for verb, _ in session.runner.ran] == ["export", "import"]


@pytest.mark.parametrize("more", [{"answers": ["n"]}, {"interactive": False}], ids=["no", "no terminal"])
def test_taking_objects_into_the_state_of_a_real_target_is_approved(tmp_path: Path, more: dict[str, Any]) -> None:
    session = scripted(tmp_path, *OPERATIONS, **more)
    with pytest.raises(NotApproved) as left:
        settle(session)
    assert "cancel.db" in left.value.next_step
    assert "import" not in [verb for verb, _ in session.runner.ran]


@pytest.mark.parametrize(("ephemeral", "yes"), [(True, False), (False, True)])
def test_the_lab_and_yes_need_no_question(tmp_path: Path, ephemeral: bool, yes: bool) -> None:
    session = scripted(tmp_path, *OPERATIONS, ephemeral=ephemeral, interactive=False)
    settle(session, yes=yes)
    assert written(session)["resources"][-1]["id"] == "db/made"


def test_another_run_keeps_its_operations(tmp_path: Path) -> None:
    session = scripted(tmp_path, *OPERATIONS, ephemeral=True)
    session.write_lock("db")
    with pytest.raises(Refused):
        settle(session)
    assert "import" not in [verb for verb, _ in session.runner.ran]


def test_a_state_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    session = scripted(tmp_path, *OPERATIONS, ephemeral=True)
    session.runner.script["import", "db"] = [Answer(stderr="error: could not import", exit_code=1)]
    with pytest.raises(ToolFailed):
        settle(session)
    assert session.runner.ran[-1] == ("import", "db")
