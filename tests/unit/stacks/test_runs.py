"""The records of runs, read back: what is in them is known, everything else is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.journal import Journal, runs_of
from runbooks.core.mask import Masker
from runbooks.stacks.runs import PlannedChange, read_runs

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
        ("target", {"target": "home", "stack": "mx"}),
        ("plan", PLAN),
        ("summary", {"applied": ["glance"], "failed": ["n8n"], "unchanged": ["tailscale"], "not_started": []}),
        ("verdict", {"service": "glance", "ok": True, "summary": "6 passed, 0 failed"}),
        exit_code=4,
    )  # fmt: skip
    (run,) = read_runs(tmp_path)
    assert (run.task, run.command, run.target) == ("deploy.glance", "./inv --target home deploy.glance", "home")
    assert (run.exit_code, run.applied, run.failed) == (4, ("glance",), ("n8n",))
    assert run.proofs == {"glance": "6 passed, 0 failed"}
    glance, tailscale = run.previews
    assert (glance.service, glance.stack, glance.target) == ("glance", "organization/glance/mx", "home")
    assert glance.told == "1 to delete, 1 to update" and not glance.is_unchanged
    assert glance.changes[0] == PlannedChange(verb="delete", kind="Secret", name="old", destructive=True, why="deleted")
    assert (glance.changes[1].kind, glance.changes[1].destructive) == ("Deployment", False)
    assert tailscale.is_unchanged and tailscale.told == "unchanged"
    assert run.began <= glance.at


def test_runs_come_in_their_order_and_without_an_end_have_no_exit_code(tmp_path: Path) -> None:
    record(tmp_path, "status", ["status"], exit_code=0)
    record(tmp_path, "deploy.all", ["deploy.all"])
    assert [(run.task, run.exit_code, run.target) for run in read_runs(tmp_path)] == [
        ("status", 0, ""),
        ("deploy.all", None, ""),
    ]


def test_a_command_can_be_typed_again(tmp_path: Path) -> None:
    record(tmp_path, "esc.run", ["esc.run", "stitch/prod", "--", "psql", "-c", "select 'a b'", "two\nlines"])
    (run,) = read_runs(tmp_path)
    assert run.command == """./inv esc.run stitch/prod -- psql -c 'select '"'"'a b'"'"'' 'two lines'"""


def test_what_was_masked_stays_masked(tmp_path: Path) -> None:
    masker = Masker(["canary-of-the-test"])
    path = record(tmp_path, "esc.run", ["esc.run", "x", "--", "echo", "canary-of-the-test"], masker=masker)
    (run,) = read_runs(tmp_path)
    assert "[secret]" in run.command and "canary" not in path.read_text()


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "plan", "stacks": "none"},
        {"kind": "plan", "time": "noon", "stacks": [{"service": "x"}]},
        {"kind": "plan", "stacks": [None, 3]},
        {"kind": "summary", "applied": None},
        {"kind": "target"},
        {"kind": "end", "exit_code": "0"},
        {"kind": ["odd"]},
    ],
)
def test_a_record_of_another_form_is_no_bug(tmp_path: Path, broken: dict[str, Any]) -> None:
    path = record(tmp_path, "status", ["status"])
    with path.open("a") as journal:
        journal.write(json.dumps(broken) + "\n" + '{"torn')
    (run,) = read_runs(tmp_path)
    assert (run.previews, run.applied, run.target, run.exit_code) == ((), (), "", None)


def test_a_record_without_a_beginning_is_left_out(tmp_path: Path) -> None:
    path = record(tmp_path, "status", ["status"])
    path.write_text('{"time": "2026-01-01T00:00:00Z", "kind": "end", "exit_code": 0}\n')
    assert runs_of(tmp_path) and read_runs(tmp_path) == []


def test_an_older_record_has_operations_in_place_of_verbs(tmp_path: Path) -> None:
    stack = {"service": "s", "stack": "o/s/mx", "state": "would change"}
    old = {**stack, "changes": [{"op": "create-replacement", "urn": DEPLOYMENT}]}
    record(tmp_path, "preview.s", ["preview.s"], ("plan", {"target": "home", "stacks": [old]}))
    assert read_runs(tmp_path)[0].previews[0].told == "1 to create-replacement"
