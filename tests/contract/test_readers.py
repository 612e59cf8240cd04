"""The readers of `runbooks/tools` against every recorded answer of the real pulumi, esc and `pulumi env`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import (
    LoginMissing,
    NotApproved,
    NotFound,
    OperatorMissing,
    OpsError,
    Refused,
    ToolFailed,
    UnexpectedChanges,
    Usage,
)
from runbooks.tools import esc, locks, pulumi
from runbooks.tools.esc import EnvironmentName, Esc
from runbooks.tools.failures import explain
from runbooks.tools.secret_values import hide_secrets, secrets_in_config
from runbooks.tools.stack import Stack
from tests.fixtures import outcome as outcome_of

RECORDED = Path(__file__).parent / "recorded"
FILES = sorted(RECORDED.glob("*/*.json"))
STACK = Stack(
    service="sample", project="sample", name="mx", organization="organization", folder=Path("/projects/sample")
)

BANNER = "┌───┐\n│ The ESC CLI has been retired. │\n└───┘"


def steps(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text())["steps"]


def recorded(number: str) -> list[dict[str, Any]]:
    (file,) = RECORDED.glob(f"*/{number}-*.json")
    return steps(file)


def words_of(step: dict[str, Any]) -> list[str]:
    return [word for word in step.get("argv", ()) if not word.startswith("$")]


def is_a_command(step: dict[str, Any]) -> bool:
    return bool(step.get("argv")) and step["argv"][0].rsplit("/", 1)[-1] in {"pulumi", "esc"}


def outcome(step: dict[str, Any]) -> Outcome:
    stderr = (step.get("stderr") or "").replace("$RETIRED_NOTICE", BANNER)
    reply = (step["exit"], step.get("stdout") or "", stderr)
    return outcome_of(Command(argv=tuple(step["argv"])), reply)


def all_steps() -> Iterator[tuple[str, int, dict[str, Any]]]:
    for file in FILES:
        for number, step in enumerate(steps(file)):
            if is_a_command(step):
                yield file.name, number, step
            elif "signal" in step:
                yield file.name, number, {"argv": ["pulumi", "up"], "exit": step["exit"], "stdout": step["output"]}


def read(step: dict[str, Any]) -> str:
    """Give the answer to the reader that the toolkit would use; the reader's name, or "" for human text."""
    words, stdout = words_of(step), step.get("stdout") or ""
    if not stdout.strip() or "--json" not in words:
        if "export" in words and step["exit"] == 0:
            pulumi.read_export(stdout)
            return "export"
        if words[1:2] == ["version"]:
            pulumi.read_version(stdout)
            return "version"
        return ""
    if "preview" in words or "--preview-only" in words:
        pulumi.read_preview(stdout)
        return "preview"
    for word, reader in (
        ("up", lambda text: list(pulumi.read_events(text))),
        ("refresh", lambda text: list(pulumi.read_events(text))),
        ("destroy", lambda text: list(pulumi.read_events(text))),
        ("ls", pulumi.read_stacks),
        ("output", json.loads),
        ("whoami", pulumi.read_login),
        ("config", lambda text: list(secrets_in_config(text))),
    ):
        if word in words and not ("env" in words or "history" in words):
            reader(stdout)
            return word
    return ""


def test_every_recorded_file_is_read() -> None:
    assert len(FILES) == 25
    assert {file.name for file in FILES} == {path.name for path in RECORDED.rglob("*.json")}
    read_by_name: dict[str, set[str]] = {file.name: set() for file in FILES}
    for name, _, step in all_steps():
        reader = read(step)
        if step["exit"] != 0:
            assert isinstance(explain(outcome(step), STACK), OpsError)
            reader = reader or "failure"
        if reader:
            read_by_name[name].add(reader)
    assert not {name for name, readers in read_by_name.items() if not readers}


def test_every_preview_has_its_steps_and_no_noise() -> None:
    previews = [
        pulumi.read_preview(step["stdout"])
        for _, _, step in all_steps()
        if "--json" in words_of(step) and "preview" in words_of(step) and (step.get("stdout") or "").startswith("{\n")
    ]
    assert len(previews) >= 10
    for preview in previews:
        assert preview.steps
        assert all(step.urn.startswith("urn:pulumi:") and step.type and step.name for step in preview.steps)
        assert all(diagnostic.message for diagnostic in preview.diagnostics)


def test_every_event_stream_starts_what_it_ends() -> None:
    streams = [
        list(pulumi.read_events(step["stdout"]))
        for _, _, step in all_steps()
        if "up" in words_of(step) and "--json" in words_of(step)
    ]
    assert len(streams) >= 6
    for events in streams:
        assert {event.kind for event in events} <= {"started", "done", "failed", "diagnostic"}
        done = [event.urn for event in events if event.kind == "done"]
        started = [event.urn for event in events if event.kind == "started"]
        assert set(done) <= set(started)


