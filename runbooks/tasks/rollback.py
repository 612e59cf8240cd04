"""`rollback.<service> --to REF`: the project as it was at an older commit, previewed, approved and applied.

The old commit is checked out beside this one, below the state folder, and taken away again whatever happens.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from invoke import Context

from runbooks.collection import each_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runbooks.stacks.service import Service
    from runbooks.stacks.session import Session


@each_service()
def rollback(c: Context, names: tuple[str, ...], to: str = "", yes: bool = False) -> None:
    """Apply the program and settings of {service} as they were at an older commit: preview, approval, apply, verify.

    --to names the commit. --yes approves changes that are not destructive where nobody can be asked.
    """
    from runbooks.core.errors import Usage
    from runbooks.run import open_session
    from runbooks.services import SERVICES
    from runbooks.stacks import preview
    from runbooks.stacks.order import by_name

    service = by_name(SERVICES)[names[0]]
    task = f"rollback.{service.name}"
    if not to:
        raise Usage(
            "no commit was named",
            expected=f"./inv {task} --to REF",
            next_step=f"git log --oneline -- pulumi/{service.folder} shows the commits that changed it",
        )
    again = preview.command_again(c, task, "--to", to)
    with open_session(c, task) as session:
        commit = known_good(session, service, to)
        with checked_out(session, commit) as root:
            roll_back(at(session, root), service, yes=yes, again=again)
        session.reporter.line(f"{service.name} is at {commit[:12]}; deploy.{service.name} brings it back to today")


def known_good(session: Session, service: Service, ref: str) -> str:
    """The commit, described. Raises `NotFound` when it does not exist or does not have the project."""
    from runbooks.core.errors import NotFound
    from runbooks.tools import git

    commit = git.read_commit(session.runner.run(git.resolve(session.root, ref)), ref)
    told = session.runner.run(git.describe(session.root, commit)).stdout.strip()
    session.reporter.announce(f"Rolling {service.name} back to {told}. Its data is not rolled back.")
    project = f"pulumi/{service.folder}/Pulumi.yaml"
    if not session.runner.run(git.has_path(session.root, commit, project)).ok:
        raise NotFound(
            f"{told} has no {project}",
            expected=f"a commit that has {service.name} where it is now",
            next_step=f"git log --oneline -- pulumi/{service.folder}",
        )
    return commit


@contextlib.contextmanager
def checked_out(session: Session, commit: str) -> Iterator[Path]:
    """The commit's files in a folder of their own, with this checkout's Python environment; gone afterwards."""
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
        take_away(session, folder)


def take_away(session: Session, folder: Path) -> None:
    import shutil

    from runbooks.tools import git

    session.runner.run(git.remove_worktree(session.root, folder), after_interrupt=True)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        session.runner.run(git.prune_worktrees(session.root), after_interrupt=True)


def remove_abandoned(session: Session) -> None:
    """Take away what killed runs left, unless the run lives or a pulumi that it started still works there."""
    from runbooks.tools.locks import process_is_alive, working_on

    for folder in sorted((session.state_dir / "worktrees").glob("*-*-*")):
        pid = folder.name.split("-")[1]
        projects = {str(path.parent) for path in (folder / "pulumi").rglob("Pulumi.yaml")}
        if pid.isdigit() and not process_is_alive(int(pid)) and not working_on(projects):
            take_away(session, folder)


ENVIRONMENT_FILES = ("pyproject.toml", "uv.lock")


def share_environment(root: Path, folder: Path) -> None:
    """Lets the old programs run in this checkout's Python environment, and leaves it as it is.

    They name it by its place in the checkout. pulumi has uv bring it up to date before every run: with the old
    lock file that would change the environment under everybody's feet.
    """
    import shutil

    from runbooks.core.files import writing

    with writing("the older commit's files", folder):
        (folder / ".venv").symlink_to(root / ".venv")
        for name in ENVIRONMENT_FILES:
            shutil.copyfile(root / name, folder / name)


def at(session: Session, root: Path) -> Session:
    """The same run on other files: programs, settings and pins are those of `root`."""
    from dataclasses import replace

    return replace(session, root=root, prepared={})


def roll_back(session: Session, service: Service, *, yes: bool, again: str) -> None:
    """Preview, approval, apply, outputs, verify: of this service alone."""
    from runbooks.stacks import apply, preview
    from runbooks.tasks.verify import verify_service

    layers = [(service,)]
    session.reporter.plan([*preview.titles(layers, "preview"), *preview.titles(layers, "apply")])
    plan = preview.plan_run(session, layers)
    apply.show_plan(session, plan, diff=True)
    apply.approve(session, plan, yes=yes, again=again)
    progressed = apply.apply_run(session, plan, yes=yes, again=again)
    apply.show_outputs(session, service)
    apply.prove(session, [service], verify_service, done=progressed.done)
