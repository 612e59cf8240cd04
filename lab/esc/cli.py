"""The command line of the `esc` stand-in, and of ``pulumi env``: the same commands.

A command, a flag or a value that is not here is refused by its name with exit code 2.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from lab.engine.cloud_client import NO_LOGIN, log_in
from lab.engine.failures import CommandFailed, LoginMissing, UsageError
from lab.engine.guard import lab_backend
from lab.esc import commands
from lab.esc.client import EscClient
from lab.esc.formats import FORMATS

VERSION = "v0.26.0-lab.standin"
"""The release whose recorded answers the stand-in follows."""
NOTICE = """\
┌─────────────────────────────────────────────────────────────────────┐
│ This is not esc: it is the stand-in of the lab, for the lab only.     │
└─────────────────────────────────────────────────────────────────────┘
"""

NO_CLOUD = "could not determine current cloud: "

Run = Callable[[EscClient, Namespace], int]


class _Parser(ArgumentParser):
    """Refuses as the engine's own command line does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; the lab's stand-in knows this much of it: {self.format_usage()}")


def _add(into: _SubParsersAction[_Parser], names: str, run: Run, *words: str, optional: Sequence[str] = ()) -> _Parser:
    first, *aliases = names.split()
    parser = into.add_parser(first, aliases=aliases, allow_abbrev=False)
    for word in words:
        parser.add_argument(word)
    for word in optional:
        parser.add_argument(word, nargs="?", default=None)
    parser.set_defaults(run=run)
    return parser


def _add_open(into: _SubParsersAction[_Parser]) -> None:
    parser = _add(into, "open", commands.open_, "name", optional=["path"])
    parser.add_argument("--format", "-f", choices=FORMATS, default="json")
    parser.add_argument("--lifetime", "-l", default="2h")


def _add_run(into: _SubParsersAction[_Parser]) -> None:
    parser = _add(into, "run", commands.run, "name")
    parser.add_argument("--interactive", "-i", action="store_true")
    parser.add_argument("--lifetime", "-l", default="2h")


def _add_environments(into: _SubParsersAction[_Parser]) -> None:
    parser = _add(into, "init new", commands.init, "name")
    parser.add_argument("--file", "-f", default="")
    parser = _add(into, "ls list", commands.ls)
    parser.add_argument("--organization", "-o", default="")
    parser.add_argument("--project", "-p", default="")
    parser.add_argument("--output", choices=["default", "json"], default="default")
    parser = _add(into, "get", commands.get, "name", optional=["path"])
    parser.add_argument("--value", choices=FORMATS, default="")
    parser.add_argument("--definition", action="store_true")
    parser.add_argument("--show-secrets", action="store_true")
    parser = _add(into, "set", commands.set_, "name", "path", optional=["value"])
    for flag in ("--secret", "--plaintext", "--string"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--file", "-f", default="")
    parser = _add(into, "edit update", commands.edit, "name")
    parser.add_argument("--file", "-f", default="")
    parser = _add(into, "rm remove", commands.rm, "name", optional=["path"])
    parser.add_argument("--yes", "-y", action="store_true")
    _add_open(into)
    _add_run(into)
    _add_versions(into)


def _add_versions(into: _SubParsersAction[_Parser]) -> None:
    versions = into.add_parser("version", allow_abbrev=False).add_subparsers(required=True, metavar="COMMAND")
    _add(versions, "history", commands.history, "name")
    _add(versions, "rollback", commands.rollback, "name")
    _add(versions, "tag", commands.tag, "name", optional=["revision"])
    _add(versions, "tag-ls", commands.tag_ls, "name")
    _add(versions, "tag-rm", commands.tag_rm, "name")


def _parser(program: str) -> _Parser:
    """``esc`` has ``env`` and a few commands beside it; ``pulumi env`` has only what is below ``env``."""
    parser = _Parser(prog=program, allow_abbrev=False)
    top = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    if program == "esc":
        top.add_parser("version", allow_abbrev=False).set_defaults(run=None)
        _add_open(top)
        _add_run(top)
        _add_environments(
            top.add_parser("env", aliases=["environment"], allow_abbrev=False).add_subparsers(
                required=True, metavar="COMMAND", parser_class=_Parser
            )
        )
    else:
        _add_environments(top)
    return parser


def connect(environment: Mapping[str, str], program: str) -> EscClient:
    """Refuses every back end but the lab's cloud."""
    backend = lab_backend(environment, program)
    if not backend.is_cloud:
        if not environment.get("PULUMI_ACCESS_TOKEN"):
            raise LoginMissing(f"{NO_CLOUD}{NO_LOGIN}")
        raise CommandFailed(
            f"{backend.url} does not support Pulumi ESC. Use the lab's cloud as the back end (PULUMI_BACKEND_URL)"
        )
    try:
        client = log_in(backend.url, environment)
    except CommandFailed as error:
        error.args = (f"{NO_CLOUD}{error}",)
        raise
    return EscClient(client, backend.organization)


def read_arguments(argv: Sequence[str], program: str) -> Namespace:
    """``version tag ls`` and ``rm`` are told from ``version tag NAME``; after ``--`` comes the command of ``run``."""
    words, command = list(argv), []
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    for at in range(1, len(words) - 1):
        if words[at - 1 : at + 1] == ["version", "tag"] and words[at + 1] in ("ls", "list", "rm", "remove"):
            words[at : at + 2] = [f"tag-{'ls' if words[at + 1].startswith('l') else 'rm'}"]
            break
    parser = _parser(program)
    given, unknown = parser.parse_known_args(words)
    if unknown:
        raise UsageError(f"'{unknown[0]}' of '{program} {' '.join(words[:2])}' is not supported by the lab's stand-in")
    given.command = command
    return given


def run(argv: Sequence[str], program: str) -> int:
    """One command; failures are ``CommandFailed``."""
    given = read_arguments(argv, program)
    if given.run is None:
        print(VERSION)
        return 0
    return int(given.run(connect(os.environ, program), given))


def main(argv: Sequence[str] | None = None) -> int:
    """`esc`: every failure ends with 1, a usage error with 2."""
    print(NOTICE, end="", file=sys.stderr, flush=True)
    try:
        return run(sys.argv[1:] if argv is None else argv, "esc")
    except CommandFailed as failure:
        print(f"Error: {failure}", file=sys.stderr)
        return 2 if isinstance(failure, UsageError) else 1
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
