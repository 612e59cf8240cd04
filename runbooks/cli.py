"""Our `invoke.Program`: `--target`, `--json`, exit codes, the nearest names for a task nobody knows.

Everything a run can end with is turned into text and an exit code here, and only here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Collection, Exit, Program
from invoke.exceptions import ParseError
from invoke.parser import Argument
from invoke.terminals import pty_size
from invoke.util import enable_logging

from runbooks.collection import Row, rows
from runbooks.core.errors import NotFound, OpsError, Usage
from runbooks.core.exit_codes import BUG, as_known
from runbooks.core.files import ROOT, state_dir

if TYPE_CHECKING:
    from runbooks.core.reporter import Reporter

CLOSED_OUTPUT = 141
"""Exit code when nobody reads our output any more: the shell's for a program that SIGPIPE ended."""


def options_of_environment() -> dict[str, Any]:
    """What plain `inv`, which knows neither `--target` nor `--json`, reads instead."""
    return {"target": os.environ.get("OPS_TARGET", ""), "json": os.environ.get("OPS_JSON", "") not in {"", "0"}}


class OpsProgram(Program):
    """The program behind `./inv`."""

    def core_args(self) -> list[Argument]:
        """Options before or after the task's name. Those of invoke that make no sense here are left out."""
        kept = {"complete", "debug", "dry", "help", "list", "list-depth", "list-format", "print-completion-script"}
        ours = [
            Argument(names=("target",), help="Where to work: a name in targets.yaml, or lab (default: OPS_TARGET)."),
            Argument(names=("json",), kind=bool, default=False, help="Print one JSON event a line."),
        ]
        theirs = [argument for argument in super().core_args() if argument.name in kept]
        for argument in theirs:
            if argument.name == "dry":
                argument.help = "Not supported: preview.<service> shows what would happen."
        return ours + theirs

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:  # noqa: A002, ARG002 - invoke's signature
        """Run one command line. Raises `SystemExit` with the exit code unless all went well."""
        code = self._ended(lambda: self._run(argv)) or self._ended(_flush_output)
        if code:
            sys.exit(code)

    def _ended(self, work: Callable[[], None]) -> int:
        """Do it, and give the exit code for how it ended."""
        try:
            work()
        except Exit as done:
            return int(done.code)
        except ParseError as error:
            return told(self._read_parse_error(error), as_json=self._wants_json())
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place that ends a run
            return told(error, as_json=self._wants_json())
        return 0

    def _run(self, argv: list[str] | None) -> None:
        self.create_config()
        self.parse_core(argv)
        self.parse_collection()
        self.parse_tasks()
        self.parse_cleanup()
        self.update_config()
        self.execute()

    def parse_core(self, argv: list[str] | None) -> None:
        self.normalize_argv(argv)
        refuse_dashed_name(self.argv[1:])
        self.parse_core_args()
        if self.args.debug.value:
            enable_logging()
        if self.args["print-completion-script"].value:
            print_completion(self.args["print-completion-script"].value)
            raise Exit

    def parse_cleanup(self) -> None:
        if self.args.dry.value:
            raise Usage(
                "a dry run of the tasks themselves is not supported",
                expected="a preview, which changes nothing",
                next_step="./inv preview.all",
            )
        group = self.args.list.value
        if isinstance(group, str) and group not in self.collection.collections:
            raise self._unknown(group, "group of tasks", list(self.collection.collections))
        super().parse_cleanup()

    def no_tasks_given(self) -> None:
        self.list_tasks()
        raise Exit

    def list_flat(self) -> None:
        """A task that exists for each service is told once, with the names it has."""
        if self.list_root or self.list_depth:
            super().list_flat()
            return
        print(f"{self.task_list_opener()}:\n")  # noqa: T201 - what was asked for
        for line in list_lines(rows(self.collection), pty_size()[0]):
            print(line)  # noqa: T201

    def task_list_opener(self, extra: str = "") -> str:
        return "What you can do here" + (f" ({extra})" if extra else "")

    def update_config(self, merge: bool = True) -> None:
        self.config.merge()
        options = options_of_environment()
        if self.args.target.value is not None:
            options["target"] = self.args.target.value
            if not options["target"]:
                raise Usage("--target was given without a name", expected="a name in targets.yaml, or lab")
        options["json"] = options["json"] or self.args.json.value
        self.config.ops = options
        if merge:
            self.config.merge()

    def _wants_json(self) -> bool:
        """Also right when parsing failed half-way."""
        return "--json" in self.argv[1:] or bool(options_of_environment()["json"])

    def _read_parse_error(self, error: ParseError) -> OpsError:
        """invoke tells an unknown task and an unknown option apart by nothing but the word it could not place."""
        unknown = re.fullmatch(r"No idea what '(.*)' is!", str(error), re.DOTALL)
        help_with = f"./inv --help {self._task_asked_for()}"
        if unknown is None:
            return Usage(f"the command line cannot be read: {error}", next_step=help_with)
        if unknown[1].startswith("-"):
            return Usage(
                f"the command line cannot be read: no option {self._as_typed(unknown[1])}",
                expected="one of the task's options; no name begins with a dash",
                next_step=f"{help_with} shows them",
            )
        switch = next((word for word in self.argv[1:] if re.fullmatch(rf"--?[^=]+={re.escape(unknown[1])}", word)), "")
        if switch:
            option = switch.partition("=")[0]
            return Usage(f"{option} takes no value, and one was given", expected=f"{option} alone, or without it")
        return self._unknown(unknown[1], "task", list(self.collection.task_names))

    def _task_asked_for(self) -> str:
        """Also right when parsing failed before the tasks were loaded."""
        known = self.collection.task_names if hasattr(self, "collection") else ()
        return next((word for word in self.argv[1:] if word in known), "TASK")

    def _as_typed(self, option: str) -> str:
        """invoke reads `-foo` as -f, -o and -o, and names one letter. A value behind `=` may be secret: never told."""
        if option.startswith("--"):
            return option
        typed = (word for word in self.argv[1:] if re.fullmatch(r"-[^-=]*", word) and option[1:] in word)
        return next(typed, option)

    def _unknown(self, name: str, kind: str, candidates: list[str]) -> NotFound:
        from runbooks.core.names import nearest

        near = ", ".join(nearest(name, candidates))
        return NotFound(
            f"there is no {kind} {name!r}", expected=f"one of the nearest: {near}", next_step="./inv --list"
        )


