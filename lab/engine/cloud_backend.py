"""The http back end: stacks and operations in the lab's cloud. Source: pulumi pkg/backend/httpstate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lab.engine.backend import Run, RunRequest, StackName, StackSummary
from lab.engine.cloud_client import (
    CloudClient,
    CloudError,
    log_in,
    segment,
    stack_path,
)
from lab.engine.cloud_secrets import ServiceManager
from lab.engine.cloud_update import CloudUpdate, raw_settings, tags
from lab.engine.failures import CommandFailed, StackNotFound

_WRONG_REFERENCE = (
    "a stack reference's name should be of the form '<organization>/<project>/<stack>'. See "
    "https://www.pulumi.com/docs/using-pulumi/stack-outputs-and-references/#using-stack-references for more "
    "information."
)
_NOT_FOUND = 404
_CONFLICT = 409
_PAGE = 10


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
            self._client = log_in(self.url, self._environment)
        return self._client

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

    def read_reference(self, text: str, project: str) -> StackName:
        """All three parts, as the real CLI wants them of a cloud."""
        if text.count("/") != 2:
            raise CommandFailed(_WRONG_REFERENCE)
        return self.read_name(text, project)

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
        body = {"stackName": name.stack, "tags": tags(name.project, runtime)}
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
        """``None`` also while one runs."""
        return next((one.last_update for one in self.stacks(name.project) if one.name == name), None) or None

    def running_update(self, name: StackName) -> tuple[float, str] | None:
        operation = self._get(name).get("currentOperation")
        return (float(operation["started"]), str(operation["author"])) if operation else None

    def remove_stack(self, name: StackName) -> None:
        """What ``stack rm`` refuses it has refused before."""
        self.client.call("DELETE", _path(name), query={"force": "true"})

    def history(self, name: StackName) -> list[dict[str, Any]]:
        """Newest first, in the file back end's form with the cloud's own ``version``."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"pageSize": str(_PAGE), "page": str(len(found) // _PAGE + 1)}
            updates = self.client.json("GET", f"{_path(name)}/updates", query=query).get("updates") or []
            found += [{**update, "config": raw_settings(update.get("config") or {})} for update in updates]
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
        except BaseException:
            # That is what the person has to know.
            with contextlib.suppress(CommandFailed):
                update.end()
            raise
        update.end()


def _path(name: StackName) -> str:
    return stack_path(name.organization, name.project, name.stack)


def _summary(item: Mapping[str, Any]) -> StackSummary:
    name = StackName(item["projectName"], item["stackName"], item["orgName"])
    when = item.get("lastUpdate")
    # The service says 0 while an update runs.
    return StackSummary(name, when, item.get("resourceCount"), None if when is None else when == 0)
