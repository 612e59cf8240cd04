"""Starts the parts in order, starts anew what crashed or changed, and ends all of them.

Nothing stays behind to watch: the parts outlive the command, and the next `lab.up` repairs.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lab.platform import ports, processes
from lab.platform.parts import Part
from lab.platform.paths import LabPaths
from lab.platform.record import Record, Started
from runbooks.core.errors import OpsError, ToolFailed

Report = Callable[[str], None]

PATIENCE = 10.0
"""Seconds that a part found running may take to answer before it counts as stuck and is started anew."""
LOG_LIMIT = 20 * 1024 * 1024
"""Bytes of a log beyond which the part's next start begins a new one; the one before is kept."""
STOP_WITHIN = 20.0
"""Seconds that a part gets to end by itself."""


@contextlib.contextmanager
def locked(paths: LabPaths, report: Report, seconds: float = 1800.0) -> Iterator[None]:
    """One `lab.up`, `lab.down` or `lab.reset` at a time; a second one waits, as long as a cold set-up may take."""
    with _open_lock(paths) as lock:
        if not _try_lock(lock.fileno()):
            report("another lab command is at work; waiting for it")
            if not processes.wait_until(lambda: _try_lock(lock.fileno()), seconds, every=0.2):
                raise OpsError(
                    f"another lab command has held {paths.lock} for more than {seconds:.0f} s",
                    expected="one lab.up, lab.down or lab.reset at a time",
                    next_step=f"fuser {paths.lock}   (who holds it)",
                )
        yield