def test_version_login_and_stacks() -> None:
    found = recorded("01")
    assert pulumi.read_version(found[0]["stdout"]) == (3, 260, 0)
    user, url = pulumi.read_login(found[2]["stdout"])
    assert user == "root" and url.startswith("file://")
    (row,) = pulumi.read_stacks(next(step["stdout"] for step in found if "ls" in words_of(step)))
    assert row.name == "mx"


def test_secrets_of_the_config_are_there_only_when_asked_for() -> None:
    listed, clear = [step["stdout"] for step in recorded("02") if "--json" in words_of(step)]
    assert list(secrets_in_config(listed)) == []
    assert "hunter2-correct-horse" in list(secrets_in_config(clear))


def test_replace_names_what_forces_it() -> None:
    preview = pulumi.read_preview(recorded("06")[0]["stdout"])
    ops = {step.name: step for step in preview.steps}
    assert ops["cm"].op == "replace" and ops["cm"].replace_reasons == ("data.colour",)
    assert ops["cm"].changes[0].forces_replace
    assert ops["sec"].op == "delete" and ops["sec"].old is not None
    assert ops["ns"].changes[0].path == "metadata.labels"


def test_up_tells_its_operations_when_they_start() -> None:
    stream = next(step for step in recorded("06") if "up" in words_of(step) and "--json" in words_of(step))["stdout"]
    started = [(event.op, pulumi.name_of(event.urn)) for event in pulumi.read_events(stream) if event.kind == "started"]
    assert (
        ("delete-replaced", "cm") in started
        and ("create-replacement", "cm") in started
        and ("delete", "sec") in started
    )


def test_outputs_of_the_export_are_those_that_stack_output_prints() -> None:
    found = recorded("04")
    shown = json.loads(next(s["stdout"] for s in found if "output" in words_of(s) and "--json" in words_of(s)))
    export = pulumi.read_export(next(step["stdout"] for step in found if "export" in words_of(step)))
    assert hide_secrets(export.outputs) == shown == {"namespace": "rec-sample", "password": "[secret]", "port": 5432}
    assert {pulumi.name_of(resource.urn) for resource in export.own_resources} == {"ns", "cm", "sec"}


def test_half_finished_replace_is_seen_in_the_export() -> None:
    export = pulumi.read_export(next(step["stdout"] for step in recorded("21") if "export" in words_of(step)))
    assert [pulumi.name_of(resource.urn) for resource in export.resources if resource.pending_delete] == ["a"]


def test_protected_delete_is_reported_by_the_old_state() -> None:
    step = next(step for step in recorded("11") if "--json" in words_of(step))
    preview = pulumi.read_preview(step["stdout"])
    assert [change.name for change in preview.changes if change.protected] == ["cm"]
    assert preview.errors
    assert isinstance(explain(outcome(step), STACK), Refused)


def test_chart_children_know_their_chart() -> None:
    preview = pulumi.read_preview(recorded("17")[0]["stdout"])
    child = next(step for step in preview.steps if step.name == "mini:rec-sample/mini-cm")
    assert pulumi.parents_of(child.urn) == "kubernetes:helm.sh/v4:Chart"
    assert child.type == "kubernetes:core/v1:ConfigMap"


def test_lock_file_names_the_holder() -> None:
    found = recorded("14")
    lock = locks.read_lock(next(step["text"] for step in found if "locks" in step.get("file", "")))
    assert (lock.pid, lock.user, lock.host) == (8859, "root", "vm")


