"""The part of the Pulumi Cloud API that the CLIs keep to themselves: a definition's ETag, and a check without a change.

`env edit -f -` replaces a definition whoever wrote the last one; here somebody else's write is a refusal.
Routes: github.com/pulumi/esc, cmd/esc/cli/client.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from runbooks.lib.errors import LoginMissing, OpsError, Refused, ToolFailed, Usage
from runbooks.lib.esc import EnvironmentName
from runbooks.lib.kubeconfig import is_loopback

TIMEOUT = 60.0
LONGEST = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Live:
    """A definition as the back end has it."""

    text: str = field(repr=False)
    etag: str


@dataclass(frozen=True, kw_only=True)
class EscApi:
    """One back end and the token for it."""

    url: str
    token: str = field(repr=False)

    def fetch(self, name: EnvironmentName) -> Live:
        """The definition, secrets as ciphertext, and its ETag."""
        headers, body = self._ask("GET", f"/api/esc/environments/{name.full}", name)
        return Live(text=body, etag=headers.get("ETag", ""))

    def push(self, name: EnvironmentName, definition: str, etag: str) -> int:
        """Replace the definition if nobody changed it since `etag`; gives the new revision, 0 when it is not told.

        Raises `Refused` when somebody did, `Usage` with the diagnostics when it is no valid definition.
        """
        headers, body = self._ask("PATCH", f"/api/esc/environments/{name.full}", name, definition, {"ETag": etag})
        _refuse_diagnostics(_json(body), name)
        revision = headers.get("Pulumi-ESC-Revision", "")
        return int(revision) if revision.isdigit() else 0

    def check(self, name: EnvironmentName, definition: str) -> None:
        """Raises `Usage` with the diagnostics of a definition that cannot evaluate; changes nothing."""
        _, body = self._ask("POST", f"/api/esc/environments/{name.organization}/yaml/check", name, definition)
        _refuse_diagnostics(_json(body), name)

    def _ask(
        self,
        method: str,
        path: str,
        name: EnvironmentName,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Message, str]:
        request = urllib.request.Request(  # noqa: S310 - the back end of the target, an http(s) URL
            self.url.rstrip("/") + path,
            method=method,
            data=None if body is None else body.encode(),
            headers={
                "Authorization": f"token {self.token}",
                "Accept": "application/vnd.pulumi+8",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        # A proxy has nothing to do with a server on this machine.
        proxies = [urllib.request.ProxyHandler({})] if is_loopback(self.url) else []
        try:
            with urllib.request.build_opener(_NoRedirect, *proxies).open(request, timeout=TIMEOUT) as answer:
                return answer.headers, answer.read(LONGEST).decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            with error:
                raise _meaning(error.code, _json(error.read(LONGEST).decode("utf-8", "replace")), name) from error
        except (OSError, urllib.error.URLError) as error:
            reason = getattr(error, "reason", None) or error
            raise ToolFailed(
                f"the back end {self.url} does not answer: {reason}",
                expected="the Pulumi Cloud that holds the environments",
                next_step="./inv doctor",
            ) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to the back end of the target and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _json(body: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(body or "{}")
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


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


def _meaning(status: int, answer: Mapping[str, Any], name: EnvironmentName) -> OpsError:
    if status == 401:
        return LoginMissing(
            f"the back end does not take the token for {name.short}",
            expected="a valid login, or PULUMI_ACCESS_TOKEN",
            next_step="pulumi login, then ./inv doctor",
        )
    if status == 409:
        return Refused(
            f"somebody else changed {name.short} meanwhile",
            expected="the definition that was compared; nothing was changed",
            next_step=f"./inv esc.apply {name.short} compares again",
        )
    if answer.get("diagnostics"):
        try:
            _refuse_diagnostics(answer, name)
        except Usage as error:
            return error
    return ToolFailed(
        f"the back end answered {status} about {name.short}: {str(answer.get('message', ''))[:200]}",
        expected="its definition",
        next_step="./inv esc.list",
    )


def token_for(url: str, environ: Mapping[str, str], credentials: Path | None) -> str:
    """The token of a run: PULUMI_ACCESS_TOKEN, else what `pulumi login` kept in a file; empty when it is elsewhere.

    Newer CLIs may keep it in the system's key ring (PULUMI_CREDENTIAL_STORE), where only they find it.
    """
    if environ.get("PULUMI_ACCESS_TOKEN"):
        return environ["PULUMI_ACCESS_TOKEN"]
    path = credentials / "credentials.json" if credentials else None
    if path is None or not path.is_file():
        return ""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        account = (kept.get("accounts") or {}).get(url) or {}
        return str(account.get("accessToken") or (kept.get("accessTokens") or {}).get(url) or "")
    except (OSError, ValueError, AttributeError):
        return ""
