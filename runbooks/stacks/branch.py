"""What this checkout has that another branch has not, as git and the files themselves say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import NotFound, ToolFailed, Usage
from runbooks.stacks import touched
from runbooks.stacks.service import Service
from runbooks.stacks.session import RunContext
from runbooks.stacks.touched import Touched
from runbooks.tools import git
from runbooks.tools.git import Changed


@dataclass(frozen=True, kw_only=True)
class Change:
    """Everything since the checkout left its base, committed or not."""

    base: str
    """As it was named."""
    fork: str
    """The commit where the two parted."""
    forked: datetime
    """When that commit was made."""
    subjects: tuple[str, ...]
    """First lines of the commits since then, oldest first."""
    files: tuple[Changed, ...]
    uncommitted: tuple[str, ...]
    """Those of the files that no commit has as they lie here."""
    touched: tuple[Touched, ...]
    settings: Mapping[str, tuple[str, ...]]
    """File → the keys that differ; none for a file without keys."""
    written: Mapping[str, datetime]
    """File → when it was last written here; one that is gone has no time."""


def compared(run: RunContext, root: Path, base: str, *, services: Sequence[Service]) -> Change:
    """Compare the checkout, as it lies here, with the commit where it left `base`.

    Raises `NotFound` for a base that is no commit or shares none, `Usage` when nothing differs, `ToolFailed` where git
    cannot read the checkout.
    """
    asked = _Asked(run)
    fork = _fork(asked, root, base)
    uncommitted = git.read_uncommitted(asked(git.uncommitted_files(root)))
    known = git.read_changed(asked(git.changed_files(root, fork)))
    files = tuple({each.path: each for each in (*_new(uncommitted), *known)}.values())
    if not files:
        raise Usage(
            f"nothing here differs from {base}",
            expected="a branch with commits of its own, or files that were changed",
            next_step="./inv pr.body --base REF compares with another commit",
        )
    settings = {each.path: _keys(asked, root, fork, each) for each in files if touched.is_settings(each.path)}
    return Change(
        base=base,
        fork=fork,
        forked=datetime.fromisoformat(asked(git.commit_time(root, fork)).stdout.strip()).astimezone(UTC),
        subjects=tuple(asked(git.subjects(root, fork)).stdout.splitlines()),
        files=files,
        uncommitted=tuple(each.path for each in uncommitted),
        touched=tuple(touched.touched_services(root, services, files, charts=_charts(settings))),
        settings=settings,
        written={each.path: _written(root / each.path) for each in files if (root / each.path).is_file()},
    )


@dataclass(frozen=True)
class _Asked:
    """Asks git. Old settings are among the answers, so none is shown or written down."""

    run: RunContext

    def __call__(self, command: Command, *, may_fail: bool = False) -> Outcome:
        """`may_fail`: exit 1 means that there is none, and is an answer. Raises `ToolFailed` for any other failure."""
        outcome = self.run.runner.run(replace(command, confidential=True))
        if outcome.ok or (may_fail and outcome.exit_code == 1):
            return outcome
        said = outcome.stderr.strip().splitlines()[-1:]
        raise ToolFailed(
            f"git could not {command.title}: {self.run.masker.mask(said[0]) if said else 'it said nothing'}",
            expected="a git clone that this user may read",
            next_step="git status",
        )


def _fork(asked: _Asked, root: Path, base: str) -> str:
    tip = asked(git.resolve(root, base), may_fail=True).stdout.strip()
    fork = asked(git.merge_base(root, tip), may_fail=True).stdout.strip() if tip else ""
    if not fork:
        raise NotFound(
            f"this branch and {base} share no commit" if tip else f"this clone has no commit or branch {base!r}",
            expected="the branch that the change goes to",
            next_step="git branch --all shows which there are; ./inv pr.body --base NAME",
        )
    return fork


def _new(uncommitted: Sequence[Changed]) -> list[Changed]:
    """What git does not know of yet, so that no difference shows it."""
    return [each for each in uncommitted if each.status == "A"]


def _keys(asked: _Asked, root: Path, fork: str, each: Changed) -> tuple[str, ...]:
    if not touched.has_keys(each.path):
        return ()
    before = "" if each.status == "A" else asked(git.show(root, fork, each.path)).stdout
    after = b"" if each.status == "D" else (root / each.path).read_bytes()
    return touched.told_keys(each.path, before.encode(), after)


def _charts(settings: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Names of the charts whose pins differ."""
    return {key.split(".")[0] for key in settings.get(touched.CHARTS, ())}


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
