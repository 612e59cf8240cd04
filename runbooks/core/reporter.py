"""The one place that prints and asks: plain lines, a live plan on a terminal, or one JSON event a line.

Everything that is shown passes the masker here.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import json
import os
import re
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

from runbooks.core.errors import NotApproved, Usage
from runbooks.core.files import discard_output
from runbooks.core.findings import Finding, State
from runbooks.core.mask import Masker

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

FIRST_PROGRESS = 2.0
"""Seconds after which a step reports that it still runs."""
NEXT_PROGRESS = 10.0
"""Seconds between later reports in plain output and events."""
READER_LEFT = (errno.EPIPE, errno.EIO)
"""What a write fails with when the reader of a pipe has left, or the terminal is gone."""
PENDING, IN_PROGRESS, LASTING, DONE, FAILED = "pending", "in progress", "lasting", "done", "failed"
PUSH_TITLE, POP_TITLE = "\x1b[22;0t", "\x1b[23;0t"
"""What makes a terminal put its title on a stack, and take it back from there (XTWINOPS)."""
MARKS = {State.PASSED: "ok  ", State.FAILED: "FAIL", State.NOT_TRIED: "--  "}
HOW_TO_APPROVE = "y at the question, or --yes where there is no terminal"
OWN_FACTS = frozenset(
    {
        *("text", "title", "steps", "state", "detail", "summary", "details", "check", "subject", "cause", "next_step"),
        *("service", "services", "task", "again", "applied", "failed", "unchanged", "not_started", "destructive"),
        *("adopting", "waits_for", "argv", "step"),
    }
)
"""Facts of an event that hold our own sentences, in which public names stay readable."""
# The tasks of the lab and of the repository itself take no target.
_COMMAND = re.compile(r"\./inv (?=[a-z])(?!lab\.|test\b|check\b)")
_in_use: list[Reporter] = []
"""The reporter of this process. A run has one terminal, and the error that ends the run is shown there, masked too."""


def make_reporter(
    *, as_json: bool, masker: Masker, target: str = "", out: TextIO | None = None, err: TextIO | None = None
) -> Reporter:
    """Make the reporter that fits: events with `--json`, a live plan on a terminal, plain lines elsewhere.

    `target` is the one the user chose: commands in next steps get it as `--target`.
    """
    stdout, stderr = out or sys.stdout, err or sys.stderr
    kind = Reporter
    if as_json:
        kind = JsonReporter
    elif stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        kind = LiveReporter
    _in_use[:] = [kind(masker, stdout, stderr, target=target)]
    return _in_use[0]


def reporter_in_use(*, as_json: bool) -> Reporter:
    """The reporter of the open run, or a new one if the run failed before it made one."""
    return _in_use[0] if _in_use else make_reporter(as_json=as_json, masker=Masker())


class Step:
    """The step in progress: title, detail and start."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""
        self._began = time.monotonic()

    def note(self, text: str) -> None:
        """Replace the detail, which is shown beside the elapsed time."""
        self.detail = text

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


