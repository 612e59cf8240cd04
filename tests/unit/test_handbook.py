"""docs/handbook.md: every row names a carrier that exists and tests that exist; and the rules no other test proves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tasks
from runbooks.core.errors import OpsError
from runbooks.tasks import deploy, destroy, verify, wire
from tests.unit.house import House

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (?P<about>[^|]+?) \| `(?P<carrier>[^`]+)` \| (?P<proofs>[^|]+?) \|$", re.MULTILINE)
WORD = re.compile(r"\"([a-z-]+)\"")
TEXT = (ROOT / "docs" / "handbook.md").read_text(encoding="utf-8")
ROWS = [found.groups() for found in ROW.finditer(TEXT)]


def test_every_row_of_the_table_is_read() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| **", "| rule"))]
    assert len(lines) == len(ROWS) >= 55
    assert len({about for about, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("carrier", "proofs"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_its_carrier_and_its_proofs_exist(carrier: str, proofs: str) -> None:
    assert carrier in tasks.ns.task_names or (ROOT / carrier).is_file(), carrier
    for proof in proofs.split(", "):
        path, _, name = proof.partition("::")
        assert (ROOT / path).is_file(), path
        written = (ROOT / path).read_text(encoding="utf-8")
        assert name and re.search(rf"^def {re.escape(name)}\(", written, re.MULTILINE), proof


# Rules that no other test proves


@pytest.mark.parametrize(
    ("task", "name", "said"),
    [
        (deploy.deploy, "postgres", "Deploying postgres, which needs tailscale, cnpg: I preview them in that order"),
        (destroy.destroy, "postgres", "Destroying postgres deletes everything its stack made."),
        (wire.wire, "immich", "Wiring immich: its producer's outputs"),
        (verify.verify, "tailscale", "verify.tailscale: each check from operator to client"),
    ],
)
def test_a_run_says_what_it_will_do_before_any_tool_starts(
    house: House,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    task: Callable[..., Any],
    name: str,
    said: str,
) -> None:
    """Here no tool knows an answer, so that each run ends with its first step; and that one comes after the words."""
    for ladder in ("cluster", "tailscale"):
        monkeypatch.setattr(f"runbooks.checks.{ladder}.patience", lambda *_: 0.0)
    house.has_stacks("tailscale", "cnpg", "postgresql", "immich")
    with pytest.raises(OpsError):
        task(house.c, (name,))
    lines = capsys.readouterr().out.splitlines()
    announced = [number for number, line in enumerate(lines) if line.startswith(said)]
    steps = [number for number, line in enumerate(lines) if line.startswith("> ")]
    assert announced and announced[0] < min(steps, default=len(lines))


def test_nothing_but_destroy_builds_a_command_that_deletes() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "runbooks").rglob("*.py")}
    callers = [path.name for path, text in sources.items() if re.search(r"\bpulumi\.destroy\(", text)]
    assert callers == ["destroy.py"]
    words = {str(path.relative_to(ROOT / "runbooks")): set(WORD.findall(text)) for path, text in sources.items()}
    for tool in ("kubectl", "helm"):
        assert words[f"tools/{tool}.py"] and not {"replace", "rollback"} & words[f"tools/{tool}.py"]
    assert [name for name, said in words.items() if {"uninstall", "drain"} & said] == []
    # There it is the name of an operation in pulumi's answers.
    readers = {"tasks/drift.py", "stacks/repair.py", "stacks/plan.py", "tools/pulumi.py"}
    assert {name for name, said in words.items() if "delete" in said} == readers


def test_nothing_but_repair_applies_past_pulumi() -> None:
    paths = [path for path in (ROOT / "runbooks").rglob("*.py") if "kubectl.apply(" in path.read_text(encoding="utf-8")]
    assert paths == [ROOT / "runbooks/stacks/repair.py"]


@pytest.mark.parametrize(
    "rule",
    [
        "Announce",
        "exactly one step in progress",
        "Preview before apply",
        "Know the cluster",
        "Never print a secret",
        "Nothing destructive unasked",
        "Minimal diffs",
        "Be idempotent",
        "`rg`",
        "at most 250 lines",
        "Answer briefly",
        "Conventional Commits",
    ],
)
def test_the_guide_for_agents_has_their_rules(rule: str) -> None:
    guide = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    assert rule in guide
    assert len(guide.splitlines()) <= 200
