"""The lab's processes: start detached ones, find them again, stop them. Uses pidfd and `/proc`, so Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

PROC = Path("/proc")
MARK = "HOMELAB_OPS_LAB"
"""Environment variable that every process of a lab has: the lab's folder."""

_children: set[int] = set()
"""Processes that this process started. They are reaped when they end, so that none stays as a zombie."""


@dataclass(frozen=True)
class ProcessId:
    """Identifies a process, also against a later one with the same number."""

    pid: int
    started: str
    """Boot id and start time in clock ticks since that boot (`/proc/<pid>/stat`, field 22)."""


def identify(pid: int) -> ProcessId | None:
    """The running process with this number; None without one, or if it is a zombie."""
    if pid in _children and _reap(pid):
        return None
    try:
        stat = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The name, in parentheses, may hold spaces and parentheses itself. psutil's start time moves with the clock.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    boot_id = (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    return ProcessId(pid, f"{boot_id}/{fields[19]}")


def _reap(child: int) -> bool:
    """Reap the child and return whether it has ended; its number may then belong to another process."""
    try:
        ended, _ = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:  # another thread was faster
        ended = child
    if ended:
        _children.discard(child)
    return bool(ended)


def is_alive(process: ProcessId) -> bool:
    return identify(process.pid) == process


def start(argv: tuple[str, ...], *, env: Mapping[str, str], cwd: Path, log: Path) -> ProcessId:
    """Start a process in its own session that outlives this one; output is appended to `log` (0600).

    Raises `OSError` when the program cannot be started.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        child = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the user's terminal is not for the lab
            umask=0o077,
        )
    _children.add(child.pid)
    # It is meant to outlive us. The standard library takes a child without a return code for forgotten, and warns.
    child.returncode = 0
    return identify(child.pid) or ProcessId(child.pid, "ended at once")


def send(process: ProcessId, number: int) -> bool:
    """Signal exactly this process, never a later one with its number; returns False if it has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle is of the process that has the number now; the check below cannot become outdated.
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def end(process: ProcessId, *, seconds: float) -> bool:
    """Signal the process, wait, and kill it if it has not stopped; returns whether it stopped by itself."""
    send(process, signal.SIGTERM)
    if wait_until(lambda: not is_alive(process), seconds):
        return True
    send(process, signal.SIGKILL)
    wait_until(lambda: not is_alive(process), 5.0)
    return False


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.03) -> bool:
    """Poll until the answer is true; returns the last answer when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


def memory_of_tree(pid: int) -> int:
    """Resident bytes of the process and its descendants; shared pages count once (PSS) if this user may read that."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                try:
                    total += process.memory_full_info().pss
                except psutil.AccessDenied:
                    total += process.memory_info().rss
    return total


def name_of(pid: int) -> str:
    """A readable name of a process: its command line, shortened, or its kernel name."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        line = " ".join(process.cmdline()).strip() or process.name()
        return line if len(line) <= 80 else line[:77] + "..."
    return "unknown"


def of_lab(lab: Path) -> set[ProcessId]:
    """Every process that this lab started, directly or not.

    Known by the mark in its environment; or a PostgreSQL server (whose workers overwrite theirs) inside the lab's
    folder.
    """
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get(MARK) == str(lab)
            ours = ours or (is_postgres(process.pid) and Path(process.cwd()).is_relative_to(lab))
            identity = identify(process.pid) if ours and process.pid != os.getpid() else None
            if identity:
                found.add(identity)
    return found


def another_lab_runs(lab: Path) -> bool:
    """Whether a process of another lab on this machine is alive."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK, str(lab)) != str(lab):
                return True
    return False


def started_as(lab: Path, argv: tuple[str, ...]) -> set[ProcessId]:
    """The processes of this lab that were started with exactly this command line."""
    found = set()
    for process in of_lab(lab):
        with contextlib.suppress(psutil.Error):
            if psutil.Process(process.pid).cmdline() == list(argv):
                found.add(process)
    return found


def is_postgres(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return Path(psutil.Process(pid).exe()).name == "postgres"
    return False
