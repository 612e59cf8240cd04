"""The lab's door to processes: starting detached ones, knowing them again, ending them (Linux, `/proc`)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
MARK = "HOMELAB_OPS_LAB"
"""Environment variable that every process of a lab carries: the lab's folder."""

_children: set[int] = set()
"""What this process started itself: reaped when found ended, so that it does not stay as a zombie."""


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: str
    """Boot id and start time in clock ticks since that boot (`/proc/<pid>/stat`, field 22)."""


def identify(pid: int) -> ProcessId | None:
    """The running process with this number; None when there is none, or only a zombie."""
    if pid in _children and _is_reaped(pid):
        return None
    try:
        stat = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The name, in parentheses, may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return ProcessId(pid, f"{_boot_id()}/{fields[19]}")


def _is_reaped(child: int) -> bool:
    """Whether it ended; its number may be another's from then on."""
    try:
        ended, _ = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:  # another thread was faster
        ended = child
    if ended:
        _children.discard(child)
    return bool(ended)


def _boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()


def is_alive(process: ProcessId) -> bool:
    return identify(process.pid) == process


def start(argv: tuple[str, ...], *, env: Mapping[str, str], cwd: Path, log: Path) -> ProcessId:
    """Starts a process in its own session that outlives this one; output is appended to `log` (0600).

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
            start_new_session=True,
            umask=0o077,
        )
    _children.add(child.pid)
    # It is meant to outlive us. The standard library takes a child without a return code for forgotten, and warns.
    child.returncode = 0
    return identify(child.pid) or ProcessId(child.pid, "ended at once")


def send(process: ProcessId, number: int) -> bool:
    """Signals exactly this process, never a later one with its number; False when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle is of whoever has the number now; from here on it cannot change hands.
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def end(process: ProcessId, *, number: int = signal.SIGTERM, seconds: float) -> bool:
    """Asks the process to end, waits, and kills it when it does not; True when it ended by itself."""
    send(process, number)
    if wait_until(lambda: not is_alive(process), seconds):
        return True
    send(process, signal.SIGKILL)
    wait_until(lambda: not is_alive(process), 5.0)
    return False


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.03) -> bool:
    """Polls; the last answer when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


def memory(pid: int) -> int | None:
    """Resident bytes that are the process's own (shared pages counted in parts: PSS), or RSS where PSS is not told."""
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in (PROC / str(pid) / name).read_text("utf-8", "replace").splitlines():
                if line.startswith(key):
                    return int(line.split()[1]) * 1024
    return None


def memory_of_tree(pid: int) -> int:
    """Resident bytes of the process and all that descend from it."""
    return sum(memory(one) or 0 for one in tree(pid))


def tree(pid: int) -> set[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for other in all_pids():
        with contextlib.suppress(OSError, IndexError):
            parent = int((PROC / str(other) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(other)
    found, waiting = set(), [pid]
    while waiting:
        one = waiting.pop()
        found.add(one)
        waiting.extend(child for child in children.get(one, ()) if child not in found)
    return found


def all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def name_of(pid: int) -> str:
    """A process as a person knows it: its command line, shortened, or its kernel name."""
    line = _command_line(pid).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    if line:
        return line if len(line) <= 80 else line[:77] + "..."
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "comm").read_text("utf-8", "replace").strip()
    return "unknown"


def of_lab(lab: Path) -> set[ProcessId]:
    """Every process that this lab started, at whatever remove.

    Known by the mark in its environment; or a PostgreSQL server (whose workers overwrite
    theirs) inside the lab's folder.
    """
    return {
        process
        for pid in all_pids()
        if pid != os.getpid() and (_is_marked(pid, lab) or _works_in(pid, lab)) and (process := identify(pid))
    }


def started_as(lab: Path, argv: tuple[str, ...]) -> set[ProcessId]:
    """The processes of this lab that were started with exactly this command line."""
    wanted = b"".join(os.fsencode(word) + b"\0" for word in argv)
    return {process for process in of_lab(lab) if _command_line(process.pid) == wanted}


def is_postgres(pid: int) -> bool:
    try:
        return (PROC / str(pid) / "exe").readlink().name == "postgres"
    except OSError:
        return False


def _command_line(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def _is_marked(pid: int, lab: Path) -> bool:
    try:
        return f"{MARK}={lab}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _works_in(pid: int, lab: Path) -> bool:
    try:
        return is_postgres(pid) and (PROC / str(pid) / "cwd").readlink().is_relative_to(lab)
    except OSError:
        return False
