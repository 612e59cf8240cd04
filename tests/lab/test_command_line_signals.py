"""Signals and locks through the real command line: one signal reaches pulumi, nothing is lost, the next run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.lab.command_line import Result, finished, until
from tests.lab.probe import BUSY_IN_PREVIEW, CONFIG_MAP, DEPLOYMENT, HELD, ProbeCheckout

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Stack:
    """One of the probe's stacks: what is typed for it."""

    name: str
    target: tuple[str, ...] = ()
    approval: tuple[str, ...] = ()

    @property
    def deploy(self) -> tuple[str, ...]:
        return (*self.target, "deploy.probe", *self.approval)


CLOUD = Stack("lab")
"""On the lab's cloud. The lab makes what is missing by itself; nothing else does."""
FILES = Stack("mx", ("--target", "home"), ("--yes",))
"""Of the target `home`, on the lab's file backend."""
STACKS = pytest.mark.parametrize("stack", [CLOUD, FILES], ids=["cloud", "files"])
SIGNALS = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)
NEVER_READY = DEPLOYMENT.format(annotations=HELD)
SOON_READY = DEPLOYMENT.format(annotations={})


@pytest.fixture
def checkout(probe_checkout: ProbeCheckout) -> Iterator[ProbeCheckout]:
    probe_checkout.forget_probe()
    yield probe_checkout
    for process in probe_checkout.left_running():  # of a test that failed in the middle
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process.partition(":")[0]), signal.SIGKILL)


def pending(checkout: ProbeCheckout, stack: Stack = CLOUD) -> list[dict[str, Any]]:
    is_written = checkout.state_file("probe", stack.name).exists()
    return checkout.deployment("probe", stack.name).get("pending_operations") or [] if is_written else []


def make_stack(checkout: ProbeCheckout, stack: Stack) -> None:
    if stack is FILES:
        checkout.make_stack_at_home()


