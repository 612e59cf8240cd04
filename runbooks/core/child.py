"""One child process from its start to its end, in the thread that waits for it. Only `runner.py` uses this.

`subprocess` starts it (docs/decisions/0001). The loop below reads both pipes, writes standard input, notices the exit,
keeps time, and reports what was done about a signal.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.command import Command

READ_SIZE = 64 * 1024
LARGEST_OUTPUT = 256 * 1024 * 1024
"""Bytes of one stream that are kept in memory."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the runner waits, in seconds."""

    interrupted_read: float = 10.0
    """For a read that got its signal; after that its whole process group is killed."""
    terminated: float = 5.0
    """Between SIGTERM and SIGKILL for a read that is out of time."""
    open_pipes: float = 1.0
    """For a pipe that something else still holds open when the child itself is gone."""
    unguarded_read: float = 1.0
    """A read with a time-out that lasts longer gets an orphan guard; every other command has one from the start."""


class Capture:
    """What arrives on one output pipe, kept in memory, and handed on in whole lines while it arrives.

    `on_text` gets the lines that are complete, several at once, as bytes; `on_line` gets each one as text, without its
    line break. One that raises is not called again, and the child still runs to its end.
    """

    def __init__(
        self,
        *,
        on_text: Callable[[bytes], None] | None = None,
        on_line: Callable[[str], None] | None = None,
        limit: int = LARGEST_OUTPUT,
    ) -> None:
        self.total = 0
        """Bytes that arrived, kept or not."""
        self.problems: list[BaseException] = []
        """What `on_text` and `on_line` raised."""
        self._limit = limit
        self._kept: list[bytes] = []
        self._incomplete: list[bytes] = []
        receivers = (functools.partial(_call_with_lines, on_line) if on_line else None, on_text)
        self._receivers = [receiver for receiver in receivers if receiver]

    @property
    def overflowed(self) -> bool:
        return self.total > self._limit

    @property
    def data(self) -> bytes:
        """All of the output; if more arrived than is kept, the whole lines of its beginning."""
        data = b"".join(self._kept)
        return data[: data.rfind(b"\n") + 1] if self.overflowed else data

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        if not self.overflowed:
            self._kept.append(data)
        if self._receivers:
            end = data.rfind(b"\n") + 1
            if end:
                self._deliver(b"".join([*self._incomplete, data[:end]]))
                self._incomplete.clear()
            self._incomplete.append(data[end:])
            if self.overflowed:  # a line without an end must not fill the memory
                self._incomplete.clear()

    def close(self) -> None:
        """Nothing more will arrive; an incomplete last line counts as one."""
        self._deliver(b"".join(self._incomplete))

    def _deliver(self, lines: bytes) -> None:
        for receiver in tuple(self._receivers) if lines else ():
            try:
                receiver(lines)
            except BaseException as problem:  # noqa: BLE001 - the runner raises it when the child has ended
                self.problems.append(problem)
                self._receivers.remove(receiver)


def _call_with_lines(on_line: Callable[[str], None], lines: bytes) -> None:
    for line in lines.removesuffix(b"\n").split(b"\n"):
        on_line(line.removesuffix(b"\r").decode("utf-8", "replace"))


