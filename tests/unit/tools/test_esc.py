"""esc: what is started, what answers mean, and that an exit code of 0 proves nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import LoginMissing, NotFound, OpsError, Refused, ToolFailed, Usage
from runbooks.tools.esc import (
    EnvironmentName,
    Esc,
    Opened,
    complaints,
    judge,
    property_path,
    read_entry,
    read_list,
    read_name,
    read_opened,
    read_path,
)

NAME = EnvironmentName(organization="acme", project="stitch", name="prod")
ESC = Esc(program="/bin/esc", is_pulumi=False)
PULUMI = Esc(program="/bin/pulumi", is_pulumi=True)
BANNER = (
    "┌──────────────────────┐\n│ The ESC CLI has been retired. │\n"
    "│ Download the Pulumi CLI and use the 'pulumi env' subcommand instead. │\n└──────────────────────┘\n"
)


def outcome(stdout: str = "", stderr: str = "", exit_code: int = 0) -> Outcome:
    command = Command(argv=("esc",), title="open the environment stitch/prod", confidential=True)
    return Outcome(command=command, exit_code=exit_code, seconds=0, stdout=stdout, stderr=stderr)


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (PULUMI.open(NAME), "/bin/pulumi env open acme/stitch/prod --format detailed"),
        (ESC.ls("acme"), "/bin/esc env ls --organization acme"),
        (PULUMI.edit(NAME, "values: {}\n"), "/bin/pulumi env edit acme/stitch/prod --file -"),
        (ESC.remove(NAME), "/bin/esc env rm acme/stitch/prod --yes"),
    ],
)
def test_three_part_names_always(command: Command, argv: str) -> None:
    assert " ".join(command.argv) == argv


def test_values_travel_on_standard_input_and_stay_unseen() -> None:
    command = ESC.set_secret(NAME, "pulumiConfig.token", "hunter2")
    assert command.stdin == b"hunter2", "no newline: the CLI would keep it"
    assert command.mutates and command.confidential and "hunter2" not in repr(command)
    assert ESC.open(NAME).confidential and not ESC.open(NAME).mutates
    assert ESC.edit(NAME, "values: {}\n").stdin == b"values: {}\n"


# Names


@pytest.mark.parametrize(
    "text",
    ["", "prod", "a/b/c/d", "--help", "-x/prod", "stitch/", "stitch/prod@3", "stitch/pr od", "../prod", "other/a/b"],
)
def test_anything_else_is_no_name(text: str) -> None:
    with pytest.raises(Usage):
        read_name(text, "acme")


def test_entries_of_stack_files_may_have_versions() -> None:
    assert read_entry("stitch/prod@3", "acme").full == "acme/stitch/prod@3"
    assert read_entry("prod", "acme").full == "acme/default/prod"


def test_a_list_leaves_out_other_organizations() -> None:
    told = read_list("stitch/prod\nacme/stitch/dev\nelsewhere/a/b\n\n", "acme")
    assert [name.short for name in told] == ["stitch/prod", "stitch/dev"]


# Answers


def node(value: Any, **more: Any) -> dict[str, Any]:
    return {"value": value, **more}


def opened(**sections: Any) -> Opened:
    return read_opened(json.dumps(node(sections)))


def test_values_have_path_kind_secretness_and_origin() -> None:
    where = {"def": {"environment": "stitch/prod", "begin": {"line": 10, "column": 22}}}
    answer = opened(
        pulumiConfig=node(
            {
                "postgresql:host": node("postgresql", trace=where),
                "port": node(5432),
                "on": node(True),
                "login": node({"user": node("u"), "list": node([node("x"), node(1)])}, secret=True),
                "later": node(None, unknown=True),
                "nothing": node({}),
            }
        )
    )
    told = {value.shown_path: (value.kind, value.secret, value.origin) for value in answer.values}
    assert told['pulumiConfig["postgresql:host"]'] == ("text", False, "stitch/prod:10:22")
    assert told["pulumiConfig.port"][0] == "number" and told["pulumiConfig.on"][0] == "true or false"
    assert told["pulumiConfig.login.user"] == ("text", True, ""), "secretness is contagious"
    assert told["pulumiConfig.login.list[1]"] == ("number", True, "")
    assert told["pulumiConfig.nothing"][0] == "map"
    assert next(value for value in answer.values if value.path[-1] == "later").unknown
    assert list(answer.secret_texts()) == ["u", "x", "1"]
    assert "postgresql" not in repr(answer)


@pytest.mark.parametrize("text", ["", "hunter2", "[]", '{"value": {"a": 3}}'])
def test_an_unreadable_answer_is_reported_without_its_text(text: str) -> None:
    with pytest.raises(ToolFailed) as unreadable:
        read_opened(text)
    assert "hunter2" not in str(unreadable.value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b-c", ("a", "b-c")),
        ('a["x:y"][0].z', ("a", "x:y", 0, "z")),
        ("a.x:y", ("a", "x:y")),
        (r'a["q\"r"]', ("a", 'q"r')),
        (r'a["back\slash:x"]', ("a", r"back\slash:x")),
        ('a["Grüße:x"]', ("a", "Grüße:x")),
    ],
)
def test_a_path_is_read_as_the_cli_reads_it(text: str, path: tuple[str | int, ...]) -> None:
    assert read_path(text) == path
    assert read_path(property_path(path)) == path


@pytest.mark.parametrize("text", ["", ".", ".a", "a.", "a..b", "a[", "a[x]", 'a["b', "a b"])
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(Usage, match="not a valid path"):
        read_path(text)


# Failures


def test_a_login_is_reported_for_the_backend_that_wants_it() -> None:
    command = Command(argv=("esc",), env={"PULUMI_BACKEND_URL": "https://pulumi.home.example"}, confidential=True)
    said = Outcome(command=command, exit_code=1, seconds=0, stdout="", stderr="Error: [401] Unauthorized\n")
    with pytest.raises(LoginMissing) as missing:
        judge(said, NAME, str)
    assert missing.value.next_step == "pulumi login https://pulumi.home.example, then ./inv doctor"


def test_notices_are_no_complaint() -> None:
    said = f"{BANNER}Logging in using access token from PULUMI_ACCESS_TOKEN\n\nstitch/prod:8:39: unknown property\n"
    assert complaints(said) == ["stitch/prod:8:39: unknown property"]
    judge(outcome("{}", BANNER), NAME, str)
    judge(outcome("{}", "warning: the trial of acme ends in 3 days\n"), NAME, str)


@pytest.mark.parametrize(
    ("stderr", "exit_code", "error", "says"),
    [
        ('stitch/prod:8:39: unknown property "nope"\n', 0, ToolFailed, 'unknown property "nope"'),
        ('stitch/prod:3:5: stack "postgresql/none" not found\n', 0, ToolFailed, "the stack postgresql/none"),
        ("Error: [404] Not Found: environment 'stitch/none' not found\n", 1, NotFound, "no environment stitch/prod"),
        ('stitch/prod:2:5: environment "a/b" not found\n', 0, Usage, "imports the environment a/b"),
        ('Error: environment "a/b" not found\n\n  on stitch/prod line 2:\n', 1, Usage, "imports the environment a/b"),
        ("error: getting environment: [404] Not Found: Not Found\n", 1, NotFound, "no environment stitch/prod"),
        ("stitch/prod:3:5: vault answered [404]\n", 0, ToolFailed, "vault answered"),
        ("Error: no credentials, please run `esc login` to log in\n", 1, LoginMissing, "logged in"),
        ("Error: could not determine current cloud: PULUMI_ACCESS_TOKEN must be set for login\n", 3, LoginMissing, ""),
        ("Error: could not determine current cloud: invalid access token\n", 1, LoginMissing, "logged in"),
        ("Error: file:///x does not support Pulumi ESC.\n", 1, Usage, "does not support Pulumi ESC"),
        ("Error: secret values must be string literals\n", 1, Usage, "a secret that is not a text"),
        ("Error: [0]\nDiags: decrypting: internal error\n", 1, Usage, "encrypted for another environment"),
        ("Error: updating environment: [409] Conflict: hash mismatch\n", 1, Refused, "changed on the backend"),
        ("Error: invalid path: expected ']'\n", 1, Usage, "not a valid path of a value: expected ']'"),
        ('Error: Get "https://api.example.com/api/user": dial tcp: lookup api.example.com: no such host\n', 1,
         ToolFailed, "did not answer: https://api.example.com: dial tcp: lookup api.example.com: no such host"),
        ("Error: getting environment: [503] Service Unavailable\n", 1, ToolFailed, "failed: [503] Service Unavailable"),
        ("", 7, ToolFailed, "exit 7"),
    ],
)  # fmt: skip
def test_each_failure_has_its_meaning(stderr: str, exit_code: int, error: type[OpsError], says: str) -> None:
    with pytest.raises(error) as failed:
        judge(outcome(stderr=BANNER + stderr, exit_code=exit_code), NAME, str)
    assert says in failed.value.summary and failed.value.next_step and type(failed.value) is error


def test_only_diagnostics_send_to_the_file() -> None:
    """A list that cannot be had says nothing about a definition."""
    with pytest.raises(ToolFailed) as failed:
        judge(outcome(stderr="Error: something else\n", exit_code=1), None, str)
    assert "environments/" not in failed.value.next_step and "./inv doctor" in failed.value.next_step
    with pytest.raises(ToolFailed) as failed:
        judge(outcome(stderr="stitch/prod:8:39: unknown property\n"), NAME, str)
    assert failed.value.next_step.startswith("correct environments/stitch/prod.yaml")


def test_what_is_quoted_is_masked() -> None:
    with pytest.raises(ToolFailed) as failed:
        judge(outcome(stderr="bad value hunter2"), NAME, lambda text: text.replace("hunter2", "[secret]"))
    assert "hunter2" not in str(failed.value) and "[secret]" in failed.value.summary
