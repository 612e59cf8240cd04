"""Our `invoke.Program`: `--target`, `--json`, exit codes, the nearest names for an unknown task.

Everything a run can end with is turned into text and an exit code here, and only here.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import select
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from invoke import Collection, Exit, Program
from invoke.exceptions import ParseError
from invoke.parser import Argument, Parser, ParserContext
from invoke.terminals import pty_size
from invoke.util import enable_logging

from runbooks.collection import Row, task_rows
from runbooks.core.errors import BUG, OpsError, Usage, as_known
from runbooks.core.files import discard_output, make_folder, state_dir, write_new
from runbooks.core.names import unknown
from runbooks.core.reporter import Reporter, reporter_in_use

START_PAGE = """\
homelab-ops: a home platform on Kubernetes, with Pulumi

  ./inv deploy.postgres   bring a service and its needs up to date, and verify
  ./inv preview.all       see what would change; changes nothing
  ./inv verify.postgres   check that a service really works
  ./inv status            see every service: stack, last update, pods
  ./inv doctor            check tools, logins and cluster; names each fix

  ./inv --list            every task
  ./inv --help TASK       what a task does, and its options

A run works on the lab, a throw-away platform on this machine, until a target is
chosen: with --target, OPS_TARGET, or `default` in targets.yaml.
"""
CLOSED_OUTPUT = 141
"""Exit code when the reader of our output has left; shells report it for a program that SIGPIPE ended."""


def options_of_environment() -> dict[str, Any]:
    """Target and output format from the environment, for plain `inv`, which knows neither `--target` nor `--json`."""
    return {
        "target": os.environ.get("OPS_TARGET", ""),
        "json": os.environ.get("OPS_JSON", "") not in {"", "0"},
        "report": "",
    }


class OpsProgram(Program):
    """The program behind `./inv`."""

    def core_args(self) -> list[Argument]:
        """Options before or after the task's name, without those options of invoke that make no sense here."""
        kept = {"complete", "debug", "dry", "help", "list", "list-depth", "list-format", "print-completion-script"}
        ours = [
            Argument(
                names=("target",),
                help="Where to work: lab, or a name in targets.yaml; else OPS_TARGET, else its default.",
            ),
            Argument(names=("json",), kind=bool, default=False, help="Print one JSON event a line."),
            Argument(names=("report",), help="Write the run as a page (FILE.html) or as a comment (FILE.md)."),
        ]
        theirs = [argument for argument in super().core_args() if argument.name in kept]
        for argument in theirs:
            if argument.name == "dry":
                argument.help = "Not supported: preview.<service> shows what would happen."
        return ours + theirs

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:  # noqa: A002, ARG002 - invoke's signature
        """Run one command line. Raises `SystemExit` with the exit code unless all went well."""
        code = self._exit_code(lambda: self._run(argv)) or self._exit_code(_flush_output)
        if code:
            sys.exit(code)

    def _exit_code(self, work: Callable[[], None]) -> int:
        try:
            work()
        except Exit as done:
            return int(done.code)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place that ends a run
            # Parsing may have failed half-way, so the options are looked for in the words themselves.
            as_json = "--json" in self.argv[1:] or bool(options_of_environment()["json"])
            return report(self._read_parse_error(error) if isinstance(error, ParseError) else error, as_json=as_json)
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

    def _make_parser(self) -> Parser:
        """A parser of the tasks that are named: invoke would read and copy the options of thousands of others."""
        words = {word for word in [*self.core.unparsed, str(self.args.help.value or "")] if "_" not in word}
        contexts = []
        for word in words:
            with contextlib.suppress(KeyError, ValueError):  # not a task, or a group without a task of its own
                task = self.collection[word]
                contexts.append(ParserContext(name=word, args=task.get_arguments()))
        return Parser(initial=self.initial_context, contexts=contexts)

    def _complete(self, shell: str) -> None:
        """Print the shell's script, or the candidates for the words after `--`."""
        from runbooks.completion import candidates, completion_script  # noqa: PLC0415 - it loads the target's layers

        words = self.argv[self.argv.index("--") + 1 :] if "--" in self.argv else []
        print(completion_script(shell) if shell else "\n".join(candidates(words, self.collection, self.core_args())))  # noqa: T201
        raise Exit

    def parse_cleanup(self) -> None:
        if self.args.complete.value or self.args["print-completion-script"].value:
            self._complete(self.args["print-completion-script"].value)
        if self.args.dry.value:
            raise Usage(
                "a dry run of the tasks themselves is not supported",
                expected="a preview, which changes nothing",
                next_step="./inv preview.all",
            )
        group = self.args.list.value
        if isinstance(group, str) and group not in self.collection.collections:
            raise unknown("group of tasks", group, list(self.collection.collections))
        super().parse_cleanup()

    def no_tasks_given(self) -> None:
        print(START_PAGE, end="")  # noqa: T201
        raise Exit

    def print_task_help(self, name: str) -> None:
        """Print what the task does, with its example and its options, folded to the terminal's width."""
        options = self.parser.contexts[name].help_tuples()
        print(f"Usage: {self.binary} [options] {name}" + (" [options of the task]" if options else ""), end="\n\n")  # noqa: T201 - what was asked for
        fold = textwrap.TextWrapper(
            width=pty_size()[0] - 1, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        for paragraph in (inspect.getdoc(self.collection[name]) or "").split("\n\n"):
            print(fold.fill(paragraph), end="\n\n")  # noqa: T201
        if options:
            print("Options of the task (./inv --help shows those of every task):")  # noqa: T201
            self.print_columns(options)

    def list_flat(self) -> None:
        """List the tasks. One that exists for each service is listed once, with the services' names."""
        if self.list_root or self.list_depth:
            super().list_flat()
            return
        print("What you can do here:\n")  # noqa: T201 - what was asked for
        for line in list_lines(task_rows(self.collection), pty_size()[0]):
            print(line)  # noqa: T201

    def update_config(self, merge: bool = True) -> None:
        self.config.merge()
        options = options_of_environment()
        if self.args.target.value is not None:
            options["target"] = self.args.target.value
            if not options["target"]:
                raise Usage("--target was given without a name", expected="a name in targets.yaml, or lab")
        options["json"] = options["json"] or self.args.json.value
        options["report"] = self.args.report.value or ""
        self.config.ops = options
        if merge:
            self.config.merge()

    def _read_parse_error(self, error: ParseError) -> OpsError:
        """Explain invoke's parse error, which holds nothing but the word that invoke did not recognize."""
        words = self.argv[1:]
        # Parsing may have failed before the tasks were loaded.
        tasks = self.collection.task_names if hasattr(self, "collection") else ()
        help_with = f"./inv --help {next((each for each in words if each in tasks), 'TASK')}"
        word = re.fullmatch(r"No idea what '(.*)' is!", str(error), re.DOTALL)
        if word is None:
            return Usage(f"the command line cannot be read: {error}", next_step=help_with)
        option = word[1]
        if option.startswith("-"):
            if not option.startswith("--"):
                # invoke reads `-foo` as -f, -o and -o, and names one letter. A value behind `=` may be a secret.
                typed = (each for each in words if re.fullmatch(r"-[^-=]*", each) and option[1:] in each)
                option = next(typed, option)
            return Usage(
                f"the command line cannot be read: no option {option}",
                expected="one of the task's options; no name begins with a dash",
                next_step=f"{help_with} shows them",
            )
        switch = next((each for each in words if re.fullmatch(rf"--?[^=]+={re.escape(option)}", each)), "")
        if switch:
            name = switch.partition("=")[0]
            return Usage(f"{name} takes no value, and one was given", expected=f"{name} alone, or without it")
        return unknown("task", option, list(tasks))


def list_lines(listed: Sequence[Row], columns: int) -> list[str]:
    """Format two columns, `columns` wide together. No name is broken, so that each can be found and copied."""
    margin = max(len(row.name) for row in listed) + 4
    fold = textwrap.TextWrapper(width=max(columns - margin - 1, 30), break_on_hyphens=False, break_long_words=False)
    lines = []
    for row in listed:
        text = [*fold.wrap(row.about), *fold.wrap(" ".join(row.members))]
        lines += [f"  {name:{margin - 2}}{line}".rstrip() for name, line in zip_longest([row.name], text, fillvalue="")]
    return lines


def refuse_dashed_name(words: list[str]) -> None:
    """Raise `Usage` for a name that begins with one dash: invoke would read its letters as options."""
    for word in words:
        if not word.startswith("-"):
            return
        if re.match(r"-[^-].*[.\w]{3}", word) and not word.startswith(("-F", "-l", "-h", "-D")):
            raise Usage(
                f"{word!r} begins with a dash, so it would be read as options",
                expected="a task's name such as deploy.postgres, or one of the options of ./inv --help",
                next_step="./inv --list",
            )


def report(error: BaseException, *, as_json: bool) -> int:
    """Report what ended the run on the run's own reporter, and return the exit code."""
    if is_closed_output(error):
        discard_output(sys.stdout)
        return CLOSED_OUTPUT
    reporter = reporter_in_use(as_json=as_json)
    reporter.close()
    known = as_known(error)
    if known is None:
        return _report_bug(error, reporter)
    reporter.error(known.lines(), exit_code=known.exit_code)
    return known.exit_code


def _report_bug(error: BaseException, reporter: Reporter) -> int:
    """Write the masked traceback below the state folder, for its owner alone, and report where."""
    text = "".join(traceback.format_exception(error))
    try:
        folder = state_dir() / "logs"
        make_folder(folder, "the log")
        log = folder / f"bug-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.log"
        write_new(log, reporter.masked(text), "the log")
        where = f"the log is {log}"
    except OpsError as failure:
        where = f"{failure.summary}; run again with INVOKE_DEBUG=1"
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    reporter.error([f"this is a bug of the runbooks: {kind}", where], exit_code=BUG)
    return BUG


def is_closed_output(error: BaseException) -> bool:
    """Whether the error means that the reader of our standard output has left (`./inv --list | head -1`)."""
    if not isinstance(error, BrokenPipeError) or sys.stdout is None:
        return False
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return bool(poll.poll(0))  # reports errors and hang-ups alone
    except (OSError, ValueError):  # a stream of its own, without a descriptor
        return False


def _flush_output() -> None:
    """Write what is still buffered. A failure at the interpreter's end would be a traceback and exit 120."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        if not is_closed_output(error):
            discard_output(sys.stdout)
        raise


def report_errors(body: Callable[..., Any]) -> Callable[..., Any]:
    """Run the block and turn what it raises into text and exit code, for `./inv` and plain `inv` alike."""

    @functools.wraps(body)
    def run(c: Any, *args: Any, **options: Any) -> Any:
        try:
            return body(c, *args, **options)
        except Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise Exit(code=report(error, as_json=bool(c.config.ops.json))) from error

    return run


def open_closed_streams() -> None:
    """Open standard streams that the caller closed (`>&-`), before a file of ours takes their numbers."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def main(namespace: Collection) -> None:
    open_closed_streams()
    OpsProgram(namespace=namespace, name="homelab-ops", binary="./inv", binary_names=["inv", "./inv"]).run()
