"""A build ends with the run that started it, however that ends: nothing of it goes on, and the next run may begin."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lab.toolchain.build import Build, cached
from lab.toolchain.tools import ETCD
from runbooks.core.errors import ToolFailed
from tests.unit.lab_platform.fake_go import FakeGo

ROOT = Path(__file__).parents[3]
RUN = "from lab.toolchain import resolve; resolve(print, ['etcd'])"
PATIENCE = 20.0
COMPILER = """
sh -c 'trap "" TERM INT HUP; echo $$ >> {pids}; exec sleep 600' &
echo $$ >> {pids}
wait
"""
"""A build that has started a compiler, which does not listen to anything, and never ends."""


def wait_until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Going:
    """The processes of the build: the Go and its compiler."""

    def __init__(self, tmp_path: Path) -> None:
        self.file = tmp_path / "pids"
        self.go = FakeGo(tmp_path)
        self.program = self.go.install(COMPILER.format(pids=self.file))

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def has_begun(self) -> bool:
        return len(self.pids) == 2

    def has_ended(self) -> bool:
        return not any(map(runs, self.pids))


@pytest.fixture
def going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Going]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Going(tmp_path)
    monkeypatch.setenv("PATH", made.go.path)
    yield made
    for pid in filter(runs, made.pids):
        os.kill(pid, signal.SIGKILL)


def lock_file() -> Path:
    return cached(ETCD).with_name(f".{cached(ETCD).name}.lock")


def is_free() -> bool:
    with lock_file().open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_ended_ends_its_build(going: Going, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        wait_until(going.has_begun, "the build begins")
        assert not is_free()
        run.send_signal(number)
    wait_until(going.has_ended, "Go and compiler end")
    wait_until(is_free, "the lock is free")
    assert not cached(ETCD).exists()


def test_the_next_run_builds_what_was_left_half_done(going: Going) -> None:
    with subprocess.Popen([sys.executable, "-c", RUN], cwd=ROOT, stdout=subprocess.DEVNULL) as run:
        wait_until(going.has_begun, "the build begins")
        run.kill()
    wait_until(is_free, "the lock is free")
    folder = Build(ETCD, going.go.install(), print, threading.Event()).run()
    assert (folder / "etcd").is_file()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_the_compiler_holds_the_lock_too(going: Going) -> None:
    """Whichever number its file has in the run: here the lowest that is free."""
    with subprocess.Popen([sys.executable, "-c", RUN], cwd=ROOT, stdout=subprocess.DEVNULL) as run:
        wait_until(going.has_begun, "the build begins")
        for pid in going.pids:
            held = {fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
            assert lock_file() in held
        run.kill()


def test_the_stop_event_ends_it(going: Going, tmp_path: Path) -> None:
    stop, failed = threading.Event(), []

    def build() -> None:
        try:
            Build(ETCD, going.program, print, stop).run()
        except ToolFailed as error:
            failed.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    wait_until(going.has_begun, "the build begins")
    stop.set()
    thread.join(PATIENCE)
    wait_until(going.has_ended, "Go and compiler end")
    (error,) = failed
    assert "was stopped" in error.summary and "run the same command again" in error.next_step
    assert is_free()
    assert not list((tmp_path / "cache/homelab-ops/bin").glob(".*.unfinished"))


def test_the_stop_event_ends_the_wait_for_another_run(going: Going) -> None:
    lock_file().parent.mkdir(parents=True)
    stop = threading.Event()
    with lock_file().open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ToolFailed, match="was stopped"):
            Build(ETCD, going.program, lambda _: stop.set(), stop).run()
    assert going.pids == []
