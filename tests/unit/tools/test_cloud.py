"""Reads from a Pulumi Cloud: what the lab's cloud answers, no usable answer, and the token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cloud import server
from runbooks.tools import cloud, pulumi
from runbooks.tools.cloud import Cloud, NoAnswer, token_for
from runbooks.tools.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY, secrets_in_export, unwrap_secrets
from tests.local_server import Served, answering, babbling
from tests.unit.cloud.conftest import Caller
from tests.unit.cloud.operation import STACK, create_stack, deployment, seal, secret

REFERENCE = STACK.removeprefix("/api/stacks/")
EXPORT = f"{STACK}/export"


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    started = server.serve_in_thread(tmp_path / "cloud")
    caller = Caller(started.url, started.token)
    create_stack(caller)
    yield caller
    started.stop()


@pytest.fixture
def api(caller: Caller) -> Cloud:
    return Cloud(url=caller.url, token=caller.token)


@pytest.fixture
def stub() -> Iterator[Served]:
    with answering() as stub:
        yield stub


def import_state(caller: Caller, outputs: dict[str, Any], **key: str) -> None:
    document = deployment(outputs)
    of_stack = {"url": caller.url, **dict(zip(("owner", "project", "stack"), REFERENCE.split("/"), strict=True))}
    document["deployment"]["secrets_providers"]["state"] = of_stack | key
    caller.post(f"{STACK}/import", document)


# With the lab's cloud


def test_every_secret_of_a_state_is_in_plaintext_as_pulumi_prints_it(caller: Caller, api: Cloud) -> None:
    password, port = secret(seal(caller, '"hunter2"')), secret(seal(caller, "5432"))
    import_state(caller, {"host": "db", "password": password, "ports": [port]})
    text = api.export(REFERENCE)
    assert unwrap_secrets(pulumi.read_export(text).outputs) == {"host": "db", "password": "hunter2", "ports": [5432]}
    assert sorted(secrets_in_export(text)) == ["5432", "hunter2"] and "ciphertext" not in text
    (resource,) = json.loads(text)["deployment"]["resources"]
    assert resource["outputs"]["password"] == {SIGNATURE_KEY: SECRET_SIGNATURE, "plaintext": '"hunter2"'}
    sealed = api.export(REFERENCE, show_secrets=False)
    assert "hunter2" not in sealed and "ciphertext" in sealed


def test_the_same_state_is_the_same_text(caller: Caller, api: Cloud) -> None:
    texts = set()
    for _ in range(2):
        import_state(caller, {"password": secret(seal(caller, '"hunter2"'))})
        texts |= {api.export(REFERENCE), api.export(REFERENCE)}
    assert len(texts) == 1


@pytest.mark.parametrize("key", [{"stack": "other"}, {"owner": "other"}, {"url": "https://api.pulumi.com"}])
def test_secrets_of_another_key_are_not_answered(caller: Caller, api: Cloud, key: dict[str, str]) -> None:
    import_state(caller, {"password": secret(seal(caller, '"hunter2"'))}, **key)
    with pytest.raises(NoAnswer):
        api.export(REFERENCE)
    assert "ciphertext" in api.export(REFERENCE, show_secrets=False), "a count of resources needs no key"
    caller.post(f"{STACK}/import", deployment({"password": secret("v1:abc:def")}, manager="passphrase"))
    with pytest.raises(NoAnswer):
        api.export(REFERENCE)
    caller.post(f"{STACK}/import", deployment({"host": "db"}, manager="passphrase"))
    assert pulumi.read_export(api.export(REFERENCE)).outputs == {"host": "db"}, "without secrets it needs no key"


def test_config_is_decrypted_in_batches(caller: Caller, api: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "BATCH", 2)
    wanted = {seal(caller, text): text for text in ("one", "one", "two", "dös")}
    assert len(wanted) == 4, "the same text is sealed in another way each time"
    assert api.decrypt(REFERENCE, [*wanted, *wanted]) == wanted
    assert api.decrypt(REFERENCE, []) == {}


def test_a_ciphertext_of_another_stack_and_a_missing_stack_are_not_answered(caller: Caller, api: Cloud) -> None:
    caller.post("/api/stacks/organization/postgresql", {"stackName": "other"})
    with pytest.raises(NoAnswer):
        api.decrypt(REFERENCE, [seal(caller, "x", "/api/stacks/organization/postgresql/other")])
    for reference in ("organization/postgresql/none", "organization/../user"):
        with pytest.raises(NoAnswer):
            api.export(reference)


# Without a usable answer


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (404, {"message": "Stack not found"}),
        (502, "<html>"),
        (200, "<html>log in first</html>"),
        (200, ["x"]),
        (200, {}),
        (302, {"deployment": {}}),
    ],
)
def test_anything_but_a_state_is_no_answer(stub: Served, status: int, reply: Any) -> None:
    """A redirect is not followed: it would send the token along."""
    stub.answers[EXPORT] = (status, reply)
    with pytest.raises(NoAnswer):
        Cloud(url=stub.url, token="x").export(REFERENCE)
    assert [path for path, _ in stub.asked] == [EXPORT]


def test_a_ciphertext_without_plaintext_is_no_answer(stub: Served) -> None:
    stub.answers[f"{STACK}/batch-decrypt"] = (200, {"plaintexts": {}})
    with pytest.raises(NoAnswer):
        Cloud(url=stub.url, token="x").decrypt(REFERENCE, ["AAAB"])


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{", b"what is HTTP?\r\n\r\n"]
)
def test_an_answer_that_breaks_off_is_no_answer(answer: bytes) -> None:
    with babbling(answer) as served, pytest.raises(NoAnswer):
        Cloud(url=served.url, token="x").export(REFERENCE)


# The token


def test_the_token_is_sent_to_the_backend_and_through_no_proxy(stub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    stub.answers[EXPORT] = (200, {"deployment": {}})
    backend = Cloud(url=stub.url + "/", token="pul-token")
    backend.export(REFERENCE)
    ((_, headers),) = stub.asked
    assert headers["Authorization"] == "token pul-token"
    assert "pul-token" not in repr(backend)


@pytest.mark.parametrize("token", ["pul-0123456789\r", "pul-0123456789\nX: y", "pul-0123456789\u2026"])
def test_a_token_that_cannot_be_sent_is_not_quoted(stub: Served, token: str) -> None:
    with pytest.raises(NoAnswer) as caught:
        Cloud(url=stub.url, token=token).export(REFERENCE)
    assert "0123456789" not in str(caught.value) and not stub.asked


def test_where_the_token_is(tmp_path: Path) -> None:
    url = "https://api.pulumi.com"
    assert token_for(url, {}, tmp_path) == ""
    (tmp_path / "credentials.json").write_text(
        json.dumps({"accounts": {url: {"accessToken": "pul-account"}}, "accessTokens": {"https://b": "pul-b"}})
    )
    assert token_for(url, {"PULUMI_ACCESS_TOKEN": "pul-env"}, tmp_path) == "pul-env"
    assert token_for(url, {}, tmp_path) == "pul-account"
    assert token_for("https://b", {}, tmp_path) == "pul-b"
    assert token_for("https://c", {}, tmp_path) == ""


@pytest.mark.parametrize("text", ["", "[]", '{"accounts": []}', "{"])
def test_a_broken_credentials_file_holds_no_token(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials.json").write_text(text)
    assert token_for("https://api.pulumi.com", {}, tmp_path) == ""
