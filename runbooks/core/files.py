"""The toolkit's own files and folders, written whole or not at all; a full or read-only disk is one clear error."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO
from uuid import uuid4

from runbooks.core.errors import STATE_FOLDER, WRITABLE, OpsError

PRIVATE = 0o600
IN_PLACE = "free space, or let this user write there (ls -ld shows who may), then repeat the command"


class Unwritable(OpsError):
    """A file or folder cannot be written. No part of it is left, and earlier content is still there."""


def unwritable(what: str, path: Path, problem: OSError, *, next_step: str = STATE_FOLDER) -> Unwritable:
    reason = problem.strerror or str(problem)
    return Unwritable(f"{what} cannot be written: {reason} ({path})", expected=WRITABLE, next_step=next_step)


@contextlib.contextmanager
def writing(what: str, path: Path, *, next_step: str = STATE_FOLDER) -> Iterator[None]:
    """Turn an `OSError` of the block, which writes `path`, into `Unwritable`."""
    try:
        yield
    except OSError as problem:
        raise unwritable(what, path, problem, next_step=next_step) from problem


def make_folder(path: Path, what: str) -> None:
    """Make the folder and its parents, 0700 when new. Raises `Unwritable`."""
    with writing(what, path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextlib.contextmanager
def _new_file(path: Path, mode: int) -> Iterator[TextIO]:
    """A file that must not exist yet, for the block to write. It is removed if the block fails."""
    # The mode is set as the file is made: before a later chmod another user could open it.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_new(path: Path, text: str, what: str) -> None:
    """Write a private file (0600) that must not exist yet. Raises `Unwritable` and leaves no half of a file."""
    with writing(what, path), _new_file(path, PRIVATE) as file:
        file.write(text)


def write_atomically(path: Path, text: str, *, mode: int = 0o644, what: str = "", next_step: str = IN_PLACE) -> None:
    """Replace `path` as a whole: temporary file beside it, fsync, rename, fsync of the folder. Raises `Unwritable`."""
    with writing(what or path.name, path, next_step=next_step):
        temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        with _new_file(temporary, mode) as file:
            file.write(text)
            file.flush()
            # Without this fsync, a power cut after the rename may leave an empty file.
            os.fsync(file.fileno())
            temporary.replace(path)
        # The rename itself is durable only after an fsync of the folder.
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


ROOT = Path(__file__).resolve().parents[2]
"""The repository's root."""


def state_dir() -> Path:
    """Where runs leave their records: `$OPS_STATE`, else `.ops` beside this repository's `inv`."""
    return Path(os.environ.get("OPS_STATE") or ROOT / ".ops")


def try_lock(file: int | IO[Any]) -> bool:
    """Lock the open file for this process alone, without waiting; returns False while another holds its lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def discard_output(stream: TextIO | None) -> None:
    """Discard what is written to the stream from now on, as its reader has left.

    What is still in its buffer is dropped as well, also when the interpreter ends.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # Replace the descriptor, as the interpreter flushes this stream once more at its end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)
