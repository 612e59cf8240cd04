"""Checks out an older commit of this repository in the state folder, and removes it whatever happens."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from runbooks.core.errors import NotFound
from runbooks.core.files import make_folder, writing
from runbooks.core.processes import process_is_alive
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import git
from runbooks.tools.locks import working_on

ENVIRONMENT_FILES = ("pyproject.toml", "uv.lock")


def find_commit(session: Session, service: Service, ref: str) -> str:
    """Resolve the commit and report its subject. Raises `NotFound` when it does not exist or lacks the project."""
    commit = git.read_commit(session.runner.run(git.resolve(session.root, ref)), ref)
    subject = session.runner.run(git.describe(session.root, commit)).stdout.strip()
    session.reporter.announce(f"Rolling {service.name} back to {subject}. Its data is not rolled back.")
    project = f"pulumi/{service.folder}/Pulumi.yaml"
    if not session.runner.run(git.has_path(session.root, commit, project)).ok:
        raise NotFound(
            f"{subject} has no {project}",
            expected=f"a commit that has {service.name} where it is now",
            next_step=f"git log --oneline -- pulumi/{service.folder}",
        )
    return commit


@contextlib.contextmanager
def check_out(session: Session, commit: str) -> Iterator[Path]:
    """Check the commit out into a folder of its own, with this checkout's Python environment; removed afterwards."""
    remove_abandoned(session)
    folder = session.state_dir / "worktrees" / f"{commit[:12]}-{os.getpid()}-{secrets.token_hex(4)}"
    make_folder(folder.parent, "the folder of older commits")
    try:
        session.runner.check(git.add_worktree(session.root, folder, commit))
        share_environment(session.root, folder)
        yield folder
    finally:
        remove(session, folder)


def share_environment(root: Path, folder: Path) -> None:
    """Let the old programs use this checkout's Python environment without changing it.

    They find it by its place in the checkout. pulumi has uv sync it before every run: an old lock file would change the
    environment that every other run uses.
    """
    with writing("the older commit's files", folder):
        (folder / ".venv").symlink_to(root / ".venv")
        for name in ENVIRONMENT_FILES:
            shutil.copyfile(root / name, folder / name)


def remove(session: Session, folder: Path) -> None:
    session.runner.run(git.remove_worktree(session.root, folder), after_interrupt=True)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        session.runner.run(git.prune_worktrees(session.root), after_interrupt=True)


def remove_abandoned(session: Session) -> None:
    """Remove what killed runs left. A checkout stays while its run, or a pulumi that it started, is alive."""
    for folder in sorted((session.state_dir / "worktrees").glob("*-*-*")):
        pid = folder.name.split("-")[1]
        projects = {str(path.parent) for path in (folder / "pulumi").rglob("Pulumi.yaml")}
        if pid.isdigit() and not process_is_alive(int(pid)) and not working_on(projects):
            remove(session, folder)
