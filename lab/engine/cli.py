"""The command line: which commands and flags there are, and what each one runs.

A command, a flag or a value that is not in these tables is refused by its name with exit code 2. Modules of a command
are imported when it runs, so that the light ones start in a fraction of a second.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.engine import VERSION
from lab.engine.failures import CommandFailed, NotSupported, OperationFailed, UsageError

if TYPE_CHECKING:
    from lab.engine.operations import Options
    from lab.engine.session import Session


@dataclass(frozen=True)
class Flag:
    """``short`` is one letter or "". ``many``: may be given more than once."""

    name: str
    short: str = ""
    takes_value: bool = False
    many: bool = False


@dataclass(frozen=True)
class Arguments:
    """What a command was given. ``flags`` holds names without dashes."""

    command: str
    words: tuple[str, ...]
    flags: Mapping[str, tuple[str, ...]]

    def has(self, name: str) -> bool:
        return name in self.flags and self.flags[name][-1].lower() not in ("false", "0")

    def value(self, name: str) -> str:
        return self.flags[name][-1] if name in self.flags else ""

    def values(self, name: str) -> tuple[str, ...]:
        return self.flags.get(name, ())

    def word(self, position: int) -> str:
        return self.words[position] if position < len(self.words) else ""

    def session(self) -> Session:
        from lab.engine.session import Session

        return Session.open(cwd=self.value("cwd"), config_file=self.value("config-file"))


@dataclass(frozen=True)
class Command:
    """``words``: how many arguments it takes at most."""

    run: Callable[[Arguments], None]
    flags: tuple[Flag, ...] = ()
    words: int = 0
    least: int = 0


GLOBAL = (
    Flag("cwd", "C", True),
    Flag("non-interactive"),
    Flag("color", takes_value=True),
    Flag("logtostderr"),
    Flag("verbose", "v", True),
    Flag("emoji", "e"),
    Flag("disable-integrity-checking"),
    Flag("help", "h"),
)
STACK = Flag("stack", "s", True)
JSON = Flag("json", "j")
YES = Flag("yes", "y")
CONFIG_FILE = Flag("config-file", takes_value=True)
SHOW_SECRETS = Flag("show-secrets")

_OPERATION = (
    STACK,
    JSON,
    CONFIG_FILE,
    Flag("output", takes_value=True),
    Flag("diff"),
    Flag("parallel", "p", True),
    Flag("message", "m", True),
    Flag("config", "c", True, many=True),
    Flag("suppress-outputs"),
    Flag("suppress-progress"),
    Flag("suppress-permalink"),
)
EXPECT_NO_CHANGES = Flag("expect-no-changes")
_CONFIRMED = (YES, Flag("skip-preview", "f"))
PREVIEW_ONLY = Flag("preview-only")


def _version(_arguments: Arguments) -> None:
    print(VERSION)


def _whoami(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.whoami(arguments.session(), as_json=arguments.has("json"))


def _stack(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.show(arguments.session(), arguments.value("stack"))


def _stack_select(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.select(arguments.session(), arguments.word(0) or arguments.value("stack"))


def _stack_init(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.init(
        arguments.session(),
        arguments.word(0) or arguments.value("stack"),
        secrets_provider=arguments.value("secrets-provider"),
        no_select=arguments.has("no-select"),
    )


def _stack_ls(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.list_stacks(
        arguments.session(),
        as_json=arguments.has("json"),
        everything=arguments.has("all"),
        organization=arguments.value("organization"),
    )


def _stack_output(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.output(
        arguments.session(),
        arguments.value("stack"),
        arguments.word(0),
        as_json=arguments.has("json"),
        show_secrets=arguments.has("show-secrets"),
    )


def _stack_export(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.export(
        arguments.session(),
        arguments.value("stack"),
        file=arguments.value("file"),
        show_secrets=arguments.has("show-secrets"),
    )


def _stack_rm(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.remove(
        arguments.session(),
        arguments.word(0) or arguments.value("stack"),
        yes=arguments.has("yes"),
        force=arguments.has("force"),
        preserve_config=arguments.has("preserve-config"),
    )


def _stack_history(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.history(
        arguments.session(),
        arguments.value("stack"),
        as_json=arguments.has("json"),
        show_secrets=arguments.has("show-secrets"),
    )


def _cancel(arguments: Arguments) -> None:
    from lab.engine import stack_commands

    stack_commands.cancel(arguments.session(), arguments.word(0) or arguments.value("stack"), yes=arguments.has("yes"))


def _config(arguments: Arguments) -> None:
    from lab.engine import config_commands

    config_commands.list_settings(
        arguments.session(),
        arguments.value("stack"),
        as_json=arguments.has("json"),
        show_secrets=arguments.has("show-secrets"),
        opening=arguments.has("open"),
    )


def _config_get(arguments: Arguments) -> None:
    from lab.engine import config_commands

    config_commands.get(arguments.session(), arguments.value("stack"), arguments.word(0), as_json=arguments.has("json"))


def _config_set(arguments: Arguments) -> None:
    from lab.engine import config_commands

    config_commands.set_value(
        arguments.session(),
        arguments.value("stack"),
        arguments.word(0),
        arguments.words[1] if len(arguments.words) > 1 else None,
        secret=arguments.has("secret"),
        plaintext=arguments.has("plaintext"),
    )


def _config_rm(arguments: Arguments) -> None:
    from lab.engine import config_commands

    config_commands.remove(arguments.session(), arguments.value("stack"), arguments.word(0))


def _config_env_add(arguments: Arguments) -> None:
    from lab.engine import config_env_commands

    config_env_commands.add(
        arguments.session(),
        arguments.value("stack"),
        arguments.words,
        yes=arguments.has("yes"),
        show_secrets=arguments.has("show-secrets"),
    )


def _config_env_rm(arguments: Arguments) -> None:
    from lab.engine import config_env_commands

    config_env_commands.remove(
        arguments.session(),
        arguments.value("stack"),
        arguments.word(0),
        yes=arguments.has("yes"),
        show_secrets=arguments.has("show-secrets"),
    )


def _config_env_ls(arguments: Arguments) -> None:
    from lab.engine import config_env_commands

    config_env_commands.show(arguments.session(), arguments.value("stack"), as_json=arguments.has("json"))


def _config_env_init(arguments: Arguments) -> None:
    from lab.engine import config_env_commands

    config_env_commands.init(
        arguments.session(),
        arguments.value("stack"),
        arguments.value("env"),
        yes=arguments.has("yes"),
        keep=arguments.has("keep-config"),
    )


def _operation(kind: str, arguments: Arguments, *, preview_only: bool = False) -> None:
    from lab.engine.operations import run_operation

    session = arguments.session()
    run_operation(session, _options(kind, arguments, preview_only=preview_only))
    _tell_lost_locks(session)


def _options(kind: str, arguments: Arguments, *, preview_only: bool) -> Options:
    from lab.engine.operations import Options

    form = arguments.value("output")
    if form not in ("", "json"):
        raise NotSupported(f"output form '{form}'")
    if form and arguments.has("json"):
        raise UsageError("--json and --output cannot be given together")
    return Options(
        kind,
        arguments.value("stack"),
        preview_only=preview_only or arguments.has("preview-only"),
        skip_preview=arguments.has("skip-preview"),
        yes=arguments.has("yes"),
        json=arguments.has("json"),
        output_json=form == "json",
        diff=arguments.has("diff"),
        expect_no_changes=arguments.has("expect-no-changes"),
        show_secrets=arguments.has("show-secrets"),
        show_replacement_steps=arguments.has("show-replacement-steps"),
        suppress_outputs=arguments.has("suppress-outputs"),
        refresh=arguments.has("refresh"),
        clear_pending_creates=arguments.has("clear-pending-creates"),
        remove=arguments.has("remove"),
        message=arguments.value("message"),
        parallel=_number(arguments.value("parallel"), "parallel"),
        config=arguments.values("config"),
        flags={f"pulumi.flag.{name}": _flag_text(name, values[-1]) for name, values in arguments.flags.items()},
    )


def _flag_text(name: str, value: str) -> str:
    return "true" if value == "true" else "set" if name else value


def _number(text: str, flag: str) -> int:
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"invalid argument {text!r} for --{flag}: a whole number is expected") from None


def _tell_lost_locks(session: Session) -> None:
    for text in session.backend.lost_locks:
        print(f"error: {text}", file=sys.stderr)


def _preview(arguments: Arguments) -> None:
    _operation("update", arguments, preview_only=True)


def _up(arguments: Arguments) -> None:
    _operation("update", arguments)


def _refresh(arguments: Arguments) -> None:
    _operation("refresh", arguments)


def _destroy(arguments: Arguments) -> None:
    _operation("destroy", arguments)


_INIT = Command(_stack_init, (STACK, Flag("secrets-provider", takes_value=True), Flag("no-select")), words=1)
_REMOVE = Command(_stack_rm, (STACK, YES, Flag("force", "f"), Flag("preserve-config")), words=1)
_CONFIG_ENV = (STACK, YES, CONFIG_FILE, SHOW_SECRETS)
_CONFIG_ENV_LS = Command(_config_env_ls, (STACK, CONFIG_FILE, JSON))
_CONFIG_ENV_RM = Command(_config_env_rm, _CONFIG_ENV, words=1, least=1)
_UP = Command(_up, (*_OPERATION, *_CONFIRMED, SHOW_SECRETS, EXPECT_NO_CHANGES, Flag("refresh", "r")))
_REFRESH = Command(_refresh, (*_OPERATION, *_CONFIRMED, PREVIEW_ONLY, EXPECT_NO_CHANGES, Flag("clear-pending-creates")))

COMMANDS: dict[tuple[str, ...], Command] = {
    ("version",): Command(_version),
    ("whoami",): Command(_whoami, (JSON,)),
    ("stack",): Command(_stack, (STACK,)),
    ("stack", "select"): Command(_stack_select, (STACK,), words=1),
    ("stack", "init"): _INIT,
    ("stack", "new"): _INIT,
    ("stack", "ls"): Command(_stack_ls, (JSON, Flag("all", "a"), Flag("organization", "o", True))),
    ("stack", "output"): Command(_stack_output, (STACK, JSON, SHOW_SECRETS), words=1),
    ("stack", "export"): Command(_stack_export, (STACK, SHOW_SECRETS, Flag("file", takes_value=True))),
    ("stack", "rm"): _REMOVE,
    ("stack", "remove"): _REMOVE,
    ("stack", "history"): Command(_stack_history, (STACK, JSON, SHOW_SECRETS)),
    ("config",): Command(_config, (STACK, JSON, SHOW_SECRETS, CONFIG_FILE, Flag("open"))),
    ("config", "get"): Command(_config_get, (STACK, JSON, CONFIG_FILE), words=1, least=1),
    ("config", "set"): Command(_config_set, (STACK, CONFIG_FILE, Flag("secret"), Flag("plaintext")), words=2, least=1),
    ("config", "rm"): Command(_config_rm, (STACK, CONFIG_FILE), words=1, least=1),
    ("config", "env", "add"): Command(_config_env_add, _CONFIG_ENV, words=8, least=1),
    ("config", "env", "ls"): _CONFIG_ENV_LS,
    ("config", "env", "list"): _CONFIG_ENV_LS,
    ("config", "env", "rm"): _CONFIG_ENV_RM,
    ("config", "env", "remove"): _CONFIG_ENV_RM,
    ("config", "env", "init"): Command(
        _config_env_init, (*_CONFIG_ENV, Flag("env", takes_value=True), Flag("keep-config"))
    ),
    ("preview",): Command(
        _preview,
        (*_OPERATION, SHOW_SECRETS, EXPECT_NO_CHANGES, Flag("refresh", "r"), Flag("show-replacement-steps")),
    ),
    ("up",): _UP,
    ("update",): _UP,
    ("refresh",): _REFRESH,
    ("destroy",): Command(_destroy, (*_OPERATION, *_CONFIRMED, PREVIEW_ONLY, Flag("refresh", "r"), Flag("remove"))),
    ("cancel",): Command(_cancel, (STACK, YES), words=1),
}

HELP = f"""This is not pulumi: it is the stand-in of the lab, for the lab only (follows {VERSION}).

