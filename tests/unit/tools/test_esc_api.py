"""The cloud's own door to definitions: an ETag that must still fit, against a small server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runbooks.core.errors import LoginMissing, OpsError, Refused, ToolFailed, Usage
from runbooks.tools.cloud import Cloud as BackEnd
from runbooks.tools.esc import EnvironmentName
from runbooks.tools.esc_api import EscApi

NAME = EnvironmentName(organization="acme", project="stitch", name="prod")
PATH = "/api/esc/environments/acme/stitch/prod"
BAD = {"severity": "error", "summary": "unknown property", "range": {"begin": {"line": 3, "column": 5}}}


class Cloud:
    """Answers from a table by method and path, and keeps what was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, dict[str, str], Any]] = {}
        self.asked: list[dict[str, Any]] = []
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                cloud.asked.append({"method": self.command, "path": self.path, "headers": self.headers, "body": body})
                status, headers, reply = cloud.answers.get((self.command, self.path), (404, {}, {"message": "no"}))
                data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PATCH = do_POST = answer  # noqa: N815 - the names http.server calls

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server = Cloud()
    yield server
    server.stop()


def api(cloud: Cloud) -> EscApi:
    return EscApi(cloud=BackEnd(url=cloud.url, token="pul-token"))


def test_the_etag_of_what_was_read_goes_with_what_is_written(cloud: Cloud) -> None:
    cloud.answers["GET", PATH] = (200, {"ETag": "e1", "Pulumi-ESC-Revision": "3"}, "values: {}\n")
    cloud.answers["PATCH", PATH] = (200, {"Pulumi-ESC-Revision": "4"}, {})
    live = api(cloud).fetch(NAME)
    assert (live.text, live.etag) == ("values: {}\n", "e1")
    assert api(cloud).push(NAME, "values: {a: 1}\n", live.etag) == 4
    written = cloud.asked[-1]
    assert written["headers"]["ETag"] == "e1" and written["body"] == "values: {a: 1}\n"
    assert written["headers"]["Authorization"] == "token pul-token"


@pytest.mark.parametrize(
    ("status", "reply", "error", "says"),
    [
        (409, {"code": 409, "message": "hash mismatch"}, Refused, "somebody else"),
        (401, {"code": 401, "message": "Unauthorized"}, LoginMissing, "token"),
        (400, {"code": 400, "diagnostics": [BAD]}, Usage, "3:5: unknown property"),
        (200, {"diagnostics": [BAD]}, Usage, "3:5: unknown property"),
        (500, {"message": "oops"}, ToolFailed, "500"),
        (502, "<html>bad gateway</html>", ToolFailed, "502"),
        (302, {}, ToolFailed, "302"),
    ],
)
def test_what_answers_mean(cloud: Cloud, status: int, reply: Any, error: type[OpsError], says: str) -> None:
    cloud.answers["PATCH", PATH] = (status, {"Location": "http://127.0.0.1:1/"} if status == 302 else {}, reply)
    with pytest.raises(error, match=says):
        api(cloud).push(NAME, "values: {}", "e1")


def test_a_check_changes_nothing_and_names_what_is_wrong(cloud: Cloud) -> None:
    route = ("POST", "/api/esc/environments/acme/yaml/check")
    cloud.answers[route] = (200, {}, {"properties": {}})
    api(cloud).check(NAME, "values: {}")
    cloud.answers[route] = (400, {}, {"code": 400, "diagnostics": [BAD | {"detail": "did you mean x?"}]})
    with pytest.raises(Usage, match="did you mean"):
        api(cloud).check(NAME, "values: {}")
    assert {asked["method"] for asked in cloud.asked} == {"POST"}


def test_nobody_there(cloud: Cloud) -> None:
    with pytest.raises(ToolFailed, match="does not answer"):
        EscApi(cloud=BackEnd(url="http://127.0.0.1:1", token="x")).fetch(NAME)
