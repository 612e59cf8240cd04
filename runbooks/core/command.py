"""A process to start and its outcome, as plain data. `runner.py` is the only place that starts one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Command:
    """One process, described completely.

    `argv` never holds a secret: values travel in `env` or `stdin`, which are neither shown nor journalled.
    """

    argv: tuple[str, ...]
    title: str = ""
    """What it does, as shown to the user; the argv when empty."""
    cwd: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to the allow-listed environment (see `environment.child_environment`)."""
    stdin: bytes | None = field(default=None, repr=False)
    mutates: bool = False
    """Can change a cluster, a stack or a file: never killed by a time-out, one graceful signal only."""
    confidential: bool = False
    """Its output may hold plaintext secrets: it stays in memory, and is never shown, journalled or put in an error."""
    serves: bool = False
    """It runs until it is signalled to stop, so a signal to it is not reported."""
    shows_stderr: bool = False
    """Its standard error is shown line by line while it runs, for example what a login plug-in wants from the user."""
    timeout: float | None = None
    """Seconds, for reads only; a mutating command with one is refused."""

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ValueError("a command needs a program")
        if self.mutates and self.timeout is not None:
            raise ValueError("a command that changes something is never killed by a time-out")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a `Command` ended. `stdout` and `stderr` are what the child really wrote (bytes that are not UTF-8 replaced).

    They are unmasked, for parsers only, and so left out of `repr`; `shown_*` is what may be displayed or written.
    """

    command: Command
    exit_code: int
    """The child's exit code; minus the signal number when a signal ended it."""
    seconds: float
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    shown_stdout: str = ""
    shown_stderr: str = ""
    interrupted: bool = False
    """We forwarded a signal to it."""
    cpu_seconds: float = 0.0
    """CPU time of the child and of the descendants that it waited for."""
    left_behind: str = ""
    """The processes that the child started and left running, as text; empty when none is known."""

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and not self.interrupted
