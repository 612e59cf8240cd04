"""Signals and locks through the real command line: one signal reaches pulumi, nothing is lost, the next run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command_line import Said, children_of, finished, until
from tests.lab.workshop import BUSY_IN_PREVIEW, CONFIG_MAP, DEPLOYMENT, HELD, Workshop

pytestmark = pytest.mark.lab

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
CLOUD, FILES = "lab", "mx"
"""The probe's stack on the lab's cloud, and that of the target `home` on its file backend."""
CASES = [(number, stack) for stack in (CLOUD, FILES) for number in SIGNALS]
NAMES = [f"{number.name} {'cloud' if stack == CLOUD else 'files'}" for number, stack in CASES]
NEVER_READY = DEPLOYMENT.format(annotations=HELD)
SOON_READY = DEPLOYMENT.format(annotations={})


@pytest.fixture
def workshop(workshop: Workshop) -> Iterator[Workshop]:
    workshop.forget_probe()
    yield workshop
    for told in workshop.left_running():  # of a test that failed in the middle
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(told.partition(":")[0]), signal.SIGKILL)


def pending(workshop: Workshop, stack: str = "lab") -> list[dict[str, Any]]:
    path = workshop.state_file("probe", stack)
    return workshop.deployment("probe", stack).get("pending_operations") or [] if path.exists() else []


def where(stack: str) -> tuple[str, ...]:
    return () if stack == CLOUD else ("--target", "home")


def deploy(stack: str) -> tuple[str, ...]:
    return (*where(stack), "deploy.probe", *(() if stack == CLOUD else ("--yes",)))


def make_stack(workshop: Workshop, stack: str) -> None:
    """The lab makes what is missing by itself; nothing else does."""
    if stack == CLOUD:
        return
    question = [("Create organization/probe/mx?", "y")]
    workshop.typed("--target", "home", "stack.init", "probe", answers=question, env=workshop.with_pulumi).ends_with(0)
    for key in ("token", "note"):
        workshop.at_home("secrets.set", "probe", key, "--generate").ends_with(0)


def begun_update(
    workshop: Workshop, *words: str, stack: str = "lab", env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """A deployment whose update waits for a pod that never gets ready."""
    workshop.write_program(NEVER_READY)
    run = workshop.start(*(words or ("deploy.probe",)), env=env or workshop.with_pulumi)
    until(lambda: pending(workshop, stack) or run.poll() is not None, "the update waits", seconds=300)
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
    said.ends_with(8, "interrupted", "cancel.probe", "deploy.probe")
    assert f"{number.name} was passed on to" in said.stdout
    assert workshop.journal()[-1]["exit_code"] == 8
    workshop.assert_nothing_left("probe")


@pytest.mark.parametrize(("number", "stack"), CASES, ids=NAMES)
def test_a_signal_during_preview(workshop: Workshop, number: signal.Signals, stack: str, tmp_path: Path) -> None:
    make_stack(workshop, stack)
    started, gate = tmp_path / "started", tmp_path / "gate"
    busy = BUSY_IN_PREVIEW.format(started=str(started), gate=str(gate))
    workshop.write_program(busy + CONFIG_MAP.format(word="late"))
    run = workshop.start(*where(stack), "preview.probe", env=workshop.with_recorder)
    until(started.exists, "the program runs", seconds=120)
    before = workshop.state("probe", stack)

    said = told_to_stop(workshop, run, number)

    assert_told(workshop, said, number)
    assert_one_signal(workshop, number)
    assert workshop.state("probe", stack) == before
    gate.touch()
    again = workshop.inv(*where(stack), "preview.probe", env=workshop.with_pulumi)
    again.ends_with(0)
    assert "+  probe      ConfigMap probe" in again.stdout
    workshop.assert_nothing_left("probe")


@pytest.mark.parametrize(("number", "stack"), CASES, ids=NAMES)
def test_a_signal_during_up(workshop: Workshop, number: signal.Signals, stack: str) -> None:
    make_stack(workshop, stack)
    run = begun_update(workshop, *deploy(stack), stack=stack, env=workshop.with_recorder)

    said = told_to_stop(workshop, run, number)

    assert_told(workshop, said, number)
    assert_one_signal(workshop, number)
    assert workshop.locks("probe") == []
    assert pending(workshop, stack) == []
    if number is not signal.SIGKILL:
        assert "it left no lock and no operation of unknown result" in said.stderr
        assert "failed: probe" in said.stdout
    workshop.write_program(SOON_READY)
    workshop.inv(*deploy(stack), env=workshop.with_pulumi).ends_with(0)
    assert not any(resource.get("initErrors") for resource in workshop.deployment("probe", stack)["resources"])
    workshop.assert_nothing_left("probe")


def test_a_second_signal_is_not_passed_on(workshop: Workshop) -> None:
    run = begun_update(workshop, env=workshop.with_recorder)
    for _ in range(3):
        os.kill(run.pid, signal.SIGINT)

    said = told_to_stop(workshop, run, signal.SIGTERM)

    said.ends_with(8, "interrupted")
    assert_one_signal(workshop, signal.SIGINT)
    assert pending(workshop) == []


def test_a_stack_held_in_the_cloud(workshop: Workshop) -> None:
    """By a run that lives: refused. By one that is gone: `cancel` ends its update, and the next run goes on."""
    run = begun_update(workshop)
    holder = updating(run)
    held = workshop.locks("probe")
    assert len(held) == 1
    assert "an update runs" in workshop.inv("status").stdout

    workshop.inv("deploy.probe").ends_with(5, f"process {holder}", "expected: ", "./inv cancel.probe")
    workshop.inv("cancel.probe").ends_with(5, f"process {holder}", "expected: ", f"kill -INT {holder}")
    assert workshop.locks("probe") == held
    assert run.poll() is None

    os.kill(holder, signal.SIGKILL)
    finished(run).ends_with(1, "operations of unknown result: creating probe", "its lock is still there")
    workshop.inv("deploy.probe").ends_with(5, "holds the stack of probe", "is gone", "./inv cancel.probe")
    assert_settled(workshop, stack="lab", report=("held by an update of lab, begun", "its process is gone"))


def test_a_stack_held_by_a_lock_file(workshop: Workshop) -> None:
    """The same on a file backend, whose lock names the process; `cancel` removes it when that is gone."""
    make_stack(workshop, FILES)
    again = ("deploy.probe", "--yes")
    run = begun_update(workshop, "--target", "home", *again, stack="mx")
    holder = updating(run)
    (lock,) = workshop.locks("probe")
    held = Path(lock).read_bytes()

    for words, end in ((again, "./inv --target home cancel.probe"), (("cancel.probe",), f"kill -INT {holder}")):
        workshop.at_home(*words).ends_with(5, f"process {holder}", "expected: ", end)
        assert Path(lock).read_bytes() == held
        assert run.poll() is None

    os.kill(holder, signal.SIGKILL)
    finished(run).ends_with(1, "operations of unknown result: creating probe", "its lock is still there")
    workshop.at_home(*again).ends_with(5, f"process {holder}", "cancel.probe")
    elsewhere = Path(lock).with_name("11111111-2222-3333-4444-555555555555.json")
    elsewhere.write_text(json.dumps(json.loads(held) | {"hostname": "elsewhere"}))
    workshop.at_home("cancel.probe").ends_with(8, "was left alone")
    assert elsewhere.exists()
    elsewhere.unlink()
    cancelled = workshop.at_home("cancel.probe")
    cancelled.ends_with(8, "./inv --target home cancel.probe --yes")  # the object that exists is the user's decision
    assert f"held by process {holder}" in cancelled.stdout
    assert "it is gone" in cancelled.stdout
    assert workshop.locks("probe") == []
    assert_settled(workshop, "--target", "home", stack="mx", approval=("--yes",))


def updating(run: subprocess.Popen[str]) -> int:
    """The pulumi that works for the run."""
    (holder,) = [pid for pid, argv in children_of(run.pid) if "up --json" in argv]
    return holder


def assert_settled(
    workshop: Workshop, *target: str, stack: str, approval: tuple[str, ...] = (), report: tuple[str, ...] = ()
) -> None:
    """From the state that `status` complains about, by its own advice, to a clean `status` and another deploy."""
    assert "1: ./inv cancel.probe" in row_of_probe(workshop, *target)
    if stack == FILES:
        workshop.at_home("destroy.probe").ends_with(5, "cancel.probe")
    cancelled = workshop.inv(*target, "cancel.probe", *approval, env=workshop.with_pulumi)
    cancelled.ends_with(0)
    for words in (*report, "pending: creating", "taken into the state"):
        assert words in cancelled.stdout, cancelled.all
    assert workshop.locks("probe") == []
    assert pending(workshop, stack) == []
    assert "none" in row_of_probe(workshop, *target)
    made = workshop.kubectl("get", "deployment/probe", "-o=jsonpath={.metadata.uid}")
    workshop.write_program(SOON_READY)
    workshop.inv(*target, "deploy.probe", *approval, env=workshop.with_pulumi).ends_with(0)
    assert workshop.kubectl("get", "deployment/probe", "-o=jsonpath={.metadata.uid}") == made
    assert "none" in row_of_probe(workshop, *target)
    workshop.assert_nothing_left("probe")


def row_of_probe(workshop: Workshop, *target: str) -> str:
    said = workshop.inv(*target, "status", env=workshop.with_pulumi)
    return next(line for line in said.stdout.splitlines() if line.startswith("probe "))


def test_a_creation_that_never_happened_is_dropped(workshop: Workshop) -> None:
    """The update is killed, and its object is gone: `cancel` drops the operation, and `deploy` creates the object."""
    run = begun_update(workshop)
    os.kill(updating(run), signal.SIGKILL)
    finished(run)
    workshop.kubectl("delete", "deployment/probe")
    workshop.write_program(SOON_READY)
    workshop.inv("cancel.probe").ends_with(0)
    assert pending(workshop) == []
    workshop.inv("deploy.probe", env=workshop.with_pulumi).ends_with(0)
    assert "none" in row_of_probe(workshop)
    workshop.assert_nothing_left("probe")


def test_cancel_without_a_lock_changes_nothing(workshop: Workshop) -> None:
    workshop.inv("stack.init", "probe").ends_with(0)
    before = workshop.state("probe")
    said = workshop.inv("cancel.probe")
    said.ends_with(0)
    assert "the stack of probe is not locked" in said.stdout
    assert workshop.state("probe") == before
