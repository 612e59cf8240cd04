"""pr.body: what git and the records know, in the sections a pull request has; what they do not know, by name."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.errors import NotFound, ToolFailed, Usage
from runbooks.core.journal import KEPT_RUNS, Journal, runs_of
from runbooks.core.mask import Masker
from runbooks.stacks.pull_request import read_runs
from runbooks.tasks import pr
from tests.fixtures import Repo, git

GLANCE = "pulumi/apps/web/glance"
SECTIONS = [
    "Summary", "Commands run", "Previews", "Settings touched", "How to go back", "Not known here",
]  # fmt: skip
CANARY = "c4nary-of-the-test"
DEPLOYMENT = "urn:pulumi:mx::glance::kubernetes:apps/v1:Deployment::glance"
PLAN: dict[str, Any] = {
    "target": "home",
    "stacks": [
        {
            "service": "glance", "state": "would change", "leftovers": [],
            "changes": [
                {"verb": "delete", "urn": "urn:pulumi:mx::glance::v1:Secret::old", "rank": "destructive",
                 "why": "deleted"},
                {"verb": "update", "urn": DEPLOYMENT, "rank": "restart", "why": ""},
            ],
        },
        {"service": "tailscale", "state": "unchanged", "changes": []},
    ],
}  # fmt: skip


def record(state: Path, task: str, argv: list[str], *entries: tuple[str, dict[str, Any]], **how: Any) -> Path:
    """A record as a run leaves it; without `exit_code` it has no end."""
    journal = Journal.open(state, task, ["/checkout/tasks.py", *argv], masker=how.get("masker"))
    for kind, facts in entries:
        journal.write(kind, **facts)
    if "exit_code" in how:
        journal.finish(how["exit_code"])
    journal.close()
    return journal.path


def write(repo: Repo, path: str, text: str) -> None:
    (repo.root / path).parent.mkdir(parents=True, exist_ok=True)
    (repo.root / path).write_text(text)


def commit(repo: Repo, subject: str) -> None:
    git(repo.root, "add", "--all")
    git(repo.root, "commit", "-q", "--allow-empty", "-m", subject)


@pytest.fixture
def repo(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A clone on a branch of its own, without a change yet; its base was made an hour ago."""
    then = f"{int(time.time()) - 3600} +0000"
    monkeypatch.setenv("GIT_COMMITTER_DATE", then)
    git(repo.root, "init", "-q", "-b", "main")
    write(repo, f"{GLANCE}/__main__.py", "from lib.k8s import namespace\n")
    write(repo, f"{GLANCE}/Pulumi.mx.yaml", f"config:\n  glance:title: {CANARY}\n  glance:theme: dark\n")
    commit(repo, "feat: the base")
    monkeypatch.delenv("GIT_COMMITTER_DATE")
    git(repo.root, "switch", "-q", "-c", "topic")
    return repo


def body(repo: Repo, **options: str) -> dict[str, str]:
    """The text's sections by their titles."""
    repo.printed()
    pr.body.body(repo.c, **options)
    text = repo.printed()
    assert CANARY not in text + repo.everything_written()
    parts = ("\n" + text).split("\n## ")
    assert parts[0] == ""
    sections = dict(part.partition("\n")[::2] for part in parts[1:])
    assert list(sections) == SECTIONS
    return sections


def previewed(repo: Repo) -> None:
    facts = (("target", {"target": "home"}), ("plan", PLAN))
    record(repo.state, "preview.glance", ["preview.glance"], *facts, exit_code=0)


def changed(repo: Repo) -> None:
    """A commit that changes Glance's program and settings, older than the runs that follow."""
    write(repo, f"{GLANCE}/__main__.py", "from lib.k8s import labels\n")
    write(repo, f"{GLANCE}/Pulumi.mx.yaml", f"config:\n  glance:title: other {CANARY}\n")
    write(repo, "docs/page.md", "x\n")
    commit(repo, "feat(glance): a better title")
    for path in git(repo.root, "diff", "--name-only", "main").splitlines():
        os.utime(repo.root / path, (time.time() - 60, time.time() - 60))


