"""The only door through which a process starts: masked, journalled, signalled once, waited for.

The hazards this answers, each with a test: a child that never hears of Ctrl-C, or hears of it twice; one that is killed
half-way by a time-out or dies of a closed pipe; a wrapper that is killed; a callback that fails; output that is lost.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from runbooks.core.capture import LARGEST_OUTPUT, Capture
from runbooks.core.child import Child, Patience, graceful_signal
from runbooks.core.command import Command, Outcome
from runbooks.core.environment import child_environment, secret_variables
from runbooks.core.errors import NotApproved, OpsError, OutOfTime, ToolFailed
from runbooks.core.install import INSTALL
from runbooks.core.journal import Journal, JournalUnwritable
from runbooks.core.mask import Masker
from runbooks.core.signals import SignalRelay

__all__ = ["CommandFailed", "Runner", "ToolMissing", "Totals", "child_environment"]

SHOWN_LINES = 12
"""Of a failing answer, in the error; the journal has the rest."""
_CLOSED_TERMINAL = {errno.EPIPE, errno.EIO}


class ToolMissing(OpsError):
    """A program is not there, or cannot be started."""


class CommandFailed(ToolFailed):
    """A command ended with a failure; `outcome` has its answer."""

    def __init__(self, summary: str, outcome: Outcome, *, expected: str = "", next_step: str = "") -> None:
        super().__init__(summary, expected=expected, next_step=next_step)
        self.outcome = outcome


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a runner's children cost so far."""

    children: int = 0
    cpu_seconds: float = 0.0
    """User and system time of all children and of what they waited for."""