def _open_lock(paths: LabPaths) -> IO[bytes]:
    try:
        paths.state_dir.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    except OSError as error:
        raise paths.unusable(error) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def base_environment(paths: LabPaths) -> dict[str, str]:
    """What every part gets: nothing of the caller's, and the mark by which it is known as this lab's."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(paths.lab),
        "LANG": "C.UTF-8",
        processes.MARK: str(paths.lab),
    }


@dataclass
class Supervisor:
    """Brings parts to ready and ends them. Whoever uses one holds the lab's lock (`locked`)."""

    paths: LabPaths
    record: Record
    report: Report
    _since: dict[str, float] = field(default_factory=dict)
    """When this run first looked at a running part, or started it (monotonic)."""
    _fresh: set[str] = field(default_factory=set)
    """The parts that this run started."""

    def bring_up(self, parts: Sequence[Part]) -> None:
        """Returns when every required part is ready; needs that are not among `parts` count as ready.

        Raises `OpsError` for a port that somebody else took, `ToolFailed` for a required part that ends or
        does not get ready in its time, with the last lines of its log.
        """
        for part in parts:
            if not self.is_running(part):
                self._clear_way(part)
        waiting = {part.name: part for part in parts}
        while waiting:
            for part in [one for one in waiting.values() if waiting.keys().isdisjoint(one.needs)]:
                if self._is_settled(part):
                    del waiting[part.name]
            if waiting:
                time.sleep(0.03)

    def is_running(self, part: Part) -> bool:
        """Running, and started the way it is declared now."""
        started = self.record.parts.get(part.name)
        return started is not None and started.fingerprint == part.fingerprint and processes.is_alive(started.process)

    def _clear_way(self, part: Part) -> None:
        """Ends what is left of an earlier start, then insists on the part's ports."""
        started = self.record.parts.get(part.name)
        if started is not None and processes.is_alive(started.process):
            self.report(f"{part.name} is declared differently now: starting it anew")
            processes.end(started.process, seconds=part.stop_within)
        elif started is not None:
            self.report(f"{part.name} had ended: starting it anew")
        for stray in processes.started_as(self.paths.lab, part.argv):
            # A lab.up that was killed between starting a process and writing it down.
            processes.end(stray, seconds=part.stop_within)
        for port in (part.port, *part.more_ports):
            if port is not None:
                ports.refuse_taken(part.name, port)

    def _is_settled(self, part: Part) -> bool:
        """One look at the part, starting it when it does not run; True when there is nothing left to wait for."""
        if part.name not in self._since:
            self._since[part.name] = time.monotonic()
            if not self.is_running(part):
                self._start(part)
                return False
        trouble = part.probe()
        seconds = time.monotonic() - self._since[part.name]
        if not trouble:
            if part.name in self._fresh:
                self.report(" ".join(f"{part.name} {part.version} ready after {seconds:.1f} s".split()))
            return True
        if part.name in self._fresh:
            return self._is_given_up(part, trouble, seconds)
        if seconds > PATIENCE:
            self.report(f"{part.name} is stuck ({trouble}): starting it anew")
            processes.end(self.record.parts[part.name].process, seconds=part.stop_within)
            self._since[part.name] = time.monotonic()
            self._start(part)
        return False

    def _is_given_up(self, part: Part, trouble: str, seconds: float) -> bool:
        ended = not processes.is_alive(self.record.parts[part.name].process)
        if not ended and seconds < part.ready_within:
            return False
        what = "ended right after its start" if ended else f"is not ready: {trouble}"
        log = self.paths.log(part.name)
        if part.required:
            raise ToolFailed(
                f"{part.name} {what} (after {seconds:.0f} s); its last words: {_last_words(log)}",
                expected="a part that answers",
                next_step=f"read {log}, then ./inv lab.up",
            )
        self.report(f"{part.name} {what} (after {seconds:.0f} s); the lab goes on without it, see {log}")
        return True

    def _start(self, part: Part) -> None:
        log = self.paths.log(part.name)
        _begin_log(log)
        self._fresh.add(part.name)
        try:
            process = processes.start(
                part.argv, env=base_environment(self.paths) | dict(part.env), cwd=self.paths.lab, log=log
            )
        except OSError as error:
            raise ToolFailed(
                f"{part.name} cannot be started: {error}",
                expected=f"{part.argv[0]} is a program that runs here",
                next_step="./inv lab.up   (builds what is missing)",
            ) from error
        self.record.parts[part.name] = Started(process, part.fingerprint, part.version)
        self.record.save(self.paths.record)

    def end_all(self) -> None:
        """Ends the parts, last started first, then whatever else this lab left running (its Postgres servers)."""
        for name, started in reversed(self.record.parts.items()):
            if processes.is_alive(started.process) and not processes.end(started.process, seconds=STOP_WITHIN):
                self.report(f"{name} did not end within {STOP_WITHIN:.0f} s and was killed")
        end_leftovers(self.paths.lab, self.report)
        if self.record.parts:
            self.record.parts.clear()
            self.record.save(self.paths.record)


def end_leftovers(lab: Path, report: Report) -> None:
    """Ends every process that carries the lab's mark, written down or not; Postgres by its fast shutdown."""
    left = processes.of_lab(lab)
    for process in left:
        # To Postgres SIGTERM means: wait until the last client has gone.
        processes.send(process, signal.SIGINT if processes.is_postgres(process.pid) else signal.SIGTERM)
    if not processes.wait_until(lambda: not any(map(processes.is_alive, left)), STOP_WITHIN):
        for process in filter(processes.is_alive, left):
            report(f"process {process.pid} ({processes.name_of(process.pid)}) was killed")
            processes.send(process, signal.SIGKILL)
    _await_gone(lab)


def _await_gone(lab: Path) -> None:
    if not processes.wait_until(lambda: not processes.of_lab(lab), 5.0):
        left = ", ".join(f"{one.pid} ({processes.name_of(one.pid)})" for one in processes.of_lab(lab))
        raise ToolFailed(
            f"processes of the lab are still there: {left}", expected="none", next_step="./inv lab.down   (once more)"
        )


def _begin_log(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.rename(log.with_name(f"{log.name}.1"))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
        file.write(f"--- started {now}\n")


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()[-40:] if line.strip()]
    told = [line for line in lines if not line.startswith("--- started")]
    return " / ".join(line[:300] for line in told[-2:]) or "nothing"
