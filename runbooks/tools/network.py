"""Connections from this machine to what a run deployed, each with a time limit. Each raises `OSError` if it fails."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from runbooks.core.command import Command
from runbooks.core.search_path import find_program
from runbooks.tools.kubectl import Json, Runs

PATIENCE = 5.0
"""Seconds for one resolution, connection or answer."""
BODY_LIMIT = 262_144
"""The most bytes of an HTTP body that are read."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of an HTTP server."""

    status: int
    body: str


def tailscale_status(runner: Runs) -> Json | None:
    """`tailscale status --json`; `None` without tailscale. Raises `OSError` for an invalid answer."""
    program = find_program("tailscale")
    if program is None:
        return None
    outcome = runner.run(
        Command(argv=(str(program), "status", "--json"), title="ask tailscale for its peers", timeout=PATIENCE * 2)
    )
    try:
        answer = json.loads(outcome.stdout)
    except ValueError:
        raise OSError(f"tailscale status exited with {outcome.exit_code} and without JSON") from None
    return answer if isinstance(answer, dict) else {}


def resolve(name: str) -> list[str]:
    """Look up the addresses of a name. The resolver has no time limit, so its thread is abandoned after `PATIENCE`."""
    found: list[str] = []
    trouble: list[OSError] = []

    def ask() -> None:
        try:
            found.extend(dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(name, None)))
        except OSError as error:
            trouble.append(error)

    thread = threading.Thread(target=ask, name=f"resolve {name}", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if trouble:
        raise trouble[0]
    if thread.is_alive():
        raise TimeoutError(f"no answer from the resolver in {PATIENCE:.0f} s")
    return found


def connect(host: str, port: int) -> None:
    """Open a TCP connection and close it again."""
    with socket.create_connection((host, port), timeout=PATIENCE):
        return


def fetch(url: str, headers: Mapping[str, str] | None = None) -> Answer:
    """GET the URL without following redirects: the first answer counts."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    return _first_answer(connection, parts.path + (f"?{parts.query}" if parts.query else ""), headers or {})


def fetch_on_socket(socket_path: Path, path: str, headers: Mapping[str, str] | None = None) -> Answer:
    """GET `path` from the HTTP server behind a Unix socket."""
    return _first_answer(_SocketConnection(socket_path), path, headers or {})


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which only the owner of its folder can reach."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


def _first_answer(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]) -> Answer:
    """Read the answer. Raises `OSError`, and `TimeoutError` also for a body that arrives too slowly."""
    try:
        connection.request("GET", path or "/", headers={"User-Agent": "homelab-ops verify", **headers})
        answer = connection.getresponse()
        return Answer(status=answer.status, body=_body(answer))
    except http.client.HTTPException as error:
        raise OSError(f"the answer is not HTTP ({type(error).__name__})") from error
    finally:
        connection.close()


def _body(answer: http.client.HTTPResponse) -> str:
    parts, left, deadline = [], BODY_LIMIT, time.monotonic() + PATIENCE
    # `read` would wait for a server that sends a byte a second.
    while left > 0 and (part := answer.read1(left)):
        parts.append(part)
        left -= len(part)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the body was not complete after {PATIENCE:.0f} s")
    return b"".join(parts).decode("utf-8", "replace")
