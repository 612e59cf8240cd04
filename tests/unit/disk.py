"""A disk that takes no more: files that cannot grow, folders that take none."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """No file of this process and its children can become larger than `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mount_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this process would make or change below `folder` is refused, as on a file system mounted read-only."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def refused(path: Any) -> bool:
        return not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(folder)

    def guarded(real: Any, is_write: Any) -> Any:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            if refused(path) and is_write(args, options):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))
            return real(path, *args, **options)

        return call

    def writes(args: Any, options: Any) -> bool:
        return bool(set("wax+") & set((args or [options.get("mode", "r")])[0]))

    monkeypatch.setattr(os, "open", guarded(os.open, lambda args, _: args[0] & writing))
    monkeypatch.setattr(io, "open", guarded(io.open, writes))
    for name in ("mkdir", "unlink", "rename", "replace"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), lambda *_: True))
