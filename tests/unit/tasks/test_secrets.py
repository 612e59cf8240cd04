"""secrets.set: known keys only, never from an argument, never shown, never empty."""

from __future__ import annotations

import re
import shutil
from contextlib import nullcontext
from unittest.mock import Mock

import pytest

from runbooks.core.errors import NotApproved, NotFound, OpsError, Usage
from runbooks.tasks import secrets
from tests.fixtures import Repo, Typed

VALUE = "hunter2-hunter2"


@pytest.fixture
def repo(repo: Repo) -> Repo:
    repo.has_stacks("postgresql", "tailscale")
    repo.answer("pulumi", ["config", "set"], "")
    return repo


def run(repo: Repo, service: str = "postgres", key: str = "superuser_password", *, generate: bool = False) -> None:
    secrets.set_secret.body(repo.c, service, key, generate)


def set_call(repo: Repo) -> dict[str, object]:
    (call,) = [call for call in repo.calls("pulumi") if "set" in call["argv"]]
    return call


@pytest.mark.parametrize(
    ("piped", "kept"),
    [
        (f"{VALUE}\n", VALUE),
        (VALUE, VALUE),
        (f"{VALUE}\r\n", VALUE),
        (f" {VALUE} \n", f" {VALUE} "),
        ("line one\nline two\n", "line one\nline two"),
        ("-starts-with-a-dash\n", "-starts-with-a-dash"),
    ],
)
def test_a_piped_value_travels_on_standard_input(
    repo: Repo, capsys: pytest.CaptureFixture[str], piped: str, kept: str
) -> None:
    repo.pipe(piped.encode())
    run(repo)
    call = set_call(repo)
    assert call["stdin"] == f"{kept}\n"
    output = capsys.readouterr()
    for place in (str(call["argv"]), output.out, output.err, repo.everything_written()):
        assert kept not in place
    assert "--secret" in call["argv"]
    assert call["argv"][-1] == "postgresql:superuser_password"
    assert "preview.postgres" in output.out


@pytest.mark.parametrize(
    ("typed", "error"), [([VALUE, VALUE], None), ([VALUE, "other-value"], Usage), ([], NotApproved)]
)
def test_a_typed_value_is_asked_for_twice_without_echo(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, typed: list[str], error: type[OpsError] | None
) -> None:
    monkeypatch.setattr("sys.stdin", Typed())
    monkeypatch.setattr("getpass.getpass", Mock(side_effect=[*typed, EOFError]))
    with pytest.raises(error) if error else nullcontext():
        run(repo)
    assert [call["stdin"] for call in repo.calls("pulumi") if "set" in call["argv"]] == (
        [] if error else [f"{VALUE}\n"]
    )


@pytest.mark.parametrize(
    ("piped", "seen"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"  \n", "is empty"), (b"\xff\xfe", "not UTF-8"), (b"a\0b", "password")],
)
def test_what_is_no_value_sets_nothing(repo: Repo, piped: bytes, seen: str) -> None:
    repo.pipe(piped)
    with pytest.raises(Usage, match=seen):
        run(repo)
    assert not any("set" in argv for argv in repo.argvs("pulumi"))


def test_a_generated_value_is_32_letters_and_digits_and_new_each_time(repo: Repo) -> None:
    run(repo, generate=True)
    first = str(set_call(repo)["stdin"]).strip()
    assert re.fullmatch(r"[A-Za-z0-9]{32}", first)
    (repo.home / "pulumi.calls").unlink()
    run(repo, generate=True)
    assert str(set_call(repo)["stdin"]).strip() != first
    assert first not in repo.printed() + repo.everything_written()


def test_a_secret_of_another_system_is_not_generated(repo: Repo) -> None:
    with pytest.raises(Usage, match="generated"):
        run(repo, "tailscale", "TS_CLIENT_ID", generate=True)
    assert repo.calls("pulumi") == []


@pytest.mark.parametrize(
    ("service", "key", "error", "near"),
    [
        ("postgres", "superuser_pasword", NotFound, "superuser_password"),
        ("cnpg", "password", NotFound, "none exist"),
        ("postgers", "superuser_password", NotFound, "postgres"),
        ("postgres", "-f", Usage, ""),
        ("postgres", "", Usage, ""),
    ],
)
def test_unknown_names_show_the_nearest(repo: Repo, service: str, key: str, error: type[OpsError], near: str) -> None:
    with pytest.raises(error) as caught:
        run(repo, service, key)
    assert near in caught.value.expected
    assert repo.calls("pulumi") == []


@pytest.mark.parametrize("key", ["eventsub_secret", "stitch:eventsub_secret"])
def test_what_an_environment_provides_is_set_there(repo: Repo, key: str) -> None:
    """In the stack file it would win over the environment, without a word."""
    with pytest.raises(Usage, match="takes its secrets from the environment stitch/prod") as output:
        run(repo, "stitch", key)
    assert output.value.next_step == "./inv esc.set stitch/prod pulumiConfig.eventsub_secret"
    with pytest.raises(NotFound, match="no secret of stitch is called 'evensub_secret'") as near:
        run(repo, "stitch", "evensub_secret")
    assert "eventsub_secret" in near.value.expected
    assert repo.calls("pulumi") == []


def test_the_full_key_is_known_too(repo: Repo) -> None:
    repo.pipe(VALUE.encode())
    run(repo, key="postgresql:superuser_password")
    assert set_call(repo)["argv"][-1] == "postgresql:superuser_password"


def test_without_a_stack_nothing_is_asked(repo: Repo) -> None:
    repo.pipe(VALUE.encode())
    shutil.rmtree(repo.backend / ".pulumi")
    with pytest.raises(NotFound) as caught:
        run(repo)
    assert caught.value.next_step == "./inv --target home stack.init postgres"


def test_a_failure_of_pulumi_is_explained_without_the_value(repo: Repo) -> None:
    repo.pipe(VALUE.encode())
    repo.answer("pulumi", ["config", "set"], (1, "", f"error: {VALUE}: incorrect passphrase\n"))
    with pytest.raises(Usage, match="passphrase") as caught:
        run(repo)
    assert VALUE not in "\n".join(caught.value.lines())
