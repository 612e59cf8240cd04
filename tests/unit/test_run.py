"""A run from opening to closing, on fakes of the tools: where it goes, what it tells, what it leaves behind."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import yaml

from runbooks.core.errors import NotFound, OpsError, Refused, ToolFailed, Usage
from runbooks.core.journal import read_journal
from runbooks.run import open_session
from runbooks.services import find_service
from runbooks.stacks.guard import confirm_cluster
from runbooks.stacks.preparation import has_stack, prepare
from runbooks.tools.pulumi import stack_show
from runbooks.tools.pulumi_home import ENVIRONMENT_FILES
from tests.fixtures import PASSPHRASE, TOKEN, UID, Repo, executable, namespace

POSTGRES = find_service("postgres")


def journal_of(repo: Repo) -> list[dict[str, object]]:
    (run,) = (repo.state / "runs").iterdir()
    return read_journal(run / "journal.jsonl")


def test_the_header_says_where_the_run_goes_and_with_which_pulumi(repo: Repo) -> None:
    with open_session(repo.c, "verify.postgres") as session:
        assert session.target.name == "home"
    line = repo.printed().splitlines()[0]
    assert line == (f"target home · stack mx · backend file://{repo.backend} · cluster {UID[:8]} · pulumi v3.260.0")


def test_the_guard_comes_first_and_through_the_private_kubeconfig(repo: Repo) -> None:
    with open_session(repo.c, "verify.postgres") as session:
        private = session.kubectl.kubeconfig
        kept = json.loads(private.read_text())
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        assert [one["name"] for one in kept["contexts"]] == ["home"]
        assert confirm_cluster(session) == UID
        assert all(call["argv"][0] == f"--kubeconfig={private}" for call in repo.calls("kubectl"))
    assert not private.exists()


def test_a_wrong_cluster_ends_the_run_before_anything_else(repo: Repo) -> None:
    repo.answer("kubectl", ["get", "namespace"], namespace(uid="another"))
    with pytest.raises(Refused, match="wrong cluster"), open_session(repo.c, "deploy.postgres"):
        pytest.fail("the run must not begin")
    assert repo.argvs("pulumi") == ["version"]
    assert journal_of(repo)[-1]["exit_code"] == 5


def test_the_second_look_sees_a_cluster_that_changed(repo: Repo) -> None:
    with open_session(repo.c, "deploy.postgres") as session:
        repo.answer("kubectl", ["get", "namespace"], namespace(uid="another"))
        with pytest.raises(Refused, match="another"):
            confirm_cluster(session)


def test_settings_alone_need_no_cluster(repo: Repo) -> None:
    repo.answer("kubectl", ["get"], (1, "", "connection refused"))
    with open_session(repo.c, "secrets.set", cluster=False):
        pass
    assert UID[:8] not in repo.printed()
    assert repo.calls("kubectl") == []


@pytest.mark.parametrize(
    ("change", "broken", "error"),
    [
        ({"context": "absent"}, "", Refused),
        ({"kubeconfig": "absent"}, "", Refused),
        ({"passphrase_file": "absent"}, "", Usage),
        ({"cluster_uid": ""}, "", Usage),
        ({}, "kubectl", Refused),
        ({}, "pulumi", ToolFailed),
    ],
)
def test_a_target_or_a_tool_that_does_not_work(
    repo: Repo, change: dict[str, str], broken: str, error: type[OpsError]
) -> None:
    repo.set_target(**change)
    if broken:
        repo.answer(broken, [], (1, "", "Unable to connect to the server: dial tcp 10.0.0.2:6443: i/o timeout"))
    with pytest.raises(error), open_session(repo.c, "preview.all"):
        pytest.fail("the run must not begin")
    assert broken == "pulumi" or "preview" not in "".join(repo.argvs("pulumi"))


@pytest.fixture
def labs_pulumi(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `lab.env` does to a shell: the lab's tools come first on PATH, and pulumi downloads no plugins."""
    program = executable(repo.state / "lab" / "bin" / "pulumi", "echo v3.260.0")
    (repo.state / "lab.lock").touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PULUMI_HOME", str(repo.state / "lab" / "pulumi"))
    monkeypatch.setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
    return program


