"""The pages for people: each runbook's page answers the same questions, and every command in them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tasks
from runbooks.collection import rows
from runbooks.services import SERVICES

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
QUESTIONS = ("When.", "Checks first.", "Steps.", "Undo.", "Verify.")
PLACES = ("*.md", "docs/**/*.md", "pulumi/**/README.md", "modal/*/*.md")
TEXTS = sorted(path for place in PLACES for path in ROOT.glob(place))
COMMAND = re.compile(r"(?:\./|`)inv (?:--target \S+ |--json )*(?P<task>[a-z][a-z0-9.<>_-]*[a-z0-9>])")
PLACEHOLDERS = {"<service>", "<consumer>", "SERVICE", "podinfo"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_when_what_is_checked_the_steps_the_way_back_and_the_proof(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [question for question in QUESTIONS if f"**{question}**" not in text] == []


def test_every_page_and_every_task_is_in_the_list_of_runbooks() -> None:
    listed = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"]({page.name})" not in listed] == []
    # `check` and `test` are about the repository, and not about the platform.
    told = {row.name.replace("wire.<service>", "wire.<consumer>") for row in rows(tasks.ns)} - {"check", "test"}
    assert [name for name in sorted(told) if f"`{name}`" not in listed] == []


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_exists(page: Path) -> None:
    known = {*tasks.ns.task_names, *(row.name for row in rows(tasks.ns))}
    services = {service.name for service in SERVICES}
    for found in COMMAND.finditer(page.read_text(encoding="utf-8")):
        group, _, last = found["task"].rpartition(".")
        name = f"{group}.<service>" if group and last in PLACEHOLDERS | services else found["task"]
        assert name in known or found["task"] in known, f"{page.name}: {found[0]}"
