"""Programs of this machine: whether each is there, its version, and how to install it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from runbooks.core.command import Command
from runbooks.core.errors import OpsError
from runbooks.core.findings import Finding, failed, not_tried, passed
from runbooks.core.search_path import find_beside_python, find_program
from runbooks.tools.kubectl import Runs

ANSWER_TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program that the toolkit may need, and how to install it."""

    name: str
    version: tuple[str, ...]
    """Arguments that make it print its version."""
    install: str
    required: bool = True
    why: str = ""


def look(check: str, probe: Callable[[], Finding]) -> Finding:
    """Run a probe and return its finding; an error becomes a failed row with its next step."""
    try:
        return probe()
    except OpsError as error:
        expected = f"expected: {error.expected}" if error.expected else ""
        return failed(check, error.summary, cause=expected, next_step=error.next_step)


def tool_is_there(tool: Tool, runner: Runs) -> Finding:
    """The tool is on PATH or in this environment, and prints a version."""
    check = tool.name
    program = find_program(tool.name) or find_beside_python(tool.name)
    if program is None:
        if tool.required:
            return failed(check, "not on PATH", cause=tool.why, next_step=tool.install)
        return not_tried(check, f"not on PATH; {tool.why}", next_step=tool.install, deciding=False)
    outcome = runner.run(
        Command(argv=(str(program), *tool.version), title=f"ask {tool.name} for its version", timeout=ANSWER_TIMEOUT)
    )
    # The first thing that looks like a version: 2.43.0 of `git version 2.43.0`.
    version = re.search(r"\d+\.\d+(?:\.\d+)?[\w.+-]*", outcome.stdout or outcome.stderr)
    if not outcome.ok or version is None:
        return failed(check, f"{program} does not print its version (exit {outcome.exit_code})", next_step=tool.install)
    return passed(check, f"{version[0]}, {program}")
