"""The exit code that a run ends with, and the errors of the file system that a person can act on."""

from __future__ import annotations

import errno

from runbooks.core.errors import NotApproved, OpsError
from runbooks.core.files import STATE_FOLDER, WRITABLE

BUG = 70
"""Exit code of an error that is ours (EX_SOFTWARE of sysexits.h)."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Answers of a file system that takes no more."""
CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG})
"""Answers to a path that leads nowhere a file can be; they count where the error names the file."""


def as_known(error: BaseException) -> OpsError | None:
    """The error as one that a person can act on; None when it is a bug of ours."""
    if isinstance(error, OpsError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return NotApproved(
            "interrupted", expected="the run to go on to its end", next_step="./inv status shows what is there"
        )
    if isinstance(error, OSError) and (error.errno in FULL or (error.errno in CLOSED and error.filename)):
        what = "written" if error.errno in FULL else "used"
        return OpsError(
            f"a file cannot be {what}: {error.strerror}" + (f" ({error.filename})" if error.filename else ""),
            expected=WRITABLE,
            next_step=STATE_FOLDER,
        )
    return None


def exit_code_of(error: BaseException) -> int:
    """The exit code a run ends with: `program.py` gives it to the shell, the journal keeps it."""
    known = as_known(error)
    return known.exit_code if known is not None else BUG
