"""The processes of this machine, by psutil, which is imported when it is needed: most runs never ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def process_is_alive(pid: int) -> bool:
    """Whether a process with that number exists, of any user; a zombie does not count."""
    import psutil

    try:
        return pid > 0 and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:  # it is gone, or another user's and hidden
        # A lock may hold any number; psutil fails for one that no process can have.
        return pid < 2**31 and bool(psutil.pid_exists(pid))


def list_processes(*facts: str) -> Iterator[dict[str, Any]]:
    """`pid` and these facts, by psutil's names, of every process; `None` for what this user may not see."""
    import psutil

    for process in psutil.process_iter(["pid", *facts]):
        yield process.info
