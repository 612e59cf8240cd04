"""docs/handbook.md: what carries each rule exists; and the rules that no other test proves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tasks
from runbooks.core.errors import OpsError
from runbooks.services import SERVICES
from runbooks.tasks import deploy, destroy, verify, wire
from tests.fixtures import Repo

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| [^|]+ \| `(?P<carrier>[^`]+)` \|(?: [^|]+ \|| \|)$", re.MULTILINE)
WORD = re.compile(r"\"([a-z-]+)\"")


def test_what_carries_each_rule_exists() -> None:
    carriers = ROW.findall((ROOT / "docs" / "handbook.md").read_text(encoding="utf-8"))
    known = set(tasks.ns.task_names)
    assert carriers and [name for name in carriers if name not in known and not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    ("task", "name"),
    [(deploy.deploy, "postgres"), (destroy.destroy, "postgres"), (wire.wire, "immich"), (verify.verify, "tailscale")],
)
def test_a_run_announces_what_it_will_do_before_any_tool_starts(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, task: Callable[..., Any], name: str
) -> None:
    """Here no tool knows an answer, so each run ends with its first step; the announcement comes before that."""
    monkeypatch.setattr("runbooks.checks.cluster.patience", lambda *_: 0.0)
    repo.has_stacks("tailscale", "cnpg", "postgresql", "immich")
    with pytest.raises(OpsError):
        task(repo.c, (name,))
    lines = repo.printed().splitlines()
    announced = [number for number, line in enumerate(lines) if name in line and not line.startswith((">", " "))]
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
    readers = {f"stacks/{name}.py" for name in ("plan", "repair", "summary", "terminating", "watch")}
    readers |= {"tasks/drift.py", "tools/pulumi.py"}
    assert {name for name, said in words.items() if "delete" in said} == readers


def test_a_consumer_has_one_way_to_the_outputs_that_it_reads() -> None:
    """A stack reference or an environment, as docs/runbooks/wiring.md tells when to use which; never both."""
    consumers = [service for service in SERVICES if service.reads_outputs_of]
    assert consumers and all(bool(each.reference) != bool(each.environment) for each in consumers)
    assert all(each.reference.producer in each.reads_outputs_of for each in consumers if each.reference)


def test_nothing_but_repair_applies_past_pulumi() -> None:
    paths = [path for path in (ROOT / "runbooks").rglob("*.py") if "kubectl.apply(" in path.read_text(encoding="utf-8")]
    assert paths == [ROOT / "runbooks/stacks/repair.py"]
