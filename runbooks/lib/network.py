"""The ways out of this machine that checks use, each with a time limit."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from urllib.parse import urlsplit

from runbooks.lib.command import Command
from runbooks.lib.exposure import Answer, Network
from runbooks.lib.kubectl import Json, Runs

PATIENCE = 5.0
"""Seconds for one resolution, connection or answer."""
BODY_LIMIT = 262_144
"""Bytes of an HTTP body that are looked at."""


def this_machine(runner: Runs) -> Network:
    """The real network, as this machine sees it."""
    return Network(status=lambda: tailscale_status(runner), resolve=resolve, connect=connect, fetch=fetch)


def tailscale_status(runner: Runs) -> Json | None:
    """`tailscale status --json`; `None` when there is no such command. Raises `OSError` for an answer without sense."""
    program = shutil.which("tailscale")
    if program is None:
        return None
    outcome = runner.run(
        Command(argv=(program, "status", "--json"), title="ask tailscale for its peers", timeout=PATIENCE * 2)
    )
    try:
        answer = json.loads(outcome.stdout)
    except ValueError:
        raise OSError(f"tailscale status ended with {outcome.exit_code} and no JSON") from None
    return answer if isinstance(answer, dict) else {}


def resolve(name: str) -> list[str]:
    """The addresses of a name. The resolver has no time limit of its own, so it is left behind after `PATIENCE`."""
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


def fetch(url: str) -> Answer:
    """GET, no redirects followed: the first answer counts."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request("GET", parts.path or "/", headers={"User-Agent": "homelab-ops verify"})
        answer = connection.getresponse()
        return Answer(status=answer.status, body=answer.read(BODY_LIMIT).decode("utf-8", "replace"))
    except http.client.HTTPException as error:
        raise OSError(f"what answers there speaks no HTTP ({type(error).__name__})") from error
    finally:
        connection.close()
