"""The only place that starts a process: masked, journalled, signalled once, waited for.

It prevents these hazards, each with a test: a child that never gets Ctrl-C, or gets it twice; one that is killed
half-way by a time-out or dies of a closed pipe; a wrapper that is killed; a callback that fails; output that is lost.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from runbooks.core.child import LARGEST_OUTPUT, Capture, Child, Patience
from runbooks.core.command import Command, Outcome
from runbooks.core.environment import child_environment, secret_variables
from runbooks.core.errors import NotApproved, OpsError, OutOfTime, ToolFailed
from runbooks.core.files import Unwritable
from runbooks.core.journal import Journal
from runbooks.core.mask import Masker
from runbooks.core.processes import list_processes
from runbooks.core.search_path import INSTALL

SHOWN_LINES = 12
"""Lines of a failing answer that the error shows; the journal has the rest."""
LARGEST_SHOWN = 4 * 1024 * 1024
"""Bytes of one stream in the journal: the first quarter and the last three."""
_LOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+:\d+\] ")
"""How Kubernetes' tools log (klog); what the user must know they print as well."""
_CLOSED_TERMINAL = {errno.EPIPE, errno.EIO}


class ToolMissing(OpsError):
    """A program does not exist, or cannot be started."""


class CommandFailed(ToolFailed):
    """A command ended with a failure; `outcome` has its answer."""

    def __init__(self, summary: str, outcome: Outcome, *, expected: str = "", next_step: str = "") -> None:
        super().__init__(summary, expected=expected, next_step=next_step)
        self.outcome = outcome


_FORWARDED_AS = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,  # the terminal is gone: a tool would die of SIGHUP, but stops gracefully on SIGTERM
}