def test_a_change_and_its_runs_are_reported(repo: Repo) -> None:
    changed(repo)
    previewed(repo)
    record(
        repo.state, "deploy.glance", ["--target", "home", "deploy.glance"],
        ("target", {"target": "home"}), ("plan", PLAN), ("summary", {"applied": ["glance"]}),
        ("verdict", {"service": "glance", "summary": "6 passed, 0 failed"}), exit_code=0,
    )  # fmt: skip
    for command in ("check", "test"):
        record(repo.state, command, [command], exit_code=0)
    text = body(repo)
    fork = git(repo.root, "rev-parse", "--short=12", "main")
    assert "- feat(glance): a better title\n" in text["Summary"] and "the base" not in text["Summary"]
    assert f"| `glance` | `{GLANCE}/Pulumi.mx.yaml`, `{GLANCE}/__main__.py` |" in text["Summary"]
    assert "- `./inv preview.glance` on `home`: exit 0, 20" in text["Commands run"]
    assert "- `./inv --target home deploy.glance` on `home`: exit 0, 20" in text["Commands run"]
    assert "pr.body" not in text["Commands run"] and f"`{fork}`" in text["Commands run"]
    assert (
        ": 1 to delete, 1 to update\n  DESTRUCTIVE: delete Secret old  (deleted)\n  update Deployment glance\n"
        in text["Previews"]
    )
    assert text["Previews"].count("glance on home") == 1 and "tailscale on home" in text["Previews"]
    assert f"- `{GLANCE}/Pulumi.mx.yaml`: glance:title changed, glance:theme removed" in text["Settings touched"]
    assert f"- glance: `./inv rollback.glance --to {fork}`\n" in text["How to go back"]
    unknown = text["Not known here"]
    assert "why the change is wanted" in unknown and "without `./inv`" in unknown
    assert "no branch" in unknown and "glance" not in unknown and "passes" not in unknown


def test_without_records_nothing_is_made_up(repo: Repo) -> None:
    changed(repo)
    text = body(repo)
    assert text["Commands run"].rstrip().endswith("None.")
    assert text["Previews"].strip() == "None recorded."
    unknown = text["Not known here"]
    assert "what glance would change on a real target" in unknown
    assert "whether `./inv check` passes" in unknown and "whether `./inv test` passes" in unknown


def test_a_preview_older_than_the_files_is_called_so(repo: Repo) -> None:
    changed(repo)
    previewed(repo)
    for command in ("check", "test"):
        record(repo.state, command, [command], exit_code=0)
    os.utime(repo.root / GLANCE / "__main__.py", (time.time() + 5, time.time() + 5))
    text = body(repo)
    assert "what glance would change now" in text["Not known here"]
    assert "whether `./inv check` passes" in text["Not known here"], "it ran before that file was written"


def test_what_is_not_committed_counts_too(repo: Repo) -> None:
    write(repo, f"{GLANCE}/__main__.py", "changed\n")
    write(repo, f"{GLANCE}/new file.py", "new\n")
    text = body(repo)["Summary"]
    assert f"- not committed yet: `{GLANCE}/__main__.py`, `{GLANCE}/new file.py`" in text
    assert f"| `glance` | `{GLANCE}/new file.py`, `{GLANCE}/__main__.py` |" in text


def test_a_new_project_goes_back_by_its_end(repo: Repo) -> None:
    git(repo.root, "switch", "-q", "main")
    git(repo.root, "rm", "-q", "-r", "--cached", GLANCE)
    git(repo.root, "commit", "-q", "-m", "feat: without it")
    git(repo.root, "switch", "-q", "-c", "other")
    commit(repo, "feat(glance): the start page")
    text = body(repo)
    assert f"| `glance` | new: `{GLANCE}/" in text["Summary"]
    assert "- glance, which is new: `./inv destroy.glance`" in text["How to go back"]
    assert "rollback" not in text["How to go back"]


def test_a_project_that_goes_leaves_its_stacks(repo: Repo) -> None:
    write(repo, "pulumi/apps/old/Pulumi.yaml", "name: old\n")
    commit(repo, "feat: one more")
    git(repo.root, "branch", "-f", "main")
    git(repo.root, "rm", "-q", "-r", "pulumi/apps/old")
    text = body(repo)["How to go back"]
    assert "- `pulumi/apps/old/Pulumi.yaml` is deleted and its stacks are not" in text and "git switch --detach" in text


def test_data_and_environments_have_their_own_way_back(repo: Repo) -> None:
    write(repo, "environments/stitch/prod.yaml", "values:\n  pulumiConfig:\n    image: x\n")
    text = body(repo)
    assert "- `environments/stitch/prod.yaml`: values.pulumiConfig.image added" in text["Settings touched"]
    assert "rollback.stitch --to" in text["How to go back"] and "its data is not rolled back" in text["How to go back"]
    assert "then `./inv esc.apply stitch/prod`" in text["How to go back"]


def test_a_chart_touches_those_who_use_it(repo: Repo) -> None:
    write(repo, "charts.yaml", "redis:\n  version: 1.0.0\n")
    write(repo, f"{GLANCE}/release.py", 'chart("redis", release="x")\n')
    commit(repo, "feat: with a chart")
    git(repo.root, "branch", "-f", "main")
    write(repo, "charts.yaml", "redis:\n  version: 1.1.0\n")
    text = body(repo)
    assert "| `glance` | `charts.yaml` |" in text["Summary"]
    assert "- `charts.yaml`: redis.version changed" in text["Settings touched"]


