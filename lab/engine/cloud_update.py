"""One operation in the cloud: create it, start it (409 while another runs), keep its lease, send every state whole, the
events at the end, and complete it. Source: pulumi pkg/backend/httpstate.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from lab.engine.backend import RunRequest
from lab.engine.cloud_client import CloudClient, CloudError, Unreachable, stack_path
from lab.engine.display.documents import EventDocuments
from lab.engine.events import Diagnostic, Event
from lab.engine.failures import CommandFailed, OperationFailed

LEASE = 300
"""Seconds that are asked for."""
RENEWAL = 10.0
"""Seconds between two renewals: so long goes a cancelled update on. The real CLI renews after half of the lease."""
PATIENCE = 10.0
"""Seconds that a running update waits for a server that went away: it may be starting again."""

CONFLICT_HELP = (
    "To learn more about possible reasons and resolution, visit "
    "https://www.pulumi.com/docs/support/troubleshooting/common-issues/update-conflicts/"
)
WHAT_IS_LEFT = (
    "The state has what was saved until then; what was under way is pending in it. `pulumi refresh` looks what is "
    "really there"
)
STILL_ACTIVE = (
    "The state has what was saved until then; what was under way is pending in it. The cloud takes the update for "
    "running until its lease ends; `pulumi cancel` ends it at once"
)
_CONFLICT = 409
_GONE = (401, 403, 404, 409)
"""The cloud does not know the update, or its token, as running any more."""
_BROKEN = 500
_EVENTS_AT_ONCE = 500


class CloudUpdate:
    """Implements ``backend.Run``. ``lost(why)`` is called once, from any thread, when it cannot go on."""

    def __init__(self, client: CloudClient, request: RunRequest, lost: Callable[[str], None]) -> None:
        self._client = client
        self._request = request
        self._stack = stack_path(request.name.organization, request.name.project, request.name.stack)
        self._lost = lost
        self._path = ""
        self._token = ""
        self._expires = 0.0
        self._status = "failed"
        self._is_lost = False
        self._done = threading.Event()
        self._lease: threading.Thread | None = None
        self._documents = EventDocuments(request.hidden)
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Raises ``CommandFailed`` while another operation of the stack runs."""
        request = self._request
        kind = "preview" if request.is_preview else request.kind
        created = self._client.json("POST", f"{self._stack}/{kind}", content=announcement(request))
        self._path = f"{self._stack}/update/{created['updateID']}"
        body = {"tags": tags(request.name.project, request.runtime), "journalVersion": 0}
        try:
            started = self._client.json("POST", self._path, content=body)
        except CloudError as error:
            if error.status == _CONFLICT:
                raise CommandFailed(f"{error}\n{CONFLICT_HELP}\n") from error
            raise
        self._take_token(started)
        self._lease = threading.Thread(target=self._hold, name="lease", daemon=True)
        self._lease.start()

    def _inside(self, method: str, part: str, content: Any, *, patience: float = 0) -> Any:
        """All of these may be said twice."""
        return self._client.json(
            method, f"{self._path}/{part}", content=content, update_token=self._token, patience=patience
        )

    # -- the lease -----------------------------------------------------------------------------------------------

    def _take_token(self, answer: Mapping[str, Any]) -> None:
        self._token = str(answer["token"])
        self._expires = float(answer.get("tokenExpiration") or time.time() + LEASE)

    def _hold(self) -> None:
        try:
            self._keep_lease()
        finally:
            self._client.close()

    def _keep_lease(self) -> None:
        """A server that is away is asked again, until the lease has run out."""
        while not self._done.wait(min(RENEWAL, max((self._expires - time.time()) / 4, 0.1))):
            try:
                self._take_token(self._inside("POST", "renew_lease", {"token": "", "duration": LEASE}))
            except CommandFailed as error:
                is_over = time.time() > self._expires
                if is_over or (isinstance(error, CloudError) and error.status < _BROKEN):
                    self._give_up(error)
                    return

    def _give_up(self, error: CommandFailed) -> None:
        """Told once. Nothing is done any more that could not be recorded."""
        with self._lock:
            first, self._is_lost = not self._is_lost, True
        if first and not self._done.is_set():
            if isinstance(error, CloudError) and error.status in _GONE:
                why = f"the cloud has ended this update: {error}\n{WHAT_IS_LEFT}"
            else:
                why = f"this update cannot go on: {error}\n{STILL_ACTIVE}"
            self._lost(why)

    # -- what it did ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any] | None:
        """A preview holds nothing, so nothing is surer than before."""
        if self._request.is_preview:
            return None
        deployment = self._client.json("GET", f"{self._stack}/export").get("deployment")
        return deployment if isinstance(deployment, dict) else {}

    def save(self, deployment: dict[str, Any]) -> None:
        """Raises ``OperationFailed`` when it cannot be saved, which has been told by then."""
        if self._is_lost:
            raise OperationFailed
        content = {"isInvalid": False, "version": 3, "deployment": deployment}
        try:
            self._inside("PATCH", "checkpoint", content, patience=PATIENCE)
        except CommandFailed as error:
            self._give_up(error)
            raise OperationFailed from error

    def tell(self, event: Event) -> None:
        if isinstance(event, Diagnostic) and (event.severity == "debug" or event.ephemeral):
            return
        document = self._documents.document(event)
        with self._lock:
            self._events.append(document)

    def finish(self, result: str, entry: dict[str, Any]) -> None:
        del entry  # the cloud knows all of it
        self._status = result

    def end(self) -> None:
        """The events, then the result. Raises ``CommandFailed`` when the cloud does not take the result."""
        self._done.set()
        if self._lease is not None:
            self._lease.join(1)
        if self._is_lost and self._status == "failed":
            return
        # Like the real CLI, which does not fail for what only a web page shows.
        with contextlib.suppress(CommandFailed):
            for start in range(0, len(self._events), _EVENTS_AT_ONCE):
                self._inside("POST", "events/batch", {"events": self._events[start : start + _EVENTS_AT_ONCE]})
        try:
            self._inside("POST", "complete", {"status": self._status}, patience=PATIENCE)
        except CommandFailed as error:
            left = f"\n{STILL_ACTIVE}" if isinstance(error, Unreachable) else ""
            raise CommandFailed(f"failed to complete update: {error}{left}") from error


