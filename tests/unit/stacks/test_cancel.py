"""`cancel` finds out who holds a stack before anything is removed, and settles what a killed update left."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.errors import NotApproved, Refused, ToolFailed
from runbooks.core.processes import process_is_alive
from runbooks.stacks import cancel
from runbooks.stacks.apply import holders_of
from runbooks.stacks.cancel import approve_removal, remove_lock
from runbooks.stacks.status import describe_holders
from runbooks.tools import locks
from runbooks.tools.locks import Holder, Lock, find_holder, locks_in, read_current_update, seconds_of
from tests.fixtures import ELSEWHERE, SUMMARY, TREE, Answer, ScriptedSession, ended_process, urn, write_locks

DB = TREE[2]


def lock(pid: int, host: str | None = None, since: str = "2026-11-24T07:00:00.123456789Z") -> Lock:
    return Lock(pid=pid, user="root", host=host or socket.gethostname(), since=since)


def approve(session: ScriptedSession) -> None:
    stack = session.stack(DB)
    approve_removal(session, stack, holders_of(session, stack))


NOW = "2100-01-01T00:00:00Z"


class Removed(Exception):
    """The lock may be removed."""


@pytest.mark.parametrize(
    ("holder", "typed", "ends", "told"),
    [
        ("dead", None, Removed, "it is gone"),
        ("living", "db", Refused, ""),
        ("elsewhere", "db", Removed, "process 1 of u on other-machine"),
        ("elsewhere", "y", NotApproved, "cannot be seen"),
        ("elsewhere", None, NotApproved, ""),
        ("not told", "db", Removed, ""),
        ("not told", "y", NotApproved, ""),
        *((text, typed, ends, "0.json") for text in (b"", b"[]", b"\xff\xfe", b'{"pid": "many"}')
          for typed, ends in (("db", Removed), ("y", NotApproved))),
    ],
)  # fmt: skip
def test_only_the_lock_of_a_dead_process_is_removed_without_the_name_typed(
    tmp_path: Path, holder: str | bytes, typed: str | None, ends: type[Exception], told: str
) -> None:
    """`typed` at the question, `None` without a terminal; a living process here is never robbed."""
    session = ScriptedSession(
        tmp_path, {}, answers=[typed or ""], interactive=typed is not None, ephemeral=holder == "living"
    )
    locks = {
        "dead": [lock(ended_process())], "living": [lock(ended_process()), lock(os.getpid(), since=NOW)],
        "elsewhere": [ELSEWHERE],
    }  # fmt: skip
    write_locks(session.root / "backend", "db", *locks.get(holder, [lock(1)]))
    if holder == "not told":
        session.target.backend = "s3://bucket"
        assert holders_of(session, session.stack(DB)) is None
    if isinstance(holder, bytes):
        (tmp_path / "backend/.pulumi/locks/organization/db/mx/0.json").write_bytes(holder)
        assert describe_holders(session, session.stack(DB)) == "a lock without an owner"
    with pytest.raises(ends) as ended:
        approve(session)
        raise Removed
    assert told in session.reporter.text
    assert len(session.reporter.asked) == (0 if holder in ("dead", "living") or typed is None else 1)
    if holder == "living":
        assert f"kill -INT {os.getpid()}" in ended.value.next_step


def test_process_that_began_after_the_lock_is_another_one() -> None:
    assert find_holder(lock(os.getpid(), since="2001-01-01T00:00:00Z")).holder is Holder.GONE
    assert find_holder(lock(os.getpid(), since=NOW)).holder is Holder.ALIVE
    assert find_holder(lock(os.getpid(), since="no time")).holder is Holder.ALIVE
    assert find_holder(lock(os.getppid(), since=NOW)).holder is Holder.ALIVE


@contextlib.contextmanager
def waiting(*words: str, cwd: str | Path = "/") -> Iterator[int]:
    """The number of a process that waits, with these words in its command line."""
    waits = "print('up', flush=True); import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", waits, *words], stdout=subprocess.PIPE, cwd=cwd) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        try:
            yield child.pid
        finally:
            child.kill()


def test_a_holder_that_works_lives_though_the_clock_was_set_meanwhile() -> None:
    with waiting("pulumi", "up") as pid:
        before_the_clock_was_set = lock(pid, since="2001-01-01T00:00:00Z")
        assert find_holder(before_the_clock_was_set).holder is Holder.ALIVE


@pytest.mark.parametrize(
    ("held", "taken_meanwhile", "removed"), [(False, False, False), (True, False, True), (True, True, False)]
)
def test_the_lock_that_was_shown_is_removed_and_no_other(
    tmp_path: Path, held: bool, taken_meanwhile: bool, removed: bool
) -> None:
    def answers() -> Iterator[str]:
        if taken_meanwhile:
            write_locks(session.root / "backend", "db", lock(2, host="other-machine"))
        yield "db"

    session = ScriptedSession(tmp_path, {("cancel", "db"): ""}, answers=answers())
    if held:
        write_locks(session.root / "backend", "db", ELSEWHERE)
    with pytest.raises(Refused) if taken_meanwhile else contextlib.nullcontext():
        remove_lock(session, session.stack(DB))
    assert (("cancel", "db") in session.runner.ran) is removed


def test_a_lock_given_up_while_we_look_is_none(tmp_path: Path) -> None:
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "left.json.attrs").write_text("{}")
    assert locks_in(tmp_path) == locks_in(tmp_path / "nothing") == ()


def test_a_process_is_alive_or_gone() -> None:
    assert process_is_alive(os.getpid()) and process_is_alive(1)
    assert not any(process_is_alive(number) for number in (0, -1, 2**22 + 1, 2**40))


def test_times_of_lock_files() -> None:
    assert seconds_of("1970-01-01T00:01:00.5Z") == 60.5
    assert seconds_of("1970-01-01T01:01:00.123456789+01:00") == pytest.approx(60.123456)
    assert seconds_of("$TIME") is None


# The cloud: it knows that an update runs and of whom, not the process


RUNNING = """\
Current stack is db/mx:
    Owner: acme
    Update in progress:
	Started: 2 minutes ago
	Requested By: me
    Last updated: 3 hours ago