class SignalRelay:
    """Catches signals in the main thread and passes each child of one runner exactly one, however many arrive.

    The handlers are there from `install` to `uninstall`. While no command runs they do what would have happened without
    them, except that SIGTERM and SIGHUP become KeyboardInterrupt, so that a run always ends through its own clean-up.
    """

    def __init__(self) -> None:
        self.seen: list[signal.Signals] = []
        """Every signal that arrived, in order."""
        self.children: set[Child] = set()
        """Those that run."""
        self._commands: set[object] = set()
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Set the handlers, which only the main thread can. An ignored signal stays ignored (nohup, `&`)."""
        if self._previous or threading.current_thread() is not threading.main_thread():
            return
        for signum in _FORWARDED_AS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._previous[signum] = signal.signal(signum, self._handle)

    def uninstall(self) -> None:
        """Restore the previous handlers; only from the main thread."""
        while self._previous:
            signum, handler = self._previous.popitem()
            if signal.getsignal(signum) == self._handle:
                signal.signal(signum, handler)

    @contextlib.contextmanager
    def during_command(self) -> Iterator[None]:
        """Note signals, without raising, while a child is started, runs and is journalled."""
        token = object()
        self._commands.add(token)
        try:
            yield
        finally:
            self._commands.discard(token)

    def add(self, child: Child, *, seen: int) -> None:
        """Pass signals on to the child, also one that arrived while it was started, after the first `seen`."""
        self.children.add(child)
        if len(self.seen) > seen:
            child.forward(_FORWARDED_AS[self.seen[seen]])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        signum = signal.Signals(number)
        self.seen.append(signum)
        for child in tuple(self.children):
            child.forward(_FORWARDED_AS[signum])
        # Raised in the middle of a command, it would leave a child without its parent.
        if not self._commands:
            previous = self._previous.get(signum)
            if not callable(previous):
                raise KeyboardInterrupt(signum.name)
            previous(signum, frame)


class Runner:
    """Starts processes for one run. Thread-safe: several commands may run side by side, each in a thread of its own.

    Make it in the main thread: from then until `close` it passes SIGINT, SIGTERM and SIGHUP on to the children,
    exactly once to each, and then waits for them. `show` gets the stream's name (`stdout`, `stderr`) and masked text in
    whole lines; `report` gets the runner's own messages to the user (default: standard error).
    """

    def __init__(
        self,
        *,
        masker: Masker,
        journal: Journal,
        base_env: Mapping[str, str],
        show: Callable[[str, str], None] | None = None,
        report: Callable[[str], None] | None = None,
        patience: Patience | None = None,
        largest_output: int = LARGEST_OUTPUT,
    ) -> None:
        self.masker = masker
        self.journal = journal
        self._base_env = dict(base_env)
        self._show = show
        self._report_to = report or (lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201
        self._patience = patience or Patience()
        self._largest_output = largest_output
        self._relay = SignalRelay()
        self._relay.install()
        self._journal_failed = False
        self._waiting_for = threading.local()

    def close(self) -> None:
        """Restore the previous signal handlers; from the main thread, when no child runs any more."""
        self._relay.uninstall()

    @property
    def interrupted(self) -> bool:
        """Whether the user asked this run to stop. Nothing new is started then."""
        return bool(self._relay.seen)

    def interrupt(self) -> None:
        """Ask for a graceful stop: of the command whose `on_line` calls this, else of every running one."""
        # Children inherit that SIGINT is ignored (nohup, `&`); a tool stops as gracefully on SIGTERM.
        is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        mine = getattr(self._waiting_for, "child", None)
        for child in (mine,) if mine else tuple(self._relay.children):
            child.forward(signal.SIGTERM if is_ignored else signal.SIGINT)

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """The environment of a child that gets `extra`."""
        return child_environment(self._base_env, extra)

    def run(
        self, command: Command, *, on_line: Callable[[str], None] | None = None, after_interrupt: bool = False
    ) -> Outcome:
        """Run it to its end, whatever its exit code.

        `on_line` gets every complete line of its standard output, unmasked, in this thread. If it raises, the command
        still runs to its end and is journalled; then the error is raised. `after_interrupt` allows a command that
        reads what an interrupted run left behind; all others are refused then.

        Raises ToolMissing, OutOfTime (a read took too long), NotApproved (the run was interrupted before this one
        started), Unwritable (before anything that changes something), ToolFailed (more output than is kept).
        """
        with self._relay.during_command():
            seen = len(self._relay.seen) if after_interrupt else 0
            self._refuse_if_interrupted(command, seen)
            environment = self.environment(command.env)
            program = resolve_program(command, environment)
            self.masker.register_all(secret_variables(command.env))
            if command.mutates:
                # Written before the child starts, so that the journal of a killed run shows what it was doing.
                self.journal.write("start", title=command.title, argv=command.argv)
                self._refuse_if_interrupted(command, seen)
            stdout = self._capture(command, "stdout", on_line)
            stderr = self._capture(command, "stderr")
            try:
                child = Child(
                    command, program, environment, stdout, stderr, report=self._report, patience=self._patience
                )
            except (OSError, ValueError) as problem:
                reason = getattr(problem, "strerror", None) or "its arguments cannot be passed on"
                raise ToolMissing(
                    f"{program} cannot be started: {reason}",
                    expected="a program for this machine, and arguments it can take",
                    next_step=INSTALL.get(Path(program).name, f"look at it: ls -l {program}; {program} --version"),
                ) from problem
            if command.mutates or command.timeout is None:  # a preview runs a program too, which may take any time
                self._guard(child)
            self._relay.add(child, seen=seen)
            self._wait_for(child)
            outcome = self._outcome(child, stdout, stderr)
            self._record(outcome, child)
            if child.timed_out:
                raise OutOfTime(
                    f"{self._name(command)} did not answer within {command.timeout:g} s",
                    expected="an answer; nothing was changed by this command",
                    next_step="check whether the server is reachable (./inv doctor), then run the same command again",
                )
            self._refuse_lost_output(outcome, stdout, stderr)
            return outcome

    def check(self, command: Command) -> Outcome:
        """`run`; raises CommandFailed with the answer's last lines when it failed, NotApproved when interrupted."""
        outcome = self.run(command)
        if outcome.ok:
            return outcome
        name = self._name(command)
        if outcome.interrupted:
            raise NotApproved(f"{name} was interrupted and ended with exit {outcome.exit_code}")
        raise CommandFailed("\n".join([f"{name} failed with exit {outcome.exit_code}", *last_lines(outcome)]), outcome)

    def _refuse_if_interrupted(self, command: Command, seen: int) -> None:
        if len(self._relay.seen) > seen:
            raise NotApproved(
                f"{self._name(command)} was not started: the run was interrupted",
                next_step="run the same command again",
            )

    def _capture(self, command: Command, name: str, on_line: Callable[[str], None] | None = None) -> Capture:
        """Make the capture of one stream. It is shown while it arrives if the run or the command asks for that."""
        show = self._show
        if show is None and command.shows_stderr and name == "stderr":
            show = self._make_display()
        if show is None or command.confidential:
            return Capture(on_line=on_line, limit=self._largest_output)

        def show_masked(lines: bytes) -> None:
            try:
                show(name, self.masker.mask_bytes(lines).decode("utf-8", "replace"))
            except OSError as problem:
                if problem.errno not in _CLOSED_TERMINAL:
                    raise

        return Capture(on_line=on_line, on_text=show_masked, limit=self._largest_output)

    def _make_display(self) -> Callable[[str, str], None]:
        """Show each line once and no log: kubectl starts a login plug-in that fails several times, and logs each."""
        shown: set[str] = set()

        def report_new_lines(_: str, text: str) -> None:
            for line in text.splitlines():
                if line not in shown and not _LOG_LINE.match(line):
                    shown.add(line)
                    self._report_to(line)

        return report_new_lines

    def _wait_for(self, child: Child) -> None:
        before = getattr(self._waiting_for, "child", None)
        self._waiting_for.child = child
        try:
            child.wait(lambda: self._guard(child))
        finally:
            self._waiting_for.child = before
            self._relay.children.discard(child)
            child.close()

    def _guard(self, child: Child) -> None:
        record = {"kind": "killed", "argv": child.command.argv, "pid": child.pid}
        child.guard(self.journal.path, self.masker.mask(json.dumps(record)))

    def _outcome(self, child: Child, stdout: Capture, stderr: Capture) -> Outcome:
        if child.exit_code is None:
            raise RuntimeError(f"process {child.pid} was left running")
        out, err = stdout.data, stderr.data
        confidential = child.command.confidential
        return Outcome(
            command=child.command,
            exit_code=child.exit_code,
            seconds=time.monotonic() - child.started,
            cpu_seconds=child.cpu_seconds,
            stdout=out.decode("utf-8", "replace"),
            stderr=err.decode("utf-8", "replace"),
            shown_stdout="" if confidential else shorten(self.masker.mask_bytes(out)),
            shown_stderr="" if confidential else shorten(self.masker.mask_bytes(err)),
            interrupted=child.interrupted,
            left_behind=self._left_behind(child),
        )

    def _left_behind(self, child: Child) -> str:
        """The processes that still run in the child's session, as text; only looked for when there is a reason."""
        if not (child.holds_pipes or child.interrupted or child.timed_out):
            return ""
        left = session_members(child.pid)
        if not left and not child.holds_pipes:
            return ""
        names = ", ".join(left) or "a process that it started"
        message = f"{self._name(child.command)} ended, but left behind: {names}"
        self._report(message)
        return self.masker.mask(message)

    def _record(self, outcome: Outcome, child: Child) -> None:
        command = outcome.command
        fields: dict[str, object] = {
            "title": command.title,
            "argv": command.argv,
            "cwd": str(command.cwd or ""),
            "mutates": command.mutates,
            "exit_code": outcome.exit_code,
            "seconds": round(outcome.seconds, 3),
            "cpu_seconds": round(outcome.cpu_seconds, 3),
            "interrupted": outcome.interrupted,
            "timed_out": child.timed_out,
            "left_behind": outcome.left_behind,
        }
        output: dict[str, object] = {"confidential": True}
        if not command.confidential:
            output = {"stdout": outcome.shown_stdout, "stderr": outcome.shown_stderr}
        try:
            self.journal.write("command", **fields, **output)
        except Unwritable as problem:
            # The disk is full. How the command ended matters most, and is returned in any case; what would change
            # something next is refused by `journal.write("start")`.
            if not self._journal_failed:
                self._journal_failed = True
                self._report(problem.summary)
            with contextlib.suppress(Unwritable):
                self.journal.write("command", **fields, output_lost=True)

    def _refuse_lost_output(self, outcome: Outcome, *captures: Capture) -> None:
        """Raise what a callback raised, or `CommandFailed` where more arrived than is kept."""
        problems = [problem for capture in captures for problem in capture.problems]
        if problems:
            ended = f"{self._name(outcome.command)} itself ended with exit {outcome.exit_code}"
            problems[0].add_note(f"{ended}; its output is in {self.journal.path}")
            raise problems[0]
        for capture in captures:
            if capture.overflowed:
                raise CommandFailed(
                    f"{self._name(outcome.command)} wrote {capture.total} bytes, then ended with {outcome.exit_code}",
                    outcome,
                    expected=f"at most {self._largest_output}, so that the answer can be read",
                    next_step=f"see its beginning in {self.journal.path}",
                )

    def _name(self, command: Command) -> str:
        return self.masker.mask_own(command.title or " ".join(command.argv))

    def _report(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is closed
            self._report_to(self.masker.mask_own(text))


def resolve_program(command: Command, environment: Mapping[str, str]) -> str:
    """The absolute path of a command's program. Raises ToolMissing with the install command."""
    name = command.argv[0]
    found = shutil.which(name, path=environment.get("PATH", os.defpath))
    if command.cwd is not None and not command.cwd.is_dir():
        raise ToolMissing(
            f"{name} cannot be started in {command.cwd}: there is no such folder", next_step=f"ls {command.cwd.parent}"
        )
    if found is None:
        tool = Path(name).name
        raise ToolMissing(
            f"{name} was not found" + ("" if os.sep in name else " on PATH"),
            expected=f"{tool}, installed and executable",
            next_step=INSTALL.get(tool, f"install {tool}, then run the same command again"),
        )
    return str(Path(found).absolute())


def shorten(masked: bytes) -> str:
    """The text, without its middle where it is very long."""
    head, tail = LARGEST_SHOWN // 4, LARGEST_SHOWN - LARGEST_SHOWN // 4
    if len(masked) > LARGEST_SHOWN:
        left_out = f"\n[… {len(masked) - LARGEST_SHOWN} bytes left out …]\n".encode()
        masked = masked[:head] + left_out + masked[-tail:]
    return masked.decode("utf-8", "replace")


def last_lines(outcome: Outcome) -> list[str]:
    """The last masked lines of a command's output, of standard error if there is any."""
    if outcome.command.confidential:
        return ["(its output is confidential and not shown)"]
    output = outcome.shown_stderr.strip() or outcome.shown_stdout.strip()
    return output.splitlines()[-SHOWN_LINES:]


def session_members(session: int) -> list[str]:
    """Name and number of every process of a session that is not a zombie."""
    members = []
    for process in list_processes("name", "status"):
        with contextlib.suppress(OSError):  # it ended in the meantime
            if os.getsid(process["pid"]) == session and process["status"] not in {"zombie", "dead"}:
                members.append(f"{process['name']} (process {process['pid']})")
    return sorted(members)
