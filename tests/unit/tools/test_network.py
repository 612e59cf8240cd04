"""The ways out of this machine, on loopback: names, connections, HTTP, the tailnet's status."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks.tools import network
from tests.fixtures import ScriptedRunner


class Handler(http.server.BaseHTTPRequestHandler):
    """ScriptedRunner 200 with a page, 302 below /away."""

    def do_GET(self) -> None:
        self.send_response(302 if self.path.startswith("/away") else 200)
        self.send_header("Location", "http://elsewhere.invalid/")
        self.end_headers()
        self.wfile.write("<title>Immich</title> \xff".encode("latin-1"))

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made.server_address[1]
        made.shutdown()
        thread.join()


def test_http(server: int) -> None:
    answer = network.fetch(f"http://127.0.0.1:{server}/")
    assert answer.status == 200
    assert "Immich" in answer.body
    assert network.fetch(f"http://127.0.0.1:{server}/away").status == 302


def test_what_answers_without_http_is_an_error_with_sense() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def babble() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"SSH-2.0-x\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(OSError, match="not HTTP"):
            network.fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join()


def test_connections(server: int) -> None:
    network.connect("127.0.0.1", server)
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        network.connect("127.0.0.1", port)


def test_names() -> None:
    assert "127.0.0.1" in network.resolve("localhost")
    with pytest.raises(OSError, match=r"\S"):
        network.resolve("no.such.host.invalid")


def test_a_resolver_that_never_answers_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()

    def getaddrinfo(*_: object) -> list[object]:
        silent.wait(30)
        return []

    monkeypatch.setattr(network, "PATIENCE", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(TimeoutError):
        network.resolve("slow.example")
    silent.set()


def test_the_tailnets_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert network.tailscale_status(ScriptedRunner()) is None

    program = tmp_path / "tailscale"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    running = {"BackendState": "Running"}
    assert network.tailscale_status(ScriptedRunner((("status", "--json"), json.dumps(running)))) == running
    with pytest.raises(OSError, match="without JSON"):
        network.tailscale_status(ScriptedRunner((("status",), (1, "", "failed to connect to local tailscaled"))))
