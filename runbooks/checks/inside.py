"""HTTP to a Service inside the cluster, through the API server, so independent of every way in from outside.

`kubectl proxy` listens on a Unix socket in a folder of its own (0700) for as long as one request takes, and lets
through nothing but GETs below that one Service. `kubectl get --raw` would be shorter and will not do: it follows an
app's redirect to wherever it leads, with the kubeconfig's credentials; it takes no headers, so a password would be in
its arguments; and it hides the status and body of an answer above 400.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbooks.checks import cluster
from runbooks.core.findings import Check, Finding, failed, passed
from runbooks.core.runner import Runner
from runbooks.tools import network
from runbooks.tools.kubectl import Json, Kubectl, text_at
from runbooks.tools.network import Answer

ANSWERS = "its health path answers inside the cluster"
SELECTS = "it answers a query of the user that apps log in as"
CONNECTED = "the connectors hold connections to Cloudflare"
NEEDS_CONTAINERS = frozenset({ANSWERS, SELECTS, CONNECTED})
"""The checks that only a container that really runs can pass."""

SERVING = "Starting to serve on "
"""What kubectl prints once its socket is open."""

SLOW = "the app does not answer in time: look at the Pod's log, and whether it waits for its database"
FORBIDDEN = "the kubeconfig's user lacks the right to reach Services through the API server (services/proxy)"
NO_SERVICE = "the Service does not exist: its deployment did not finish, or it was deleted by hand"
UNREACHABLE = "the API server cannot reach the Pod: it does not listen, or a network policy forbids it"
BROKEN = "the app answers with an error: look at the Pod's log"
OTHER = "another app answers there, or another version of the app"


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
    """The path to request, and a text that only the right answer contains."""

    path: str
    marker: str = ""


Get = Callable[[str], Answer]
"""Answers a path. Raises `OSError`."""


def get_inside(runner: Runner, kubectl: Kubectl, where: Inside, headers: Mapping[str, str] | None = None) -> Get:
    """GET requests to that Service; each request opens and closes its own proxy."""

    def get(path: str) -> Answer:
        received: list[Answer | OSError] = []
        with tempfile.TemporaryDirectory(prefix="ops-") as folder:
            socket_path = Path(folder) / "api"

            def on_line(line: str) -> None:
                if line.startswith(SERVING) and not received:
                    try:
                        received.append(network.fetch_on_socket(socket_path, where.root + path, headers))
                    except OSError as error:
                        received.append(error)
                    finally:
                        runner.interrupt()

            outcome = runner.run(kubectl.proxy(socket_path, where.root), on_line=on_line)
        if not received:
            lines = outcome.shown_stderr.strip().splitlines() or [f"exit {outcome.exit_code}"]
            raise OSError(f"kubectl proxy: {lines[-1]}")
        if isinstance(received[0], OSError):
            raise received[0]
        return received[0]

    return get


def fetch(check: str, where: Inside, path: str, get: Get, *, next_step: str) -> Answer | Finding:
    """The Service's own answer, whatever its status; a failed finding when the Service did not answer."""
    evidence = f"{where}{path.partition('?')[0]}"
    try:
        answer = get(path)
    except TimeoutError as error:
        return failed(check, f"{evidence}: {error}", cause=SLOW, next_step=next_step)
    except OSError as error:
        return failed(check, f"{evidence}: {error}", cause=UNREACHABLE, next_step=next_step)
    refusal = refusal_of(answer)
    if refusal is None:
        return answer
    message = text_at(refusal, "message")
    cause = {403: FORBIDDEN, 404: NO_SERVICE}.get(
        answer.status, cluster.NO_ENDPOINTS if "no endpoints" in message else UNREACHABLE
    )
    return failed(check, f"{evidence}: the API server answers: {message}", cause=cause, next_step=next_step)


def refusal_of(answer: Answer) -> Json | None:
    """The message of the API server's `Status`, when the API server answered instead of the Service."""
    if answer.status < 400:
        return None
    try:
        found: Any = json.loads(answer.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("kind") == "Status" and "apiVersion" in found else None


def answers(check: str, where: Inside, page: Page, get: Get, *, next_step: str) -> Finding:
    """The Service answers the page with a 2xx, and the answer holds the page's marker."""
    answer = fetch(check, where, page.path, get, next_step=next_step)
    if isinstance(answer, Finding):
        return answer
    return judge_answer(check, f"{where}{page.path.partition('?')[0]}", answer, page.marker, next_step=next_step)


def judge_answer(check: str, url: str, answer: Answer, marker: str, *, next_step: str) -> Finding:
    evidence = f"{url}: status {answer.status}"
    if not 200 <= answer.status < 300:
        cause = BROKEN if answer.status >= 500 else OTHER
        return failed(check, evidence, cause=cause, next_step=next_step)
    if marker not in answer.body:
        return failed(check, f"{evidence}, without {marker!r}", cause=OTHER, next_step=next_step)
    return passed(check, evidence + (f", {marker!r}" if marker else ""))


def simulated(check: str, where: Inside) -> Check:
    """A check that the lab cannot try: its Pods have no containers."""
    return cluster.untried(check, f"simulated pod ({where})")
