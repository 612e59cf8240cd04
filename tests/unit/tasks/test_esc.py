"""esc.*: from the command line to the CLI and back, on fakes of esc and pulumi; everything between is real."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from runbooks.core.errors import NotApproved, NotFound, OpsError, Refused, ToolFailed, Usage
from runbooks.run import open_session
from runbooks.services import find_service
from runbooks.stacks import environment_commands, environments, preview
from runbooks.stacks.fingerprint import changed_parts, fingerprint_of
from runbooks.tasks import esc
from runbooks.tools import definitions
from runbooks.tools.esc import EnvironmentName
from tests.fixtures import REAL_ROOT, Repo, exported, preview_answer

STITCH = find_service("stitch")
VALUES: dict[str, Any] = {
    "POSTGRES_HOST": "postgresql-cluster-rw.postgresql", "k8s_namespace": "postgresql", "postgresql:host": "postgresql",
    "postgresql:port": 5432, "postgresql:sslmode": "disable", "image": "ghcr.io/example/stitch:1.0.0",
    "public_host": "stitch.example.com",
}  # fmt: skip
SECRETS = {key.key: f"clear-{number}-value" for number, key in enumerate(STITCH.environment_keys) if key.is_secret}
NO_ENVIRONMENT = (1, "", "Error: [404] Not Found: environment 'stitch/prod' not found\n")


def opened(
    variables: dict[str, Any] | None = None, files: dict[str, str] | None = None, **changed: Any
) -> dict[str, Any]:
    """`--format detailed` of stitch/prod; a changed setting is a whole node, `None` leaves it out."""
    settings = {key: {"value": value} for key, value in VALUES.items()}
    settings |= {key: {"value": value, "secret": True} for key, value in SECRETS.items()}
    settings |= changed
    sections = {
        "pulumiConfig": {"value": {key: node for key, node in settings.items() if node is not None}},
        "environmentVariables": {"value": {key: {"value": value} for key, value in (variables or {}).items()}},
        "files": {"value": {key: {"value": value, "secret": True} for key, value in (files or {}).items()}},
    }
    return {"value": sections}


@pytest.mark.parametrize(
    ("on_path", "chosen", "expected"),
    [(True, True, ("bin/esc", False)), (False, True, ("lab/esc", False)), (False, False, ("bin/pulumi", True))],
)
def test_esc_where_there_is_one_pulumi_env_where_not(
    repo: Repo, on_path: bool, chosen: bool, expected: tuple[str, bool]
) -> None:
    if not on_path:
        repo.remove("esc")
    own = repo.home / "lab" / "esc"
    if chosen:
        own.parent.mkdir()
        own.touch(mode=0o755)
    with open_session(repo.c, "esc.list") as session:
        target = replace(session.target, tools=MappingProxyType({"esc": own}))
        found = replace(session, target=target).esc
    assert (found.program, found.is_pulumi) == (str(repo.home / expected[0]), expected[1])


@pytest.fixture
def repo(repo: Repo) -> Repo:
    """A target on the cloud, with esc installed and the repository's own definitions."""
    repo.on_cloud()
    repo.install("esc")
    shutil.copytree(REAL_ROOT / "environments", repo.root / "environments")
    repo.answer("esc", ["env", "init"], "Environment created: acme/stitch/prod\n")
    repo.answer("esc", ["env", "edit"], "Environment updated. (revision 8)\n")
    repo.answer("esc", ["env", "get"], live_text(repo))
    repo.answer("esc", ["env", "==set"], "")
    repo.answer("esc", ["env", "==rm"], "")
    repo.answer("esc", ["--format"], opened())
    repo.answer("pulumi", ["preview", "--json"], preview_answer())
    repo.answer("pulumi", ["stack", "export", "databases/postgres"], exported({"a": 1}))
    repo.answer("pulumi", ["config", "--show-secrets"], {})
    repo.has_superuser_password()
    return repo


def stack_file(repo: Repo, text: str | None = None) -> Path:
    path = repo.config_file("stitch")
    if text is not None:
        path.write_text(text)
    return path


def no_secret_was_told(repo: Repo, told: str) -> None:
    for value in SECRETS.values():
        assert value not in told and value not in repo.everything_written()
        assert not any(value in argv for tool in ("esc", "pulumi") for argv in repo.argvs(tool))


# list, open, set


def test_a_list_of_what_is_there_and_what_is_a_file(repo: Repo) -> None:
    repo.answer("esc", ["ls"], "acme/other/dev\nelsewhere/a/b\n")
    stack_file(repo, "environment:\n  - stitch/prod\n")
    esc.list_environments.body(repo.c)
    rows = [line.split() for line in repo.printed().splitlines()]
    assert ["other/dev", "there", "-", "-"] in rows
    assert ["stitch/prod", "not", "applied", "environments/stitch/prod.yaml", "stitch"] in rows
    assert repo.argvs("esc") == ["env ls --organization acme"]