def start_update(
    checkout: ProbeCheckout, stack: Stack = CLOUD, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """A deployment whose update waits for a pod that never gets ready."""
    make_stack(checkout, stack)
    checkout.write_program(NEVER_READY)
    run = checkout.start(*stack.deploy, env=env or checkout.with_pulumi)
    until(lambda: pending(checkout, stack) or run.poll() is not None, "the update waits", seconds=300)
    assert run.poll() is None, finished(run).all
    return run


def stop_run(checkout: ProbeCheckout, run: subprocess.Popen[str], number: signal.Signals) -> Result:
    """How the run ends after the signal, once everything that it started has ended too."""
    os.kill(run.pid, number)
    result = finished(run)
    until(lambda: not checkout.left_running(), "every process of the run ends", seconds=120)
    return result


def assert_one_signal(checkout: ProbeCheckout, number: signal.Signals) -> None:
    """A killed wrapper cannot pass anything on; whoever watches over the child then sends SIGINT."""
    expected = signal.SIGINT if number is signal.SIGKILL else number
    assert [line.split()[1] for line in checkout.signals] == [expected.name]


def assert_reported(checkout: ProbeCheckout, result: Result, number: signal.Signals) -> None:
    """The run reports that it was interrupted, on the screen and in the journal."""
    kinds = [record["kind"] for record in checkout.journal()]
    if number is signal.SIGKILL:
        assert result.code == -signal.SIGKILL
        assert kinds[-1] == "killed"
        return
    result.ends_with(8, "run the same command again")
    assert "cancel.probe" not in result.all, "nothing is left to settle"
    assert f"{number.name} was passed on to" in result.stdout
    assert checkout.journal()[-1]["exit_code"] == 8
    checkout.assert_nothing_left("probe")


@STACKS
@SIGNALS
def test_a_signal_during_preview(checkout: ProbeCheckout, number: signal.Signals, stack: Stack, tmp_path: Path) -> None:
    make_stack(checkout, stack)
    started, gate = tmp_path / "started", tmp_path / "gate"
    busy = BUSY_IN_PREVIEW.format(started=str(started), gate=str(gate))
    checkout.write_program(busy + CONFIG_MAP.format(word="late"))
    run = checkout.start(*stack.target, "preview.probe", env=checkout.with_recorder)
    until(started.exists, "the program runs", seconds=120)
    before = checkout.state("probe", stack.name)

    result = stop_run(checkout, run, number)

    assert_reported(checkout, result, number)
    assert_one_signal(checkout, number)
    assert checkout.state("probe", stack.name) == before
    gate.touch()
    again = checkout.inv(*stack.target, "preview.probe", env=checkout.with_pulumi)
    again.ends_with(0).shows("+  probe      ConfigMap probe")
    checkout.assert_nothing_left("probe")


@STACKS
@SIGNALS
def test_a_signal_during_up(checkout: ProbeCheckout, number: signal.Signals, stack: Stack) -> None:
    run = start_update(checkout, stack, checkout.with_recorder)

    result = stop_run(checkout, run, number)

    assert_reported(checkout, result, number)
    assert_one_signal(checkout, number)
    assert checkout.locks("probe") == []
    assert pending(checkout, stack) == []
    if number is not signal.SIGKILL:
        assert "it left no lock and no operation with an unknown result" in result.shows("failed: probe").stderr
    checkout.write_program(SOON_READY)
    checkout.inv(*stack.deploy, env=checkout.with_pulumi).ends_with(0)
    assert not any(resource.get("initErrors") for resource in checkout.deployment("probe", stack.name)["resources"])
    checkout.assert_nothing_left("probe")


def test_a_second_signal_is_not_passed_on(checkout: ProbeCheckout) -> None:
    run = start_update(checkout, env=checkout.with_recorder)
    for _ in range(3):
        os.kill(run.pid, signal.SIGINT)

    stop_run(checkout, run, signal.SIGTERM).ends_with(8)
    assert_one_signal(checkout, signal.SIGINT)
    assert pending(checkout) == []


@STACKS
def test_a_stack_that_is_held(checkout: ProbeCheckout, stack: Stack) -> None:
    """By a run that lives: refused. By one that is gone: `cancel` ends its update, and the next run goes on."""

    def inv(*words: str) -> Result:
        return checkout.inv(*stack.target, *words, env=checkout.with_pulumi)

    run = start_update(checkout, stack)
    holder = find_pulumi(run)
    held = read_locks(checkout)
    assert len(held) == 1
    again, cancel = ("deploy.probe", *stack.approval), " ".join(["./inv", *stack.target, "cancel.probe"])
    for words, advice in ((again, cancel), (("cancel.probe",), f"kill -INT {holder}")):
        inv(*words).ends_with(5, f"process {holder}", "expected: ", advice)
        assert read_locks(checkout) == held
        assert run.poll() is None
    if stack is CLOUD:
        inv("status").shows("an update runs")

    os.kill(holder, signal.SIGKILL)
    finished(run).ends_with(1, "creating probe")
    inv(*again).ends_with(5, cancel)
    if stack is CLOUD:
        report = ["held by an update of lab, begun", "its process is gone"]
    else:
        report = []
        lock = next(iter(held))
        elsewhere = Path(lock).with_name("11111111-2222-3333-4444-555555555555.json")
        elsewhere.write_text(json.dumps(json.loads(held[lock]) | {"hostname": "elsewhere"}))
        inv("cancel.probe").ends_with(8)
        assert elsewhere.exists(), "the lock of another machine is a person's decision"
        elsewhere.unlink()
        # The object that exists is the user's decision.
        cancelled = inv("cancel.probe").ends_with(8, f"{cancel} --yes")
        cancelled.shows(f"held by process {holder}", "it is gone")
        assert checkout.locks("probe") == []

    assert "1: ./inv cancel.probe" in row_of_probe(checkout, stack)
    if stack is FILES:
        inv("destroy.probe").ends_with(5, "cancel.probe")
    inv("cancel.probe", *stack.approval).ends_with(0).shows(*report, "pending: creating", "taken into the state")
    assert (checkout.locks("probe"), pending(checkout, stack)) == ([], [])
    assert "none" in row_of_probe(checkout, stack)
    made = checkout.kubectl("get", "deployment/probe", "-o=jsonpath={.metadata.uid}")
    checkout.write_program(SOON_READY)
    inv(*again).ends_with(0)
    assert checkout.kubectl("get", "deployment/probe", "-o=jsonpath={.metadata.uid}") == made
    assert "none" in row_of_probe(checkout, stack)
    checkout.assert_nothing_left("probe")


def read_locks(checkout: ProbeCheckout) -> dict[str, bytes]:
    """What holds the probe's stacks, with the content of lock files."""
    return {lock: Path(lock).read_bytes() if lock.startswith("/") else b"" for lock in checkout.locks("probe")}


def find_pulumi(run: subprocess.Popen[str]) -> int:
    """The pulumi that works for the run."""
    children = psutil.Process(run.pid).children()
    (holder,) = [child.pid for child in children if "up --json" in " ".join(child.cmdline())]
    return holder


def row_of_probe(checkout: ProbeCheckout, stack: Stack = CLOUD) -> str:
    result = checkout.inv(*stack.target, "status", env=checkout.with_pulumi)
    return next(line for line in result.stdout.splitlines() if line.startswith("probe "))


def test_a_creation_that_never_happened_is_dropped(checkout: ProbeCheckout) -> None:
    """The update is killed, and its object is gone: `cancel` drops the operation, and `deploy` creates the object."""
    run = start_update(checkout)
    os.kill(find_pulumi(run), signal.SIGKILL)
    finished(run)
    until(lambda: not checkout.left_running(), "every process of the run ends", seconds=120)
    checkout.kubectl("delete", "--ignore-not-found", "deployment/probe")
    checkout.write_program(SOON_READY)
    checkout.inv("cancel.probe").ends_with(0)
    assert pending(checkout) == []
    checkout.inv("deploy.probe", env=checkout.with_pulumi).ends_with(0)
    assert "none" in row_of_probe(checkout)
    checkout.assert_nothing_left("probe")


def test_cancel_without_a_lock_changes_nothing(checkout: ProbeCheckout) -> None:
    checkout.inv("stack.init", "probe").ends_with(0)
    before = checkout.state("probe")
    checkout.inv("cancel.probe").ends_with(0).shows("the stack of probe is not locked")
    assert checkout.state("probe") == before
