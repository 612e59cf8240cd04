"""Processes are known by number and start time, and ended without hitting another one."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lab.platform import processes
from lab.platform.processes import ProcessId

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
)


def marked(lab: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], processes.MARK: str(lab)}


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ProcessId]:
    process = processes.start(SLEEP, env=marked(tmp_path), cwd=tmp_path, log=tmp_path / "log")
    yield process
    processes.send(process, signal.SIGKILL)
    assert processes.wait_until(lambda: not processes.is_alive(process), 5)


def test_a_started_process_has_its_own_session_and_a_private_log(sleeper: ProcessId, tmp_path: Path) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


@pytest.mark.parametrize("changed", [lambda boot, ticks: f"{boot}/{ticks}0", lambda _, ticks: f"0-0-0-0-0/{ticks}"])
def test_another_start_or_boot_is_another_process(sleeper: ProcessId, changed: Callable[[str, str], str]) -> None:
    other = ProcessId(sleeper.pid, changed(*sleeper.started.split("/")))
    assert not processes.is_alive(other) and not processes.send(other, signal.SIGKILL)
    assert processes.is_alive(sleeper)


def test_a_process_ends_when_asked(sleeper: ProcessId) -> None:
    assert processes.end(sleeper, seconds=5)
    assert processes.identify(sleeper.pid) is None


def test_an_ended_process_is_reaped(sleeper: ProcessId) -> None:
    os.kill(sleeper.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: processes.identify(sleeper.pid) is None, 5)
    with pytest.raises(ChildProcessError):
        os.waitpid(sleeper.pid, os.WNOHANG)


def test_who_started_a_process_ends_before_it_without_a_word(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lab.platform import processes;"
        "folder, *argv = sys.argv[1:];"
        "print(processes.start(tuple(argv), env={}, cwd=Path(folder), log=Path(folder, 'log')).pid)"
    )
    argv = [sys.executable, "-X", "dev", "-W", "error", "-c", program, str(tmp_path), *SLEEP]
    ended = subprocess.run(argv, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    os.kill(int(ended.stdout), signal.SIGKILL)
    assert ended.stderr == ""


def test_a_stubborn_process_is_killed(tmp_path: Path) -> None:
    process = processes.start(STUBBORN, env=marked(tmp_path), cwd=tmp_path, log=tmp_path / "log")
    assert processes.wait_until(lambda: (tmp_path / "log").read_text() == "deaf\n", 10)
    assert not processes.end(process, seconds=0.2)
    assert not processes.is_alive(process)


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert processes.wait_until(lambda: processes.identify(child.pid) is None, 10)
    child.wait()


def test_a_labs_processes_are_found_by_their_mark(sleeper: ProcessId, tmp_path: Path) -> None:
    # The kernel shows a new program's environment a moment after its start.
    assert processes.wait_until(lambda: processes.of_lab(tmp_path) == {sleeper}, 5)
    assert processes.started_as(tmp_path, SLEEP) == {sleeper}
    assert processes.started_as(tmp_path, (*SLEEP, "more")) == set()
    assert processes.of_lab(tmp_path / "other") == set()
    assert processes.another_lab_runs(tmp_path / "other")


def test_the_memory_of_descendants_counts(tmp_path: Path) -> None:
    command = f"import subprocess, sys; subprocess.run({list(SLEEP)!r})"
    parent = processes.start((sys.executable, "-c", command), env=marked(tmp_path), cwd=tmp_path, log=tmp_path / "log")
    try:
        assert processes.wait_until(lambda: len(psutil.Process(parent.pid).children()) == 1, 10)
        own = psutil.Process(parent.pid).memory_full_info().pss
        assert processes.wait_until(lambda: processes.memory_of_tree(parent.pid) > own, 10)
    finally:
        for process in processes.of_lab(tmp_path):
            processes.send(process, signal.SIGKILL)
        assert processes.wait_until(lambda: not processes.of_lab(tmp_path), 5)
