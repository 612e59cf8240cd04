"""The part of the Pulumi Cloud API that the CLIs keep to themselves: a definition's ETag, and a check without a change.

`env edit -f -` replaces a definition whoever wrote the last one; here somebody else's write is a refusal.
Routes: github.com/pulumi/esc, cmd/esc/cli/client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from runbooks.core.errors import LoginMissing, OpsError, Refused, ToolFailed, Usage
from runbooks.tools.cloud import Cloud, CloudError, as_object
from runbooks.tools.esc import EnvironmentName
from runbooks.tools.failures import login_command


@dataclass(frozen=True, kw_only=True)
class Live:
    """A definition as the backend has it."""

    text: str = field(repr=False)
    etag: str


@dataclass(frozen=True, kw_only=True)
class EscApi:
    """The environments of one backend."""

    cloud: Cloud

    def fetch(self, name: EnvironmentName) -> Live:
        """The definition, secrets as ciphertext, and its ETag."""
        headers, body = self._ask("GET", f"/api/esc/environments/{name.full}", name)
        return Live(text=body, etag=headers.get("ETag", ""))

    def push(self, name: EnvironmentName, definition: str, etag: str) -> int:
        """Replace the definition if nobody changed it since `etag`; gives the new revision, 0 when it is not told.

        Raises `Refused` when somebody did, `Usage` with the diagnostics when it is no valid definition.
        """
        headers, body = self._ask("PATCH", f"/api/esc/environments/{name.full}", name, definition, {"ETag": etag})
        _refuse_diagnostics(as_object(body), name)
        revision = headers.get("Pulumi-ESC-Revision", "")
        return int(revision) if revision.isdigit() else 0

    def check(self, name: EnvironmentName, definition: str) -> None:
        """Raises `Usage` with the diagnostics of a definition that cannot evaluate; changes nothing."""
        _, body = self._ask("POST", f"/api/esc/environments/{name.organization}/yaml/check", name, definition)
        _refuse_diagnostics(as_object(body), name)

    def _ask(
        self,
        method: str,
        path: str,
        name: EnvironmentName,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Message, str]:
        accepted = {"Accept": "application/vnd.pulumi+8", **(headers or {})}
        try:
            return self.cloud.ask(method, path, body, accepted)
        except CloudError as error:
            raise _meaning(error, self.cloud.url, name) from error


def _refuse_diagnostics(answer: Mapping[str, Any], name: EnvironmentName) -> None:
    told = [_diagnostic(item) for item in answer.get("diagnostics") or () if item.get("severity") != "warning"]
    if told:
        raise Usage(
            f"{name.short} is no valid definition:\n  " + "\n  ".join(told),
            expected="a definition without diagnostics; nothing was changed",
            next_step=f"correct environments/{name.short}.yaml, then ./inv esc.apply {name.short}",
        )


def _diagnostic(item: Mapping[str, Any]) -> str:
    begin = (item.get("range") or {}).get("begin") or {}
    where = f"{begin.get('line', '?')}:{begin.get('column', '?')}: " if begin else ""
    detail = f" ({item['detail']})" if item.get("detail") else ""
    return f"{where}{item.get('summary', '')}{detail}"


def _meaning(error: CloudError, url: str, name: EnvironmentName) -> OpsError:
    if not error.status:
        return ToolFailed(
            f"the backend {url} does not answer: {error.reason}",
            expected="the Pulumi Cloud that holds the environments",
            next_step="./inv doctor",
        )
    if error.status == 401:
        return LoginMissing(
            f"the backend does not take the token for {name.short}",
            expected="a valid login, or PULUMI_ACCESS_TOKEN",
            next_step=f"{login_command(url)}, then ./inv doctor",
        )
    if error.status == 409:
        return Refused(
            f"somebody else changed {name.short} meanwhile",
            expected="the definition that was compared; nothing was changed",
            next_step=f"./inv esc.apply {name.short} compares again",
        )
    if error.answer.get("diagnostics"):
        try:
            _refuse_diagnostics(error.answer, name)
        except Usage as refused:
            return refused
    return ToolFailed(
        f"the backend answered {error.status} about {name.short}: {error.reason[:200]}",
        expected="its definition",
        next_step="./inv esc.list",
    )