class OrphanGuard:
    """Sends a child one graceful signal, and reads its output to the end, if this process is killed.

    Nothing inside a killed process can act, so a tiny shell waits beside the child. It holds the reading ends of the
    child's pipes: without a reader the child's next line of output would end it (Go programs die of SIGPIPE on standard
    output) in the middle of its graceful stop. The kernel's own death signal (PR_SET_PDEATHSIG) keeps no pipe open,
    does not exist on macOS, and needs code between fork and exec, which is unsafe beside threads.
    """

    # Standard input is the pipe from us: it ends when we do. 1 and 2 are the *reading* ends of the child's output.
    _SCRIPT = """\
trap '' INT TERM HUP
signalled=
while read -r word; do
  case $word in over) exit 0 ;; signalled) signalled=1 ;; esac
done
test -n "$signalled" || kill -INT "$1"
printf '\\n%s\\n' "$3" >>"$2"
cat <&1 >/dev/null &
cat <&2 >/dev/null &
wait
"""

    def __init__(self, pid: int, output: tuple[int, int], journal: Path, record: str) -> None:
        """`record` is the line that the guard adds to the journal if this process is killed."""
        read_end, self._write_end = os.pipe()
        try:
            self._shell = subprocess.Popen(  # noqa: S603 - a fixed script
                ["/bin/sh", "-c", self._SCRIPT, "orphan-guard", str(pid), str(journal), record],
                stdin=read_end,
                stdout=output[0],
                stderr=output[1],
                env={"PATH": os.defpath},
                start_new_session=True,
            )
        except OSError:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)

    def note_signal(self) -> None:
        """Record that the child got its signal: a second one would end it at once, so the guard must not send one."""
        self._write(b"signalled\n")

    def release(self) -> None:
        """The child is gone; end the guard."""
        self._write(b"over\n")
        os.close(self._write_end)
        self._write_end = -1
        self._shell.wait()

    def _write(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # the guard itself was killed: the child is unguarded, nothing else changes
            os.write(self._write_end, word)


class Child:
    """A running process. All methods but `forward` belong to the thread that started it."""

    def __init__(
        self,
        command: Command,
        program: str,
        environment: Mapping[str, str],
        stdout: Capture,
        stderr: Capture,
        *,
        report: Callable[[str], None],
        patience: Patience,
    ) -> None:
        self.command = command
        self.exit_code: int | None = None
        """None while it runs; minus the signal's number when a signal ended it."""
        self.cpu_seconds = 0.0
        """CPU time of the child and of all descendants that it waited for; known once it is gone."""
        self.timed_out = False
        self.holds_pipes = False
        """Something that the child started still had its output open when we stopped waiting for it."""
        self._report = report
        self._patience = patience
        self._sent: signal.Signals | None = None
        self._claims = itertools.count()
        self._requests = 0
        self._requests_reported = 0
        self._signalled_at: float | None = None
        self._exited_at = 0.0
        self._kill_at: float | None = None
        self._guard: OrphanGuard | None = None
        self._unwritten = memoryview(command.stdin or b"")
        self.started = time.monotonic()
        # A session of its own: Ctrl-C of the terminal reaches this process alone, which passes it on once.
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
        outputs = [stream.fileno() for stream in (self._process.stdout, self._process.stderr) if stream is not None]
        self._captures = dict(zip(outputs, (stdout, stderr), strict=True))
        self._open = set(self._captures)
        self._selector = selectors.DefaultSelector()

    # --- signals: any thread, also a signal handler -----------------------------------------------------------------

    def forward(self, signum: signal.Signals) -> None:
        """Send this signal to the process, unless it got one before or is gone; the thread that waits reports it."""
        self._requests += 1
        if next(self._claims) == 0:
            self._sent = signum
            if self._guard:
                self._guard.note_signal()
            # To the process alone, never to its group: a tool passes signals on to its helpers itself.
            with contextlib.suppress(OSError):
                if self.exit_code is not None:
                    pass
                elif self._pidfd >= 0:
                    signal.pidfd_send_signal(self._pidfd, signum)  # cannot hit a process that got the number later
                else:
                    os.kill(self.pid, signum)

    @property
    def interrupted(self) -> bool:
        return self._sent is not None

    # --- from start to end ------------------------------------------------------------------------------------------

    def guard(self, journal: Path, record: str) -> None:
        """Make sure that the child is stopped gracefully if this process is killed."""
        stdout, stderr = self._captures
        with contextlib.suppress(OSError):
            self._guard = OrphanGuard(self.pid, (stdout, stderr), journal, record)
            if self.interrupted:
                self._guard.note_signal()

    def wait(self, start_guard: Callable[[], None]) -> None:
        """Read and write until the process is gone and its output is complete."""
        for descriptor in self._captures:
            self._selector.register(descriptor, selectors.EVENT_READ, self._read)
        if self._pidfd >= 0:
            self._selector.register(self._pidfd, selectors.EVENT_READ, lambda _: self._reap())
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
            self._selector.register(self._process.stdin.fileno(), selectors.EVENT_WRITE, self._write)
        while self.exit_code is None or (
            self._open and time.monotonic() - self._exited_at <= self._patience.open_pipes
        ):
            # More often where nothing wakes this loop: without a pidfd, after the exit, before a kill.
            is_ending = self._pidfd < 0 or self.exit_code is not None or self._kill_at is not None
            for key, _ in self._selector.select(0.05 if is_ending else 0.2):
                key.data(key.fd)
            if self._pidfd < 0:
                self._reap()
            if self.exit_code is None:
                self._report_signals()
                self._keep_time()
                if self._guard is None and time.monotonic() - self.started > self._patience.unguarded_read:
                    start_guard()
        self.holds_pipes = bool(self._open)

    def close(self) -> None:
        """Release everything. If the process still runs, because of a bug here, its guard keeps watching."""
        for capture in self._captures.values():
            capture.close()
        if self._guard and self.exit_code is not None:
            self._guard.release()
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _read(self, descriptor: int) -> None:
        data = os.read(descriptor, READ_SIZE)
        if data:
            self._captures[descriptor].feed(data)
        else:
            self._selector.unregister(descriptor)
            self._open.discard(descriptor)

    def _write(self, descriptor: int) -> None:
        try:
            self._unwritten = self._unwritten[os.write(descriptor, self._unwritten[:READ_SIZE]) :]
        except BlockingIOError:
            return
        except OSError:
            self._unwritten = memoryview(b"")  # the child does not read the rest; its exit code shows the reason
        if not self._unwritten:
            self._end_stdin()

    def _end_stdin(self) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            self._selector.unregister(stdin.fileno())
            stdin.close()

    def _reap(self) -> None:
        if self.exit_code is not None:
            return
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return
        self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self._exited_at = time.monotonic()
        if self._pidfd >= 0:
            self._selector.unregister(self._pidfd)
        self._end_stdin()

    def _report_signals(self) -> None:
        """Report what was done about the signal, and about each further one."""
        while self._requests_reported < self._requests:
            self._requests_reported += 1
            name = self.command.title or self.command.argv[0]
            if self._requests_reported > 1 or self._sent is None:
                self._report(
                    f"still waiting for {name!r}; it got its signal, and a second one could leave things half done. "
                    f"To end it by hand, at your own risk: kill -KILL {self.pid}"
                )
                continue
            self._signalled_at = time.monotonic()
            if not self.command.serves:
                self._report(
                    f"{self._sent.name} was passed on to {name!r} (process {self.pid}); waiting for it to stop"
                )

    def _keep_time(self) -> None:
        """End a read that is out of time, or that ignores its signal, with all that it started."""
        if self.command.mutates:
            return
        now, limit = time.monotonic(), self.command.timeout
        if self._kill_at is not None:
            if now >= self._kill_at:
                self._send_group(signal.SIGKILL)
            return
        out_of_time = limit is not None and now - self.started >= limit
        if out_of_time or (
            self._signalled_at is not None and now - self._signalled_at >= self._patience.interrupted_read
        ):
            self.timed_out = out_of_time
            self._send_group(signal.SIGTERM)
            self._kill_at = now + self._patience.terminated

    def _send_group(self, signum: signal.Signals) -> None:
        # The process is not reaped yet, so the number of its group is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)
