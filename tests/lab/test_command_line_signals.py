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

from tests.lab.command_line import Result, children_of, finished, until
from tests.lab.probe import BUSY_IN_PREVIEW, CONFIG_MAP, DEPLOYMENT, HELD, ProbeCheckout

pytestmark = pytest.mark.lab

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
CLOUD, FILES = "lab", "mx"
"""The probe's stack on the lab's cloud, and that of the target `home` on its file backend."""
CASES = [(number, stack) for stack in (CLOUD, FILES) for number in SIGNALS]
NAMES = [f"{number.name} {'cloud' if stack == CLOUD else 'files'}" for number, stack in CASES]
NEVER_READY = DEPLOYMENT.format(annotations=HELD)
SOON_READY = DEPLOYMENT.format(annotations={})


@pytest.fixture
def checkout(probe_checkout: ProbeCheckout) -> Iterator[ProbeCheckout]:
    probe_checkout.forget_probe()
    yield probe_checkout
    for process in probe_checkout.left_running():  # of a test that failed in the middle
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process.partition(":")[0]), signal.SIGKILL)


def pending(checkout: ProbeCheckout, stack: str = "lab") -> list[dict[str, Any]]:
    path = checkout.state_file("probe", stack)
    return checkout.deployment("probe", stack).get("pending_operations") or [] if path.exists() else []


def where(stack: str) -> tuple[str, ...]:
    return () if stack == CLOUD else ("--target", "home")


def deploy(stack: str) -> tuple[str, ...]:
    return (*where(stack), "deploy.probe", *(() if stack == CLOUD else ("--yes",)))


def make_stack(checkout: ProbeCheckout, stack: str) -> None:
    """The lab makes what is missing by itself; nothing else does."""
    if stack != CLOUD:
        checkout.make_stack_at_home()


