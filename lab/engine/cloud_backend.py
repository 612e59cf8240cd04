"""The http back end: stacks and operations in the lab's cloud.

One operation: create it, start it (409 while another runs), renew its lease meanwhile, send every state whole, the
events at the end, and complete it. Source: pulumi pkg/backend/httpstate.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lab.engine.backend import Run, RunRequest, StackName, StackSummary
from lab.engine.cloud_client import CloudClient, CloudError, find_token, is_new_login, remember_login, segment
from lab.engine.cloud_secrets import ServiceManager
from lab.engine.display.documents import EventDocuments
from lab.engine.events import Diagnostic, Event
from lab.engine.failures import CommandFailed, StackNotFound

LEASE = 300
RENEWAL = 60.0
"""Seconds: what is asked for, and how often."""

CONFLICT_HELP = (
    "To learn more about possible reasons and resolution, visit "
    "https://www.pulumi.com/docs/support/troubleshooting/common-issues/update-conflicts/"
)
_NOT_FOUND = 404
_CONFLICT = 409
_PAGE = 10
_EVENTS_AT_ONCE = 500


class CloudBackend:
    """Implements ``backend.Backend``. The token is looked for when it is first needed."""

    title_end = ""

    def __init__(self, url: str, organization: str, environment: Mapping[str, str]) -> None:
        self.url = url
        self.organization = organization
        self.lost_locks: list[str] = []
        self._environment = environment
        self._client: CloudClient | None = None
        self._managers: dict[StackName, ServiceManager] = {}

    @property
    def client(self) -> CloudClient:
        """Raises ``LoginMissing`` without a token."""
        if self._client is None:
            self._client = CloudClient(self.url, find_token(self.url, self._environment))
            if is_new_login(self.url, self._environment):
                self._log_in(self._client)
        return self._client

    def _log_in(self, client: CloudClient) -> None:
        print("Logging in using access token from PULUMI_ACCESS_TOKEN", file=sys.stderr)
        remember_login(self.url, self._environment, client.json("GET", "/api/user"))

    # -- names and stacks ----------------------------------------------------------------------------------------

    def read_name(self, text: str, project: str) -> StackName:
        """``stack``, ``organization/stack`` or ``organization/project/stack``."""
        parts = text.split("/")
        if not all(parts) or len(parts) > 3 or any(part in (".", "..") for part in parts):
            raise CommandFailed(
                f"stack names are <stack>, <organization>/<stack> or <organization>/<project>/<stack>, not '{text}'"
            )
        organization = parts[0] if len(parts) > 1 else self.organization
        return StackName(parts[1] if len(parts) == 3 else project, parts[-1], organization)

    def whoami(self) -> dict[str, Any]:
        user = self.client.json("GET", "/api/user")
        organizations = [one["githubLogin"] for one in user.get("organizations") or ()]
        return {"user": user["githubLogin"], "organizations": organizations, "url": ""}

    def has_stack(self, name: StackName) -> bool:
        return self._find(name) is not None

    def _find(self, name: StackName) -> dict[str, Any] | None:
        try:
            found = self.client.json("GET", _path(name))
        except CloudError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return dict(found)

    def _get(self, name: StackName) -> dict[str, Any]:
        found = self._find(name)
        if found is None:
            raise StackNotFound(name.stack)
        return found

    def stacks(self, project: str | None = None) -> list[StackSummary]:
        query = {"project": project} if project else {}
        found = []
        while True:
            answer = self.client.json("GET", "/api/user/stacks", query=query)
            found += [_summary(item) for item in answer.get("stacks") or ()]
            if not answer.get("continuationToken"):
                return sorted(found, key=lambda one: (one.name.project, one.name.stack))
            query["continuationToken"] = answer["continuationToken"]

    def create_stack(self, name: StackName, runtime: str) -> None:
        body = {"stackName": name.stack, "tags": _tags(name, runtime)}
        try:
            self.client.call("POST", f"/api/stacks/{segment(name.organization)}/{segment(name.project)}", content=body)
        except CloudError as error:
            if error.status == _CONFLICT:
                raise CommandFailed(f"stack '{name.qualified}' already exists") from error
            raise

    def read_latest(self, name: StackName) -> dict[str, Any]:
        try:
            deployment = self.client.json("GET", f"{_path(name)}/export").get("deployment")
        except CloudError as error:
            if error.status == _NOT_FOUND:
                raise StackNotFound(name.stack) from error
            raise
        return deployment if isinstance(deployment, dict) else {}

    def last_update(self, name: StackName) -> float | None:
        return next((one.last_update for one in self.stacks(name.project) if one.name == name), None)

    def remove_stack(self, name: StackName) -> None:
        """What ``stack rm`` refuses it has refused before."""
        self.client.call("DELETE", _path(name), query={"force": "true"})

    def history(self, name: StackName) -> list[dict[str, Any]]:
        """Newest first, in the file back end's form with the cloud's own ``version``."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"pageSize": str(_PAGE), "page": str(len(found) // _PAGE + 1)}
            updates = self.client.json("GET", f"{_path(name)}/updates", query=query).get("updates") or []
            found += [{**update, "config": _raw_settings(update.get("config") or {})} for update in updates]
            if len(updates) < _PAGE:
                return found

    def cancel(self, name: StackName) -> None:
        """Ends the update that runs: its lease and its states are refused from now on."""
        active = self._get(name).get("activeUpdate")
        if not active:
            raise CommandFailed(f"stack {name.stack} has never been updated")
        self.client.call("POST", f"{_path(name)}/update/{segment(str(active))}/cancel")

    def secrets(self, name: StackName) -> ServiceManager:
        """One for a stack, so that nothing is decrypted twice."""
        if name not in self._managers:
            self._managers[name] = ServiceManager(
                self.client, organization=name.organization, project=name.project, stack=name.stack
            )
        return self._managers[name]

    # -- operations ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, name: StackName) -> Iterator[None]:
        """Nothing: each operation is refused while another runs."""
        del name
        yield

    @contextlib.contextmanager
    def run(self, request: RunRequest, lost: Callable[[str], None]) -> Iterator[Run]:
        update = CloudUpdate(self.client, request, lost)
        update.start()
        try:
            yield update
        finally:
            update.end()


