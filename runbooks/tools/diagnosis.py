"""What is on this machine: tools, their versions and what to do about each that is missing or too old."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.command import Command
from runbooks.core.errors import OpsError
from runbooks.core.findings import Finding, failed, not_tried, passed
from runbooks.core.search_path import find_program
from runbooks.tools.kubectl import Runs

FIRST_WITH_EXIT_CODES = (3, 227, 0)
"""pulumi whose exit codes tell what went wrong (pkg/cmd/pulumi/cmd/exit_codes.go)."""
ANSWER_TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program a person may need, and how to get it."""

    name: str
    version: tuple[str, ...]
    """Arguments that make it tell its version."""
    install: str
    required: bool = True
    why: str = ""


def look(check: str, probe: Callable[[], Finding]) -> Finding:
    """What a probe finds; an error a person can act on is a failed row with its next step, never an end."""
    try:
        return probe()
    except OpsError as error:
        expected = f"expected: {error.expected}" if error.expected else ""
        return failed(check, error.summary, cause=expected, next_step=error.next_step)


def tool_is_there(tool: Tool, runner: Runs) -> Finding:
    """The tool is on PATH, or in this environment, and tells a version."""
    check = tool.name
    beside_python = Path(sys.executable).with_name(tool.name)
    program = find_program(tool.name) or (beside_python if beside_python.exists() else None)
    if program is None:
        if tool.required:
            return failed(check, "not on PATH", cause=tool.why, next_step=tool.install)
        return not_tried(check, f"not on PATH; {tool.why}", next_step=tool.install, deciding=False)
    outcome = runner.run(
        Command(argv=(str(program), *tool.version), title=f"ask {tool.name} for its version", timeout=ANSWER_TIMEOUT)
    )
    version = first_version(outcome.stdout or outcome.stderr)
    if not outcome.ok or not version:
        return failed(check, f"{program} does not tell its version (exit {outcome.exit_code})", next_step=tool.install)
    return passed(check, f"{version}, {program}")


def first_version(text: str) -> str:
    """The first thing in a text that looks like a version: `2.43.0` of `git version 2.43.0`."""
    found = re.search(r"\d+\.\d+(?:\.\d+)?[\w.+-]*", text)
    return found[0] if found else ""


def is_at_least(version: Sequence[int], least: Sequence[int]) -> bool:
    return tuple(version) >= tuple(least)