Commands: {", ".join(sorted({" ".join(path) for path in COMMANDS}))}, env (its own --help)
Everything else is refused by name. Install the real pulumi for real targets: https://www.pulumi.com/docs/install/
"""


def read_arguments(argv: Sequence[str]) -> tuple[Command | None, Arguments]:
    """Flags may stand anywhere, as with the real CLI. ``None`` asks for help."""
    path, rest = _split_command(argv)
    command = COMMANDS.get(path)
    if path and command is None:
        raise NotSupported(f"command '{' '.join(path)}'")
    known = (*GLOBAL, *(command.flags if command else ()))
    words, flags = _split_flags(rest, known, " ".join(("pulumi", *path)))
    arguments = Arguments(" ".join(path), tuple(words), flags)
    if command is None or arguments.has("help"):
        return None, arguments
    if words and command.words == 0:
        raise NotSupported(f"command '{arguments.command} {words[0]}'")
    if len(words) > command.words:
        raise UsageError(f"'pulumi {arguments.command}' takes at most {command.words} arguments, got {len(words)}")
    if len(words) < command.least:
        raise UsageError(f"'pulumi {arguments.command}' takes at least {command.least} arguments, got {len(words)}")
    return command, arguments


def _all_flags() -> list[Flag]:
    return [*GLOBAL, *(flag for command in COMMANDS.values() for flag in command.flags)]


def _split_command(argv: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The longest command that the first words name, and everything else."""
    valued = {name for flag in _all_flags() if flag.takes_value for name in (f"--{flag.name}", f"-{flag.short}")}
    positions: list[int] = []
    skip = False
    for index, word in enumerate(argv):
        if skip:
            skip = False
        elif word == "--":
            break
        elif word.startswith("-"):
            skip = word in valued
        else:
            positions.append(index)
    path: tuple[str, ...] = ()
    for length in (3, 2, 1):
        candidate = tuple(argv[index] for index in positions[:length])
        if candidate in COMMANDS:
            path = candidate
            break
    if not path and positions:
        raise NotSupported(f"command '{argv[positions[0]]}'")
    used = set(positions[: len(path)])
    return path, [word for index, word in enumerate(argv) if index not in used]