def tags(project: str, runtime: str) -> dict[str, str]:
    """Of a stack, as each operation sends them."""
    return {"pulumi:project": project, "pulumi:runtime": runtime}


def announcement(request: RunRequest) -> dict[str, Any]:
    """What an operation is going to be: program, options, settings and circumstances."""
    return {
        "name": request.name.project,
        "runtime": request.runtime,
        "main": "",
        "description": "",
        "options": {
            "localPolicyPackPaths": [],
            "color": "raw",
            "dryRun": request.is_preview,
            "parallel": 0,
            "showConfig": False,
            "showReplacementSteps": False,
            "showNames": False,
            "summary": False,
            "debug": False,
        },
        "config": {key: wire_setting(raw) for key, raw in sorted(request.config.items())},
        "metadata": {"message": request.message, "environment": dict(request.environment)},
    }


def wire_setting(raw: Any) -> dict[str, Any]:
    """A setting as the settings file has it, for the cloud: secrets as ciphertext."""
    if isinstance(raw, dict) and set(raw) == {"secure"}:
        return {"string": raw["secure"], "secret": True, "object": False}
    if isinstance(raw, dict | list):
        text = json.dumps(raw, separators=(",", ":"))
        return {"string": text, "secret": '"secure":' in text, "object": True}
    text = ("true" if raw else "false") if isinstance(raw, bool) else "" if raw is None else str(raw)
    return {"string": text, "secret": False, "object": False}


def raw_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of ``wire_setting``."""
    found: dict[str, Any] = {}
    for key, item in config.items():
        text = str(item.get("string", ""))
        if item.get("object"):
            found[key] = json.loads(text)
        else:
            found[key] = {"secure": text} if item.get("secret") else text
    return found