def test_what_lab_env_says_is_not_for_a_real_target(repo: Repo, labs_pulumi: Path) -> None:
    with open_session(repo.c, "preview.all") as session:
        assert session.tools.pulumi == str(repo.bin / "pulumi")
    (env,) = {json.dumps(call["env"], sort_keys=True) for call in repo.calls("pulumi")}
    assert str(labs_pulumi.parent) not in env
    assert json.loads(env)["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "false"
    assert not any(str(labs_pulumi.parent) in call["env"]["PATH"] for call in repo.calls("kubectl"))


# --- what a child gets -----------------------------------------------------------------------------------------------


def test_a_pulumi_child_gets_everything_explicitly(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PULUMI_OPTION_YES", "PULUMI_SKIP_CONFIRMATIONS", "KUBECONFIG", "CLAUDECODE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "pul-0123456789abcdef")
    with open_session(repo.c, "preview.all") as session:
        home = Path(session.env["PULUMI_HOME"])
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert (home / "plugins").readlink() == repo.home / ".pulumi" / "plugins"
        assert "KUBECONFIG" not in repr(session)
    env = repo.calls("pulumi")[0]["env"]
    assert env["PULUMI_BACKEND_URL"] == f"file://{repo.backend}"
    assert env["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(repo.root / "passphrase")
    assert env["KUBECONFIG"] == str(session.kubectl.kubeconfig)
    assert env["PULUMI_CREDENTIALS_PATH"] == str(repo.home / ".pulumi")
    assert env["PULUMI_ACCESS_TOKEN"] == "pul-0123456789abcdef"
    assert (env["UV_FROZEN"], env["UV_OFFLINE"], env["NO_COLOR"]) == ("1", "1", "1")
    assert "OPS_STATE" not in env
    for name in ("PULUMI_OPTION_YES", "PULUMI_SKIP_CONFIRMATIONS", "CLAUDECODE"):
        assert name not in env


def test_a_token_of_the_environment_is_written_to_no_file(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.on_cloud()
    for token, kept in (("pul-0123456789abcdef", False), ("", True)):
        monkeypatch.setenv("PULUMI_ACCESS_TOKEN", token)
        with open_session(repo.c, "preview.all") as session:
            own = session.env["PULUMI_CREDENTIALS_PATH"] == str(repo.home / ".pulumi")
            assert own is kept, "pulumi writes a token it was given down, and switches the person's account"
            assert kept or session.env["PULUMI_CREDENTIALS_PATH"] == session.env["PULUMI_HOME"]


def test_a_passphrase_in_the_environment_is_passed_on_only_without_a_file(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "from-the-environment")
    with open_session(repo.c, "preview.all") as session:
        assert "PULUMI_CONFIG_PASSPHRASE" not in session.env
    repo.set_target(passphrase_file=None)
    with open_session(repo.c, "preview.all") as session:
        assert session.env["PULUMI_CONFIG_PASSPHRASE"] == "from-the-environment"
        assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in session.env


# --- what a run leaves behind ---------------------------------------------------------------------------------------


def test_credentials_are_masked_before_anything_is_shown(repo: Repo) -> None:
    with open_session(repo.c, "preview.all") as session:
        session.reporter.line(f"token {TOKEN}, passphrase {PASSPHRASE}")
        session.journal.write("note", text=f"{TOKEN} {PASSPHRASE}")
    assert "token [secret], passphrase [secret]" in repo.printed()
    assert TOKEN not in repo.everything_written()
    assert PASSPHRASE not in repo.everything_written()


def test_the_private_home_goes_with_its_logs_and_the_plugins_stay(repo: Repo) -> None:
    plugin = repo.home / ".pulumi" / "plugins" / "resource-x"
    plugin.mkdir(parents=True)
    with pytest.raises(Usage), open_session(repo.c, "preview.all") as session:
        home = Path(session.env["PULUMI_HOME"])
        (home / "logs").mkdir()
        (home / "logs" / "pulumi.log").write_text("hunter2-hunter2")
        raise Usage("enough")
    assert not home.exists()
    assert plugin.exists()
    assert "hunter2" not in repo.everything_written()
    assert [entry["exit_code"] for entry in journal_of(repo) if entry["kind"] == "end"] == [2]


def test_what_a_killed_run_left_behind_is_removed_by_the_next(repo: Repo) -> None:
    left = repo.state / "runs" / "20260101T000000.000000Z-dead" / "pulumi-home"
    (left / "logs").mkdir(parents=True)
    (left / "pid").write_text("4194305")
    (left.parent / ENVIRONMENT_FILES).mkdir()
    (left.parent / ENVIRONMENT_FILES / "0").write_text("the key of a certificate")
    (left.parent / "kubeconfig").write_text(TOKEN)
    (left.parent / "journal.jsonl").write_text("{}\n")
    living = repo.state / "runs" / "20260101T000000.000000Z-live" / "pulumi-home"
    living.mkdir(parents=True)
    (living / "pid").write_text(str(os.getpid()))
    with open_session(repo.c, "preview.all"):
        assert [path.name for path in left.parent.iterdir()] == ["journal.jsonl"]
        assert living.exists()


def test_files_of_a_run_are_private_whatever_the_umask(repo: Repo) -> None:
    before = os.umask(0)
    try:
        with open_session(repo.c, "preview.all"):
            pass
    finally:
        os.umask(before)
    for path in repo.state.rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        if "cache" not in path.parts:
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


# --- stacks ---------------------------------------------------------------------------------------------------------


def settings(repo: Repo, text: str) -> Path:
    path = repo.config_file("postgres")
    path.write_text(text)
    return path


def prepared(repo: Repo) -> None:
    with open_session(repo.c, "preview.postgres") as session:
        prepare(session, POSTGRES)
        prepare(session, POSTGRES)


SECRET = "config:\n  postgresql:superuser_password:\n    secure: v1:abc\n"


@pytest.mark.parametrize(
    ("config", "error", "named"),
    [
        (None, NotFound, "./inv --target home stack.init postgres"),
        ("", Usage, "./inv --target home secrets.set postgres superuser_password"),
        (SECRET + "  kubernetes:context: other\n", Refused, "Pulumi.mx.yaml"),
        ("environment:\n  - postgresql/mx\n", Usage, "esc.unbind postgresql/mx"),
        (SECRET, Usage, "passphrase"),
    ],
)
def test_a_stack_that_is_not_ready_is_refused_and_not_made(
    repo: Repo, config: str | None, error: type[OpsError], named: str
) -> None:
    if config is not None:
        repo.has_stacks("postgresql")
        settings(repo, config)
    repo.answer("pulumi", ["config"], (1, "", "error: get stack secrets manager: incorrect passphrase\n"))
    with pytest.raises(error) as refused:
        prepared(repo)
    assert named in "\n".join(refused.value.lines())
    assert [argv for argv in repo.argvs("pulumi") if "config" not in argv] == ["version"]
    assert config == SECRET or len(repo.argvs("pulumi")) == 1


def test_secrets_of_settings_and_state_are_known_before_the_first_command(repo: Repo) -> None:
    repo.has_stacks("postgresql", state='{"ciphertext": "1b47061264138c4ac30d75fd1eb44270"}')
    settings(repo, SECRET)
    listed = {"postgresql:superuser_password": {"value": "hunter2-of-settings", "secret": True}}
    kept = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "plaintext": '"hunter2-of-state"'}
    repo.answer("pulumi", ["config", "--show-secrets"], listed)
    repo.answer(
        "pulumi", ["export", "--show-secrets"], {"deployment": {"resources": [{"urn": "u", "outputs": {"p": kept}}]}}
    )
    with open_session(repo.c, "preview.postgres") as session:
        stack = prepare(session, POSTGRES)
        assert prepare(session, POSTGRES) is stack
        session.reporter.line("hunter2-of-settings hunter2-of-state")
    assert len(repo.calls("pulumi")) == 3
    assert "[secret] [secret]" in repo.printed()
    assert "hunter2" not in repo.everything_written()
    assert "hunter2" not in "".join(repo.argvs("pulumi"))


@pytest.mark.parametrize("is_compressed", [False, True])
def test_pulumi_is_asked_for_secrets_only_where_there_may_be_some(repo: Repo, is_compressed: bool) -> None:
    repo.has_stacks("cnpg", state='{"checkpoint": {}}')
    if is_compressed:
        state = repo.backend / ".pulumi" / "stacks" / "cnpg" / "mx.json"
        state.rename(state.with_name("mx.json.gz"))
    repo.answer("pulumi", ["export"], {"deployment": {}})
    with open_session(repo.c, "preview.cnpg") as session:
        prepare(session, find_service("cnpg"))
    assert len(repo.calls("pulumi")) == (2 if is_compressed else 1)


def test_a_bound_environment_may_bring_what_the_file_lacks(repo: Repo) -> None:
    repo.on_cloud()
    settings(repo, "environment:\n  - postgresql/mx\n")
    opened = {"value": {"pulumiConfig": {"value": {"superuser_password": {"value": "from-esc-1", "secret": True}}}}}
    repo.answer("pulumi", ["--format", "detailed"], opened)
    with open_session(repo.c, "preview.postgres") as session:
        prepare(session, POSTGRES)
        assert session.masker.mask("from-esc-1") == "[secret]"
    assert "env open acme/postgresql/mx --format detailed" in " ".join(repo.argvs("pulumi"))


@pytest.mark.parametrize(
    ("section", "key"), [("environmentVariables", "KUBECONFIG"), ("pulumiConfig", "kubernetes:context")]
)
def test_an_opened_environment_that_leads_elsewhere_is_refused(repo: Repo, section: str, key: str) -> None:
    repo.on_cloud()
    settings(repo, "environment:\n  - postgresql/mx\n")
    repo.answer("pulumi", ["--format", "detailed"], {"value": {section: {"value": {key: {"value": "elsewhere"}}}}})
    with pytest.raises(Refused, match=key), open_session(repo.c, "preview.postgres") as session:
        prepare(session, POSTGRES)
    assert not any("preview" in argv for argv in repo.argvs("pulumi"))


def test_on_the_cloud_the_backend_is_asked_for_the_stack(repo: Repo) -> None:
    repo.set_target(backend="https://api.pulumi.com", organization="acme")
    repo.answer("pulumi", ["stack", "ls"], [{"name": "acme/mx"}])
    with open_session(repo.c, "preview.all") as session:
        stack = session.stack(POSTGRES)
        assert stack.selector == "acme/mx"
        assert stack.reference == "acme/postgresql/mx"
        assert has_stack(session, stack)
        assert "--organization acme" in repo.argvs("pulumi")[-1], "another organization may have a stack of that name"
    repo.answer("pulumi", ["stack", "ls"], [{"name": "mx"}])
    with open_session(repo.c, "preview.all") as session:
        assert has_stack(session, stack)
    repo.answer("pulumi", ["stack", "ls"], [{"name": "mx-old"}])
    with open_session(repo.c, "preview.all") as session:
        assert not has_stack(session, stack)


def test_a_bucket_backend_gets_its_login_and_its_password_is_masked(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "home-profile")
    repo.set_target(backend="s3://states?profile=home")
    with open_session(repo.c, "preview.all", cluster=False) as session:
        assert session.env["AWS_PROFILE"] == "home-profile"
    repo.set_target(backend="postgres://ops:s3cr%65t-word@db.example/states")
    with open_session(repo.c, "preview.all", cluster=False) as session:
        assert "AWS_PROFILE" not in session.env
        assert session.masker.mask("ops:s3cr%65t-word and s3cret-word") == "ops:[secret] and [secret]"
    repo.set_target(backend="postgres://db.example/x?user=ops&password=s3cr%65t-two")
    with open_session(repo.c, "preview.all", cluster=False) as session:
        assert session.masker.mask("password=s3cr%65t-two, s3cret-two") == "password=[secret], [secret]"


def test_the_key_service_of_a_stack_gets_its_login_and_no_other_stack_does(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins = {"AWS_SECRET_ACCESS_KEY": "aws-key-of-home", "VAULT_SERVER_TOKEN": "vault-token-of-home"}
    for name, value in logins.items():
        monkeypatch.setenv(name, value)
    projects = repo.root / "pulumi"
    (projects / "data/databases/postgres/Pulumi.mx.yaml").write_text("secretsprovider: awskms://alias/homelab\n")
    repo.answer("pulumi", ["stack", "--stack"], (1, "", "denied for aws-key-of-home"))
    given = {}
    with open_session(repo.c, "preview.all", cluster=False) as session:
        for name in ("postgres", "immich", "cnpg"):
            session.runner.run(stack_show(session.stack(find_service(name))))
            given[name] = {name for name in repo.calls("pulumi")[-1]["env"] if name in logins}
    assert given == {"postgres": {"AWS_SECRET_ACCESS_KEY"}, "immich": {"AWS_SECRET_ACCESS_KEY"}, "cnpg": set()}, (
        "immich reads the outputs of postgres, secret ones with them"
    )
    assert not logins.keys() & repo.calls("pulumi")[0]["env"].keys(), "asking for the version takes no login"
    assert "denied for [secret]" in repo.everything_written()


def test_a_login_plugin_gets_its_variables_and_no_other_program_does(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "home-profile")
    with open_session(repo.c, "preview.all", cluster=False) as session:
        assert "AWS_PROFILE" not in session.env and "AWS_PROFILE" not in session.kubectl.env
    kubeconfig = repo.target["kubeconfig"]
    document = yaml.safe_load(Path(repo.root / kubeconfig).read_text())
    for user in document["users"]:
        user["user"] = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "aws"}}
    Path(repo.root / kubeconfig).write_text(yaml.safe_dump(document))
    with open_session(repo.c, "preview.all", cluster=False) as session:
        assert session.env["AWS_PROFILE"] == session.kubectl.env["AWS_PROFILE"] == "home-profile"
