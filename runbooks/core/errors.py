"""Every error a person can meet: what was seen, what was expected, the next safe command, and the exit code.

Raise one of these for anything the user, a tool or a cluster can cause; everything else that escapes is a bug here
(exit 70).
They are turned into text and an exit code in one place, `runbooks/cli.py`.
"""

from __future__ import annotations

from typing import ClassVar


class OpsError(Exception):
    """Something a person can act on.

    `summary` says in one sentence what was seen. `expected` names the other side, `next_step` the next safe command.
    None of the three may hold a secret: whoever builds one from a tool's answer masks that answer first.
    """

    exit_code: ClassVar[int] = 1
    usual_next_step: ClassVar[str] = ""
    """Told where the error itself names no next step."""

    def __init__(self, summary: str, *, expected: str = "", next_step: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.expected = expected
        self.next_step = next_step

    def lines(self) -> list[str]:
        """The error as the lines a person reads, without colour."""
        told = [self.summary]
        if self.expected:
            told.append(f"expected: {self.expected}")
        if next_step := self.next_step or self.usual_next_step:
            told.append(f"next: {next_step}")
        return told

    def beside(self, intro: str) -> str:
        """The error as one text, for one that does not end the run: `intro`, and under it the rest of the lines."""
        return "\n  ".join([intro + self.lines()[0], *self.lines()[1:]])


class ToolFailed(OpsError):
    """pulumi, kubectl, helm or another tool ended with a failure."""


class FieldConflict(ToolFailed):
    """An object could not be applied: another field manager holds what the program sets."""


class Usage(OpsError):
    """The command line, a config file or a stack's config is wrong."""

    exit_code = 2
    usual_next_step = "correct that, then run the same command again"


class LoginMissing(OpsError):
    """A tool is not logged in."""

    exit_code = 3


class VerificationFailed(OpsError):
    """A check that decides failed, or could not be tried where it must be."""

    exit_code = 4


class Refused(OpsError):
    """A guard said no: wrong cluster, lock of a live process, an operation nobody approved."""

    exit_code = 5


class NotFound(OpsError):
    """No such task, service, stack, target or environment."""

    exit_code = 6


class UnexpectedChanges(OpsError):
    """Changes or drift where none were expected."""

    exit_code = 7


class NotApproved(OpsError):
    """The person said no, nobody could be asked, or the run was interrupted."""

    exit_code = 8


class OutOfTime(OpsError):
    """A read or a wait took longer than it may."""

    exit_code = 9