Current stack resources (0):
"""


def on_cloud(session: ScriptedSession, said: str) -> None:
    session.target.backend, session.target.has_diy_backend = "https://api.pulumi.com", False
    session.target.file_backend = None
    session.runner.script["ls", "db"] = '[{"name": "mx", "updateInProgress": true}]'
    session.runner.script["show", "db"] = said


@pytest.mark.parametrize(
    ("on_lab", "told"), [(False, "its process is on another machine"), (True, "its process is gone")]
)
def test_an_update_that_runs_elsewhere_needs_the_name_typed_but_on_the_lab(
    tmp_path: Path, on_lab: bool, told: str
) -> None:
    """The lab's cloud knows this machine alone."""
    session = ScriptedSession(tmp_path, {}, answers=["db"], ephemeral=on_lab)
    on_cloud(session, RUNNING)
    approve(session)
    assert f"an update of me, begun 2 minutes ago: {told}" in session.reporter.text
    assert len(session.reporter.asked) == (0 if on_lab else 1)


def test_a_process_that_works_on_another_stack_of_the_project_is_another_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def processes(*facts: str) -> list[dict[str, object]]:
        words = {41: "acme/mx", 42: "acme/lab"}
        here = [
            {"pid": pid, "cwd": "/", "cmdline": f"pulumi -C /p up --stack {it}".split()} for pid, it in words.items()
        ]
        return [*here, {"pid": 43, "cwd": None, "cmdline": None}]

    monkeypatch.setattr(locks, "list_processes", processes)
    assert locks.working_on({"/p"}, "mx") == [41]


