"""What is left of a new environment when its definition does not arrive, and of its values on this machine."""

from __future__ import annotations

import shutil
import signal
from typing import Any

import pytest

from runbooks.core.errors import NotApproved, Refused, ToolFailed
from runbooks.stacks import environments
from runbooks.tasks import esc
from tests.fixtures import REAL_ROOT, Repo

MADE, REMOVED = "env init acme/stitch/prod", "env rm acme/stitch/prod --yes"


@pytest.fixture
def repo(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A target on the cloud that does not have stitch/prod yet."""
    repo.on_cloud()
    repo.install("esc")
    shutil.copytree(REAL_ROOT / "environments", repo.root / "environments")
    repo.answer("esc", ["==get"], (1, "", "Error: [404] Not Found: no such thing\n"))
    repo.answer("esc", ["==init"], "Environment created: acme/stitch/prod\n")
    repo.answer("esc", ["rm"], "")
    return repo


def test_an_interrupted_push_leaves_no_empty_environment(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(session: Any, draft: environments.Draft) -> int:
        repo.answer("esc", ["==get"], "")
        session.runner._relay.seen.append(signal.SIGINT)
        raise NotApproved("interrupted")

    monkeypatch.setattr(environments, "_replace_definition", interrupted)
    with pytest.raises(NotApproved, match="interrupted"):
        esc.apply.body(repo.c, "stitch/prod", yes=True)
    assert repo.argvs("esc")[-3::2] == [MADE, REMOVED]


def test_a_new_environment_that_is_not_empty_any_more_stays(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def overtaken(session: Any, draft: environments.Draft) -> int:
        repo.answer("esc", ["==get"], "values:\n  written: by another user\n")
        raise ToolFailed("the backend failed")

    monkeypatch.setattr(environments, "_replace_definition", overtaken)
    with pytest.raises(ToolFailed, match="the backend failed"):
        esc.apply.body(repo.c, "stitch/prod", yes=True)
    assert REMOVED not in repo.argvs("esc")
    assert "./inv --target home esc.apply stitch/prod" in capsys.readouterr().out


def test_what_cannot_be_removed_is_told(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(session: Any, draft: environments.Draft) -> int:
        repo.answer("esc", ["==get"], "")
        raise KeyboardInterrupt

    monkeypatch.setattr(environments, "_replace_definition", interrupted)
    repo.answer("esc", ["rm"], (1, "", "Error: [503] Service Unavailable\n"))
    with pytest.raises(KeyboardInterrupt):
        esc.apply.body(repo.c, "stitch/prod", yes=True)
    told = capsys.readouterr().out
    assert "stitch/prod is left behind" in told and "esc.apply stitch/prod" in told


def test_what_somebody_else_wrote_meanwhile_stays(repo: Repo) -> None:
    repo.answer("esc", ["edit"], (1, "", "Error: [409] Conflict: changed\n"))
    with pytest.raises(Refused, match="in the meantime"):
        esc.apply.body(repo.c, "stitch/prod", yes=True)
    assert REMOVED not in repo.argvs("esc")


def test_files_of_an_opened_environment_go_with_the_run(repo: Repo) -> None:
    repo.answer("esc", ["--format"], {"value": {}})
    esc.open_task.body(repo.c, "stitch/prod")
    env = repo.calls("esc")[-1]["env"]
    assert env["TMPDIR"] == env["PULUMI_HOME"], "the CLI writes them into temporary files, and leaves them there"
