"""The one door to the person: plain lines, a live plan on a terminal, or one JSON event a line.

Everything that is shown passes the masker here. Nothing else in the toolkit prints.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from runbooks.core.findings import Finding, State
from runbooks.core.mask import Masker

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

FIRST_PROGRESS = 2.0
"""Seconds of silence after which a step says that it is still going."""
NEXT_PROGRESS = 10.0
"""Seconds between later signs of life in plain output and events."""


class Progress(Protocol):
    """The step in progress: `note` replaces its detail, shown beside the elapsed time."""

    def note(self, text: str) -> None: ...


class Reporter(Protocol):
    """What a task may say to the person. Every method is thread-safe and masks what it shows."""

    @property
    def interactive(self) -> bool:
        """A person can be asked: standard input and output are a terminal, and events were not asked for."""

    def announce(self, text: str) -> None:
        """One or two sentences about what happens next."""

    def plan(self, titles: Sequence[str]) -> None:
        """The steps ahead, shown as pending until `step` opens the one of the same title; adds to an earlier plan."""

    def step(self, title: str) -> AbstractContextManager[Progress]:
        """The one step in progress while the block runs; a step inside a step is shown as its detail.

        Gives a sign of life when it lasts longer than two seconds.
        """

    def line(self, text: str) -> None:
        """Our own words, in which a service's name stays readable."""

    def advice(self, text: str) -> None:
        """A line that names the next command, told for the chosen target."""

    def quote(self, text: str) -> None:
        """What a tool or a cluster said; every secret in it is masked."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Cells are masked like what a tool says, but for those of a column called `service`."""

    def event(self, kind: str, **data: Any) -> None:
        """A fact for programs: shown with `--json` only, as one line `{"event": kind, …}`."""

    def finding(self, found: Finding) -> None: ...

    def error(self, lines: Sequence[str], *, exit_code: int) -> None:
        """What ended the run, on standard error (with `--json`: the event `error` on standard output)."""

    def ask_yes(self, question: str) -> bool:
        """True when the person typed y or yes; False when they did not, or nobody can be asked."""

    def ask_word(self, question: str, word: str) -> bool:
        """True when the person typed exactly `word`; False when they did not, or nobody can be asked."""

    def masked(self, text: str) -> str:
        """The text as it may be shown or written down."""

    def close(self) -> None:
        """Ends the live display; later calls still print."""


def make_reporter(
    *,
    as_json: bool,
    masker: Masker,
    target: str = "",
    out: TextIO | None = None,
    err: TextIO | None = None,
) -> Reporter:
    """The reporter that fits: events with `--json`, a live plan on a terminal, plain lines elsewhere.

    `target` is the one the person chose: next steps are told for it.
    """
    stdout, stderr = out or sys.stdout, err or sys.stderr
    made: Reporter
    if as_json:
        made = JsonReporter(masker, stdout, stderr, target=target)
    elif stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        made = LiveReporter(masker, stdout, stderr, target=target)
    else:
        made = PlainReporter(masker, stdout, stderr, target=target)
    _in_use[:] = [made]
    return made


_in_use: list[Reporter] = []
"""The reporter of this process: a run has one terminal, and what ends the run is told there, masked like the rest."""


def reporter_in_use(*, as_json: bool) -> Reporter:
    """The reporter of the open run, or a fresh one when the run never got as far as making one."""
    return _in_use[0] if _in_use else make_reporter(as_json=as_json, masker=Masker())