def test_a_process_whose_start_is_not_shown_may_be_the_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /proc is mounted with `hidepid=1`, for another user's process."""
    hidden = {"pid": os.getpid(), "create_time": None, "cmdline": None}
    monkeypatch.setattr(locks, "list_processes", lambda *_: [hidden])
    assert find_holder(lock(os.getpid(), since="2001-01-01T00:00:00Z")).holder is Holder.ALIVE


@pytest.mark.parametrize("rolls_back", [True, False], ids=["an older commit", "the project"])
@pytest.mark.parametrize("stands_there", [True, False], ids=["in the folder", "by -C"])
def test_a_process_here_that_works_on_the_project_is_never_robbed(
    tmp_path: Path, stands_there: bool, rolls_back: bool
) -> None:
    session = ScriptedSession(tmp_path, {}, answers=["db"], ephemeral=True)
    on_cloud(session, RUNNING)
    folder = session.stack(DB).folder
    if rolls_back:
        folder = session.state_dir / "worktrees" / "0123-4567" / "pulumi" / DB.folder
        folder.mkdir(parents=True)
    where = ("--",) if stands_there else ("-C", str(folder))
    with waiting(*where, "up", cwd=folder if stands_there else "/") as pid, pytest.raises(Refused) as refused:
        approve(session)
    assert refused.value.next_step.endswith(f"kill -INT {pid}")
    assert session.reporter.asked == []


@pytest.mark.parametrize(
    ("listed", "said"),
    [("[]", RUNNING), (None, RUNNING.replace("Update in progress", "Nothing")), (None, "")],
    ids=["no stack", "no update", "no answer"],
)
def test_a_stack_in_the_cloud_without_a_holder(tmp_path: Path, listed: str | None, said: str) -> None:
    session = ScriptedSession(tmp_path, {})
    on_cloud(session, said)
    if listed:
        session.runner.script["ls", "db"] = listed
    assert holders_of(session, session.stack(DB)) == []


def test_the_same_update_a_little_later_is_the_same() -> None:
    first, later = (read_current_update(RUNNING.replace("2 minutes", age)) for age in ("2 minutes", "3 minutes"))
    assert first is not None and later is not None
    assert first.identity == later.identity


# What a killed update left is settled by what the cluster has, and by nothing else

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
    operation("creating", "pulumi:providers:kubernetes", "default"),
    operation("updating", CONFIG_MAP, "updated"),
)
RECORDED = [{**operation("", CONFIG_MAP, name)["resource"], "id": f"db/{name}"} for name in ("recorded", "updated")]
THERE = "v1\tConfigMap\tdb\tmade\t\t\t\nv1\tConfigMap\tdb\tof-a-chart\tchart\tdb\t\n"


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
    assert session.runner.guarded == 1, "the cluster that is asked is the pinned one"
    state = written(session)
    assert "pending_operations" not in state
    assert [resource["id"] for resource in state["resources"]] == ["db/recorded", "db/updated", "db/made"]
    assert state["resources"][-1]["outputs"] == {"__fieldManager": "pulumi-kubernetes-1a2b"}
    refresh = session.runner.commands[-1].argv
    assert [word for word in refresh if word.startswith("--target")] == [f"--target={urn('db', CONFIG_MAP, 'made')}"]
    for name in ("made", "absent", "of-a-chart", "recorded", "role", "default", "updated"):
        assert f" {name}: " in session.reporter.text
    assert "pulumi import postgresql:index/role:Role role" in session.reporter.text
    assert "pulumi import pulumi:providers" not in session.reporter.text, "a provider exists in the state alone"
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
    write_locks(session.root / "backend", "db", ELSEWHERE)
    with pytest.raises(Refused):
        settle(session)
    assert "import" not in [verb for verb, _ in session.runner.ran]


def test_a_state_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    session = scripted(tmp_path, *OPERATIONS, ephemeral=True)
    session.runner.script["import", "db"] = [Answer(stderr="error: could not import", exit_code=1)]
    with pytest.raises(ToolFailed):
        settle(session)
    assert session.runner.ran[-1] == ("import", "db")
