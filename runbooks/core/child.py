"""One child process from its start to its end, in the thread that waits for it. Only `runner.py` uses this.

`subprocess` starts it (docs/decisions/0001). The loop below reads both pipes, writes standard input, sees the exit,
keeps time, and says what became of a signal.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.capture import Capture
from runbooks.core.command import Command
from runbooks.core.orphans import OrphanGuard, is_ignored

READ_SIZE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the runner waits for what. Seconds."""

    interrupted_read: float = 10.0
    """For a read that was told to stop; then its whole group is ended."""
    terminated: float = 5.0
    """Between SIGTERM and SIGKILL for a read that is out of time."""
    open_pipes: float = 1.0
    """For a pipe that something else still holds open when the child itself is gone."""
    unguarded_read: float = 1.0
    """A read with a time-out that lasts longer gets an orphan guard; every other command has one from the start."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How the process ended."""

    code: int
    """Minus the signal's number when a signal ended it."""
    cpu_seconds: float
    """Of the child and of all its descendants that it waited for."""
    peak_memory: int
    """Bytes, of the largest of them."""


class Child:
    """A running process. All methods but `forward` and `wake` belong to the thread that started it."""

    def __init__(
        self,
        command: Command,
        program: str,
        environment: Mapping[str, str],
        stdout: Capture,
        stderr: Capture,
        *,
        tell: Callable[[str], None],
        patience: Patience,
    ) -> None:
        self.command = command
        self.timed_out = False
        self.holds_pipes = False
        """Something that the child started still had its output open when we stopped waiting for it."""
        self.exit: Exit | None = None
        self._tell = tell
        self._patience = patience
        self._sent: signal.Signals | None = None
        self._claims = itertools.count()
        self._asks = 0
        self._asks_told = 0
        self._exited_at = 0.0
        self._asked_at: float | None = None
        self._killing: float | None = None
        self._guard: OrphanGuard | None = None
        self._unwritten = memoryview(command.stdin or b"")
        self.started = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - an argv, never a shell
            command.argv,
            executable=program,
            cwd=command.cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL if command.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else -1
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._captures = {self._output(1): stdout, self._output(2): stderr}
        self._open = set(self._captures)
        self._selector = selectors.DefaultSelector()

    # --- signals: any thread, also a signal handler -----------------------------------------------------------------

    def forward(self, signum: signal.Signals) -> bool:
        """Send this signal to the process, unless it got one before or is gone; whether it was sent."""
        self._asks += 1
        if next(self._claims) > 0:
            return False
        self._sent = signum
        if self._guard:
            self._guard.asked()
        return self._send(signum)

    def wake(self) -> None:
        """Let the waiting thread look at what happened."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"!")

    @property
    def interrupted(self) -> bool:
        return self._sent is not None

    def _send(self, signum: signal.Signals) -> bool:
        """To the process alone, never to its group: a tool passes on to its helpers what it wants them to know."""
        if self.exit is not None:
            return False
        try:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signum)  # Cannot hit a process that got the number later.
            else:
                os.kill(self.pid, signum)
        except OSError:
            return False
        return True

    def _send_group(self, signum: signal.Signals) -> None:
        """To all that a read started; only while it is not reaped, so the number is still its own."""
        if self.exit is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signum)

    # --- the life of it ---------------------------------------------------------------------------------------------

    def guard(self, journal: Path, record: str) -> None:
        """Have somebody stop the child in order should this process be killed."""
        stdout, stderr = self._captures
        with contextlib.suppress(OSError):
            self._guard = OrphanGuard(self.pid, (stdout, stderr), journal, record, asked=self.interrupted)

    def wait(self, start_guard: Callable[[], None]) -> None:
        """Read and write until the process is gone and its output is complete."""
        for descriptor in self._captures:
            self._selector.register(descriptor, selectors.EVENT_READ, self._read)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain_wake)
        if self._pidfd >= 0:
            self._selector.register(self._pidfd, selectors.EVENT_READ, lambda _: self._reap())
        self._begin_stdin()
        while not self._is_over():
            for key, _ in self._selector.select(self._pause()):
                key.data(key.fd)
            if self._pidfd < 0:
                self._reap()
            self._notice_signals()
            self._keep_time()
            if self._guard is None and self._age() > self._patience.unguarded_read and self.exit is None:
                start_guard()
        self.holds_pipes = bool(self._open)

    def close(self) -> None:
        """Give everything back. Should the process still live, because of a bug here, its guard stays on watch."""
        for capture in self._captures.values():
            capture.close()
        if self._guard and self.exit is not None:
            self._guard.release()
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        for descriptor in (self._pidfd, self._wake_read, self._wake_write):
            if descriptor >= 0:
                os.close(descriptor)
        self._pidfd = self._wake_write = self._wake_read = -1

    def _output(self, number: int) -> int:
        stream = self._process.stdout if number == 1 else self._process.stderr
        if stream is None:
            raise RuntimeError("a child was started without pipes")
        return stream.fileno()

    def _age(self) -> float:
        return time.monotonic() - self.started

    def _is_over(self) -> bool:
        if self.exit is None:
            return False
        return not self._open or time.monotonic() - self._exited_at > self._patience.open_pipes

    def _read(self, descriptor: int) -> None:
        data = os.read(descriptor, READ_SIZE)
        if data:
            self._captures[descriptor].feed(data)
        else:
            self._selector.unregister(descriptor)
            self._open.discard(descriptor)

    def _drain_wake(self, descriptor: int) -> None:
        os.read(descriptor, 512)

    def _reap(self) -> None:
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return
        self._process.returncode = os.waitstatus_to_exitcode(status)
        # ru_maxrss is in KiB on Linux and in bytes on macOS.
        unit = 1 if os.uname().sysname == "Darwin" else 1024
        cpu = usage.ru_utime + usage.ru_stime
        self.exit = Exit(code=self._process.returncode, cpu_seconds=cpu, peak_memory=usage.ru_maxrss * unit)
        self._exited_at = time.monotonic()
        if self._pidfd >= 0:
            self._selector.unregister(self._pidfd)
        self._end_stdin()

    # --- standard input ---------------------------------------------------------------------------------------------

    def _begin_stdin(self) -> None:
        if self._process.stdin is None:
            return
        os.set_blocking(self._process.stdin.fileno(), False)
        self._selector.register(self._process.stdin.fileno(), selectors.EVENT_WRITE, self._write)

    def _write(self, descriptor: int) -> None:
        try:
            written = os.write(descriptor, self._unwritten[:READ_SIZE])
        except BlockingIOError:
            return
        except OSError:
            self._end_stdin()  # The child does not want the rest; its exit code says what it thinks of that.
            return
        self._unwritten = self._unwritten[written:]
        if not self._unwritten:
            self._end_stdin()

    def _end_stdin(self) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(KeyError):
                self._selector.unregister(stdin.fileno())
            stdin.close()

    # --- time and signals -------------------------------------------------------------------------------------------

    def _pause(self) -> float:
        """Seconds until something is due by itself; the loop looks again at least once a second."""
        if self._pidfd < 0 or self.exit is not None or self._killing is not None:
            return 0.05
        due = [1.0] + ([self.command.timeout - self._age()] if self.command.timeout is not None else [])
        if self._guard is None:
            due.append(self._patience.unguarded_read - self._age())
        return max(0.001, min(due))

    def _notice_signals(self) -> None:
        """Say what was done about a signal, and about each one more."""
        while self._asks_told < self._asks and self.exit is None:
            self._asks_told += 1
            name = self.command.title or self.command.argv[0]
            if self._asks_told == 1 and self._sent is not None:
                self._asked_at = time.monotonic()
                if not self.command.serves:
                    self._tell(
                        f"{self._sent.name} was passed on to {name!r} (process {self.pid}); "
                        "waiting for it to end in order"
                    )
            else:
                self._tell(
                    f"still waiting for {name!r}; it got its signal, and a second one could leave things half done. "
                    f"To end it by hand, at your own risk: kill -KILL {self.pid}"
                )

    def _keep_time(self) -> None:
        now = time.monotonic()
        limit = self.command.timeout
        if self.exit is not None or self.command.mutates:
            return
        if self._killing is not None:
            if now >= self._killing:
                self._send_group(signal.SIGKILL)
        elif limit is not None and now - self.started >= limit:
            self.timed_out = True
            self._terminate(now)
        elif self._asked_at is not None and now - self._asked_at >= self._patience.interrupted_read:
            self._terminate(now)

    def _terminate(self, now: float) -> None:
        self._send_group(signal.SIGTERM)
        self._killing = now + self._patience.terminated


def graceful_signal() -> signal.Signals:
    """What stops a tool in order: SIGINT, or SIGTERM where children inherit that SIGINT is ignored (`nohup`, `&`)."""
    return signal.SIGTERM if is_ignored(signal.SIGINT) else signal.SIGINT