def test_a_stack_config_that_cannot_be_read_hides_no_environment(repo: Repo) -> None:
    repo.answer("esc", ["ls"], "acme/other/dev\n")
    path = stack_file(repo, 'environment:\n  values:\n    pulumiConfig:\n      stitch:replicas: "2"\n')
    with pytest.raises(Usage) as refused:
        esc.list_environments.body(repo.c)
    assert str(path) in refused.value.summary
    assert "other/dev" in repo.printed()


def test_open_shows_path_kind_and_origin_and_no_secret(repo: Repo) -> None:
    esc.open_task.body(repo.c, "stitch/prod")
    told = repo.printed()
    assert 'pulumiConfig["postgresql:port"]' in told and "number" in told and "5432" in told
    assert told.count("[secret]") >= len(SECRETS)
    no_secret_was_told(repo, told)
    assert repo.argvs("esc") == ["open acme/stitch/prod --format detailed"]


def test_open_masks_whatever_the_format(repo: Repo) -> None:
    esc.open_task.body(repo.c, "stitch/prod", format="detailed")
    with pytest.raises(Usage):
        esc.open_task.body(repo.c, "stitch/prod", format="json")
    assert len(repo.argvs("esc")) == 1


@pytest.mark.parametrize(("answer", "error"), [((0, "", ""), ToolFailed), (NO_ENVIRONMENT, NotFound)])
def test_what_does_not_open_is_a_failure_whatever_the_exit_code(repo: Repo, answer: Any, error: type[OpsError]) -> None:
    repo.answer("esc", ["--format"], answer)
    with pytest.raises(error):
        esc.open_task.body(repo.c, "stitch/prod")


def test_set_takes_the_value_from_standard_input(repo: Repo) -> None:
    repo.pipe(b"hunter2-of-twitch\n")
    esc.set_value.body(repo.c, "stitch/prod", "pulumiConfig.eventsub_secret")
    call = repo.calls("esc")[-1]
    assert " ".join(call["argv"]) == (
        "env set acme/stitch/prod pulumiConfig.eventsub_secret --secret --string --file -"
    )
    assert call["stdin"] == "hunter2-of-twitch"
    told = repo.printed()
    assert "Set the secret pulumiConfig.eventsub_secret" in told and "has no" not in told
    assert "hunter2" not in told + repo.everything_written()


def test_set_says_when_the_file_has_no_place_for_it(repo: Repo) -> None:
    repo.pipe(b"hunter2-of-twitch")
    esc.set_value.body(repo.c, "stitch/prod", "pulumiConfig.other")
    assert 'has no `fn::secret: ""` at pulumiConfig.other' in repo.printed()


@pytest.mark.parametrize(
    ("path", "value"), [("--help", b"x"), ("", b"x"), ("a..b", b"x"), ("a.b", b""), ("a.b", b"\xff\xfe")]
)
def test_set_refuses_what_is_no_path_or_no_value(repo: Repo, path: str, value: bytes) -> None:
    repo.pipe(value)
    with pytest.raises(Usage):
        esc.set_value.body(repo.c, "stitch/prod", path)
    assert not [argv for argv in repo.argvs("esc") if argv.startswith("env set")]


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("pulumiConfig", "holds 13 values, 4 of them secret"),
        ('pulumiConfig["postgresql:password"]', "it is '${stacks.postgresql.password}'"),
        ("pulumiConfig.image.tag", "above it"),
        ("pulumiConfig.eventsub_secret.more", "above it"),
    ],
)
def test_set_takes_the_place_of_nothing_but_a_secret(repo: Repo, path: str, what: str) -> None:
    """The CLIs would replace a whole map, with every secret in it."""
    repo.pipe(b"hunter2-of-twitch")
    with pytest.raises(Refused, match="place of a secret") as refused:
        esc.set_value.body(repo.c, "stitch/prod", path)
    assert what in refused.value.summary
    assert not [argv for argv in repo.argvs("esc") if argv.startswith("env set")]


@pytest.mark.parametrize("start", [
    lambda c: esc.open_task.body(c, "stitch/prdo"),
    lambda c: esc.set_value.body(c, "stitch/prdo", "a.b"),
    lambda c: esc.bind.body(c, "stitch/prdo"),
    lambda c: esc.unbind.body(c, "stitch/prdo"),
])  # fmt: skip
def test_an_unknown_environment_has_the_nearest_names(repo: Repo, start: Callable[[Any], None]) -> None:
    repo.pipe(b"hunter2-of-twitch")
    repo.answer("esc", ["stitch/prdo"], (1, "", "Error: [404] Not Found: environment 'stitch/prdo' not found\n"))
    repo.answer("esc", ["ls"], "stitch/prod\nother/dev\n")
    with pytest.raises(NotFound, match="stitch/prdo") as absent:
        start(repo.c)
    assert "nearest names: stitch/prod" in absent.value.expected
    assert "esc.apply" not in absent.value.next_step, "there is no file to apply"


