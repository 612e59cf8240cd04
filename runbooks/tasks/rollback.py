"""`rollback.<service> --to REF`: the project as it was at an older commit, previewed, approved and applied.

The old commit is checked out beside this one, below the state folder, and removed again whatever happens.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from invoke import Context

from runbooks.collection import command_again, each_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbooks.stacks.service import Service
    from runbooks.stacks.session import Session


ENVIRONMENT_FILES = ("pyproject.toml", "uv.lock")


@each_service()
def rollback(c: Context, names: tuple[str, ...], to: str = "", yes: bool = False) -> None:
    """Apply the program and settings of {service} as they were at an older commit: preview, approval, apply, verify.

    --to names the commit. --yes approves changes that are not destructive where there is no terminal.
    """
    from dataclasses import replace

    from runbooks.core.errors import Usage
    from runbooks.run import open_session
    from runbooks.services import find_service
    from runbooks.stacks import apply, preview
    from runbooks.stacks.summary import show_plan
    from runbooks.tasks.verify import prove

    service = find_service(names[0])
    task = f"rollback.{service.name}"
    if not to:
        raise Usage(
            "no commit was named",
            expected=f"./inv {task} --to REF",
            next_step=f"git log --oneline -- pulumi/{service.folder} shows the commits that changed it",
        )
    again = command_again(c, task, "--to", to)
    with open_session(c, task) as session:
        commit = find_commit(session, service, to)
        with check_out(session, commit) as root:
            # The same run on other files: programs, stack configs and pins are those of the older commit.
            older = replace(session, root=root, prepared={})
            layers = [(service,)]
            session.reporter.plan([*preview.titles(layers, "preview"), *preview.titles(layers, "apply")])
            plan = preview.plan_run(older, layers)
            show_plan(older, plan, diff=True)
            apply.approve(older, plan, yes=yes, again=again)
            progress = apply.apply_run(older, plan, yes=yes, again=again)
            apply.show_outputs(older, service)
            prove(older, [service], done=progress.done)
        session.reporter.line(f"{service.name} is at {commit[:12]}; deploy.{service.name} brings it back to today")


def find_commit(session: Session, service: Service, ref: str) -> str:
    """Resolve the commit and report its subject. Raises `NotFound` when it does not exist or lacks the project."""
    from runbooks.core.errors import NotFound
    from runbooks.tools import git

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
    import os
    import secrets

    from runbooks.core.files import make_folder
    from runbooks.tools import git

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
    """Let the old programs run in this checkout's Python environment, and leave it as it is.

    They find it by its place in the checkout. pulumi has uv sync it before every run: an old lock file would change the
    environment that every other run uses.
    """
    import shutil

    from runbooks.core.files import writing

    with writing("the older commit's files", folder):
        (folder / ".venv").symlink_to(root / ".venv")
        for name in ENVIRONMENT_FILES:
            shutil.copyfile(root / name, folder / name)


def remove(session: Session, folder: Path) -> None:
    import shutil

    from runbooks.tools import git

    session.runner.run(git.remove_worktree(session.root, folder), after_interrupt=True)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        session.runner.run(git.prune_worktrees(session.root), after_interrupt=True)


def remove_abandoned(session: Session) -> None:
    """Remove what killed runs left, unless the run is alive or a pulumi that it started still works there."""
    from runbooks.tools.locks import process_is_alive, working_on

    for folder in sorted((session.state_dir / "worktrees").glob("*-*-*")):
        pid = folder.name.split("-")[1]
        projects = {str(path.parent) for path in (folder / "pulumi").rglob("Pulumi.yaml")}
        if pid.isdigit() and not process_is_alive(int(pid)) and not working_on(projects):
            remove(session, folder)
