"""A PULUMI_HOME of one run: the CLI writes unredacted values into its `logs/`, so it goes when the run ends."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from runbooks.core.errors import ToolFailed
from runbooks.core.files import write_new, writing
from runbooks.core.search_path import is_lab

NAME = "pulumi-home"
ENVIRONMENT_FILES = "files"
"""The folder of a run with the `files` of an opened environment, in plaintext while a command needs them."""


@contextlib.contextmanager
def made_private(run_folder: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """`<run_folder>/pulumi-home` (0700) with the user's own plugins in it, removed on leaving.

    What killed runs left behind is removed first. Raises `Unwritable`.
    """
    remove_abandoned(run_folder.parent, keep=run_folder)
    home = run_folder / NAME
    try:
        with writing("pulumi's folder of this run", home):
            home.mkdir(mode=0o700)
            write_new(home / "pid", str(os.getpid()), "pulumi's folder of this run")
            (home / "plugins").symlink_to(plugin_folder(environ), target_is_directory=True)
        yield home
    finally:
        remove(home)


def user_home(environ: Mapping[str, str]) -> Path:
    """The user's own PULUMI_HOME, absolute: pulumi is started in other folders than this process."""
    return _own(environ, "PULUMI_HOME") or (Path.home() / ".pulumi").absolute()


def user_credentials(environ: Mapping[str, str]) -> Path:
    """The folder with the user's own logins."""
    return _own(environ, "PULUMI_CREDENTIALS_PATH") or user_home(environ)


def _own(environ: Mapping[str, str], variable: str) -> Path | None:
    """The folder that a variable names; not what `lab.env` put there."""
    folder = Path(environ[variable]).absolute() if environ.get(variable) else None
    return None if folder is None or is_lab(folder.parent) else folder


def plugin_folder(environ: Mapping[str, str]) -> Path:
    """Where the user's pulumi keeps its plugins, made when it is missing. Raises `ToolFailed` when it cannot be."""
    plugins = user_home(environ) / "plugins"
    try:
        plugins.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolFailed(
            f"the folder {plugins} for pulumi's plugins cannot be made: {error.strerror}",
            expected="a folder this user may write to",
            next_step="set PULUMI_HOME (or HOME) to one",
        ) from error
    return plugins


def remove(home: Path) -> None:
    """Remove a private home. The plugins it links to stay: links are removed, never followed."""
    shutil.rmtree(home, ignore_errors=True)


def remove_abandoned(runs: Path, *, keep: Path) -> list[Path]:
    """Remove the homes, kubeconfigs and environments' files of runs whose processes are gone, and say which."""
    removed = []
    for home in sorted(runs.glob(f"*/{NAME}")):
        if home.parent != keep and not is_in_use(home):
            remove(home)
            remove(home.parent / ENVIRONMENT_FILES)
            with contextlib.suppress(OSError):  # where nothing can be removed, the run's own files say so next
                (home.parent / "kubeconfig").unlink(missing_ok=True)
            removed.append(home)
    return removed


def is_in_use(home: Path, proc: Path = Path("/proc")) -> bool:
    """Whether a process of this user works with that home: the run that made it, or a pulumi it left behind.

    Where the system does not tell (no /proc), a home counts as in use.
    """
    if not (proc / "self").exists():
        return True
    marker = f"PULUMI_HOME={home}".encode()
    made_by = owner_of(home)
    if made_by is not None and (proc / str(made_by)).exists():
        return True
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == os.geteuid() and marker in (process / "environ").read_bytes().split(b"\0"):
                return True
    return False


def owner_of(home: Path) -> int | None:
    """The process that made the home, as recorded in it."""
    try:
        return int((home / "pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