def masked(value: Any, own: Callable[[str], str], said: Callable[[str], str], key: str = "") -> Any:
    """The same value with every string in it masked: facts of `OWN_FACTS` by `own`, everything else by `said`."""
    mask = own if key in OWN_FACTS else said
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {said(str(name)): masked(item, own, said, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [masked(item, own, said, key) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return mask(str(value))


OWN_FACTS = frozenset(
    {
        *("text", "title", "steps", "state", "detail", "summary", "details", "check", "subject", "cause", "next_step"),
        *("service", "services", "task", "again", "applied", "failed", "unchanged", "not_started", "destructive"),
        "adopting",
        *("waits_for", "argv", "step"),
    }
)
"""Facts of an event that hold our own words."""


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines for a pipe: two spaces between columns, no rules, no trailing blanks."""
    cells = [list(columns), *[list(row) for row in rows]]
    widths = [max((len(row[i]) for row in cells if i < len(row)), default=0) for i in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in cells]


def seconds_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


class _Sink:
    """A stream that survives its reader: after `| head` has left, what is written is dropped and the run goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open = True
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        with self._lock:
            if not self._open:
                return
            try:
                self._stream.write(text)
                self._stream.flush()
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "replace").decode(encoding))
                self._stream.flush()
            except BrokenPipeError:
                self._open = False
                with contextlib.suppress(
                    OSError, ValueError
                ):  # the interpreter's own flush at exit must not fail again
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class _Beat:
    """Calls back while a step lasts: first after two seconds, then every ten."""

    def __init__(self, tick: Any) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(tick,), name="progress", daemon=True)
        self._thread.start()

    def _run(self, tick: Any) -> None:
        wait = FIRST_PROGRESS
        while not self._over.wait(wait):
            tick()
            wait = NEXT_PROGRESS

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