class LaterReporter:
    """Keeps what work in a thread reports, so that a reporter shows it in one piece and in the right order."""

    def __init__(self) -> None:
        self._calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, method: str) -> Callable[..., None]:
        if method.startswith("_") or not callable(getattr(Reporter, method, None)):
            raise AttributeError(method)
        return lambda *words, **facts: self._calls.append((method, words, facts))

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A step that is not shown: the reporter shows one for the whole work."""
        yield Step(title)

    def show_on(self, reporter: Reporter) -> None:
        for method, words, facts in self._calls:
            getattr(reporter, method)(*words, **facts)


class Reporter:
    """Lines without colour, for pipes, files and screen readers. Every method is thread-safe and masks what it shows.

    Output survives its reader: after `| head` has left, or the terminal is gone, what is written is dropped and the run
    continues.
    """

    def __init__(self, masker: Masker, out: TextIO, err: TextIO, *, target: str = "") -> None:
        self._masker = masker
        self._target = target
        self._out = out
        self._err = err
        self._current: Step | None = None
        self._lock = threading.RLock()

    @property
    def interactive(self) -> bool:
        """Whether the user can be asked: standard input and output are a terminal, and no events were asked for."""
        return bool(sys.stdin and sys.stdin.isatty() and sys.stdout.isatty())

    def announce(self, text: str) -> None:
        """Print one or two sentences about what happens next."""
        self.line(text)

    @contextlib.contextmanager
    def titled(self, task: str) -> Iterator[None]:  # noqa: ARG002 - only a terminal has a title
        """Show the task, its step and its result in the terminal's title, and restore the old one at the end."""
        yield

    def plan(self, titles: Sequence[str]) -> None:
        """Show these steps as pending until `step` opens the one of the same title, in place of those still pending."""

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show the one step in progress while the block runs; a step inside a step is shown as its detail.

        A step that lasts longer than two seconds is reported repeatedly.
        """
        if self._current is not None:
            self._current.note(title)
            yield self._current
            return
        step = self._current = Step(title)
        self._show_step(step, IN_PROGRESS)
        over = threading.Event()
        beat = threading.Thread(target=self._report_progress, args=(step, over), name="progress", daemon=True)
        beat.start()
        state = FAILED
        try:
            yield step
            state = DONE
        finally:
            over.set()
            beat.join()
            self._current = None
            self._show_step(step, state)

    def note(self, text: str) -> None:
        """Show the text beside the step in progress, if there is one."""
        step = self._current  # another thread may end it meanwhile
        if step is not None:
            step.note(text)

    def _report_progress(self, step: Step, over: threading.Event) -> None:
        wait = FIRST_PROGRESS
        while not over.wait(wait):
            self._show_step(step, LASTING)
            wait = NEXT_PROGRESS

    def _show_step(self, step: Step, state: str) -> None:
        if state == IN_PROGRESS:
            self.line(f"> {step.title}")
        elif state == LASTING:
            self.line(f"  … {step.title}, {_duration(step.seconds)}" + (f": {step.detail}" if step.detail else ""))
        else:
            self.line(f"  {step.title}: {state} in {_duration(step.seconds)}")

    def line(self, text: str) -> None:
        """Print one of our own sentences, in which a public name stays readable."""
        self._print(self._masker.mask_own(text))

    def advice(self, text: str) -> None:
        """Print a line that names the next command, with the chosen target."""
        self.line(on_target(text, self._target))

    def quote(self, text: str) -> None:
        """Print what a tool or a cluster printed, with every secret masked."""
        self._print(self._masker.mask(text))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table. Cells are masked like a tool's output, except in a column called `service`."""
        # Plain text, which `cut`, `awk` and screen readers can process.
        cells = [list(columns), *self._cells(columns, rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        self._print("\n".join([*([self._masker.mask_own(title)] if title else []), *lines]))

    def _cells(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
        own, mask = self._masker.mask_own, self._masker.mask
        masks = [own if column.casefold() == "service" else mask for column in columns]
        return [[mask_cell(cell) for mask_cell, cell in zip(masks, row, strict=True)] for row in rows]

    def event(self, kind: str, **data: Any) -> None:
        """Print a fact for programs: with `--json` only, as one line `{"event": kind, …}`."""

    def finding(self, found: Finding) -> None:
        """Print the result of one check, with cause and next step if it did not pass."""
        self._print(self._finding_text(found))

    def _finding_text(self, found: Finding) -> str:
        subject = f" [{found.subject}]" if found.subject else ""
        text = self._masker.mask_own(f"  {MARKS[found.state]} {found.check}{subject}")
        text += f": {self._masker.mask(found.evidence)}" if found.evidence else ""
        if not found.ok and found.cause:
            text += self._masker.mask_own(f"\n       likely cause: {found.cause}")
        if not found.ok and found.next_step:
            text += self._masker.mask_own(f"\n       next: {on_target(found.next_step, self._target)}")
        return text

    def error(self, lines: Sequence[str], *, exit_code: int) -> None:  # noqa: ARG002 - the shell shows the code
        """Print the error that ended the run, on standard error; with `--json`, as event `error` on standard output."""
        text = "\n  ".join(["error: " + lines[0], *(on_target(line, self._target) for line in lines[1:])])
        self._write(self._err, self._masker.mask_own(text) + "\n")

    def ask_yes(self, question: str) -> bool:
        """Ask, and return whether the user typed y or yes; False without a terminal."""
        return self._ask(f"{question} [y/N] ").strip().lower() in {"y", "yes"}

    def ask_word(self, question: str, word: str) -> bool:
        """Ask, and return whether the user typed exactly `word`; False without a terminal."""
        return self._ask(f"{question} ").strip() == word

    def read_secret(self, question: str, longest: int) -> str:
        """Read a secret: typed twice without echo on a terminal, else all of standard input without its last newline.

        More than `longest` characters of standard input are not read. Raises `Usage` for two values that differ and
        for bytes that are not text, `NotApproved` at the end of input.
        """
        if not sys.stdin.isatty():
            try:
                return sys.stdin.buffer.read(longest + 2).decode("utf-8").removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError:
                raise Usage("standard input is not UTF-8 text; nothing was set", expected="the value as text") from None
        self.close()  # the live display would overwrite the question
        try:
            value = getpass.getpass(self._masker.mask_own(question))
            again = getpass.getpass("the same again: ") if value else value
        except EOFError:
            raise NotApproved("no value was typed; nothing was set", expected="a value at the prompt") from None
        if value != again:
            raise Usage("the two values differ; nothing was set", expected="the same value twice")
        return value

    def _ask(self, question: str) -> str:
        if not self.interactive:
            return ""
        with contextlib.suppress(termios.error, OSError, ValueError):
            # Keys pressed before a question was shown must not answer it.
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        self._write(self._out, self._masker.mask_own(question))
        try:
            return sys.stdin.readline()
        except UnicodeDecodeError:
            return ""

    def masked(self, text: str) -> str:
        """The text as it may be shown or written down."""
        return self._masker.mask(text)

    def close(self) -> None:
        """End the live display; later calls still print."""

    def _print(self, text: str) -> None:
        self._write(self._out, text + "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        with self._lock:
            write_on(stream, text)


def write_on(stream: TextIO, text: str) -> None:
    """Write at once; what nobody reads any more, or the stream cannot encode, does not end the run."""
    try:
        stream.write(text)
        stream.flush()
    except UnicodeEncodeError:
        # A terminal without UTF-8: a question mark is better than a run that ends half-way.
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except OSError as error:
        if error.errno not in READER_LEFT:
            raise
        discard_output(stream)


class JsonReporter(Reporter):
    """One JSON object a line on standard output, nothing else there. It never asks."""

    @property
    def interactive(self) -> bool:
        return False

    def event(self, kind: str, **data: Any) -> None:
        self._print_event(kind, **self._mask_facts(data))

    def _print_event(self, kind: str, **masked: Any) -> None:
        self._print(json.dumps({"event": kind, **masked}, ensure_ascii=False))

    def _mask_facts(self, value: Any, key: str = "") -> Any:
        """The same value with every string in it masked; under the keys of `OWN_FACTS`, public names stay readable."""
        mask = self._masker.mask_own if key in OWN_FACTS else self._masker.mask
        if isinstance(value, Mapping):
            return {self.masked(str(name)): self._mask_facts(item, str(name)) for name, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._mask_facts(item, key) for item in value]
        return value if value is None or isinstance(value, (bool, int, float)) else mask(str(value))

    def announce(self, text: str) -> None:
        self.event("announce", text=text)

    def plan(self, titles: Sequence[str]) -> None:
        self.event("plan", steps=list(titles))

    def _show_step(self, step: Step, state: str) -> None:
        seconds = {} if state == IN_PROGRESS else {"seconds": round(step.seconds, 1)}
        if state == LASTING:
            self.event("progress", title=step.title, detail=step.detail, **seconds)
        else:
            self.event("step", title=step.title, state=state, **seconds)

    def line(self, text: str) -> None:
        self.event("line", text=text)

    def quote(self, text: str) -> None:
        # Not through `event`: there `text` is a sentence of our own, in which public names stay readable.
        self._print_event("quote", text=self._masker.mask(text))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        # Cells are facts of their columns' names, and most of them are not our own sentences.
        shown = [dict(zip(columns, row, strict=True)) for row in self._cells(columns, rows)]
        self._print_event("table", title=self._masker.mask_own(title), rows=shown)

    def finding(self, found: Finding) -> None:
        facts = {name: getattr(found, name) for name in ("check", "subject", "evidence", "cause")}
        next_step = on_target(found.next_step, self._target)
        self.event("finding", **facts, state=found.state.value, next_step=next_step)

    def error(self, lines: Sequence[str], *, exit_code: int) -> None:
        details = [on_target(text, self._target) for text in lines[1:]]
        self.event("error", summary=lines[0], details=details, exit_code=exit_code)


class Terminal:
    """The stream for rich, whose own writes would end the run when the terminal goes away."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        write_on(self._stream, text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class LiveReporter(Reporter):
    """For a terminal: finished lines scroll by, the plan with its one step in progress stays at the bottom."""

    def __init__(self, masker: Masker, out: TextIO, err: TextIO, *, target: str = "") -> None:
        from rich.console import Console

        super().__init__(masker, out, err, target=target)
        self._console = Console(file=cast("TextIO", Terminal(out)), highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._steps: list[tuple[str, str]] = []
        self._task = ""

    @contextlib.contextmanager
    def titled(self, task: str) -> Iterator[None]:
        if self._console.no_color:
            yield
            return
        self._task = task
        self._write(self._out, PUSH_TITLE)
        result = "failed"
        try:
            yield
            result = "done"
        finally:
            # A terminal that keeps no stack of titles goes on showing the result.
            self._set_title(result)
            self._task = ""
            self._write(self._out, POP_TITLE)

    def _set_title(self, text: str) -> None:
        if self._task:
            shown = self._masker.mask_own(f"{self._task}: {text}")
            # rich removes control characters from what it prints, but not from a title.
            self._console.set_window_title("".join(filter(str.isprintable, shown)))

    def plan(self, titles: Sequence[str]) -> None:
        with self._lock:
            pending = [(self._masker.mask_own(title), PENDING) for title in titles]
            self._steps = [step for step in self._steps if step[1] != PENDING] + pending
        self._refresh()

    def _show_step(self, step: Step, state: str) -> None:
        if state == LASTING:
            return  # the display moves by itself
        title = self._masker.mask_own(step.title)
        if state == IN_PROGRESS:
            self._set_title(title)
        shown = state if state == IN_PROGRESS else f"{state} in {_duration(step.seconds)}"
        with self._lock:
            open_steps = [at for at, (name, before) in enumerate(self._steps) if name == title and _is_open(before)]
            if open_steps:
                self._steps[open_steps[0]] = (title, shown)
            else:
                self._steps.append((title, shown))
        self._refresh()
        if state != IN_PROGRESS and not any(state == PENDING for _, state in self._steps):
            self.close()

    def _refresh(self) -> None:
        from rich.live import Live

        with self._lock:
            if self._live is None:
                self._live = Live(
                    console=self._console, get_renderable=self._picture, refresh_per_second=8, transient=True
                )
                self._live.start()
        self._live.refresh()

    def _picture(self) -> Table:
        """The plan: a mark, the title and the state of each step."""
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        grid, current = Table.grid(padding=(0, 1)), self._current
        for title, state in list(self._steps):
            if state == IN_PROGRESS and current is not None:
                detail = f"{_duration(current.seconds)}  {self._masker.mask_own(current.detail)}"
                grid.add_row(Spinner("dots", style="cyan"), Text(title), Text(detail, "dim"))
            elif state == PENDING:
                grid.add_row(Text("·", "dim"), Text(title, "dim"), Text(state, "dim"))
            else:
                has_failed = state.startswith(FAILED)
                mark = Text("✗", "red") if has_failed else Text("✓", "green")
                grid.add_row(mark, Text(title), Text(state, "dim"))
        return grid

    def _print(self, text: str | Text, style: str = "") -> None:
        self._console.print(text, style=style, soft_wrap=True)

    def announce(self, text: str) -> None:
        self._print(self._masker.mask_own(text), "bold")

    def finding(self, found: Finding) -> None:
        from rich.text import Text

        text = Text(self._finding_text(found))
        # The mark alone is coloured.
        text.stylize({State.PASSED: "green", State.FAILED: "bold red"}.get(found.state, "dim"), 2, 6)
        self._print(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        heading = Text(self._masker.mask_own(title)) if title else None
        shown = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        cells = self._cells(columns, rows)
        for number, column in enumerate(columns):
            # On a narrow terminal long cells fold; short ones, and names, which a user copies, stay whole.
            longest = max(len(cell) for cell in (column, *(row[number] for row in cells)))
            room = self._console.width // 3 if number == 0 else 10
            shown.add_column(column, overflow="fold", no_wrap=longest <= room)
        for row in cells:
            shown.add_row(*map(Text, row))
        self._console.print(shown)

    def error(self, lines: Sequence[str], *, exit_code: int) -> None:
        self.close()
        super().error(lines, exit_code=exit_code)

    def _ask(self, question: str) -> str:
        self.close()
        self._set_title("waits for your answer")
        return super()._ask(question)

    def close(self) -> None:
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            live.stop()
            for title, state in self._steps:
                if not _is_open(state):
                    self._print(f"{'✗' if state.startswith(FAILED) else '✓'} {title}: {state}")
            self._steps = [step for step in self._steps if _is_open(step[1])]


def require_yes(reporter: Reporter, question: str, *, refusal: str, again: str, expected: str = HOW_TO_APPROVE) -> None:
    """Ask, and raise `NotApproved` with these words unless the user typed y or yes."""
    if not reporter.ask_yes(question):
        raise NotApproved(refusal, expected=expected, next_step=again)


def on_target(text: str, target: str) -> str:
    """Add `--target` to the commands in the text, which might otherwise run on another target.

    A line that names a target already stays as it is.
    """
    if not target or "./inv " not in text:
        return text
    lines = text.split("\n")
    return "\n".join(line if "--target" in line else _COMMAND.sub(f"./inv --target {target} ", line) for line in lines)


def _is_open(state: str) -> bool:
    return state in {PENDING, IN_PROGRESS}


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
