"""The pages for people: commands, options, links and what carries a rule exist; and rules that no other test proves."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tasks
from runbooks.cli import START_PAGE
from runbooks.collection import task_rows
from runbooks.core.errors import OpsError
from runbooks.services import SERVICES
from runbooks.tasks import deploy, destroy, verify, wire
from tests.fixtures import Repo

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
PLACES = ("*.md", "docs/**/*.md", "pulumi/**/*.md", "modal/**/*.md", "lab/**/*.md")
PAGES = sorted(path for place in PLACES for path in ROOT.glob(place))
COMMAND = re.compile(r"(?:\./|`)inv (?:--target \S+ |--json )*(?P<task>[a-z][a-z0-9.<>_-]*[a-z0-9>])")
OPTION = re.compile(r"(?<!\S)--?[a-z][a-z-]*")
PLACEHOLDERS = {"<service>", "<consumer>", "SERVICE", "podinfo"}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)


def test_every_page_and_every_task_is_in_the_list_of_runbooks() -> None:
    listed = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in RUNBOOKS.glob("[!R]*.md") if f"]({page.name})" not in listed] == []
    # `check` and `test` are about the repository, and not about the platform.
    told = {row.name.replace("wire.<service>", "wire.<consumer>") for row in task_rows(tasks.ns)} - {"check", "test"}
    assert [name for name in sorted(told) if f"`{name}`" not in listed] == []


@each_page
def test_every_command_exists(page: Path) -> None:
    known = {*tasks.ns.task_names, *(row.name for row in task_rows(tasks.ns))}
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


@each_page
def test_every_option_of_a_command_exists(page: Path) -> None:
    for found in COMMAND.finditer(page.read_text(encoding="utf-8")):
        rest = re.split(r"[`\n#|&;)]| -- ", found.string[found.end() :], maxsplit=1)[0]
        unknown = {*OPTION.findall(rest)} - options_of(found["task"])
        assert not unknown, f"{page.name}: {found[0]}{rest}"


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
    readers = {f"stacks/{name}.py" for name in ("apply", "destroy", "plan", "repair", "summary")}
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


LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
LONGEST = 150


def listed(nav: Any) -> Iterator[str]:
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            yield from (
                page for value in entry.values() for page in listed([value] if isinstance(value, str) else value)
            )


def test_the_navigation_has_every_page_once() -> None:
    nav = list(listed(tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]))
    assert len(nav) == len(set(nav))
    assert [page for page in nav if not (ROOT / page).is_file()] == []
    # A decision is found through the list of decisions, the README of a project through the list of services.
    elsewhere = ("docs/decisions/0", "pulumi/", "modal/", "lab/")
    assert [name(page) for page in PAGES if name(page) not in nav and not name(page).startswith(elsewhere)] == []


@each_page
def test_a_page_is_short_and_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    assert name(page) == "docs/tasks.md" or len(text.splitlines()) <= LONGEST
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