class Runner:
    """Starts processes for one run. Thread-safe: several runs may go on side by side, each in a thread of its own.

    Make it in the main thread: from then until `close` it passes SIGINT, SIGTERM and SIGHUP on to the children,
    exactly once to each, and then waits for them. `show` gets the stream's name (`stdout`, `stderr`) and masked text,
    whole lines where there are any; `tell` gets the runner's own words to the person (default: standard error).
    """

    def __init__(
        self,
        *,
        masker: Masker,
        journal: Journal,
        base_env: Mapping[str, str],
        show: Callable[[str, str], None] | None = None,
        tell: Callable[[str], None] | None = None,
        patience: Patience | None = None,
        largest_output: int = LARGEST_OUTPUT,
    ) -> None:
        self.masker = masker
        self.journal = journal
        self._own_words = masker.own_words()
        self._base_env = dict(base_env)
        self._show = show
        self._tell = tell or _tell_on_stderr
        self._patience = patience or Patience()
        self._largest_output = largest_output
        self._relay = SignalRelay()
        self._relay.install()
        self._lock = threading.Lock()
        self._totals = Totals()
        self._journal_failed = False
        self._reading = threading.local()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Put the former signal handlers back; from the main thread, when no child runs any more."""
        self._relay.uninstall()

    @property
    def interrupted(self) -> bool:
        """Whether the person asked this run to stop. Nothing new is started then."""
        return bool(self._relay.seen)

    @property
    def totals(self) -> Totals:
        return self._totals

    def interrupt(self) -> None:
        """Ask for a graceful stop: of the command whose `on_line` calls this, else of every running one."""
        mine = getattr(self._reading, "child", None)
        for child in (mine,) if mine else self._relay.running():
            child.forward(graceful_signal())
            child.wake()

    def run(
        self, command: Command, *, on_line: Callable[[str], None] | None = None, after_interrupt: bool = False
    ) -> Outcome:
        """Run it to its end, whatever its exit code.

        `on_line` gets every complete line of its standard output, unmasked, in this thread. When it raises, the command
        still runs to its end and is journalled; then the error is raised. `after_interrupt` is for a look at what an
        interrupted run left behind: everything else is refused by then.

        Raises ToolMissing, OutOfTime (a read took too long), NotApproved (the run was interrupted before this one
        started), JournalUnwritable (before anything that changes something), ToolFailed (more output than is kept).
        """
        with self._relay.at_work():
            return self._run(command, on_line, after_interrupt)

    def _run(self, command: Command, on_line: Callable[[str], None] | None, after_interrupt: bool) -> Outcome:
        seen = len(self._relay.seen) if after_interrupt else 0
        self._refuse_if_interrupted(command, seen)
        environment = child_environment(self._base_env, command.env)
        program = find_program(command, environment)
        self.masker.register_all(secret_variables(command.env))
        if command.mutates:
            self.journal.write("start", title=command.title, argv=command.argv)
            self._refuse_if_interrupted(command, seen)
        watch = _Watch(self, command, on_line)
        child = self._start(command, program, environment, watch)
        self._relay.add(child, seen=seen)
        try:
            self._wait_for(child)
        finally:
            outcome = self._outcome(child, watch)
        self._record(outcome, child)
        return self._judged(outcome, child, watch)

    def check(
        self, command: Command, *, on_line: Callable[[str], None] | None = None, after_interrupt: bool = False
    ) -> Outcome:
        """`run`; raises CommandFailed with the answer's last lines when it failed, NotApproved when interrupted."""
        outcome = self.run(command, on_line=on_line, after_interrupt=after_interrupt)
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

    def _start(self, command: Command, program: str, environment: Mapping[str, str], watch: _Watch) -> Child:
        try:
            child = Child(
                command,
                program,
                environment,
                watch.stdout,
                watch.stderr,
                tell=self._tell_masked,
                patience=self._patience,
            )
        except (OSError, ValueError) as problem:
            raise _not_startable(program, command, problem) from problem
        watch.child = child
        if command.mutates or command.timeout is None:  # a preview runs a program, for as long as that likes
            self._guard(child)
        return child

    def _wait_for(self, child: Child) -> None:
        before = getattr(self._reading, "child", None)
        self._reading.child = child
        try:
            child.wait(lambda: self._guard(child))
        finally:
            self._reading.child = before
            self._relay.remove(child)
            child.close()

    def _guard(self, child: Child) -> None:
        record = {"kind": "killed", "argv": child.command.argv, "pid": child.pid, "told": "to stop"}
        child.guard(self.journal.path, self.masker.mask(json.dumps(record)))

    def _outcome(self, child: Child, watch: _Watch) -> Outcome:
        if child.exit is None:
            raise RuntimeError(f"process {child.pid} was left running")
        with self._lock:
            cpu_seconds = self._totals.cpu_seconds + child.exit.cpu_seconds
            self._totals = replace(self._totals, children=self._totals.children + 1, cpu_seconds=cpu_seconds)
        return Outcome(
            command=child.command,
            exit_code=child.exit.code,
            seconds=time.monotonic() - child.started,
            cpu_seconds=child.exit.cpu_seconds,
            stdout=watch.stdout.text(),
            stderr=watch.stderr.text(),
            shown_stdout=watch.stdout.shown(),
            shown_stderr=watch.stderr.shown(),
            interrupted=child.interrupted,
            left_behind=self._left_behind(child),
        )

    def _left_behind(self, child: Child) -> str:
        """What still runs of the child's session, in words; only looked for when there is reason to."""
        if not (child.holds_pipes or child.interrupted or child.timed_out):
            return ""
        left = session_members(child.pid)
        if not left and not child.holds_pipes:
            return ""
        names = ", ".join(left) or "a process that it started"
        told = f"{self._name(child.command)} is gone, but left behind: {names}"
        self._tell_masked(told)
        return self.masker.mask(told)

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
        output = {"confidential": True}
        if not command.confidential:
            output = {"stdout": outcome.shown_stdout, "stderr": outcome.shown_stderr}  # type: ignore[dict-item]
        try:
            self.journal.write("command", **fields, **output)
        except JournalUnwritable as problem:
            self._without_output(fields, problem)

    def _without_output(self, fields: dict[str, object], problem: JournalUnwritable) -> None:
        """The disk is full: what the command came to matters most, and is returned in any case."""
        if not self._journal_failed:
            self._journal_failed = True
            self._tell_masked(problem.summary)
        try:
            self.journal.write("command", **fields, output_lost=True)
        except JournalUnwritable:
            return  # Told already; whatever would change something next is refused by `journal.write("start")`.

    def _judged(self, outcome: Outcome, child: Child, watch: _Watch) -> Outcome:
        if watch.problem is not None:
            watch.problem.add_note(
                f"{self._name(outcome.command)} itself ended with exit {outcome.exit_code}; its output is in"
                f" {self.journal.path}"
            )
            raise watch.problem
        if child.timed_out:
            raise OutOfTime(
                f"{self._name(outcome.command)} did not answer within {outcome.command.timeout:g} s",
                expected="an answer; nothing was changed by this command",
                next_step="look whether the server can be reached (./inv doctor), then run the same command again",
            )
        for name, capture in (("standard output", watch.stdout), ("standard error", watch.stderr)):
            if capture.overflowed:
                raise CommandFailed(
                    f"{self._name(outcome.command)} ended with exit {outcome.exit_code} and wrote {capture.total} bytes"
                    f" to {name}",
                    outcome,
                    expected=f"at most {self._largest_output}, so that the answer can be read",
                    next_step=f"see its beginning and end in {self.journal.path}",
                )
        return outcome

    def _name(self, command: Command) -> str:
        return self._own_words.mask(command.title or " ".join(command.argv))

    def _tell_masked(self, text: str) -> None:
        try:
            self._tell(self._own_words.mask(text))
        except OSError:
            return  # Nobody is listening any more.


