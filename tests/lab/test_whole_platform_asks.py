"""What is previewed again on the deployed platform: exactly what one change concerns."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runbooks.services import SERVICES
from tests.lab.command_line import Checkout, changed

pytestmark = pytest.mark.lab

EVERY = {service.name for service in SERVICES}
READERS = {service.name for service in SERVICES if "postgres" in service.reads_outputs_of}


@pytest.fixture(scope="module", autouse=True)
def everything_is_applied(checkout: Checkout) -> None:
    checkout.inv("deploy.all").ends_with(0)
    asked(checkout)


def asked(checkout: Checkout, words: tuple[str, ...] = ("preview.all",), **options: Any) -> set[str]:
    """The services that the task had pulumi preview; the plan summary says the same of each."""
    result = checkout.inv("--json", *words, **options)
    result.ends_with(0)
    (plan,) = [event for event in result.events if event["event"] == "plan" and "stacks" in event]
    previews = [record["argv"] for record in checkout.journal() if record["kind"] == "command"]
    folders = {argv[argv.index("-C") + 1] for argv in previews if "preview" in argv}
    named = {service.name for service in SERVICES if str(checkout.root / "pulumi" / service.folder) in folders}
    assert named == {stack["service"] for stack in plan["stacks"] if not stack["unchanged_since"]}
    return named


def in_checkout(name: str) -> Callable[[Checkout], Path]:
    return lambda checkout: checkout.root / name


def add_comment(text: str) -> str:
    return text + "\n# more\n"


def move_time(state: str) -> str:
    """As an update from elsewhere leaves the state: another time, nothing else."""
    written = json.loads(state)
    written["deployment"]["manifest"]["time"] = "2030-01-01T00:00:00Z"
    return json.dumps(written)


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        (in_checkout("pulumi/apps/web/glance/page.py"), add_comment, {"glance"}),
        (in_checkout("pulumi/lib/k8s.py"), add_comment, EVERY),
        (lambda checkout: checkout.settings_file("n8n"), add_comment, {"n8n"}),
        (lambda checkout: checkout.state_file("glance"), move_time, {"glance"}),
    ],
    ids=["a program's file", "a library's file", "a stack config", "a state"],
)
def test_one_change_asks_exactly_whom_it_concerns(
    checkout: Checkout, path: Callable[[Checkout], Path], change: Callable[[str], str], expected: set[str]
) -> None:
    with changed(path(checkout), change):
        assert asked(checkout) == expected
        assert asked(checkout) == set(), "the answer is on record"
    assert asked(checkout) == expected, "it changed back"
    assert asked(checkout) == set()


def test_a_new_value_of_an_environment_asks_its_reader(checkout: Checkout) -> None:
    checkout.inv("esc.set", "stitch/prod", "pulumiConfig.eventsub_secret", stdin="another-secret-1").ends_with(0)
    assert asked(checkout) == {"stitch"}


def test_new_outputs_ask_exactly_their_readers(checkout: Checkout) -> None:
    program = checkout.root / "pulumi/data/databases/postgres/__main__.py"
    with changed(program, lambda text: text + '\npulumi.export("one_more", 1)\n'):
        checkout.inv("deploy.postgres", "--only").ends_with(0)
        assert asked(checkout) == READERS
    checkout.inv("deploy.all").ends_with(0)
    assert asked(checkout) == set()


def test_another_pulumi_asks_all(checkout: Checkout, tmp_path: Path) -> None:
    built = Path(checkout.target["tools"]["pulumi"]).resolve()
    other = shutil.copytree(built.parent, tmp_path / "pulumi")
    env = {"PATH": os.pathsep.join((str(other), os.environ["PATH"]))}
    assert asked(checkout, env=env) == EVERY
    assert asked(checkout, env=env) == set()
    assert asked(checkout) == EVERY, "it is the lab's own again"


def test_all_are_asked_when_that_is_wanted(checkout: Checkout) -> None:
    assert asked(checkout, ("preview.all", "--fresh")) == EVERY
    assert asked(checkout) == set()


def test_a_program_that_asks_the_clock_is_asked_each_time(checkout: Checkout) -> None:
    program = checkout.root / "pulumi/apps/web/glance/__main__.py"
    with changed(program, lambda text: text + "\nimport time\n\ntime.time()\n"):
        for _ in range(2):
            assert asked(checkout) == {"glance"}
        checkout.inv("preview.glance", "--only").shows("its program asks the clock")
    asked(checkout)


def test_the_report_of_the_whole_platform(checkout: Checkout, tmp_path: Path) -> None:
    page, comment = tmp_path / "run.html", tmp_path / "run.md"
    checkout.inv("--report", str(page), "verify.all").ends_with(0)
    text = page.read_text()
    assert text.count('<g class="node">') == len(SERVICES) and len(text) < 500_000
    assert all(f">{service.name}</text>" in text for service in SERVICES)
    assert not any(word in text for word in ("<script", "src=", "href="))
    checkout.inv("preview.all", "--report", str(comment)).ends_with(0)
    assert len(comment.read_text().splitlines()) <= 60
