"""The files of the cloud's state: JSON and text below one folder, 0600, each written whole or not at all."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.platform.paths import write_private

REMOVED = ".removed-"
"""Prefix of the name of a folder that is being removed, or that is not complete yet."""


def make_private(folder: Path) -> None:
    """Makes the folder and those above it that are missing, all of them 0700."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def write_json(path: Path, content: Any, *, survives_power_loss: bool = True) -> None:
    text = json.dumps(content, separators=(",", ":")) + "\n"
    write_private(path, text, survives_power_loss=survives_power_loss)


def read_json(path: Path) -> Any:
    """The content of the file; None if it does not exist."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def remove(folder: Path) -> None:
    """Remove a folder in one step, so that after a crash no request sees the rest."""
    going = folder.with_name(f"{REMOVED}{uuid.uuid4()}")
    folder.rename(going)
    shutil.rmtree(going)


def copy(folder: Path, project: Path) -> Path:
    """Make a hidden copy in the folder of `project`. Renaming makes it visible; after a crash it is removed."""
    make_private(project)
    hidden = project / f"{REMOVED}{uuid.uuid4()}"
    shutil.copytree(folder, hidden)
    return hidden


def clear_removed(root: Path) -> None:
    """Finish removals that a crash interrupted, one and two levels deep, and remove half-written files."""
    for pattern in (f"{REMOVED}*", f"*/{REMOVED}*"):
        for folder in root.glob(pattern):
            shutil.rmtree(folder)


def entries(root: Path) -> Iterator[tuple[str, str]]:
    """The `<project>/<name>` folders below `root`, in order."""
    for folder in sorted(root.glob("*/*")):
        if folder.is_dir() and not folder.name.startswith("."):
            yield folder.parent.name, folder.name
