"""Scenario 15 without a cluster: a signal cancels; SIGKILL leaves a lock and a pending operation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.contract import recorded_programs as P  # noqa: N812 - a table of texts
from tests.contract.replay import Stage
from tests.contract.test_standin_replay import deployed, make_stage

SLOW = P.HEAD + P.NAMESPACE + P.SLOW % "x"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = make_stage(tmp_path)
    deployed(P.HEAD + P.NAMESPACE)(made)
    made.write_program(SLOW)
    return made


def interrupted(stage: Stage, *numbers: signal.Signals) -> tuple[int, str]:
    """An ``up`` that is sent the signals while it waits; exit code and output."""
    child = subprocess.Popen(
        [*stage.launcher, "up", "-s", "mx", "--yes", "--skip-preview", "--non-interactive"],
        cwd=stage.folder,
        env={**os.environ, **stage.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = ""
    waiting = list(numbers)
    watchdog = threading.Timer(60, child.kill)
    watchdog.start()
    try:
        with child:
            for line in child.stdout or ():
                output += line
                if waiting and ("Waiting for app" in line or "received; cancelling" in line):
                    child.send_signal(waiting.pop(0))
    finally:
        watchdog.cancel()
    return child.returncode, output


def state(stage: Stage) -> dict[str, Any]:
    deployment: dict[str, Any] = json.loads(stage.must("stack", "export", "-s", "mx"))["deployment"]
    return deployment


def locks(stage: Stage) -> list[Path]:
    return list((stage.root / "state/lab/backend/.pulumi/locks").rglob("*.json"))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGINT, ("^C", "press ^C again")),
        (signal.SIGTERM, ("SIGTERM", "send SIGTERM again")),
    ],
)
def test_one_signal_cancels_and_records(number: signal.Signals, words: tuple[str, str], stage: Stage) -> None:
    code, output = interrupted(stage, number)
    after = state(stage)

    assert code == 1
    received, again = words
    assert f"{received} received; cancelling. If you would like to terminate immediately, {again}.\n" in output
    assert "**creating failed**" in output
    assert 'Resource operation was cancelled for "slow-x"' in output
    assert "error: update failed" in output
    assert "pending_operations" not in after
    assert after["resources"][-1]["initErrors"]
    assert locks(stage) == []
    assert "~ 1 to update" in stage.must("preview", "-s", "mx")


def test_a_kill_leaves_a_lock_and_a_pending_operation(stage: Stage) -> None:
    code, _output = interrupted(stage, signal.SIGKILL)

    assert code == -signal.SIGKILL
    assert [operation["type"] for operation in state(stage)["pending_operations"]] == ["creating"]
    assert len(locks(stage)) == 1
    assert stage.run(["up", "-s", "mx", "--yes", "--skip-preview"]).returncode == 1
    assert stage.run(["preview", "-s", "mx"]).returncode == 0

    stage.must("cancel", "--yes", "mx")
    stage.must("refresh", "-s", "mx", "--yes", "--skip-preview")
    assert state(stage)["pending_operations"], "a create that may have happened is not forgotten silently"
    stage.write_program(P.HEAD + P.NAMESPACE)
    up = ("up", "-s", "mx", "--yes", "--skip-preview")
    assert "with 1 pending operations from previous deployment" in stage.must(*up)
    stage.must("refresh", "-s", "mx", "--yes", "--skip-preview", "--clear-pending-creates")
    assert "pending_operations" not in state(stage)
    assert "pending operations" not in stage.must(*up)


def test_a_kill_leaves_no_program_behind(stage: Stage) -> None:
    pid_file = stage.root / "pid"
    stage.write_program(f"import os, pathlib\npathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n" + SLOW)

    interrupted(stage, signal.SIGKILL)

    program = psutil.Process(int(pid_file.read_text())) if psutil.pid_exists(int(pid_file.read_text())) else None
    assert program is None or program.wait(20) is None


def test_a_second_signal_ends_at_once_and_says_what_may_be_under_way(stage: Stage) -> None:
    # The provider of these tests answers a cancellation at once; a resource of this name it does not.
    stage.write_program(P.HEAD + P.NAMESPACE + P.SLOW.replace("slow-%s", "slow-deaf"))

    code, output = interrupted(stage, signal.SIGINT, signal.SIGINT)

    assert code == 1
    assert "^C received" in output
    assert [operation["type"] for operation in state(stage)["pending_operations"]] == ["creating"]
    assert len(locks(stage)) == 1


def test_a_signal_while_the_program_computes(stage: Stage) -> None:
    stage.write_program('import time\nprint("Waiting for app", flush=True)\ntime.sleep(60)\n')

    code, output = interrupted(stage, signal.SIGINT)

    assert code == 1
    assert "error: update canceled" in output
    assert locks(stage) == []