def _split_flags(
    rest: Sequence[str], known: Sequence[Flag], command: str
) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    by_name = {f"--{flag.name}": flag for flag in known}
    by_name.update({f"-{flag.short}": flag for flag in known if flag.short})
    words: list[str] = []
    flags: dict[str, tuple[str, ...]] = {}
    waiting = list(rest)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            words += waiting
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, separator, value = word.partition("=")
        flag = by_name.get(name)
        if flag is None:
            raise NotSupported(f"flag '{name}' of '{command}'")
        if flag.takes_value and not separator:
            if not waiting:
                raise UsageError(f"flag needs an argument: {name}")
            value = waiting.pop(0)
        given = value if flag.takes_value or separator else "true"
        flags[flag.name] = (*flags.get(flag.name, ()), given) if flag.many else (given,)
    return words, flags


def _environment_command(argv: Sequence[str]) -> list[str] | None:
    """What follows ``env`` (or its alias ``esc``) when that is the first word, else ``None``."""
    valued = {name for flag in GLOBAL if flag.takes_value for name in (f"--{flag.name}", f"-{flag.short}")}
    skip = False
    for index, word in enumerate(argv):
        if not skip and not word.startswith("-"):
            return list(argv[index + 1 :]) if word in ("env", "esc") else None
        skip = not skip and word in valued
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code is the real CLI's for the same end."""
    words = sys.argv[1:] if argv is None else argv
    try:
        after_env = _environment_command(words)
        if after_env is not None:
            from lab.esc import cli as environments

            return environments.run([word for word in after_env if word != "--non-interactive"], "pulumi env")
        command, arguments = read_arguments(words)
        if command is None:
            print(HELP, end="")
            return 0
        command.run(arguments)
    except OperationFailed as failure:
        return failure.exit_code
    except CommandFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # Nobody reads any more; the interpreter must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
