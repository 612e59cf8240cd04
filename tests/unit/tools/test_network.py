"""The ways out of this machine, on loopback: names, connections, HTTP, the tailnet's status."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from runbooks.tools import network
from tests.fixtures import ScriptedRunner, executable
from tests.local_server import babbling, nobody, serving


def test_http_follows_no_redirect() -> None:
    with serving(lambda path, _: (302 if path == "/away" else 200, "Immich")) as served:
        network.connect("127.0.0.1", served.address[1])
        assert network.fetch(served.url) == network.Answer(status=200, body="Immich")
        assert network.fetch(f"{served.url}/away").status == 302
    with nobody() as gone, pytest.raises(ConnectionRefusedError):
        network.connect("127.0.0.1", gone.address[1])


def test_what_answers_without_http_is_an_error_with_sense() -> None:
    with babbling(b"SSH-2.0-x\r\n") as served, pytest.raises(OSError, match="not HTTP"):
        network.fetch(served.url)


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

    executable(tmp_path / "tailscale")
    running = {"BackendState": "Running"}
    assert network.tailscale_status(ScriptedRunner((("status", "--json"), json.dumps(running)))) == running
    with pytest.raises(OSError, match="without JSON"):
        network.tailscale_status(ScriptedRunner((("status",), (1, "", "failed to connect to local tailscaled"))))
