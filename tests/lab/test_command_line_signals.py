"""Signals and locks through the real command line: one signal reaches pulumi, nothing is lost, the next run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command_line import Said, children_of, finished, until
from tests.lab.workshop import BUSY_IN_PREVIEW, CONFIG_MAP, DEPLOYMENT, HELD, Workshop

pytestmark = pytest.mark.lab

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
NEVER_READY = DEPLOYMENT.format(annotations=HELD)
SOON_READY = DEPLOYMENT.format(annotations={})


@pytest.fixture
def workshop(workshop: Workshop) -> Workshop:
    workshop.forget_probe()
    return workshop


def pending(workshop: Workshop) -> list[dict[str, Any]]:
    path = workshop.state_file("probe")
    return workshop.deployment("probe").get("pending_operations") or [] if path.exists() else []


def begun_update(workshop: Workshop) -> subprocess.Popen[str]:
    """A deployment whose update waits for a pod that never gets ready."""
    workshop.write_program(NEVER_READY)
    run = workshop.start("deploy.probe", env=workshop.with_pulumi)
    until(lambda: pending(workshop) or run.poll() is not None, "the update waits", seconds=300)
    assert run.poll() is None, finished(run).all
    return run


def told_to_stop(workshop: Workshop, run: subprocess.Popen[str], number: signal.Signals) -> Said:
    """How the run ends after the signal, once everything that it started has ended too."""
    os.kill(run.pid, number)
    said = finished(run)
    until(lambda: not workshop.left_running(), "every process of the run ends", seconds=120)
    return said


def assert_one_signal(workshop: Workshop, number: signal.Signals) -> None:
    """A killed wrapper cannot pass anything on; whoever watches over the child then sends SIGINT."""
    expected = signal.SIGINT if number is signal.SIGKILL else number
    assert [line.split()[1] for line in workshop.signals] == [expected.name]


def assert_told(workshop: Workshop, said: Said, number: signal.Signals) -> None:
    """The run says that it was interrupted, on the screen and in the journal."""
    kinds = [record["kind"] for record in workshop.journal()]
    if number is signal.SIGKILL:
        assert said.code == -signal.SIGKILL
        assert kinds[-1] == "killed"
        return
    said.ends_with(8, "interrupted", "./inv cancel.probe", "./inv deploy.probe goes on")
    assert f"{number.name} was passed on to" in said.stdout
    assert workshop.journal()[-1]["exit_code"] == 8
    workshop.assert_nothing_left("probe")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_during_preview(workshop: Workshop, number: signal.Signals, tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    busy = BUSY_IN_PREVIEW.format(started=str(started), gate=str(gate))
    workshop.write_program(busy + CONFIG_MAP.format(word="late"))
    run = workshop.start("preview.probe", env=workshop.with_pulumi)
    until(started.exists, "the program runs", seconds=120)
    before = workshop.state_file("probe").read_bytes()

    said = told_to_stop(workshop, run, number)

    assert_told(workshop, said, number)
    assert_one_signal(workshop, number)
    assert workshop.state_file("probe").read_bytes() == before
    gate.touch()
    again = workshop.inv("preview.probe", env=workshop.with_pulumi)
    again.ends_with(0)
    assert "+  probe      ConfigMap probe" in again.stdout
    workshop.assert_nothing_left("probe")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_during_up(workshop: Workshop, number: signal.Signals) -> None:
    run = begun_update(workshop)

    said = told_to_stop(workshop, run, number)

    assert_told(workshop, said, number)
    assert_one_signal(workshop, number)
    assert workshop.locks("probe") == []
    assert pending(workshop) == []
    if number is not signal.SIGKILL:
        assert "it left no lock and no operation of unknown result" in said.stderr
        assert "failed: probe" in said.stdout
    workshop.write_program(SOON_READY)
    workshop.inv("deploy.probe", env=workshop.with_pulumi).ends_with(0)
    assert not any(resource.get("initErrors") for resource in workshop.deployment("probe")["resources"])
    workshop.assert_nothing_left("probe")


def test_a_second_signal_is_not_passed_on(workshop: Workshop) -> None:
    run = begun_update(workshop)
    for _ in range(3):
        os.kill(run.pid, signal.SIGINT)

    said = told_to_stop(workshop, run, signal.SIGTERM)

    said.ends_with(8, "interrupted")
    assert_one_signal(workshop, signal.SIGINT)
    assert pending(workshop) == []


def test_a_held_stack(workshop: Workshop) -> None:
    """Held by a run that lives: refused. By one that is gone: `cancel` removes the lock, and the next run goes on."""
    run = begun_update(workshop)
    (holder,) = [pid for pid, argv in children_of(run.pid) if "up --json" in argv]
    (lock,) = workshop.locks("probe")
    held = lock.read_bytes()

    for task in ("deploy.probe", "cancel.probe"):
        refused = workshop.inv(task)
        refused.ends_with(
            5, f"process {holder}", "expected: ", "./inv cancel.probe" if "deploy" in task else "kill -INT"
        )
        assert lock.read_bytes() == held
        assert run.poll() is None

    os.kill(holder, signal.SIGKILL)
    finished(run).ends_with(1, "operations of unknown result: creating probe", "its lock is still there")
    workshop.inv("deploy.probe").ends_with(5, f"process {holder}", "./inv cancel.probe")
    cancelled = workshop.inv("cancel.probe")
    cancelled.ends_with(0)
    assert f"held by process {holder}" in cancelled.stdout
    assert "it is gone" in cancelled.stdout
    assert "pending: creating" in cancelled.stdout
    assert workshop.locks("probe") == []
    assert len(pending(workshop)) == 1

    # What it says to do: look whether the object exists, and deploy.
    workshop.kubectl("delete", "deployment/probe")
    workshop.write_program(SOON_READY)
    workshop.inv("deploy.probe").ends_with(0)
    workshop.assert_nothing_left("probe")


def test_cancel_without_a_lock_changes_nothing(workshop: Workshop) -> None:
    workshop.inv("stack.init", "probe").ends_with(0)
    before = workshop.state_file("probe").read_bytes()
    said = workshop.inv("cancel.probe")
    said.ends_with(0)
    assert "nobody holds the stack of probe" in said.stdout
    assert workshop.state_file("probe").read_bytes() == before