class CloudUpdate:
    """One operation in the cloud."""

    def __init__(self, client: CloudClient, request: RunRequest, lost: Callable[[str], None]) -> None:
        self._client = client
        self._request = request
        self._lost = lost
        self._path = ""
        self._token = ""
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
        created = self._client.json("POST", f"{_path(request.name)}/{kind}", content=_announcement(request))
        self._path = f"{_path(request.name)}/update/{segment(created['updateID'])}"
        body = {"tags": _tags(request.name, request.runtime), "journalVersion": 0}
        try:
            started = self._client.json("POST", self._path, content=body)
        except CloudError as error:
            if error.status == _CONFLICT:
                raise CommandFailed(f"{error}\n{CONFLICT_HELP}\n") from error
            raise
        self._token = str(started["token"])
        self._lease = threading.Thread(target=self._keep_lease, name="lease", daemon=True)
        self._lease.start()

    def _keep_lease(self) -> None:
        while not self._done.wait(RENEWAL):
            try:
                answer = self._inside("POST", "renew_lease", {"token": "", "duration": LEASE})
            except CommandFailed as error:
                if isinstance(error, CloudError) and not self._done.is_set():
                    self._give_up(error)
                    return
            else:
                self._token = str(answer["token"])

    def _give_up(self, error: CloudError) -> None:
        with self._lock:
            first, self._is_lost = not self._is_lost, True
        if first:
            self._lost(f"the cloud has taken this update away: {error}")

    def _inside(self, method: str, part: str, content: Any) -> Any:
        return self._client.json(method, f"{self._path}/{part}", content=content, update_token=self._token)

    def save(self, deployment: dict[str, Any]) -> None:
        try:
            self._inside("PATCH", "checkpoint", {"isInvalid": False, "version": 3, "deployment": deployment})
        except CloudError as error:
            self._give_up(error)
            raise CommandFailed(
                f"failed to save the checkpoint of stack '{self._request.name.stack}': {error}"
            ) from error

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
        """The events, then the result. After the update was taken away neither is wanted any more."""
        self._done.set()
        if self._lease is not None:
            self._lease.join(1)
        try:
            for start in range(0, len(self._events), _EVENTS_AT_ONCE):
                self._inside("POST", "events/batch", {"events": self._events[start : start + _EVENTS_AT_ONCE]})
            self._inside("POST", "complete", {"status": self._status})
        except CloudError as error:
            if not self._is_lost:
                raise CommandFailed(f"failed to complete the update: {error}") from error


def _path(name: StackName) -> str:
    return f"/api/stacks/{segment(name.organization)}/{segment(name.project)}/{segment(name.stack)}"


def _tags(name: StackName, runtime: str) -> dict[str, str]:
    return {"pulumi:project": name.project, "pulumi:runtime": runtime}


def _summary(item: Mapping[str, Any]) -> StackSummary:
    name = StackName(item["projectName"], item["stackName"], item["orgName"])
    return StackSummary(name, item.get("lastUpdate"), item.get("resourceCount"))


def _announcement(request: RunRequest) -> dict[str, Any]:
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
        "config": {key: _wire_setting(raw) for key, raw in sorted(request.config.items())},
        "metadata": {"message": request.message, "environment": dict(request.environment)},
    }


def _wire_setting(raw: Any) -> dict[str, Any]:
    """A setting as the settings file has it, for the cloud: secrets as ciphertext."""
    if isinstance(raw, dict) and set(raw) == {"secure"}:
        return {"string": raw["secure"], "secret": True, "object": False}
    if isinstance(raw, dict | list):
        text = json.dumps(raw, separators=(",", ":"))
        return {"string": text, "secret": '"secure":' in text, "object": True}
    text = ("true" if raw else "false") if isinstance(raw, bool) else "" if raw is None else str(raw)
    return {"string": text, "secret": False, "object": False}


def _raw_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of ``_wire_setting``."""
    found: dict[str, Any] = {}
    for key, item in config.items():
        text = str(item.get("string", ""))
        if item.get("object"):
            found[key] = json.loads(text)
        else:
            found[key] = {"secure": text} if item.get("secret") else text
    return found
