"""What a pull request's text is made of: the journals of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.journal import Journal, runs_of
from runbooks.core.mask import Masker
from runbooks.stacks.pull_request import read_runs

DEPLOYMENT = "urn:pulumi:mx::glance::kubernetes:apps/v1:Deployment::glance"
PLAN: dict[str, Any] = {
    "target": "home",
    "changes": True,
    "destructive": [],
    "stacks": [
        {
            "service": "glance", "stack": "organization/glance/mx", "state": "would change", "leftovers": [],
            "changes": [
                {"op": "delete", "verb": "delete", "urn": "urn:pulumi:mx::glance::v1:Secret::old",
                 "rank": "destructive", "why": "deleted"},
                {"op": "update", "verb": "update", "urn": DEPLOYMENT, "rank": "restart", "why": ""},
            ],
        },
        {"service": "tailscale", "stack": "organization/tailscale/mx", "state": "unchanged", "changes": []},
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


def test_a_run_is_read_back(tmp_path: Path) -> None:
    record(
        tmp_path, "deploy.glance", ["--target", "home", "deploy.glance"],
        ("target", {"target": "home", "stack": "mx"}), ("plan", PLAN), exit_code=4,
    )  # fmt: skip
    (run,) = read_runs(tmp_path)
    assert (run.task, run.command, run.target) == ("deploy.glance", "./inv --target home deploy.glance", "home")
    assert run.exit_code == 4
    glance, tailscale = run.previews
    assert (glance.service, glance.target, glance.state) == ("glance", "home", "1 to delete, 1 to update")
    assert glance.changes == ("DESTRUCTIVE: delete Secret old  (deleted)", "update Deployment glance")
    assert (tailscale.state, tailscale.changes) == ("unchanged", ())
    assert run.began <= glance.at


def test_runs_are_in_their_order_and_without_an_end_have_no_exit_code(tmp_path: Path) -> None:
    record(tmp_path, "status", ["status"], exit_code=0)
    record(tmp_path, "deploy.all", ["deploy.all"])
    runs = [(run.task, run.exit_code, run.target) for run in read_runs(tmp_path)]
    assert runs == [("status", 0, ""), ("deploy.all", None, "")]


def test_a_command_can_be_typed_again_and_what_was_masked_stays_masked(tmp_path: Path) -> None:
    argv = ["esc.run", "stitch/prod", "--", "psql", "-c", "select 'a b'", "two\nlines", "canary-of-the-test"]
    path = record(tmp_path, "esc.run", argv, masker=Masker(["canary-of-the-test"]))
    (run,) = read_runs(tmp_path)
    assert run.command.startswith("""./inv esc.run stitch/prod -- psql -c 'select '"'"'a b'"'"'' 'two lines'""")
    assert "[secret]" in run.command and "canary" not in path.read_text()


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
