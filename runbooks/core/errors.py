"""Every error a user can meet: what was seen, what was expected, the next safe command, and the exit code.

Raise one of these for anything that the user, a tool or a cluster can cause; every other exception is a bug (exit 70).
They are turned into text and an exit code in one place, `runbooks/cli.py`.
"""

from __future__ import annotations

import errno
from typing import ClassVar

WRITABLE = "a disk with free space and a folder this user may write to"
STATE_FOLDER = "free space, or choose another folder with OPS_STATE, then repeat the command"


class OpsError(Exception):
    """Something the user can act on.

    `summary` is one sentence about what was seen; `expected` names the other side, `next_step` the next safe command.
    None of the three may hold a secret: a caller that builds one from a tool's answer masks that answer first.
    """

    exit_code: ClassVar[int] = 1
    usual_next_step: ClassVar[str] = ""
    """Shown where the error itself names no next step."""

    def __init__(self, summary: str, *, expected: str = "", next_step: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.expected = expected
        self.next_step = next_step

    def lines(self) -> list[str]:
        """The error as lines of text, without colour."""
        lines = [self.summary]
        if self.expected:
            lines.append(f"expected: {self.expected}")
        if next_step := self.next_step or self.usual_next_step:
            lines.append(f"next: {next_step}")
        return lines

    def beside(self, intro: str) -> str:
        """The error as one text after `intro`, for an error that does not end the run."""
        return "\n  ".join([intro + self.lines()[0], *self.lines()[1:]])


class ToolFailed(OpsError):
    """pulumi, kubectl, helm or another tool ended with a failure."""


class FieldConflict(ToolFailed):
    """An object could not be applied: another field manager holds what the program sets."""


class OperatorMissing(ToolFailed):
    """The cluster does not know a kind: the operator that brings it is not applied."""


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
    """A guard refuses: wrong cluster, lock of a live process, an operation that was not approved."""

    exit_code = 5


class NotFound(OpsError):
    """No such task, service, stack, target or environment."""

    exit_code = 6


class UnexpectedChanges(OpsError):
    """Changes or drift where none were expected."""

    exit_code = 7


class NotApproved(OpsError):
    """The user did not approve, could not be asked, or interrupted the run."""

    exit_code = 8


class OutOfTime(OpsError):
    """A read or a wait took longer than it may."""

    exit_code = 9


BUG = 70
"""Exit code of an error that is ours (EX_SOFTWARE of sysexits.h)."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors of a file system that is full or read-only."""
CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG})
"""Errors of a path where no file can be written; they count only if the exception names the file."""


def as_known(error: BaseException) -> OpsError | None:
    """The exception as an error that the user can act on; None when it is a bug here."""
    if isinstance(error, OpsError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return NotApproved("interrupted", next_step="run the same command again; ./inv status shows what is there")
    if isinstance(error, OSError) and (error.errno in FULL or (error.errno in CLOSED and error.filename)):
        what = "written" if error.errno in FULL else "used"
        return OpsError(
            f"a file cannot be {what}: {error.strerror}" + (f" ({error.filename})" if error.filename else ""),
            expected=WRITABLE,
            next_step=STATE_FOLDER,
        )
    return None


def exit_code_of(error: BaseException) -> int:
    """The exit code of a run: `cli.py` returns it to the shell, the journal records it."""
    known = as_known(error)
    return known.exit_code if known is not None else BUG
