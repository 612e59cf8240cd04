"""A real HTTP server on loopback that gives right, wrong and late answers, or none."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Reply = Callable[[str, Mapping[str, str]], tuple[int, str]]
"""Status and body for a path and its headers."""


def always(status: int, body: str = "") -> Reply:
    return lambda _path, _headers: (status, body)


class Served:
    """How to reach it, and what it was asked."""

    def __init__(self, address: Any) -> None:
        self.address = address
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        """Path and headers of each request."""
        self.answers: dict[str, tuple[int, Any]] = {}
        """For `answering`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"


@contextlib.contextmanager
def serving(reply: Reply) -> Iterator[Served]:
    """A server with this reply, on a free port of 127.0.0.1. A redirect leads to another path of it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            served.asked.append((self.path, self.headers))
            status, body = reply(self.path, self.headers)
            with contextlib.suppress(OSError):
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"{served.url}/redirected")
                self.end_headers()
                self.wfile.write(body.encode())

        do_GET = do_POST = answer  # noqa: N815 - the names http.server calls

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        served = Served(server.server_address)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def answering() -> Iterator[Served]:
    """A server that answers a path from `answers`: status, and a text or an object that is sent as JSON; else 404."""

    def reply(path: str, _headers: Mapping[str, str]) -> tuple[int, str]:
        status, body = served.answers.get(path, (404, {"message": "no"}))
        return status, body if isinstance(body, str) else json.dumps(body)

    with serving(reply) as served:
        yield served


@contextlib.contextmanager
def late() -> Iterator[Served]:
    """Takes the request and does not answer before the end of the test."""
    over = threading.Event()

    def wait(_path: str, _headers: Mapping[str, str]) -> tuple[int, str]:
        over.wait(30)
        return 200, ""

    with serving(wait) as served:
        try:
            yield served
        finally:
            over.set()


@contextlib.contextmanager
def babbling(answer: bytes) -> Iterator[Served]:
    """Answers one request with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Served(listener.getsockname())
        thread.join()


@contextlib.contextmanager
def nobody() -> Iterator[Served]:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    yield Served(address)