def test_equal_commands_are_one_line(repo: Repo) -> None:
    changed(repo)
    record(repo.state, "status", ["status"], exit_code=0)
    record(repo.state, "status", ["status"])
    text = body(repo)
    assert "- `./inv status`: no end recorded, 2 times, last 20" in text["Commands run"]
    assert "kept" not in text["Not known here"]
    for _ in range(KEPT_RUNS):
        record(repo.state, "status", ["status"], exit_code=0)
    assert f"the last {KEPT_RUNS} are kept" in body(repo)["Not known here"]


def test_runs_before_the_fork_are_of_another_change(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    previewed(repo)
    monkeypatch.setenv("GIT_COMMITTER_DATE", f"{int(time.time()) + 60} +0000")
    commit(repo, "feat: a later base")
    git(repo.root, "branch", "-f", "main")
    changed(repo)
    text = body(repo)
    assert "preview.glance" not in text["Commands run"] and "None recorded." in text["Previews"]


@pytest.mark.parametrize(
    ("task", "target", "shown"),
    [
        ("deploy.glance", "lab", "glance on lab"),
        ("destroy.glance", "home", "None recorded."),
        ("rollback.glance", "home", "None recorded."),
    ],
)
def test_a_plan_on_the_lab_or_of_something_else_says_nothing_of_the_change(
    repo: Repo, task: str, target: str, shown: str
) -> None:
    changed(repo)
    plan = PLAN | {"target": target}
    record(repo.state, task, [task], ("target", {"target": target}), ("plan", plan), exit_code=0)
    text = body(repo)
    assert shown in text["Previews"] and f"./inv {task}" in text["Commands run"]
    assert "what glance would change on a real target" in text["Not known here"]


@pytest.mark.parametrize(
    ("base", "error", "said"),
    [
        ("nowhere", NotFound, "no commit or branch 'nowhere'"),
        ("-x", Usage, "dash"),
        ("topic", Usage, "nothing here differs"),
    ],
)
def test_a_base_that_will_not_do(repo: Repo, base: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        pr.body.body(repo.c, base=base)


def test_outside_of_a_clone(repo: Repo) -> None:
    shutil.rmtree(repo.root / ".git")
    with pytest.raises(ToolFailed, match="not a git repository"):
        pr.body.body(repo.c)


def test_the_checkout_stays_as_it_is(repo: Repo) -> None:
    changed(repo)
    write(repo, "docs/new.md", "x\n")
    os.utime(repo.root / "docs/page.md")  # an index that git would refresh
    before = (repo.root / ".git/index").read_bytes(), git(repo.root, "for-each-ref")
    body(repo)
    assert ((repo.root / ".git/index").read_bytes(), git(repo.root, "for-each-ref")) == before


# Journals


def test_a_command_can_be_typed_again_and_what_was_masked_stays_masked(tmp_path: Path) -> None:
    argv = ["esc.run", "stitch/prod", "--", "psql", "-c", "select 'a b'", "two\nlines", CANARY]
    path = record(tmp_path, "esc.run", argv, masker=Masker([CANARY]))
    (run,) = read_runs(tmp_path)
    assert run.command.startswith("""./inv esc.run stitch/prod -- psql -c 'select '"'"'a b'"'"'' 'two lines'""")
    assert "[secret]" in run.command and CANARY not in path.read_text()


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "plan", "stacks": "none"},
        {"kind": "plan", "time": "noon", "stacks": [{"service": "x"}]},
        {"kind": "plan", "stacks": [None, 3]},
        {"kind": "target"},
        {"kind": ["odd"]},
    ],
)
def test_a_journal_of_another_form_is_left_out(tmp_path: Path, broken: dict[str, Any]) -> None:
    path = record(tmp_path, "status", ["status"])
    with path.open("a") as journal:
        journal.write('{"torn')
    assert len(read_runs(tmp_path)) == 1
    with path.open("a") as journal:
        journal.write("\n" + json.dumps(broken) + "\n")
    record(tmp_path, "doctor", ["doctor"])
    assert [run.task for run in read_runs(tmp_path)] == ["doctor"]


def test_a_journal_without_a_beginning_is_left_out(tmp_path: Path) -> None:
    path = record(tmp_path, "status", ["status"])
    path.write_text('{"time": "2026-01-01T00:00:00Z", "kind": "end", "exit_code": 0}\n')
    assert runs_of(tmp_path) and read_runs(tmp_path) == []