def test_unbind_does_not_advise_bind(repo: Repo) -> None:
    with pytest.raises(NotFound) as absent:
        esc.unbind.body(repo.c, "other/dev")
    assert "esc.unbind other/dev --service NAME" in absent.value.next_step


def test_a_backend_that_does_not_answer_is_reported_as_such(repo: Repo) -> None:
    """Not for the listing of stacks that fails for the same reason."""
    repo.answer("esc", ["--format"], (1, "", 'Error: Get "https://api.pulumi.com/api/x": dial tcp: i/o timeout\n'))
    repo.answer("pulumi", ["stack", "ls"], (255, "", "error: something else"))
    with pytest.raises(ToolFailed, match=r"did not answer: https://api\.pulumi\.com: dial tcp: i/o timeout"):
        esc.open_task.body(repo.c, "stitch/prod")


def test_set_that_ends_with_0_and_diagnostics_failed(repo: Repo) -> None:
    repo.pipe(b"hunter2-of-twitch")
    repo.answer("esc", ["env", "set"], (0, "", "stitch/prod: cannot set hunter2-of-twitch there\n"))
    with pytest.raises(ToolFailed) as failed:
        esc.set_value.body(repo.c, "stitch/prod", "a.b")
    assert "hunter2" not in str(failed.value)


# apply


def live_text(repo: Repo, **changed: Any) -> str:
    """The definition as the backend would give it: every secret set, in a layout of its own."""
    document = yaml.safe_load((repo.root / "environments" / "stitch" / "prod.yaml").read_text())
    settings = document["values"]["pulumiConfig"]
    for key, value in settings.items():
        if isinstance(value, dict):
            settings[key] = {"fn::secret": {"ciphertext": f"sealed-{key}"}}
    settings |= changed
    return yaml.safe_dump(document)


def pushed(repo: Repo) -> dict[str, Any]:
    (call,) = [call for call in repo.calls("esc") if call["argv"][:2] == ["env", "edit"]]
    document: dict[str, Any] = yaml.safe_load(call["stdin"])
    return document


def test_apply_does_nothing_when_there_is_nothing_to_do(repo: Repo) -> None:
    esc.apply.body(repo.c, "stitch/prod")
    assert "nothing to do" in repo.printed()
    assert [argv.split()[1] for argv in repo.argvs("esc")] == ["get"]


def test_apply_says_what_changes_and_carries_every_secret_over(repo: Repo) -> None:
    added = {"fn::secret": {"ciphertext": "sealed-other"}}
    repo.answer("esc", ["get"], live_text(repo, image="old:1", other=added))
    esc.apply.body(repo.c, "stitch/prod", yes=True)
    told = repo.printed()
    assert "- pulumiConfig.image: 'old:1'" in told and "+ pulumiConfig.image: 'ghcr.io/example/stitch:1.0.0'" in told
    assert "revision 8" in told and "pulumiConfig.other" in told
    settings = pushed(repo)["values"]["pulumiConfig"]
    assert settings["eventsub_secret"] == {"fn::secret": {"ciphertext": "sealed-eventsub_secret"}}
    assert settings["other"] == added
    assert (
        pushed(repo)["values"]["stacks"]["fn::open::pulumi-stacks"]["stacks"]["postgresql"]["stack"] == "postgresql/mx"
    )


def test_apply_asks_and_takes_no_for_an_answer(repo: Repo) -> None:
    repo.answer("esc", ["get"], live_text(repo, image="old:1"))
    with pytest.raises(NotApproved):
        esc.apply.body(repo.c, "stitch/prod")
    assert not any("edit" in argv for argv in repo.argvs("esc"))


def test_a_new_environment_is_made_then_filled(repo: Repo) -> None:
    repo.answer("esc", ["get"], NO_ENVIRONMENT)
    esc.apply.body(repo.c, "stitch/prod", yes=True)
    assert [argv.split()[1] for argv in repo.argvs("esc")] == ["get", "init", "edit"]
    assert "./inv --target home esc.set stitch/prod 'pulumiConfig.eventsub_secret'" in repo.printed()


DIAGNOSTICS = [
    (0, "", 'stitch/prod:3:5: unknown property "nope"\n'),
    (0, "", 'Error: unknown property "nope"\n\n  on stitch/prod line 3:\n   3:   a: ${nope}\n\n'),
]


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    "refusal",
    [
        *DIAGNOSTICS,
        (1, "", "Error: updating environment: [400] Bad Request\n"),
        (0, "Aborting edit due to empty definition.\n", ""),
    ],
)
def test_a_refused_definition_changes_nothing_and_leaves_nothing_behind(
    repo: Repo, refusal: tuple[int, str, str], is_new: bool
) -> None:
    repo.answer("esc", ["get"], NO_ENVIRONMENT if is_new else live_text(repo, image="old:1"))
    repo.answer("esc", ["edit"], refusal)
    with pytest.raises(Usage if refusal in DIAGNOSTICS else OpsError):
        esc.apply.body(repo.c, "stitch/prod", yes=True)
    verbs = [argv.split()[1] for argv in repo.argvs("esc")]
    assert verbs == (["get", "init", "edit", "get", "rm"] if is_new else ["get", "get", "edit"])


