"""The readers of `runbooks/tools/esc.py` against every recorded answer of the real esc and `pulumi env`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import LoginMissing, NotFound, OpsError, Refused, ToolFailed, Usage
from runbooks.tools import esc
from runbooks.tools.esc import EnvironmentName, Esc
from tests.fixtures import outcome as outcome_of

RECORDED = Path(__file__).parent / "recorded"
NAME = EnvironmentName(organization="lab", project="stitch", name="prod")
BANNER = "┌───┐\n│ The ESC CLI has been retired. │\n└───┘"


def steps(*files: str) -> Iterator[dict[str, Any]]:
    for pattern in files:
        (path,) = RECORDED.glob(f"*/{pattern}-*.json")
        for step in json.loads(path.read_text())["steps"]:
            if "argv" in step:
                yield step


def is_of_environments(step: dict[str, Any]) -> bool:
    return step["argv"][0] == "esc" or step["argv"][:2] == ["pulumi", "env"]


def outcome(step: dict[str, Any]) -> Outcome:
    stderr = step["stderr"].replace("$RETIRED_NOTICE", BANNER)
    return outcome_of(Command(argv=tuple(step["argv"])), (step["exit"], step["stdout"], stderr))


ALL = [step for step in steps("31", "32", "13") if is_of_environments(step)]
OPENED = [step for step in ALL if "open" in step["argv"] and "detailed" in step["argv"]]


def failing() -> Iterator[tuple[str, dict[str, Any], type[OpsError]]]:
    """What went wrong in the recorded runs, by the decisive words; some of it with exit 0."""
    meanings: list[tuple[str, type[OpsError]]] = [
        ("unknown property", ToolFailed),
        ('stack "postgresql/none" not found', ToolFailed),
        ("[404]", NotFound),
        ("[409]", Refused),
        ("did not find expected", ToolFailed),
        ("must be string literals", Usage),
        ("PULUMI_ACCESS_TOKEN must be set", LoginMissing),
    ]
    for step in ALL:
        for words, error in meanings:
            if words in step["stderr"]:
                yield " ".join([*step["argv"], f"exit {step['exit']}"]), step, error


FAILING = list(failing())


@pytest.mark.parametrize(("step", "error"), [case[1:] for case in FAILING], ids=[case[0] for case in FAILING])
def test_diagnostics_are_failures_whatever_the_exit_code(step: dict[str, Any], error: type[OpsError]) -> None:
    with pytest.raises(error) as failed:
        esc.judge(outcome(step), NAME, str)
    assert type(failed.value) is error and failed.value.next_step


def test_failures_with_exit_0_are_among_them() -> None:
    assert {tuple(step["argv"][:2]) for _, step, _ in FAILING if step["exit"] == 0} == {
        ("esc", "open"),
        ("esc", "run"),
        ("pulumi", "env"),
    }


def test_everything_else_went_well() -> None:
    for step in ALL:
        if not any(step is failed for _, failed, _ in FAILING):
            esc.judge(outcome(step), NAME, str)


def test_the_opened_environment() -> None:
    assert OPENED
    opened = esc.read_opened(OPENED[0]["stdout"])
    reported = {value.shown_path: (value.kind, value.secret, value.origin) for value in opened.values}
    assert reported['pulumiConfig["postgresql:password"]'] == ("text", True, "stitch/prod:13:26")
    assert reported['pulumiConfig["postgresql:port"]'] == ("number", False, "stitch/prod:11:22")
    assert reported["pulumiConfig.POSTGRES_HOST"] == ("text", False, "stitch/prod:8:20")
    assert "s3cr3t-pw-long" in list(opened.secret_texts())
    assert set(opened.settings) >= {"k8s_namespace", "postgresql:sslmode"}


def test_lists_and_revisions() -> None:
    (listed,) = [step for step in ALL if step["argv"] == ["esc", "env", "ls"]]
    assert [name.full for name in esc.read_list(listed["stdout"], "lab")] == ["lab/stitch/prod"]
    edits = [step for step in ALL if "edit" in step["argv"]]
    assert [esc.read_revision(step["stdout"]) for step in edits][:2] == [4, 5]


@pytest.mark.parametrize(
    ("builder", "words"),
    [
        (lambda tool: tool.open(NAME), ["open", "lab/stitch/prod", "--format", "detailed"]),
        (lambda tool: tool.set_secret(NAME, "pulumiConfig.token", "x"), ["set", "--secret", "--string", "--file", "-"]),
        (lambda tool: tool.edit(NAME, "x"), ["edit", "lab/stitch/prod"]),
        (lambda tool: tool.definition(NAME), ["get", "lab/stitch/prod", "--definition"]),
        (lambda tool: tool.init(NAME), ["init", "lab/stitch/prod"]),
    ],
)
def test_what_we_start_was_recorded_in_that_form(builder: Any, words: list[str]) -> None:
    ours = builder(Esc(program="esc", is_pulumi=False)).argv
    assert all(word in ours for word in words)
    assert any(all(word in step["argv"] for word in words) for step in ALL)
