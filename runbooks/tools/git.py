"""git: command lines and readers of its answers. They change neither the user's checkout nor its index or branches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import NotFound, ToolFailed
from runbooks.core.names import refuse_option_like

READ_TIMEOUT = 60.0
NO_HOOKS = ("-c", "core.hooksPath=/dev/null")
"""A checkout for a rollback must not run hooks."""


def _git(root: Path, *words: str, title: str, mutates: bool = False) -> Command:
    timeout = None if mutates else READ_TIMEOUT
    return Command(argv=("git", "-C", str(root), *words), title=title, mutates=mutates, timeout=timeout)


def resolve(root: Path, ref: str) -> Command:
    """The full name of the commit `ref`. Raises `Usage` for a name that git would read as an option."""
    refuse_option_like("commit", ref)
    words = ("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    return _git(root, *words, title=f"find the commit {ref}")


def describe(root: Path, commit: str) -> Command:
    return _git(root, "show", "--no-patch", "--format=%h of %cs: %s", commit, title="describe the commit")


def has_path(root: Path, commit: str, path: str) -> Command:
    return _git(root, "cat-file", "-e", f"{commit}:{path}", title=f"look for {path} at that commit")


def show(root: Path, commit: str, path: str) -> Command:
    return _git(root, "show", f"{commit}:{path}", title=f"read {path} as it was")


def add_worktree(root: Path, folder: Path, commit: str) -> Command:
    """Makes a second checkout beside the user's, on no branch."""
    words = (*NO_HOOKS, "worktree", "add", "--detach", str(folder), commit)
    return _git(root, *words, title="check the old commit out beside this one", mutates=True)


def remove_worktree(root: Path, folder: Path) -> Command:
    words = ("worktree", "remove", "--force", str(folder))
    return _git(root, *words, title="remove that checkout", mutates=True)


def prune_worktrees(root: Path) -> Command:
    return _git(root, "worktree", "prune", title="forget checkouts that were removed", mutates=True)


def merge_base(root: Path, branch: str) -> Command:
    return _git(root, "merge-base", "HEAD", branch, title=f"find where this branch left {branch}")


def subjects(root: Path, base: str) -> Command:
    return _git(root, "log", "--reverse", "--format=%s", f"{base}..HEAD", title="list the commits of this branch")


def commit_time(root: Path, commit: str) -> Command:
    return _git(root, "show", "--no-patch", "--format=%cI", commit, title="when that commit was made")


def changed_files(root: Path, base: str) -> Command:
    """Files whose present content differs from `base`, committed or not; each with its status letter."""
    words = ("diff", "--name-status", "--no-renames", "-z", base)
    return _git(root, *words, title="list the changed files")


def uncommitted_files(root: Path) -> Command:
    """Files whose present content is in no commit, new ones too; the index is not even refreshed."""
    words = ("--no-optional-locks", "status", "--porcelain", "--no-renames", "--untracked-files=all", "-z")
    return _git(root, *words, title="list what is not committed")


@dataclass(frozen=True, kw_only=True)
class Changed:
    """One file that differs: `A` new, `M` changed, `D` gone."""

    status: str
    path: str


def read_changed(outcome: Outcome) -> tuple[Changed, ...]:
    # Separated by NUL, as a name may hold any other character.
    fields = outcome.stdout.split("\0")
    return tuple(Changed(status=kind[:1], path=path) for kind, path in zip(fields[::2], fields[1::2], strict=False))


UNTRACKED = "??"


def read_uncommitted(outcome: Outcome) -> tuple[Changed, ...]:
    """Read the uncommitted files; those that git does not track yet have the letter `A`."""
    rows = [row for row in outcome.stdout.split("\0") if len(row) > 3]
    return tuple(Changed(status="A" if row[:2] == UNTRACKED else row[:2].strip()[:1], path=row[3:]) for row in rows)


def read_commit(outcome: Outcome, ref: str) -> str:
    """The commit's complete name.

    Raises `NotFound` when there is none of that name, `ToolFailed` when git cannot look.
    """
    found = outcome.stdout.strip()
    message = outcome.shown_stderr.strip()
    # With `--quiet` git prints nothing for an unknown name: a message means that git itself failed.
    if not outcome.ok and message:
        raise ToolFailed(
            f"git cannot look for the commit {ref!r}: {message.splitlines()[0]}",
            expected="a clone of the repository that belongs to this user",
            next_step="git status in this folder shows what is wrong with it",
        )
    if not outcome.ok or not re.fullmatch(r"[0-9a-f]{40,64}", found):
        raise NotFound(
            f"there is no commit {ref!r} in this repository",
            expected="a commit, tag or branch that this clone has",
            next_step="git log --oneline -- pulumi",
        )
    return found