def test_a_token_of_the_environment_stays_out_of_the_users_files(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "pul-0123456789abcdef")
    repo.answer("esc", ["get"], live_text(repo, image="old:1"))
    esc.apply.body(repo.c, "stitch/prod", yes=True)
    printed = repo.printed()
    assert "revision 8" in printed and "pul-0123456789abcdef" not in printed + repo.everything_written()
    assert all(call["env"]["PULUMI_CREDENTIALS_PATH"] == call["env"]["PULUMI_HOME"] for call in repo.calls("esc"))


# bind, unbind


def test_bind_checks_then_writes_once_then_previews(repo: Repo) -> None:
    path = stack_file(repo, "# mine\nconfig:\n  stitch:namespace: stitch # here\n")
    esc.bind.body(repo.c, "stitch/prod")
    assert path.read_text() == "# mine\nconfig:\n  stitch:namespace: stitch # here\nenvironment:\n  - stitch/prod\n"
    told = repo.printed()
    assert "provides all 13 settings that stitch requires, 6 secret" in told
    assert any("preview --json" in argv for argv in repo.argvs("pulumi"))
    no_secret_was_told(repo, told)
    esc.bind.body(repo.c, "stitch/prod")
    assert path.read_text().count("stitch/prod") == 1
    assert "binds it already" in repo.printed()


def test_a_plan_uses_what_was_opened_for_it_and_the_comparison_opens_anew(repo: Repo) -> None:
    stack_file(repo, "environment:\n  - stitch/prod\n")
    with open_session(repo.c, "deploy.stitch") as session:
        plan = preview.plan_stack(session, STITCH)
        assert len(repo.argvs("esc")) == 1
        assert changed_parts(plan.fingerprint, fingerprint_of(session, STITCH)) == []
        assert len(repo.argvs("esc")) == 2
        repo.answer("esc", ["--format"], opened(image={"value": "ghcr.io/example/stitch:2.0.0"}))
        assert changed_parts(plan.fingerprint, fingerprint_of(session, STITCH)) == ["opened environment"]


WRONG = {
    "POSTGRES_HOST": (None, "pulumiConfig.POSTGRES_HOST: missing"),
    "k8s_namespace": ({"value": ""}, "pulumiConfig.k8s_namespace: empty; give it a value"),
    "image": ({"value": None, "unknown": True}, "pulumiConfig.image: unknown"),
    "public_host": ({"value": "x", "secret": True}, "pulumiConfig.public_host: is secret, but the program shows it"),
    "database_password": ({"value": "clear"}, "pulumiConfig.database_password: must be secret and is not"),
    "eventsub_secret": ({"value": "", "secret": True}, "./inv esc.set stitch/prod 'pulumiConfig.eventsub_secret'"),
    "postgresql:port": ({"value": 5432, "secret": True}, "a secret number becomes plaintext"),
    "postgresql:sslmode": ({"value": {"a": {"value": 1}}}, "is a map or list"),
    "unasked": ({"value": True, "secret": True}, "pulumiConfig.unasked: a secret true or false becomes plaintext"),
}


@pytest.mark.parametrize("key", WRONG)
def test_bind_refuses_an_environment_that_breaks_the_contract(repo: Repo, key: str) -> None:
    node, says = WRONG[key]
    stack_file(repo, "config: {}\n")
    repo.answer("esc", ["--format"], opened(**{key: node}))
    with pytest.raises(Usage) as refused:
        esc.bind.body(repo.c, "stitch/prod")
    assert says in refused.value.summary
    assert stack_file(repo).read_text() == "config: {}\n", "nothing was bound"


def test_bind_names_every_missing_key_at_once(repo: Repo) -> None:
    repo.answer("esc", ["--format"], {"value": {}})
    with pytest.raises(Usage) as refused:
        esc.bind.body(repo.c, "stitch/prod")
    assert all(f"{key.key}" in refused.value.summary for key in STITCH.environment_keys)