@pytest.mark.parametrize(
    ("number", "nth", "error", "words"),
    [
        ("01", 0, NotFound, ("'mx'", "./inv stack.init sample")),
        ("01", 2, NotFound, ("'nope'", "./inv stack.init sample")),
        ("02", 1, Usage, ("./inv secrets.set sample apiToken",)),
        ("03", 0, UnexpectedChanges, ("sample", "--diff")),
        ("08", 0, Usage, ("absent", "pulumi config set absent")),
        ("08", 1, Usage, ("absent", "pulumi config set absent")),
        ("08", 2, Usage, ("absent", "./inv secrets.set sample absent")),
        ("08", 3, ToolFailed, ("RuntimeError: boom", "./inv preview.sample")),
        ("08", 4, ToolFailed, ("RuntimeError: boom", "./inv preview.sample")),
        ("08", 5, ToolFailed, ("No module named 'not_there'", "./inv preview.sample")),
        ("09", 0, Usage, ("passphrase", "./inv target.show")),
        ("09", 1, Usage, ("passphrase", "./inv target.show")),
        ("10", 0, ToolFailed, ("connection refused", "./inv doctor")),
        ("10", 1, OperatorMissing, ("Cluster (postgresql.cnpg.io/v1)", "./inv deploy.sample")),
        ("10", 2, ToolFailed, ('configmaps "taken"', "pulumi import")),
        ("11", 0, Refused, ("--diff",)),
        ("12", 0, NotFound, ("organization/sample/none",)),
        ("12", 1, ToolFailed, ("KeyError", "./inv preview.sample")),
        ("13", 0, Usage, ("Pulumi ESC", "esc env ls")),
        ("13", 2, LoginMissing, ("pulumi login",)),
        ("13", 4, Usage, ("Pulumi ESC", "esc env ls")),
        ("14", 0, Refused, ("process 8859", "./inv cancel.sample")),
        ("30", 0, Refused, ("sample", "./inv cancel.sample")),
        ("31", 0, NotFound, ("stitch/none", "./inv esc.list")),
        ("16", 0, UnexpectedChanges, ("sample", "--diff")),
        ("24", 0, ToolFailed, ('extension "nope"',)),
        ("24", 2, ToolFailed, ("password of postgres", "outputs")),
        ("24", 4, ToolFailed, ("localhost: connection refused", "verify")),
    ],
)
def test_failure_is_explained(number: str, nth: int, error: type[OpsError], words: tuple[str, ...]) -> None:
    failing = [step for step in recorded(number) if is_a_command(step) and step["exit"] != 0]
    explained = explain(outcome(failing[nth]), STACK)
    assert type(explained) is error, explained
    reported = f"{explained.summary}\n{explained.next_step}"
    assert [word for word in words if word not in reported] == [], reported


def test_graceful_signal_is_reported_as_one() -> None:
    reported = [
        explain(outcome(step), STACK) for name, _, step in all_steps() if name.startswith("15") and step["exit"] == 1
    ]
    assert len(reported) == 3
    assert all(isinstance(error, NotApproved) and "slow" in error.summary for error in reported)


def test_older_cli_that_ends_with_255_is_read_by_its_text() -> None:
    step = {"argv": ["pulumi", "preview"], "exit": 255, "stderr": "error: no stack named 'mx' found\n"}
    assert isinstance(explain(outcome(step), STACK), NotFound)


@pytest.mark.parametrize("plugin", ["pulumi-resource-kubernetes", "pulumi-language-python"])
def test_the_notice_that_a_plugin_came_from_path_is_no_warning_of_the_program(plugin: str) -> None:
    message = f"warning: using {plugin} from $PATH at /usr/bin/{plugin} expected /opt/pulumi/{plugin}\n"
    reported = {"message": message, "severity": "warning"}
    assert pulumi.read_preview(json.dumps({"steps": [], "diagnostics": [reported]})).diagnostics == ()
    assert pulumi.read_event(json.dumps({"diagnosticEvent": reported})) is None


# --- environments ----------------------------------------------------------------------------------------------------

NAME = EnvironmentName(organization="lab", project="stitch", name="prod")
ENVIRONMENTS = [
    step
    for number in ("31", "32", "13")
    for step in recorded(number)
    if step.get("argv", [""])[0] == "esc" or step.get("argv", [])[:2] == ["pulumi", "env"]
]


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
    for step in ENVIRONMENTS:
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
    for step in ENVIRONMENTS:
        if not any(step is failed for _, failed, _ in FAILING):
            esc.judge(outcome(step), NAME, str)


def test_the_opened_environment() -> None:
    answers = [step["stdout"] for step in ENVIRONMENTS if {"open", "detailed"} <= {*step["argv"]}]
    opened = esc.read_opened(answers[0])
    reported = {value.shown_path: (value.kind, value.secret, value.origin) for value in opened.values}
    assert reported['pulumiConfig["postgresql:password"]'] == ("text", True, "stitch/prod:13:26")
    assert reported['pulumiConfig["postgresql:port"]'] == ("number", False, "stitch/prod:11:22")
    assert reported["pulumiConfig.POSTGRES_HOST"] == ("text", False, "stitch/prod:8:20")
    assert "s3cr3t-pw-long" in list(opened.secret_texts())
    assert set(opened.settings) >= {"k8s_namespace", "postgresql:sslmode"}


def test_lists_and_revisions() -> None:
    (listed,) = [step for step in ENVIRONMENTS if step["argv"] == ["esc", "env", "ls"]]
    assert [name.full for name in esc.read_list(listed["stdout"], "lab")] == ["lab/stitch/prod"]
    edits = [step for step in ENVIRONMENTS if "edit" in step["argv"]]
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
    assert any(all(word in step["argv"] for word in words) for step in ENVIRONMENTS)
