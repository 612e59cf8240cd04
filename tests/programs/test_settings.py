"""`pulumi/lib/settings.py`: declaring settings, reading them, and saying what is wrong with them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pulumi
import pytest
from lib.settings import between, matching, one_of, read_settings, secret, setting, setting_rows

TEN_CHARACTERS = matching("[!-~]{10,100}", "10 to 100 characters", "VALUE")


@dataclass(frozen=True, kw_only=True)
class Sample:
    host: str = setting("Where it is")
    port: int = setting("Port", default=80, accepts=between(1, 99))
    open: bool = setting("Whether anybody may", default=False)
    mode: str = setting("How", default="fast", key="MODE", accepts=one_of("fast", "safe"))
    tags: tuple[str, ...] = setting("Marks", default=("tag:a",), accepts=matching("tag:[a-z]+", "tags", "tag:a"))
    options: dict[str, str] = setting("More", default={})


@dataclass(frozen=True, kw_only=True)
class Hidden:
    token: pulumi.Output[str] = secret("Token of the service", key="TOKEN", accepts=TEN_CHARACTERS)


def test_defaults_apply_and_are_not_shared(configured):
    first, second = (configured(read_settings, Sample, config={"project:host": "h"}) for _ in range(2))
    assert first == Sample(host="h", port=80, open=False, mode="fast", tags=("tag:a",), options={})
    assert first.options is not second.options


def test_texts_become_what_the_fields_say(configured):
    given = {
        "project:host": "h",
        "project:port": "42",
        "project:open": "true",
        "project:MODE": "safe",
        "project:tags": '["tag:x", "tag:y"]',
        "project:options": '{"n": 3, "f": 0.5, "t": true, "s": "3"}',
    }
    assert configured(read_settings, Sample, config=given) == Sample(
        host="h", port=42, open=True, mode="safe", tags=("tag:x", "tag:y"),
        options={"n": "3", "f": "0.5", "t": "true", "s": "3"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "values", "command"),
    [
        ("host", (None,), "pulumi config set project:host VALUE"),
        ("port", ("", "1e1", "100"), "pulumi config set project:port 80"),
        ("open", ("True",), "pulumi config set project:open false"),
        ("MODE", ("slow",), "pulumi config set project:MODE fast"),
        ("tags", ("tag:x", '["x"]', "[1]"), "pulumi config set --path 'project:tags[0]' tag:a"),
        ("options", ("[]", '{"a": {}}', '{"a": null}'), "pulumi config set --path 'project:options.NAME' VALUE"),
    ],
)
def test_a_wrong_value_is_named_with_the_command(configured, key, values, command):
    for value in values:
        with pytest.raises(pulumi.RunError) as failure:
            given = {"project:host": "h", f"project:{key}": value}
            configured(read_settings, Sample, config={key: value for key, value in given.items() if value is not None})
        head, problem = str(failure.value).split("\n\n")
        assert head.startswith("1 ") and "project" in head
        assert problem.startswith(f"project:{key}: ")
        assert (repr(value) if value is not None else "not set\n") in problem
        assert _about(key) in problem and problem.endswith(command)


@pytest.mark.parametrize(
    ("value", "is_secret", "found"),
    [
        (None, False, "not set"),
        ("", True, "found an empty value"),
        ("  ", True, "found an empty value"),
        ("s3cret-canary\n", True, "white space"),
        ("s3cret-canary", False, "in plaintext"),
        ("s3cret", True, "expected  10 to 100 characters"),
    ],
)
def test_a_wrong_secret_is_described_and_not_shown(configured, monkeypatch, tmp_path, value, is_secret, found):
    folder = tmp_path / "immich"
    folder.mkdir()
    monkeypatch.chdir(folder)
    given = {} if value is None else {"project:TOKEN": value}
    with pytest.raises(pulumi.RunError) as failure:
        configured(_read_in_a_loop, Hidden, config=given, secrets=("project:TOKEN",) if is_secret else ())
    message = str(failure.value)
    assert found in message
    assert "s3cret" not in message
    assert "a secret: Token of the service" in message or "10 to 100 characters: Token of the service" in message
    assert "inv secrets.set immich TOKEN\n" in message
    assert "pulumi config set --secret project:TOKEN" in message


def test_a_plain_setting_that_is_kept_as_a_secret_is_not_shown_when_wrong(configured):
    given = {"project:host": "h", "project:port": "s3cret"}
    with pytest.raises(pulumi.RunError, match="project:port: found a secret") as failure:
        configured(read_settings, Sample, config=given, secrets=("project:port",))
    assert "s3cret" not in str(failure.value)


def test_a_secret_stays_one(configured):
    async def read() -> tuple[str, bool]:
        hidden = configured(
            read_settings, Hidden, config={"project:TOKEN": "s3cret-canary"}, secrets=("project:TOKEN",)
        )
        return await hidden.token.future(), await hidden.token.is_secret()

    assert asyncio.run(read()) == ("s3cret-canary", True)


def test_settings_nobody_reads_are_pointed_out(configured, capsys):
    configured(
        read_settings, Sample, config={"project:host": "h", "project:prot": "1", "project:zzz": "1", "other:x": "1"}
    )
    assert capsys.readouterr().err.splitlines() == [
        "warning: setting project:prot is not read by this program; did you mean project:port?",
        "warning: setting project:zzz is not read by this program",
    ]


def test_rows_for_a_readme():
    assert setting_rows(Sample, "sample") == [
        ("sample:host", "required", "Where it is"),
        ("sample:port", "`80`", "Port (a whole number from 1 to 99)"),
        ("sample:open", "`false`", "Whether anybody may"),
        ("sample:MODE", "`fast`", "How (one of fast, safe)"),
        ("sample:tags", "`tag:a`", "Marks (tags)"),
        ("sample:options", "none", "More"),
    ]
    ((key, default, about),) = setting_rows(Hidden, "sample")
    assert (key, default, about) == ("sample:TOKEN", "required secret", "Token of the service (10 to 100 characters)")


@dataclass(frozen=True, kw_only=True)
class Provided:
    host: str = setting("Where the server is", key="server:host")
    token: pulumi.Output[str] = secret("Token", accepts=TEN_CHARACTERS)
    password: pulumi.Output[str] = secret("Password of the server", key="server:password")
    port: int = setting("Port", default=80)


GIVEN = {"server:host": "h", "project:token": "0123456789", "server:password": "s3cret"}


def test_settings_of_other_namespaces_are_read_by_their_full_keys(configured):
    async def read() -> tuple[str, str, bool]:
        found = configured(read_settings, Provided, config=GIVEN, secrets=("project:token", "server:password"))
        return found.host, await found.password.future(), await found.password.is_secret()

    assert asyncio.run(read()) == ("h", "s3cret", True)
    assert [row[0] for row in setting_rows(Provided, "sample")] == [
        "server:host",
        "sample:token",
        "server:password",
        "sample:port",
    ]


def test_what_an_environment_should_provide_is_remedied_there(configured):
    with pytest.raises(pulumi.RunError) as failure:
        configured(lambda: read_settings(Provided, environment="sample/prod"), config={"project:port": "x"})
    head, *problems = str(failure.value).split("\n\n")
    assert head.startswith("4 ")
    remedies = {
        "server:host": ("inv esc.bind sample/prod", "environments/sample/prod.yaml", "inv esc.apply sample/prod"),
        "project:token": ("inv esc.bind sample/prod", "inv esc.set sample/prod pulumiConfig.token"),
        "server:password": ("inv esc.bind sample/prod", "environments/sample/prod.yaml"),
        "project:port": ("'x'", "pulumi config set project:port 80"),
    }
    for problem, (key, words) in zip(problems, remedies.items(), strict=True):
        assert problem.startswith(f"{key}: ")
        assert [word for word in words if word not in problem] == []


@dataclass(frozen=True, kw_only=True)
class Optional:
    login: pulumi.Output[str] | None = secret("Login of the registry", optional=True)


def test_an_optional_secret_may_be_missing_but_not_wrong(configured):
    assert configured(read_settings, Optional, config={}) == Optional(login=None)
    assert setting_rows(Optional, "sample") == [("sample:login", "optional secret", "Login of the registry")]
    with pytest.raises(pulumi.RunError, match="project:login: found a value in plaintext"):
        configured(read_settings, Optional, config={"project:login": "s3cret"})


@pytest.mark.parametrize(
    "image",
    [
        "",
        "ghcr.io/cloudnative-pg/postgresql:18.4-standard-trixie",
        "registry.home:5000/pg/postgresql:18",
        "ghcr.io/cloudnative-pg/postgresql:18.4@sha256:" + "0" * 64,
    ],
)
def test_images_that_the_operator_of_postgres_accepts_are_accepted(settings_of, image):
    field = settings_of("data/databases/postgres").__dataclass_fields__["image"]
    assert field.metadata["setting"].accepts.holds(image)


def _read_in_a_loop(declared: type) -> object:
    """Outputs are made within an event loop, as under the real CLI."""

    async def read() -> object:
        return read_settings(declared)

    return asyncio.run(read())


def _about(key: str) -> str:
    (row,) = [row for row in setting_rows(Sample, "project") if row[0] == f"project:{key}"]
    return row[2].partition(" (")[0]