def begun_update(
    checkout: ProbeCheckout, *words: str, stack: str = "lab", env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """A deployment whose update waits for a pod that never gets ready."""
    checkout.write_program(NEVER_READY)
    run = checkout.start(*(words or ("deploy.probe",)), env=env or checkout.with_pulumi)
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
    result.ends_with(8, "cancel.probe", "deploy.probe")
    assert f"{number.name} was passed on to" in result.stdout
    assert checkout.journal()[-1]["exit_code"] == 8
    checkout.assert_nothing_left("probe")


@pytest.mark.parametrize(("number", "stack"), CASES, ids=NAMES)
def test_a_signal_during_preview(checkout: ProbeCheckout, number: signal.Signals, stack: str, tmp_path: Path) -> None:
    make_stack(checkout, stack)
    started, gate = tmp_path / "started", tmp_path / "gate"
    busy = BUSY_IN_PREVIEW.format(started=str(started), gate=str(gate))
    checkout.write_program(busy + CONFIG_MAP.format(word="late"))
    run = checkout.start(*where(stack), "preview.probe", env=checkout.with_recorder)
    until(started.exists, "the program runs", seconds=120)
    before = checkout.state("probe", stack)

    result = stop_run(checkout, run, number)

    assert_reported(checkout, result, number)
    assert_one_signal(checkout, number)
    assert checkout.state("probe", stack) == before
    gate.touch()
    checkout.inv(*where(stack), "preview.probe", env=checkout.with_pulumi).ends_with(0).shows(
        "+  probe      ConfigMap probe"
    )
    checkout.assert_nothing_left("probe")


@pytest.mark.parametrize(("number", "stack"), CASES, ids=NAMES)
def test_a_signal_during_up(checkout: ProbeCheckout, number: signal.Signals, stack: str) -> None:
    make_stack(checkout, stack)
    run = begun_update(checkout, *deploy(stack), stack=stack, env=checkout.with_recorder)

    result = stop_run(checkout, run, number)

    assert_reported(checkout, result, number)
    assert_one_signal(checkout, number)
    assert checkout.locks("probe") == []
    assert pending(checkout, stack) == []
    if number is not signal.SIGKILL:
        assert "it left no lock and no operation of unknown result" in result.stderr
        assert "failed: probe" in result.stdout
    checkout.write_program(SOON_READY)
    checkout.inv(*deploy(stack), env=checkout.with_pulumi).ends_with(0)
    assert not any(resource.get("initErrors") for resource in checkout.deployment("probe", stack)["resources"])
    checkout.assert_nothing_left("probe")


def test_a_second_signal_is_not_passed_on(checkout: ProbeCheckout) -> None:
    run = begun_update(checkout, env=checkout.with_recorder)
    for _ in range(3):
        os.kill(run.pid, signal.SIGINT)

    stop_run(checkout, run, signal.SIGTERM).ends_with(8)
    assert_one_signal(checkout, signal.SIGINT)
    assert pending(checkout) == []


def test_a_stack_held_in_the_cloud(checkout: ProbeCheckout) -> None:
    """By a run that lives: refused. By one that is gone: `cancel` ends its update, and the next run goes on."""
    run = begun_update(checkout)
    holder = updating(run)
    held = checkout.locks("probe")
    assert len(held) == 1
    assert "an update runs" in checkout.inv("status").stdout

    checkout.inv("deploy.probe").ends_with(5, f"process {holder}", "expected: ", "./inv cancel.probe")
    checkout.inv("cancel.probe").ends_with(5, f"process {holder}", "expected: ", f"kill -INT {holder}")
    assert checkout.locks("probe") == held
    assert run.poll() is None

    os.kill(holder, signal.SIGKILL)
    finished(run).ends_with(1, "creating probe")
    checkout.inv("deploy.probe").ends_with(5, "./inv cancel.probe")
    assert_settled(checkout, stack="lab", report=("held by an update of lab, begun", "its process is gone"))


def test_a_stack_held_by_a_lock_file(checkout: ProbeCheckout) -> None:
    """The same on a file backend, whose lock names the process; `cancel` removes it when that is gone."""
    make_stack(checkout, FILES)
    again = ("deploy.probe", "--yes")
    run = begun_update(checkout, "--target", "home", *again, stack="mx")
    holder = updating(run)
    (lock,) = checkout.locks("probe")
    held = Path(lock).read_bytes()

    for words, end in ((again, "./inv --target home cancel.probe"), (("cancel.probe",), f"kill -INT {holder}")):
        checkout.at_home(*words).ends_with(5, f"process {holder}", "expected: ", end)
        assert Path(lock).read_bytes() == held
        assert run.poll() is None

    os.kill(holder, signal.SIGKILL)
    finished(run).ends_with(1, "creating probe")
    checkout.at_home(*again).ends_with(5, f"process {holder}", "cancel.probe")
    elsewhere = Path(lock).with_name("11111111-2222-3333-4444-555555555555.json")
    elsewhere.write_text(json.dumps(json.loads(held) | {"hostname": "elsewhere"}))
    checkout.at_home("cancel.probe").ends_with(8)
    assert elsewhere.exists()
    elsewhere.unlink()
    cancelled = checkout.at_home("cancel.probe")
    cancelled.ends_with(8, "./inv --target home cancel.probe --yes")  # the object that exists is the user's decision
    assert f"held by process {holder}" in cancelled.stdout
    assert "it is gone" in cancelled.stdout
    assert checkout.locks("probe") == []
    assert_settled(checkout, "--target", "home", stack="mx", approval=("--yes",))


def updating(run: subprocess.Popen[str]) -> int:
    """The pulumi that works for the run."""
    (holder,) = [pid for pid, argv in children_of(run.pid) if "up --json" in argv]
    return holder


def assert_settled(
    checkout: ProbeCheckout, *target: str, stack: str, approval: tuple[str, ...] = (), report: tuple[str, ...] = ()
) -> None:
    """From the state that `status` complains about, by its own advice, to a clean `status` and another deploy."""
    assert "1: ./inv cancel.probe" in row_of_probe(checkout, *target)
    if stack == FILES:
        checkout.at_home("destroy.probe").ends_with(5, "cancel.probe")
    cancelled = checkout.inv(*target, "cancel.probe", *approval, env=checkout.with_pulumi)
    cancelled.ends_with(0)
    for words in (*report, "pending: creating", "taken into the state"):
        assert words in cancelled.stdout, cancelled.all
    assert checkout.locks("probe") == []
    assert pending(checkout, stack) == []
    assert "none" in row_of_probe(checkout, *target)
    made = checkout.kubectl("get", "deployment/probe", "-o=jsonpath={.metadata.uid}")
    checkout.write_program(SOON_READY)
    checkout.inv(*target, "deploy.probe", *approval, env=checkout.with_pulumi).ends_with(0)
    assert checkout.kubectl("get", "deployment/probe", "-o=jsonpath={.metadata.uid}") == made
    assert "none" in row_of_probe(checkout, *target)
    checkout.assert_nothing_left("probe")


def row_of_probe(checkout: ProbeCheckout, *target: str) -> str:
    result = checkout.inv(*target, "status", env=checkout.with_pulumi)
    return next(line for line in result.stdout.splitlines() if line.startswith("probe "))


def test_a_creation_that_never_happened_is_dropped(checkout: ProbeCheckout) -> None:
    """The update is killed, and its object is gone: `cancel` drops the operation, and `deploy` creates the object."""
    run = begun_update(checkout)
    os.kill(updating(run), signal.SIGKILL)
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
