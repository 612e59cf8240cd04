"""rollback.*: an older commit in a checkout of its own, approved like any deployment, always taken away."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from runbooks.collection import task_for
from runbooks.core.errors import NotApproved, NotFound, ToolFailed, Usage
from runbooks.stacks import preview
from runbooks.stacks.older_commit import ENVIRONMENT_FILES
from runbooks.tasks import rollback
from tests.fixtures import SUMMARY, Repo, ended_process, event, git, preview_answer, step

TASKS = {name: task_for(rollback.rollback, name) for name in rollback.rollback.__dict__["targets"]}
FOLDER = "pulumi/apps/web/glance"


@pytest.fixture
def repo(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A checkout with two commits; the older one's program says `old`."""
    main = repo.root / FOLDER / "__main__.py"
    (repo.root / "hook").mkdir()
    git(repo.root, "init", "-q", "-b", "main")
    main.write_text("old = True\n")
    (repo.root / FOLDER / "Pulumi.mx.yaml").write_text("config: {}\n")
    for name in ENVIRONMENT_FILES:
        (repo.root / name).write_text("old\n")
    git(repo.root, "add", "pulumi", *ENVIRONMENT_FILES)
    git(repo.root, "commit", "-q", "-m", "feat: the old one")
    for name in ENVIRONMENT_FILES:
        (repo.root / name).write_text("new\n")
    main.write_text("old = False\n")
    git(repo.root, "commit", "-q", "-a", "-m", "feat: the new one")
    repo.has_stacks("glance")
    repo.answer("pulumi", ["preview", "--json"], preview_answer(step("glance", "update")))
    repo.answer("pulumi", ["up", "--skip-preview"], "\n".join([*event("glance", "update"), SUMMARY]))
    repo.answer("pulumi", ["output", "--json"], {})
    proven: list[str] = []
    note = lambda session, services, *, done: proven.extend(s.name for s in services)  # noqa: E731
    monkeypatch.setattr("runbooks.checks.of_service.prove", note)
    repo.proven = proven
    return repo


def folders(repo: Repo, verb: str) -> list[str]:
    return [call["argv"][1] for call in repo.calls("pulumi") if verb in call["argv"]]


def nothing_is_left(repo: Repo) -> bool:
    left = list((repo.state / "worktrees").glob("*"))
    return not left and len(git(repo.root, "worktree", "list").splitlines()) == 1


def test_the_old_program_is_previewed_applied_and_proven(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = preview.plan_stack

    def watched(session: Any, service: Any, **options: Any) -> Any:
        seen.append((session.root / FOLDER / "__main__.py").read_text())
        assert (session.root / ".venv").is_symlink()
        assert [(session.root / name).read_text() for name in ENVIRONMENT_FILES] == ["new\n"] * 2, (
            "pulumi has uv sync the environment everybody shares by these"
        )
        return real(session, service, **options)

    monkeypatch.setattr(preview, "plan_stack", watched)
    TASKS["glance"].body(repo.c, to="HEAD~1", yes=True)
    assert seen == ["old = True\n"]
    for verb in ("preview", "up"):
        (folder,) = folders(repo, verb)
        assert folder.startswith(str(repo.state / "worktrees")) and folder.endswith(FOLDER)
    output = repo.printed()
    assert "the old one" in output and "Its data is not rolled back" in output
    assert repo.proven == ["glance"]
    assert nothing_is_left(repo)
    assert (repo.root / FOLDER / "__main__.py").read_text() == "old = False\n"
    assert git(repo.root, "status", "--porcelain", "--", "pulumi/apps/web") == ""


def test_without_an_answer_nothing_is_applied_and_nothing_is_left(repo: Repo) -> None:
    with pytest.raises(NotApproved) as refused:
        TASKS["glance"].body(repo.c, to="HEAD~1")
    assert refused.value.next_step == "./inv --target home rollback.glance --to HEAD~1 --yes"
    assert not folders(repo, "up") and nothing_is_left(repo)


def test_a_failing_preview_leaves_nothing(repo: Repo) -> None:
    repo.answer("pulumi", ["preview", "--json"], (1, "", "error: incorrect passphrase\n"))
    with pytest.raises(Usage, match="passphrase"):
        TASKS["glance"].body(repo.c, to="HEAD~1", yes=True)
    assert nothing_is_left(repo)


@pytest.mark.parametrize(("to", "error"), [("", Usage), ("nowhere", NotFound), ("--help", Usage), ("-x", Usage)])
def test_what_is_no_commit_is_refused_before_pulumi_starts(repo: Repo, to: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        TASKS["glance"].body(repo.c, to=to)
    assert not folders(repo, "preview") and nothing_is_left(repo)


def test_a_commit_without_the_project_is_refused(repo: Repo) -> None:
    git(repo.root, "checkout", "-q", "--orphan", "other")
    git(repo.root, "rm", "-rq", "--cached", "pulumi")
    (repo.root / "x").write_text("x")
    git(repo.root, "add", "x")
    git(repo.root, "commit", "-q", "-m", "feat: without it")
    with pytest.raises(NotFound, match=r"has no pulumi/apps/web/glance/Pulumi\.yaml"):
        TASKS["glance"].body(repo.c, to="HEAD", yes=True)


def test_hooks_of_the_repository_do_not_run(repo: Repo) -> None:
    hook = repo.root / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {repo.home}/ran\n")
    hook.chmod(0o755)
    TASKS["glance"].body(repo.c, to="HEAD~1", yes=True)
    assert not (repo.home / "ran").exists()


def test_what_a_killed_rollback_left_goes_with_the_next(repo: Repo) -> None:
    left, living = (repo.state / "worktrees" / f"0123456789ab-{pid}-0123abcd" for pid in (ended_process(), os.getpid()))
    for folder in (left, living):
        git(repo.root, "worktree", "add", "-q", "--detach", str(folder), "HEAD~1")
    TASKS["glance"].body(repo.c, to="HEAD~1", yes=True)
    assert not left.exists() and living.exists()
    assert len(git(repo.root, "worktree", "list").splitlines()) == 2


def test_a_folder_in_which_git_cannot_look_is_no_missing_commit(repo: Repo) -> None:
    shutil.rmtree(repo.root / ".git")
    with pytest.raises(ToolFailed, match="git cannot look for the commit 'HEAD': fatal: not a git repository"):
        TASKS["glance"].body(repo.c, to="HEAD", yes=True)
