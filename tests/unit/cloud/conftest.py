"""A cloud of one test, with a caller that speaks to it over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lab.cloud import server
from lab.cloud.server import Cloud


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass
class Caller:
    """The account of one cloud."""

    url: str
    token: str

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """`body` as JSON unless it is bytes; header names with `_` for `-`."""
        data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
        given = {"Authorization": f"token {self.token}"} | {name.replace("_", "-"): v for name, v in headers.items()}
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request(method, path, data, given)
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The content of a GET that must succeed."""
        reply = self.send("GET", path)
        assert reply.status == 200, reply.body
        return reply.content

    def post(self, path: str, body: Any = None) -> Any:
        """The content of a POST that must succeed."""
        reply = self.send("POST", path, {} if body is None else body)
        assert reply.status in (200, 204), reply.body
        return reply.content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cloud"


@pytest.fixture
def cloud(folder: Path) -> Iterator[Cloud]:
    running = server.serve_in_thread(folder)
    yield running
    running.stop()


@pytest.fixture
def caller(cloud: Cloud) -> Caller:
    return Caller(cloud.url, cloud.token)
