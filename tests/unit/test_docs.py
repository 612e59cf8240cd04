"""The pages for people: every command and option in them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tasks
from runbooks.cli import START_PAGE
from runbooks.collection import rows
from runbooks.services import SERVICES

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
PLACES = ("*.md", "docs/**/*.md", "pulumi/**/README.md", "modal/*/*.md", "lab/**/README.md")
TEXTS = sorted(path for place in PLACES for path in ROOT.glob(place) if path.name != "CHANGELOG.md")
COMMAND = re.compile(r"(?:\./|`)inv (?:--target \S+ |--json )*(?P<task>[a-z][a-z0-9.<>_-]*[a-z0-9>])")
OPTION = re.compile(r"(?<!\S)--?[a-z][a-z-]*")
PLACEHOLDERS = {"<service>", "<consumer>", "SERVICE", "podinfo"}


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


def test_the_start_page_is_short_and_its_commands_exist() -> None:
    lines = START_PAGE.splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 80
    commands = [found["task"] for found in COMMAND.finditer(START_PAGE)]
    assert commands and [name for name in commands if name not in tasks.ns.task_names] == []


def options_of(task: str) -> set[str]:
    """As they are typed; of a task for each service, those of any of its members."""
    group = task.rpartition(".")[0]
    members = sorted(name for name in tasks.ns.task_names if name.startswith(f"{group}."))
    name = task if task in tasks.ns.task_names else members[0]
    words = [word for argument in tasks.ns[name].get_arguments() for word in argument.names]
    return {f"--{word}" if len(word) > 1 else f"-{word}" for word in words} | {"--target", "--json", "--report"}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_of_a_command_exists(page: Path) -> None:
    for found in COMMAND.finditer(page.read_text(encoding="utf-8")):
        rest = re.split(r"[`\n#|&;)]| -- ", found.string[found.end() :], maxsplit=1)[0]
        unknown = {*OPTION.findall(rest)} - options_of(found["task"])
        assert not unknown, f"{page.name}: {found[0]}{rest}"