def list_lines(listed: Sequence[Row], columns: int) -> list[str]:
    """Two columns, `columns` wide together. No name is broken, so that each can be found and copied."""
    margin = max(len(row.name) for row in listed) + 4
    fold = textwrap.TextWrapper(width=max(columns - margin - 1, 30), break_on_hyphens=False, break_long_words=False)
    lines = []
    for row in listed:
        told = [*fold.wrap(row.about), *fold.wrap(" ".join(row.members))]
        columns_of = zip_longest([row.name], told, fillvalue="")
        lines += [f"  {name:{margin - 2}}{text}".rstrip() for name, text in columns_of]
    return lines


def refuse_dashed_name(words: list[str]) -> None:
    """A name that begins with one dash would be taken apart into options by invoke, letter by letter."""
    for word in words:
        if not word.startswith("-"):
            return
        if re.match(r"-[^-].*[.\w]{3}", word) and not word.startswith(("-F", "-l", "-h", "-D")):
            raise Usage(
                f"{word!r} begins with a dash, so it would be read as options",
                expected="a task's name such as deploy.postgres, or one of the options of ./inv --help",
                next_step="./inv --list",
            )


def told(error: BaseException, *, as_json: bool) -> int:
    """Say what ended the run where the run speaks, and give the exit code."""
    if is_closed_output(error):
        drop_output()
        return CLOSED_OUTPUT
    from runbooks.core.reporter import reporter_in_use

    reporter = reporter_in_use(as_json=as_json)
    reporter.close()
    known = as_known(error)
    if known is None:
        return _told_bug(error, reporter)
    reporter.error(known.lines(), exit_code=known.exit_code)
    return known.exit_code


def is_closed_output(error: BaseException) -> bool:
    """Whether the error says that nobody reads our standard output any more (`./inv --list | head -1`)."""
    if not isinstance(error, BrokenPipeError) or sys.stdout is None:
        return False
    try:
        asked = select.poll()
        asked.register(sys.stdout.fileno(), 0)
        return bool(asked.poll(0))  # only errors and hang-ups were asked for
    except (OSError, ValueError):  # a stream of its own, without a descriptor
        return False


def drop_output() -> None:
    """Nothing is printed from now on; what is still in a buffer goes nowhere, also when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _flush_output() -> None:
    """What was printed leaves now: at the interpreter's end a failure would be a traceback and exit 120."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        if not is_closed_output(error):
            drop_output()
        raise


def open_closed_streams() -> None:
    """Standard streams that the caller closed (`>&-`) lead nowhere, before a file of ours takes their numbers."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _told_bug(error: BaseException, reporter: Reporter) -> int:
    text = "".join(traceback.format_exception(error))
    try:
        where = f"the log is {write_bug_log(reporter.masked(text))}"
    except OpsError as failure:
        where = f"{failure.summary}; run again with INVOKE_DEBUG=1"
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    reporter.error([f"this is a bug of the runbooks: {kind}", where], exit_code=BUG)
    return BUG


def write_bug_log(text: str) -> Path:
    """Write a masked traceback below the state folder, for its owner alone, and give its path. Raises `Unwritable`."""
    from runbooks.core.files import make_folder, write_new

    folder = state_dir() / "logs"
    make_folder(folder, "the log")
    path = folder / f"bug-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.log"
    write_new(path, text, "the log")
    return path


def errors_told(body: Callable[..., Any]) -> Callable[..., Any]:
    """The body, with what it raises turned into text and exit code: for `./inv` and plain `inv` alike."""

    @functools.wraps(body)
    def run(c: Any, *args: Any, **options: Any) -> Any:
        try:
            return body(c, *args, **options)
        except Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise Exit(code=told(error, as_json=bool(c.config.ops.json))) from error

    return run


def print_completion(shell: str) -> None:
    """The shell's completion script, asking this repository's `inv` by its path, so that nothing need be on PATH."""
    import io

    from invoke.completion.complete import print_completion_script

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print_completion_script(shell=shell, names=["inv", "./inv"])
    asked = re.sub(r"\binv (?=(\$\{=collection_arg\} )?--complete)", f"{ROOT / 'inv'} ", text.getvalue())
    print(asked, end="")  # noqa: T201 - a script for the shell, asked for as such


def main(namespace: Collection) -> None:
    open_closed_streams()
    OpsProgram(namespace=namespace, name="homelab-ops", binary="./inv", binary_names=["inv", "./inv"]).run()
