"""The append-only journal of one run: its commands, how they ended, what they printed. Masked, 0600, JSON lines.

A record is one `write` to a file opened for appending, then fsync: a killed run leaves at most one torn line, which
readers skip. A full disk is one clear error; the file then still ends with a whole record.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbooks.core.files import Unwritable, sync_folder, try_lock, unwritable, writing
from runbooks.core.mask import Masker

KEPT_RUNS = 50
JOURNAL_FILE = "journal.jsonl"
ABOUT = "the journal of this run"


class Journal:
    """One run's record, `<state>/runs/<UTC time>-<random>/journal.jsonl`; the folder's name sorts by time.

    Thread-safe. Every string that is written is masked.
    """

    def __init__(self, path: Path, descriptor: int, masker: Masker) -> None:
        self.path = path
        self._masker = masker
        self._descriptor = descriptor
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, state_dir: Path, task: str, argv: Sequence[str], *, masker: Masker | None = None, keep: int = KEPT_RUNS
    ) -> Journal:
        """Begin the record of a run of `task`, started as `argv`; all but the newest `keep` runs are removed.

        Raises `Unwritable` when the folder or the first record cannot be written: then nothing may start.
        """
        runs = state_dir / "runs"
        folder = runs / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
        journal = None
        try:
            with writing(ABOUT, folder):
                runs.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.mkdir(mode=0o700)
                path = folder / JOURNAL_FILE
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
                journal = cls(path, descriptor, masker or Masker())
                # Held for as long as this process lives: a run in progress is never pruned.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                journal.write("run", task=task, argv=list(argv), pid=os.getpid())
                # The first record is on the disk together with the folder's own name.
                sync_folder(folder)
                sync_folder(runs)
        except Unwritable:
            if journal:
                journal.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        prune(runs, keep)
        return journal

    @property
    def folder(self) -> Path:
        """The run's own folder, 0700; other files of the run may be written beside the journal."""
        return self.path.parent

    def write(self, kind: str, **fields: object) -> None:
        """Append one record and wait until it is on the disk.

        Raises `Unwritable`; the record is then not there at all.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {"time": now, "kind": kind} | {name: self._mask(value) for name, value in fields.items()}
        # In pieces: the plan of a thousand stacks is megabytes, which a text in between would double.
        data = bytearray()
        for piece in json.JSONEncoder(ensure_ascii=False).iterencode(record):
            data += piece.encode("utf-8", "backslashreplace")
        data += b"\n"
        with self._lock:
            size = None
            try:
                size = os.fstat(self._descriptor).st_size
                written = os.write(self._descriptor, data)
                while written < len(data):  # the rest does not fit: the next write raises the reason
                    written += os.write(self._descriptor, data[written:])
                os.fsync(self._descriptor)
            except OSError as problem:
                if size is not None:
                    # A torn line that stays is skipped by readers, and the caller gets the error in any case.
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._descriptor, size)
                raise unwritable(ABOUT, self.path, problem) from problem

    def finish(self, exit_code: int) -> None:
        """Write the last record of a run: its exit code, its own CPU seconds (children excluded). Then close the file.

        It never raises: a full disk must not hide how the run itself ended.
        """
        with contextlib.suppress(Unwritable):
            self.write("end", exit_code=exit_code, own_cpu_seconds=round(time.process_time(), 3))
        self.close()

    def close(self) -> None:
        """Close the file; the run counts as ended."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _mask(self, value: object) -> object:
        # The value itself where nothing in it is masked: a large plan is not held twice.
        if isinstance(value, dict):
            masked = {str(key): self._mask(part) for key, part in value.items()}
            return value if masked == value else masked
        if isinstance(value, (list, tuple)):
            parts = [self._mask(part) for part in value]
            return value if parts == value else parts
        if value is None or isinstance(value, (bool, int, float)):
            return value
        # What a child printed was masked when it was read; the rest are our own sentences.
        return self._masker.mask_own(str(value))


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first. A torn line, as a killed run or a full disk leaves it, is skipped."""
    records = []
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "kind" in record:
            records.append(record)
    return records


def runs_of(state_dir: Path) -> list[Path]:
    """The journals of all runs that are kept, oldest first."""
    return sorted((state_dir / "runs").glob(f"*/{JOURNAL_FILE}"))


def prune(runs: Path, keep: int) -> None:
    """Remove the oldest run folders until `keep` are left. Folders of living processes and of other users stay."""
    for folder in sorted(entry for entry in runs.iterdir() if entry.is_dir())[:-keep]:
        if not _is_in_use(folder / JOURNAL_FILE):
            shutil.rmtree(folder, ignore_errors=True)


def _is_in_use(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)