class _Watch:
    """The two captures of a command and the callbacks behind them; a callback that fails is not called again."""

    def __init__(self, runner: Runner, command: Command, on_line: Callable[[str], None] | None) -> None:
        self.problem: BaseException | None = None
        self.child: Child | None = None
        self._on_line = on_line
        self._show = None if command.confidential else runner._show
        self.stdout = self._capture(runner, command, "stdout", self._take_line if on_line else None)
        self.stderr = self._capture(runner, command, "stderr", None)

    def _capture(self, runner: Runner, command: Command, name: str, on_line: Callable[[str], None] | None) -> Capture:
        shows = self._show is not None
        if command.speaks and name == "stderr" and not (shows or command.confidential):
            self._show, shows = (lambda _, text: runner._tell(text.rstrip("\n"))), True
        return Capture(
            None if command.confidential else runner.masker.stream(),
            on_line=on_line,
            on_shown=(lambda text: self._take_shown(name, text)) if shows else None,
            limit=runner._largest_output,
        )

    def _take_line(self, line: str) -> None:
        if self._on_line is None:
            return
        try:
            self._on_line(line)
        except BaseException as problem:  # noqa: BLE001 - raised again when the child has ended
            self._on_line = None
            self.problem = self.problem or problem

    def _take_shown(self, name: str, text: str) -> None:
        if self._show is None:
            return
        try:
            self._show(name, text)
        except BaseException as problem:  # noqa: BLE001 - raised again when the child has ended
            self._show = None
            if not (isinstance(problem, OSError) and problem.errno in _CLOSED_TERMINAL):
                self.problem = self.problem or problem


def find_program(command: Command, environment: Mapping[str, str]) -> str:
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


def _not_startable(program: str, command: Command, problem: OSError | ValueError) -> OpsError:
    reason = (problem.strerror if isinstance(problem, OSError) else None) or "its arguments cannot be passed on"
    tool = Path(program).name
    return ToolMissing(
        f"{program} cannot be started: {reason}",
        expected="a program for this machine, and arguments it can take",
        next_step=INSTALL.get(tool, f"look at it: ls -l {program}; {command.argv[0]} --version"),
    )


def last_lines(outcome: Outcome, limit: int = SHOWN_LINES) -> list[str]:
    """The last masked lines of what a command said, standard error before standard output."""
    if outcome.command.confidential:
        return ["(what it said is confidential and not shown)"]
    said = outcome.shown_stderr.strip() or outcome.shown_stdout.strip()
    return said.splitlines()[-limit:]


def session_members(session: int) -> list[str]:
    """Name and number of every process of a session, as Linux tells it; empty elsewhere."""
    members = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text("utf-8", "replace").partition("(")[2].rpartition(")")
        except OSError:
            continue  # It ended while we looked.
        fields = rest.split()
        if len(fields) > 3 and fields[3] == str(session) and fields[0] not in ("Z", "X"):
            members.append(f"{name} (process {entry.parent.name})")
    return sorted(members)


def _tell_on_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