def test_a_key_with_its_namespace_counts_too(repo: Repo) -> None:
    repo.answer("esc", ["--format"], opened(image=None, **{"stitch:image": {"value": "x:1"}}))
    stack_file(repo, "config: {}\n")
    esc.bind.body(repo.c, "stitch/prod")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("environment:\n  - stitch/prod # mine\n", "environment:\n  - stitch/prod@7 # mine\n"),
        ("environment:\n  - a/b\n  - stitch/prod@1\n", "environment:\n  - a/b\n  - stitch/prod@7\n"),
        ("config:\n  a:b: c\n", "config:\n  a:b: c\nenvironment:\n  - stitch/prod@7\n"),
    ],
)
def test_the_version_that_is_typed_or_bound_is_judged_and_bound(repo: Repo, before: str, after: str) -> None:
    path = stack_file(repo, before)
    for typed in ("stitch/prod@7", "stitch/prod@7", "stitch/prod"):
        esc.bind.body(repo.c, typed)
        assert repo.argvs("esc")[-1].split()[1].endswith("stitch/prod@7")
        assert path.read_text() == after
        assert "stitch/prod@7" in repo.printed()


@pytest.mark.parametrize("is_waiting", [False, True])
def test_a_version_that_does_not_exist_is_not_bound(repo: Repo, is_waiting: bool) -> None:
    path = stack_file(repo, "config: {}\n")
    missing = (1, "", "Error: [404] Not Found: revision '99' of environment 'x' not found")
    for words in (["--format"], ["env", "get"]):
        repo.answer("esc", words, missing)
    if is_waiting:
        repo.answer("pulumi", ["stack", "export", "databases/postgres"], {"deployment": {"resources": []}})
    with pytest.raises(NotFound) as refused:
        esc.bind.body(repo.c, "stitch/prod@99")
    assert "99" in refused.value.summary
    assert path.read_text() == "config: {}\n"


@pytest.mark.parametrize("of_file", [False, True])
def test_values_are_judged_as_the_program_will(repo: Repo, of_file: bool) -> None:
    """By type and allowed values, before anything is written; the key is whole though a part of it is a secret."""
    project = repo.root / "pulumi" / STITCH.folder
    shutil.copytree(REAL_ROOT / "pulumi" / "lib", repo.root / "pulumi" / "lib")
    shutil.copy(REAL_ROOT / "pulumi" / STITCH.folder / "settings.py", project)
    username = {"value": "postgres", "secret": True}
    wrong = {} if of_file else {"postgresql:sslmode": {"value": "off"}}
    repo.answer("esc", ["--format"], opened(None, None, **{"postgresql:username": username}, **wrong))
    before = "config:\n  postgresql:sslmode: off\n" if of_file else "config: {}\n"
    path = stack_file(repo, before)
    with pytest.raises(Usage) as refused:
        esc.bind.body(repo.c, "stitch/prod")
    assert "postgresql:sslmode" in refused.value.summary and "verify-full" in refused.value.summary
    assert "environments/stitch/prod.yaml" in refused.value.summary and "esc.bind" not in refused.value.summary
    assert (str(path) in refused.value.next_step) == of_file
    assert path.read_text() == before
    no_secret_was_told(repo, "\n".join(refused.value.lines()))


def test_a_binding_that_merges_nothing_is_refused(repo: Repo) -> None:
    stack_file(repo, "environment:\n  - stitch/prod: {merge: false}\n")
    with pytest.raises(Usage, match="merge: false"):
        esc.bind.body(repo.c, "stitch/prod")
    assert repo.argvs("esc") == []


def test_bind_says_which_settings_of_the_file_win(repo: Repo) -> None:
    stack_file(repo, "config:\n  stitch:image: other:2\n")
    esc.bind.body(repo.c, "stitch/prod")
    told = repo.printed()
    assert any("stitch:image" in line and "Pulumi.mx.yaml" in line and "wins" in line for line in told.splitlines())


@pytest.mark.parametrize(
    "elsewhere", [{"variables": {"KUBECONFIG": "/x"}}, {"kubernetes:context": {"value": "other", "secret": False}}]
)
def test_bind_refuses_what_leads_to_another_cluster(repo: Repo, elsewhere: dict[str, Any]) -> None:
    stack_file(repo, "config: {}\n")
    repo.answer("esc", ["--format"], opened(**elsewhere))
    with pytest.raises(Refused):
        esc.bind.body(repo.c, "stitch/prod")
    assert stack_file(repo).read_text() == "config: {}\n"


def test_binding_to_a_service_of_another_environment_is_asked_for_by_name(repo: Repo) -> None:
    repo.answer("esc", ["--format"], {"value": {}})
    with pytest.raises(NotFound, match="shared/base"):
        esc.bind.body(repo.c, "shared/base")
    esc.bind.body(repo.c, "shared/base", service="glance")
    assert "shared/base" in repo.config_file("glance").read_text()


