"""HTTP to a Service inside the cluster, through the API server: for whom no name on the tailnet leads there.

`kubectl proxy` listens on a Unix socket in a folder of its own (0700) for as long as one request takes, and lets
through nothing but GETs below that one Service. Headers may hold secrets: they are in nobody's arguments.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runbooks.core.command import Command, Outcome
from runbooks.core.findings import Finding, failed, passed
from runbooks.tools import network
from runbooks.tools.kubectl import Json, Kubectl, text_at
from runbooks.tools.network import Answer

ANSWERS = "its health path answers inside the cluster"
SELECTS = "it answers a query of the user that apps log in as"
CONNECTED = "the connectors hold connections to Cloudflare"
NEEDS_CONTAINERS = frozenset({ANSWERS, SELECTS, CONNECTED})
"""The checks that only a container that really runs can pass."""

SERVING = "Starting to serve on "

SLOW = "it is there, and does not answer in time: look at the Pod's log, and whether it waits for its database"
FORBIDDEN = "the kubeconfig's user lacks the right to reach Services through the API server (services/proxy)"
NOBODY = "no Pod behind the Service is ready: look at the Pods' events"
UNREACHABLE = "the API server cannot reach the Pod: it does not listen, or a network policy forbids it"
BROKEN = "the app is there, and answers with an error: look at the Pod's log"
OTHER = "something else answers there, or another version of the app"


class Runs(Protocol):
    """What this module needs of `runner.Runner`."""

    def run(self, command: Command, *, on_line: Callable[[str], None] | None = None) -> Outcome: ...

    def interrupt(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Inside:
    """A Service's port, as the API server's proxy knows it."""

    namespace: str
    service: str
    port: int

    @property
    def root(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/services/{self.service}:{self.port}/proxy"

    def __str__(self) -> str:
        return f"{self.service}.{self.namespace}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Page:
    """What to ask for, and what only the right answer holds."""

    path: str
    marker: str = ""


Get = Callable[[str], Answer]
"""Answers a path. Raises `OSError`."""


def get_inside(runner: Runs, kubectl: Kubectl, where: Inside, headers: Mapping[str, str] | None = None) -> Get:
    """GETs on that Service; each opens and closes a way of its own."""

    def get(path: str) -> Answer:
        with tempfile.TemporaryDirectory(prefix="ops-") as folder:
            return _fetch(runner, kubectl, Path(folder) / "api", where, path, headers or {})

    return get


def _fetch(
    runner: Runs, kubectl: Kubectl, socket_path: Path, where: Inside, path: str, headers: Mapping[str, str]
) -> Answer:
    came: list[Answer | OSError] = []

    def serve(line: str) -> None:
        if line.startswith(SERVING) and not came:
            try:
                came.append(network.fetch_on_socket(socket_path, where.root + path, headers))
            except OSError as error:
                came.append(error)
            finally:
                runner.interrupt()

    ended = runner.run(kubectl.proxy(socket_path, where.root), on_line=serve)
    if not came:
        said = ended.shown_stderr.strip().splitlines() or [f"exit {ended.exit_code}"]
        raise OSError(f"kubectl proxy: {said[-1]}")
    if isinstance(came[0], OSError):
        raise came[0]
    return came[0]


def answers(check: str, where: Inside, page: Page, get: Get, *, next_step: str) -> Finding:
    """The answer is a 2xx, and holds the page's marker."""
    told = f"{where}{page.path.partition('?')[0]}"
    try:
        answer = get(page.path)
    except TimeoutError as error:
        return failed(check, f"{told}: {error}", cause=SLOW, next_step=next_step)
    except OSError as error:
        return failed(check, f"{told}: {error}", cause=UNREACHABLE, next_step=next_step)
    refusal = refusal_of(answer)
    if refusal is not None:
        said = f"{told}: the API server says: {text_at(refusal, 'message')}"
        return failed(check, said, cause=_cause_of(answer.status, refusal), next_step=next_step)
    if answer.status >= 500:
        return failed(check, f"{told}: status {answer.status}", cause=BROKEN, next_step=next_step)
    if not 200 <= answer.status < 300:
        return failed(check, f"{told}: status {answer.status}", cause=OTHER, next_step=next_step)
    if page.marker not in answer.body:
        said = f"{told}: status {answer.status}, without {page.marker!r}"
        return failed(check, said, cause=OTHER, next_step=next_step)
    return passed(check, f"{told}: status {answer.status}" + (f", {page.marker!r}" if page.marker else ""))


def refusal_of(answer: Answer) -> Json | None:
    """The API server's own word, when the answer is not the Service's at all."""
    if answer.status < 400:
        return None
    try:
        found: Any = json.loads(answer.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("kind") == "Status" and "apiVersion" in found else None


def _cause_of(status: int, refusal: Json) -> str:
    if status == 403:
        return FORBIDDEN
    if status == 404:
        return "there is no such Service: it was not deployed to its end, or was deleted by hand"
    return NOBODY if "no endpoints" in text_at(refusal, "message") else UNREACHABLE