class _Step:
    """Title, detail and start of the step in progress."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""
        self.began = time.monotonic()

    def note(self, text: str) -> None:
        self.detail = text

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class PlainReporter:
    """Lines without colour, for pipes, files and screen readers."""

    def __init__(self, masker: Masker, out: TextIO, err: TextIO, *, target: str = "") -> None:
        self._masker = masker
        self._target = target
        self._out = _Sink(out)
        self._err = _Sink(err)
        self._current: _Step | None = None
        self._lock = threading.RLock()

    @property
    def interactive(self) -> bool:
        return bool(sys.stdin and sys.stdin.isatty() and sys.stdout.isatty())

    def announce(self, text: str) -> None:
        self.line(text)

    def plan(self, titles: Sequence[str]) -> None:
        """Plain output shows a step when it starts, not before."""

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        nested = self._nest(title)
        if nested is not None:
            yield nested
            return
        step = self._current = _Step(title)
        self._step_began(step)
        beat = _Beat(lambda: self._step_lasts(step))
        state = "failed"
        try:
            yield step
            state = "done"
        finally:
            beat.stop()
            self._current = None
            self._step_ended(step, state)

    def _nest(self, title: str) -> _Step | None:
        outer = self._current
        if outer is not None:
            outer.note(title)
        return outer

    def _step_began(self, step: _Step) -> None:
        self.line(f"> {step.title}")

    def _step_lasts(self, step: _Step) -> None:
        detail = f": {step.detail}" if step.detail else ""
        self.line(f"  … {step.title}, {seconds_text(step.seconds)}{detail}")

    def _step_ended(self, step: _Step, state: str) -> None:
        self.line(f"  {step.title}: {state} in {seconds_text(step.seconds)}")

    def line(self, text: str) -> None:
        self._print(self._masker.mask_own(text))

    def advice(self, text: str) -> None:
        self.line(on_target(text, self._target))

    def quote(self, text: str) -> None:
        self._print(self._masker.mask(text))

    def _cells(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
        masks = [self._masker.mask_own if column.casefold() == "service" else self._masker.mask for column in columns]
        return [[mask(cell) for mask, cell in zip(masks, row, strict=False)] for row in rows]

    def _print(self, text: str) -> None:
        self._out.write(text + "\n")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines = aligned(columns, self._cells(columns, rows))
        self._print("\n".join([*([self._masker.mask_own(title)] if title else []), *lines]))

    def event(self, kind: str, **data: Any) -> None:
        """Events are for programs; a person reads the lines."""

    def finding(self, found: Finding) -> None:
        self._print(self._finding(found))

    def _finding(self, found: Finding) -> str:
        return finding_text(
            replace(
                found,
                check=self._masker.mask_own(found.check),
                subject=self._masker.mask_own(found.subject),
                evidence=self._masker.mask(found.evidence),
                cause=self._masker.mask_own(found.cause),
                next_step=self._masker.mask_own(on_target(found.next_step, self._target)),
            )
        )

    def error(self, lines: Sequence[str], *, exit_code: int) -> None:  # noqa: ARG002 - the shell shows the code
        told = "\n".join(["error: " + lines[0], *[f"  {on_target(text, self._target)}" for text in lines[1:]]])
        self._err.write(self._masker.mask_own(told) + "\n")

    def ask_yes(self, question: str) -> bool:
        return self._ask(f"{question} [y/N] ").strip().lower() in {"y", "yes"}

    def ask_word(self, question: str, word: str) -> bool:
        return self._ask(f"{question} ").strip() == word

    def _ask(self, question: str) -> str:
        if not self.interactive:
            return ""
        drop_typed_ahead()
        self._out.write(self._masker.mask_own(question))
        try:
            return sys.stdin.readline()
        except UnicodeDecodeError:
            return ""

    def masked(self, text: str) -> str:
        return self._masker.mask(text)

    def close(self) -> None:
        """Nothing is left open."""


def drop_typed_ahead() -> None:
    """Keys pressed before a question was shown must not answer it."""
    import termios

    with contextlib.suppress(termios.error, OSError, ValueError):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


MARKS = {State.PASSED: "ok  ", State.FAILED: "FAIL", State.NOT_TRIED: "--  "}


_COMMAND = re.compile(r"\./inv (?=[a-z])(?!lab\.|test\b|check\b)")


def on_target(text: str, target: str) -> str:
    """The text, with the commands it names on the target that was chosen: as they stand they might go elsewhere.

    A line that names a target already stays as it is.
    """
    if not target or "./inv " not in text:
        return text
    lines = text.split("\n")
    return "\n".join(line if "--target" in line else _COMMAND.sub(f"./inv --target {target} ", line) for line in lines)


def finding_text(found: Finding) -> str:
    """One check as a person reads it; cause and next step only where it did not pass."""
    subject = f" [{found.subject}]" if found.subject else ""
    lines = [f"  {MARKS[found.state]} {found.check}{subject}" + (f": {found.evidence}" if found.evidence else "")]
    if not found.ok:
        lines += [f"       likely cause: {found.cause}"] if found.cause else []
        lines += [f"       next: {found.next_step}"] if found.next_step else []
    return "\n".join(lines)


class JsonReporter(PlainReporter):
    """One JSON object a line on standard output, nothing else there. Nobody is asked anything."""

    @property
    def interactive(self) -> bool:
        return False

    def event(self, kind: str, **data: Any) -> None:
        shown = masked(data, self._masker.mask_own, self._masker.mask)
        self._print(json.dumps({"event": kind, **shown}, ensure_ascii=False))

    def announce(self, text: str) -> None:
        self.event("announce", text=text)

    def plan(self, titles: Sequence[str]) -> None:
        self.event("plan", steps=list(titles))

    def _step_began(self, step: _Step) -> None:
        self.event("step", title=step.title, state="in progress")

    def _step_lasts(self, step: _Step) -> None:
        self.event("progress", title=step.title, detail=step.detail, seconds=round(step.seconds, 1))

    def _step_ended(self, step: _Step, state: str) -> None:
        self.event("step", title=step.title, state=state, seconds=round(step.seconds, 1))

    def line(self, text: str) -> None:
        self.event("line", text=text)

    def quote(self, text: str) -> None:
        self.event("quote", said=text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        shown = [dict(zip(columns, row, strict=False)) for row in self._cells(columns, rows)]
        self._print(
            json.dumps({"event": "table", "title": self._masker.mask_own(title), "rows": shown}, ensure_ascii=False)
        )

    def finding(self, found: Finding) -> None:
        self.event(
            "finding",
            check=found.check,
            subject=found.subject,
            state=found.state.value,
            evidence=found.evidence,
            cause=found.cause,
            next_step=on_target(found.next_step, self._target),
        )

    def error(self, lines: Sequence[str], *, exit_code: int) -> None:
        details = [on_target(text, self._target) for text in lines[1:]]
        self.event("error", summary=lines[0], details=details, exit_code=exit_code)


class LiveReporter(PlainReporter):
    """A terminal: finished lines scroll by, the plan with its one step in progress stays at the bottom."""

    def __init__(self, masker: Masker, out: TextIO, err: TextIO, *, target: str = "") -> None:
        super().__init__(masker, out, err, target=target)
        self._console = _console(out)
        self._live: Live | None = None
        self._steps: list[tuple[str, str]] = []

    def plan(self, titles: Sequence[str]) -> None:
        with self._lock:
            self._steps += [(self._masker.mask_own(title), "pending") for title in titles]
        self._refresh()

    def _step_began(self, step: _Step) -> None:
        self._mark(step, "in progress")
        self._refresh()

    def _step_lasts(self, step: _Step) -> None:
        """The display moves by itself."""

    def _step_ended(self, step: _Step, state: str) -> None:
        self._mark(step, f"{state} in {seconds_text(step.seconds)}")
        self._refresh()
        if not any(state == "pending" for _, state in self._steps):
            self.close()

    def _mark(self, step: _Step, state: str) -> None:
        title = self._masker.mask_own(step.title)
        with self._lock:
            for at, (name, before) in enumerate(self._steps):
                if name == title and before in {"pending", "in progress"}:
                    self._steps[at] = (title, state)
                    return
            self._steps.append((title, state))

    def _refresh(self) -> None:
        from rich.live import Live

        with self._lock:
            if self._live is None:
                self._live = Live(
                    console=self._console, get_renderable=self._picture, refresh_per_second=8, transient=True
                )
                self._live.start()
        self._live.refresh()

    def _picture(self) -> RenderableType:
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        current = self._current
        for title, state in list(self._steps):
            grid.add_row(*self._row(title, state, current))
        return grid

    def _row(self, title: str, state: str, current: _Step | None) -> tuple[RenderableType, ...]:
        from rich.spinner import Spinner
        from rich.text import Text

        if state == "in progress" and current is not None:
            detail = self._masker.mask_own(current.detail)
            return Spinner("dots", style="cyan"), Text(title), Text(f"{seconds_text(current.seconds)}  {detail}", "dim")
        style = {"pending": "dim"}.get(state, "red" if state.startswith("failed") else "green")
        mark = {"pending": "·"}.get(state, "✗" if state.startswith("failed") else "✓")
        return Text(mark, style), Text(title, "dim" if state == "pending" else ""), Text(state, "dim")

    def _print(self, text: str) -> None:
        from rich.text import Text

        try:
            self._console.print(Text(text), soft_wrap=True)
        except BrokenPipeError:
            self._out.write("")

    def announce(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(self._masker.mask_own(text), "bold"), soft_wrap=True)

    def finding(self, found: Finding) -> None:
        from rich.text import Text

        style = {State.PASSED: "green", State.FAILED: "bold red"}.get(found.state, "yellow")
        told = Text(self._finding(found))
        told.stylize(style, 2, 6)
        self._console.print(told, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        shown = Table(
            title=Text(self._masker.mask_own(title)) if title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for column in columns:
            shown.add_column(column, overflow="fold")
        for row in self._cells(columns, rows):
            shown.add_row(*map(Text, row))
        self._console.print(shown)

    def error(self, lines: Sequence[str], *, exit_code: int) -> None:
        self.close()
        super().error(lines, exit_code=exit_code)

    def _ask(self, question: str) -> str:
        self.close()
        return super()._ask(question)

    def close(self) -> None:
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            live.stop()
            for title, state in self._steps:
                if state not in {"pending", "in progress"}:
                    self._print(f"{'✗' if state.startswith('failed') else '✓'} {title}: {state}")
            self._steps = [step for step in self._steps if step[1] in {"pending", "in progress"}]


def _console(out: TextIO) -> Console:
    from rich.console import Console

    return Console(file=out, highlight=False, markup=False, emoji=False)