def test_unbind_removes_every_occurrence_without_a_question(repo: Repo) -> None:
    path = stack_file(repo, "environment:\n  - stitch/prod # why\n  - a/b\n  - stitch/prod\nconfig: {}\n")
    esc.unbind.body(repo.c, "stitch/prod")
    assert path.read_text() == "environment:\n  # why\n  - a/b\nconfig: {}\n"
    assert "2 removed" in repo.printed() and not repo.calls("esc")
    esc.unbind.body(repo.c, "stitch/prod")
    assert "nothing to do" in repo.printed()


# A file backend


@pytest.mark.parametrize(
    "start",
    [
        lambda c: esc.run.body(c, "stitch/prod"), lambda c: esc.list_environments.body(c),
        lambda c: esc.open_task.body(c, "stitch/prod"), lambda c: esc.set_value.body(c, "stitch/prod", "a.b"),
        lambda c: esc.apply.body(c, "stitch/prod"), lambda c: esc.bind.body(c, "stitch/prod"),
    ],
)  # fmt: skip
def test_a_file_backend_is_reported_before_anything_runs(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, start: Callable[[Any], None]
) -> None:
    repo.set_target(backend=f"file://{repo.backend}", organization="organization", passphrase_file="passphrase")
    monkeypatch.setattr("sys.argv", ["inv", "esc.run", "stitch/prod", "--", "pulumi", "preview"])
    repo.c.remainder = "pulumi preview"
    with pytest.raises(Usage, match="does not support Pulumi ESC") as refused:
        start(repo.c)
    assert "pulumi login --cloud" in refused.value.next_step and "esc env ls" in refused.value.next_step
    assert not repo.calls("esc")
    assert all(argv == "version" for argv in repo.argvs("pulumi"))


# run


def run_with_words(repo: Repo, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["inv", "esc.run", "stitch/prod", "--", *words])
    repo.c.remainder = " ".join(words)
    esc.run.body(repo.c, "stitch/prod")


