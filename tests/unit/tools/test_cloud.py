"""HTTP to a cloud backend, on loopback: where the token goes and where it is found, what a failure is."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbooks.tools.cloud import Cloud, CloudError, as_object, token_for
from tests.unit.tools import test_esc_api


@pytest.fixture
def server() -> Iterator[test_esc_api.Cloud]:
    server = test_esc_api.Cloud()
    yield server
    server.stop()


def test_the_token_goes_along_and_no_proxy_of_the_environment_is_asked(
    server: test_esc_api.Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.answers["POST", "/api/x"] = (200, {"ETag": "e1"}, {"a": 1})
    headers, body = Cloud(url=server.url + "/", token="pul-token").ask("POST", "/api/x", "{}", {"Accept": "some"})
    assert (headers["ETag"], as_object(body)) == ("e1", {"a": 1})
    (asked,) = server.asked
    assert asked["body"] == "{}" and asked["headers"]["Accept"] == "some"
    assert asked["headers"]["Authorization"] == "token pul-token"


@pytest.mark.parametrize(
    ("status", "reply", "reason"),
    [(404, {"message": "Stack not found"}, "Stack not found"), (502, "<html>", ""), (500, ["x"], "")],
)
def test_a_no_has_its_status_and_reason(server: test_esc_api.Cloud, status: int, reply: Any, reason: str) -> None:
    server.answers["GET", "/api/x"] = (status, {}, reply)
    with pytest.raises(CloudError) as caught:
        Cloud(url=server.url, token="x").ask("GET", "/api/x")
    assert (caught.value.status, caught.value.reason) == (status, reason)


def test_the_token_follows_no_redirect(server: test_esc_api.Cloud) -> None:
    server.answers["GET", "/api/x"] = (302, {"Location": f"{server.url}/api/y"}, {})
    with pytest.raises(CloudError) as caught:
        Cloud(url=server.url, token="x").ask("GET", "/api/x")
    assert caught.value.status == 302
    assert [asked["path"] for asked in server.asked] == ["/api/x"]


def test_nobody_there_is_status_0() -> None:
    with pytest.raises(CloudError) as caught:
        Cloud(url="http://127.0.0.1:1", token="x").ask("GET", "/api/x")
    assert caught.value.status == 0 and caught.value.reason


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{", b"what is HTTP?\r\n\r\n"]
)
def test_an_answer_that_breaks_off_is_status_0(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(CloudError, match="broke off") as caught:
            Cloud(url=f"http://127.0.0.1:{listener.getsockname()[1]}", token="x").ask("GET", "/api/x")
        thread.join()
    assert caught.value.status == 0


@pytest.mark.parametrize("token", ["pul-0123456789\r", "pul-0123456789\nX: y", "pul-0123456789\u2026"])
def test_a_token_that_cannot_be_sent_is_not_quoted(server: test_esc_api.Cloud, token: str) -> None:
    with pytest.raises(CloudError) as caught:
        Cloud(url=server.url, token=token).ask("GET", "/api/x")
    assert caught.value.status == 0 and "0123456789" not in caught.value.reason
    assert "token" in caught.value.reason and not server.asked


def test_a_token_is_in_nobodys_repr() -> None:
    assert "pul-token" not in repr(Cloud(url="https://api.pulumi.com", token="pul-token"))


# Tokens


def test_where_the_token_is(tmp_path: Path) -> None:
    url = "https://api.pulumi.com"
    (tmp_path / "credentials.json").write_text(
        json.dumps({"accounts": {url: {"accessToken": "pul-account"}}, "accessTokens": {"https://b": "pul-b"}})
    )
    assert token_for(url, {"PULUMI_ACCESS_TOKEN": "pul-env"}, tmp_path) == "pul-env"
    assert token_for(url, {}, tmp_path) == "pul-account"
    assert token_for("https://b", {}, tmp_path) == "pul-b"
    assert token_for("https://c", {}, tmp_path) == "" == token_for(url, {}, None)


@pytest.mark.parametrize("text", ["", "[]", '{"accounts": []}', "{"])
def test_a_broken_credentials_file_holds_no_token(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials.json").write_text(text)
    assert token_for("https://api.pulumi.com", {}, tmp_path) == ""
