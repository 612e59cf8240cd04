"""A real HTTP server of this machine that answers as it is told: right, wrong, late, or not at all."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Reply = Callable[[str, Mapping[str, str]], tuple[int, str]]
"""Status and body for a path and its headers."""


def always(status: int, body: str = "") -> Reply:
    return lambda _path, _headers: (status, body)


class Served:
    """How to reach it, and what it was asked."""

    def __init__(self, address: Any) -> None:
        self.address = address
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, Any]:
        """With an address, which the handler wants to tell."""
        request, _ = super().get_request()
        return request, ("unix", 0)


@contextlib.contextmanager
def serving(reply: Reply, path: Path | None = None) -> Iterator[Served]:
    """A server with this reply, on a free port of 127.0.0.1 or on the Unix socket `path`."""
    asked: list[tuple[str, dict[str, str]]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, dict(self.headers)))
            status, body = reply(self.path, self.headers)
            with contextlib.suppress(OSError):
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://elsewhere.invalid/")
                self.end_headers()
                self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    made: Any = UnixServer(str(path), Handler) if path else http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with made:
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served = Served(made.server_address)
        served.asked = asked
        try:
            yield served
        finally:
            made.shutdown()
            thread.join()


@contextlib.contextmanager
def late() -> Iterator[Served]:
    """Takes the request and says nothing until nobody waits any more."""
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
def nobody() -> Iterator[Served]:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    yield Served(address)