def test_run_gives_the_variables_and_masks_what_comes_back(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.answer("esc", ["--format"], opened(variables={"GREETING": "hello there"}))
    secret = SECRETS["database_password"]
    run_with_words(repo, monkeypatch, "printenv", "GREETING")
    assert "hello there" in repo.printed()
    run_with_words(repo, monkeypatch, "echo", f"the password is {secret}")
    assert "the password is [secret]" in repo.printed()


def test_run_gives_files_and_takes_them_away(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.answer("esc", ["--format"], opened(files={"CERTIFICATE": "line one of it\nline two of it\n"}))
    look = repo.bin / "look"
    look.write_text('#!/bin/sh\nstat --format="%a %n" "$CERTIFICATE"\n')
    look.chmod(0o755)
    run_with_words(repo, monkeypatch, "look")
    mode, path = repo.printed().splitlines()[-1].split()
    assert mode == "600" and Path(path).name == "0" and not Path(path).exists()


def test_run_tells_the_commands_own_exit_code(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolFailed, match="exit 2"):
        run_with_words(repo, monkeypatch, "ls", "/nowhere-at-all")


def test_run_starts_nothing_when_the_environment_does_not_open(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.answer("esc", ["--format"], (0, "", "stitch/prod:1:1: broken\n"))
    with pytest.raises(ToolFailed, match="broken"):
        run_with_words(repo, monkeypatch, "kubectl", "get", "pods")
    assert not any("pods" in argv for argv in repo.argvs("kubectl"))


def test_words_stay_as_the_shell_gave_them() -> None:
    argv = ["inv", "esc.run", "stitch/prod", "--", "psql", "-c", "select 1"]
    assert environment_commands.words_after_dashes(argv, "psql -c select 1") == ["psql", "-c", "select 1"]
    with pytest.raises(Usage, match="no command"):
        environment_commands.words_after_dashes(["inv", "esc.run", "stitch/prod"], "")


CHANGE = [
    "pulumi up --yes", "pulumi destroy", "pulumi -C pulumi/apps/stitch up", "pulumi --stack preview up",
    "pulumi stack rm", "pulumi config get x", "pulumi config set a b", "pulumi preview -c a=b",
    "pulumi stack output --show-secrets", "pulumi", "kubectl delete ns x", "kubectl -n get delete ns x",
    "kubectl config use-context x", "helm uninstall x", "esc env set a b c", "/usr/bin/kubectl apply -f x",
    "sh -c true", "xargs rm", "sudo ls", "env A=b pulumi up",
    # Each writes into the stack config.
    "pulumi preview -c", "pulumi preview -ca:b=c", "pulumi preview -c=a:b=c", "pulumi preview --config=a:b=c",
]  # fmt: skip
PRINT_SECRETS = [
    "esc open other/prod", "esc env open acme/other/prod --format json", "pulumi env open other/prod",
    "kubectl get secret x -o yaml", "kubectl -n postgresql get secrets -ojson",
    "kubectl get pods,secrets --output=yaml", "kubectl get secret/x --output json",
    "kubectl get secrets.v1. -o jsonpath={.data}", "kubectl get Secret x --template={{.data}}",
    "kubectl get --raw /api/v1/namespaces/x/secrets", "kubectl get --raw=/api/v1/secrets?limit=5", "helm get values x",
    "helm -n y get manifest x",
]  # fmt: skip
READ = [
    "pulumi preview --diff", "pulumi -C pulumi/apps/stitch stack output", "pulumi config --json",
    "kubectl -n tailscale get pods", "kubectl auth can-i get pods", "kubectl rollout status deploy/x",
    "helm template x", "esc env ls", "psql -c select", "env", "env A=b",
    # Names and sizes of Secrets are none themselves.
    "kubectl get secrets", "kubectl get secret x -o name", "kubectl get secrets -owide", "kubectl describe secret x",
    "kubectl get pods -o yaml", "kubectl -n secrets get pods -o yaml",
    "kubectl get externalsecrets.external-secrets.io -o yaml", "kubectl get --raw /healthz",
    "esc env get acme/stitch/prod", "helm get notes x",
]  # fmt: skip


@pytest.mark.parametrize("command", [*CHANGE, *PRINT_SECRETS])
def test_what_changes_something_or_prints_unknown_secrets_is_refused(command: str) -> None:
    with pytest.raises(Refused) as refused:
        environment_commands.refuse_changing(command.split())
    assert command not in PRINT_SECRETS or "secrets" in refused.value.summary


@pytest.mark.parametrize("command", READ)
def test_what_reads_is_taken(command: str) -> None:
    environment_commands.refuse_changing(command.split())


def test_run_starts_nothing_that_changes_something(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused):
        run_with_words(repo, monkeypatch, "kubectl", "delete", "namespace", "x")
    assert not repo.calls("kubectl") and not repo.calls("esc")


def test_an_environment_that_leads_to_another_cluster_runs_nothing(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = "clusters: [{cluster: {server: 'https://elsewhere.example'}}]"
    repo.answer("esc", ["--format"], opened(files={"KUBECONFIG": elsewhere}))
    with pytest.raises(Refused, match="KUBECONFIG in files of stitch/prod") as refused:
        run_with_words(repo, monkeypatch, "kubectl", "get", "pods")
    assert "elsewhere.example" not in "\n".join(refused.value.lines()) + repo.everything_written()
    assert "environments/stitch/prod.yaml" in refused.value.next_step
    assert not any("pods" in argv for argv in repo.argvs("kubectl"))


# What is left of a new environment when its definition does not arrive, and of its values on this machine

REMOVED = "env rm acme/stitch/prod --yes"


@pytest.mark.parametrize(
    ("error", "left", "rm", "kept"),
    [
        (NotApproved("interrupted"), "", "", False),
        (ToolFailed("the backend failed"), "values:\n  written: by another user\n", "", True),
        (KeyboardInterrupt(), "", (1, "", "Error: [503] Service Unavailable\n"), True),
    ],
    ids=["interrupted", "it has content", "it cannot be removed"],
)
def test_a_push_that_fails_leaves_no_empty_environment_and_nothing_unsaid(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, error: BaseException, left: str, rm: Any, kept: bool
) -> None:
    def fail(session: Any, draft: environments.Draft) -> int:
        repo.answer("esc", ["==get"], left)
        if isinstance(error, NotApproved):
            session.runner._relay.seen.append(signal.SIGINT)
        raise error

    repo.answer("esc", ["==get"], NO_ENVIRONMENT)
    monkeypatch.setattr(environments, "_replace_definition", fail)
    repo.answer("esc", ["rm"], rm)
    with pytest.raises(type(error)):
        esc.apply.body(repo.c, "stitch/prod", yes=True)
    assert (REMOVED in repo.argvs("esc")) is (left == "")
    assert ("./inv --target home esc.apply stitch/prod" in repo.printed()) is kept


def test_what_another_user_wrote_meanwhile_stays(repo: Repo) -> None:
    repo.answer("esc", ["==get"], NO_ENVIRONMENT)
    repo.answer("esc", ["edit"], (1, "", "Error: [409] Conflict: changed\n"))
    with pytest.raises(Refused, match="in the meantime"):
        esc.apply.body(repo.c, "stitch/prod", yes=True)
    assert REMOVED not in repo.argvs("esc")


def test_files_of_an_opened_environment_go_with_the_run(repo: Repo) -> None:
    esc.open_task.body(repo.c, "stitch/prod")
    env = repo.calls("esc")[-1]["env"]
    assert env["TMPDIR"] == env["PULUMI_HOME"], "the CLI writes them into temporary files, and leaves them there"


# Lists whose entries hold secrets: refusals and the commands they advise

HOOKS = [{"name": "alpha", "token": {"fn::secret": ""}}, {"name": "beta", "token": {"fn::secret": ""}}]


@pytest.fixture
def hooks(repo: Repo) -> Repo:
    """The backend has people/hooks, a list of two hooks whose tokens are set."""
    write(repo, HOOKS)
    live(repo, [sealed(entry) for entry in HOOKS])
    return repo


def write(repo: Repo, hooks: Any) -> None:
    """The file of people/hooks."""
    path = repo.root / "environments" / "people" / "hooks.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"values": {"hooks": hooks}}, sort_keys=False))


def live(repo: Repo, hooks: Any) -> None:
    """The definition on the backend."""
    repo.answer("esc", ["env", "get"], yaml.safe_dump({"values": {"hooks": hooks}}, sort_keys=False))


def sealed(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "token": {"fn::secret": {"ciphertext": f"sealed-{entry['name']}"}}}


def changes(repo: Repo) -> list[list[str]]:
    return [call["argv"] for call in repo.calls("esc") if call["argv"][1] in ("set", "edit")]


TWIN = {"url": "u", "token": {"fn::secret": ""}}
SEALED_TWIN = {"url": "u", "token": {"fn::secret": {"ciphertext": "sealed"}}}
BARE = {"fn::secret": {"ciphertext": "sealed"}}


@pytest.mark.parametrize(
    ("file", "there", "summary", "next_step"),
    [
        ([TWIN, TWIN], [SEALED_TWIN],
         "hooks[0] {'url': 'u', 'token': a secret}: without the secrets it equals [0], [1] of the file",
         "esc env set acme/people/hooks hooks '[]'"),
        ({"fn::join": ["", {"fn::secret": ""}, ["x"]]}, {"fn::join": [BARE, ["x"]]}, 'hooks["fn::join"][0] a secret: ',
         "esc env set acme/people/hooks hooks '\"\"'"),
        (HOOKS[1:], [sealed(entry) for entry in HOOKS],
         "would lose secrets that are set on the backend: hooks[0].token (in {'name': 'alpha', 'token': a secret})",
         "esc env rm acme/people/hooks 'hooks[0].token'"),
        ([["y", {"fn::secret": ""}]], [["x", BARE]],
         "would lose secrets that are set on the backend: hooks[0][1] (in ['x', a secret])",
         "esc env set acme/people/hooks hooks '[]'"),
    ],
)  # fmt: skip
def test_apply_refuses_what_has_no_certain_entry(
    hooks: Repo, file: Any, there: Any, summary: str, next_step: str
) -> None:
    """No command that it advises shifts the index of a secret that is still set."""
    write(hooks, file)
    live(hooks, there)
    with pytest.raises(Refused) as refused:
        esc.apply.body(hooks.c, "people/hooks", yes=True)
    assert summary in refused.value.summary and next_step in refused.value.next_step
    assert "nothing was changed" in refused.value.expected and not changes(hooks)


@pytest.mark.parametrize("has_file", [True, False])
def test_set_says_which_entry_of_the_backend_it_reaches(hooks: Repo, has_file: bool) -> None:
    if not has_file:
        (hooks.root / "environments" / "people" / "hooks.yaml").unlink()
    hooks.pipe(b"hunter2-of-beta")
    esc.set_value.body(hooks.c, "people/hooks", "hooks[1].token")
    assert "hooks[1].token of people/hooks is in the list entry {'name': 'beta', 'token': a secret}" in hooks.printed()
    assert [argv[3] for argv in changes(hooks)] == ["hooks[1].token"]


@pytest.mark.parametrize("value", ["pa${ss", "${a.b}", "a$$${b"])
def test_set_speaks_of_what_esc_takes_for_a_reference(hooks: Repo, value: str) -> None:
    hooks.pipe(value.encode())
    with pytest.raises(Usage, match=r"has `\$\{` in it") as refused:
        esc.set_value.body(hooks.c, "people/hooks", "hooks[1].token")
    assert "fn::fromBase64" in refused.value.next_step and value not in "".join(refused.value.lines())
    assert not changes(hooks)


@pytest.mark.parametrize("value", ["pa$ss", "pa$$ss", "pa$${ss", "$", "{}"])
def test_set_stores_every_other_dollar_as_it_is(hooks: Repo, value: str) -> None:
    hooks.pipe(value.encode())
    esc.set_value.body(hooks.c, "people/hooks", "hooks[1].token")
    assert hooks.calls("esc")[-1]["stdin"] == value


def test_secrets_that_the_lab_generates_are_masked(repo: Repo) -> None:
    repo.answer("esc", ["get"], NO_ENVIRONMENT)
    with open_session(repo.c, "esc.apply") as session:
        on_lab = replace(session, target=replace(session.target, ephemeral=True))
        draft = environments.compare(on_lab, EnvironmentName(organization="acme", project="stitch", name="prod"))
        made = [node[definitions.SECRET] for _, node in definitions.secrets_in(draft.carried.document)]
        assert made and all(made) and not any(secret in session.masker.mask(f"= {secret}") for secret in made)
