"""How a command line is read."""

from __future__ import annotations

import pytest

from lab.engine.cli import COMMANDS, read_arguments
from lab.engine.failures import NotSupported, UsageError


@pytest.mark.parametrize(
    ("line", "command", "words", "flags"),
    [
        ("-C /x preview --json -s mx", "preview", (), {"cwd": "/x", "json": "true", "stack": "mx"}),
        ("preview --show-replacement-steps", "preview", (), {"show-replacement-steps": "true"}),
        ("stack -s mx output key --show-secrets", "stack output", ("key",), {"stack": "mx", "show-secrets": "true"}),
        ("config --config-file f set k v", "config set", ("k", "v"), {"config-file": "f"}),
        ("config set k -- -dashed", "config set", ("k", "-dashed"), {}),
        ("up --yes=false -f --stack=a", "up", (), {"yes": "false", "skip-preview": "true", "stack": "a"}),
        ("cancel mx --yes", "cancel", ("mx",), {"yes": "true"}),
        ("config env add stitch/prod --yes", "config env add", ("stitch/prod",), {"yes": "true"}),
    ],
)
def test_flags_stand_anywhere(line: str, command: str, words: tuple[str, ...], flags: dict[str, str]) -> None:
    found, arguments = read_arguments(line.split())

    assert found is COMMANDS[tuple(command.split())]
    assert (arguments.command, arguments.words) == (command, words)
    assert {name: values[-1] for name, values in arguments.flags.items()} == flags


def test_a_flag_given_often_keeps_all_where_it_may() -> None:
    _, arguments = read_arguments(["preview", "-c", "a=1", "--config", "b=2"])

    assert arguments.values("config") == ("a=1", "b=2")
    assert not read_arguments(["up", "--yes=false"])[1].has("yes")


@pytest.mark.parametrize(
    ("line", "error", "text"),
    [
        ("logs", NotSupported, "command 'logs'"),
        ("stack tag ls", NotSupported, "command 'stack tag'"),
        ("up -x", NotSupported, "flag '-x' of 'pulumi up'"),
        ("up -s", UsageError, "flag needs an argument: -s"),
        ("config get", UsageError, "takes at least 1"),
        ("config set a b c", UsageError, "takes at most 2"),
    ],
)
def test_what_cannot_be_read_is_named(line: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read_arguments(line.split())


def test_help_is_asked_for_by_nothing_or_by_flag() -> None:
    assert read_arguments([])[0] is None
    assert read_arguments(["up", "-h"])[0] is None


@pytest.mark.parametrize(
    "words",
    [
        ["up", "--preview-only"],
        ["preview", "--yes"],
        ["destroy", "--expect-no-changes"],
        ["destroy", "--show-secrets"],
        ["refresh", "--show-secrets"],
        ["stack", "export", "--config-file", "x"],
        ["stack", "output", "--config-file", "x"],
        ["cancel", "--config-file", "x"],
    ],
)
def test_flags_the_real_command_does_not_have_are_refused(words: list[str]) -> None:
    """So that a runbook that works in the lab works with the real one (pulumi pkg/cmd/pulumi/operations)."""
    with pytest.raises(NotSupported, match="flag '--"):
        read_arguments(words)
