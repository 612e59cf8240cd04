"""HTTP to the lab's cloud: one connection a thread, kept open. Tokens go to loopback only (``guard`` sees to that)."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from lab.engine.failures import CommandFailed, LoginMissing

STACKS = "application/vnd.pulumi+9"
ENVIRONMENTS = "application/vnd.pulumi+8"
"""What the clients of the two halves of the API accept."""

NO_LOGIN = "PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions"
WRONG_TOKEN = "invalid access token"  # noqa: S105 - a message
_TIMEOUT = 60.0
"""Seconds that a server which took a request may be silent."""
_AGAIN = 0.1
"""Seconds between two attempts at a server that does not listen."""
_LARGE = 1024


class CloudError(CommandFailed):
    """An answer that says no. The text is ``[status] message``."""

    def __init__(self, status: int, message: str, body: Mapping[str, Any]) -> None:
        super().__init__(f"[{status}] {message}")
        self.status = status
        self.message = message
        self.body = body


class Unreachable(CommandFailed):
    """No answer at all."""


@dataclass(frozen=True)
class Reply:
    """``content`` is JSON, ``None`` when the body is empty or no JSON; ``text`` is the body as it came."""

    status: int
    headers: Mapping[str, str]
    text: str
    content: Any


class CloudClient:
    """``accept`` is one of the two media types above. Thread-safe."""

    def __init__(self, url: str, token: str, accept: str = STACKS) -> None:
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._place = (parts.hostname or "", parts.port or 80)
        self._token = token
        self._accept = accept
        self._own = threading.local()

    def accepting(self, accept: str) -> CloudClient:
        """The same for the other half of the API."""
        return CloudClient(self.url, self._token, accept)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content: Any = None,
        text: str | None = None,
        headers: Mapping[str, str] | None = None,
        update_token: str = "",
        patience: float = 0,
    ) -> Reply:
        """One request. ``content`` is sent as JSON, ``text`` as it is. Raises ``CloudError`` or ``Unreachable``.

        With ``patience`` (seconds) a server that goes away is waited for and asked again: only for what may be said
        twice.
        """
        body = text.encode() if text is not None else b"" if content is None else json.dumps(content).encode()
        authorization = f"update-token {update_token}" if update_token else f"token {self._token}"
        sent = {
            "Accept": self._accept,
            "Authorization": authorization,
            "Content-Type": "application/json",
            **(headers or {}),
        }
        if len(body) > _LARGE and text is None:
            body, sent["Content-Encoding"] = gzip.compress(body, 1), "gzip"
        target = path + (f"?{urlencode(query)}" if query else "")
        deadline = time.monotonic() + patience if patience else 0
        reply = self._exchange(method, target, body, sent, deadline)
        if reply.status >= http.client.BAD_REQUEST:
            raise _refused(reply)
        return reply

    def json(self, method: str, path: str, **more: Any) -> Any:
        return self.call(method, path, **more).content

    def _exchange(self, method: str, target: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Reply:
        """A kept connection that the server has closed meanwhile is opened anew."""
        while True:
            connection, is_kept = self._connection()
            try:
                connection.request(method, target, body or None, dict(headers))
                response = connection.getresponse()
                return _reply(response.status, dict(response.getheaders()), response.read())
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if is_kept and isinstance(error, _CLOSED):
                    continue
                if isinstance(error, TimeoutError) or time.monotonic() > deadline:
                    raise self._unreachable(_reason(error)) from error
            except BaseException:
                # Interrupted: what is still to come on this connection answers nobody.
                self.close()
                raise
            time.sleep(_AGAIN)

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's, and whether it has carried a request before."""
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None:
            return kept, True
        self._own.connection = http.client.HTTPConnection(*self._place, timeout=_TIMEOUT)
        return self._own.connection, False

    def close(self) -> None:
        """This thread's connection; the next request opens another."""
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None:
            kept.close()
        self._own.connection = None

    def _unreachable(self, reason: str) -> Unreachable:
        return Unreachable(f"the lab's cloud does not answer at {self.url}: {reason}. `./inv lab.up` starts it")


_CLOSED = (ConnectionResetError, BrokenPipeError)
"""``RemoteDisconnected`` is one of them."""


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT:.0f} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error) or type(error).__name__


def _reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    names = {name.lower(): value for name, value in headers.items()}
    if names.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    text = body.decode("utf-8", "replace")
    content = None
    if text[:1] in ("{", "[", '"'):
        try:
            content = json.loads(text)
        except ValueError:
            content = None
    return Reply(status, names, text, content)


def _refused(reply: Reply) -> CloudError:
    body = reply.content if isinstance(reply.content, dict) else {}
    message = str(body.get("message") or reply.text.strip() or http.client.responses.get(reply.status, ""))
    return CloudError(reply.status, message, body)


def segment(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def stack_path(organization: str, project: str, stack: str) -> str:
    return f"/api/stacks/{segment(organization)}/{segment(project)}/{segment(stack)}"


# -- the token -----------------------------------------------------------------------------------------------------


def _credentials_file(environment: Mapping[str, str]) -> Path | None:
    """Only where it was said: the person's own folder is none of the stand-in's business."""
    folder = environment.get("PULUMI_CREDENTIALS_PATH") or environment.get("PULUMI_HOME")
    return Path(folder) / "credentials.json" if folder else None


def _stored(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandFailed(f"failed to read Pulumi credentials file {path}: {error}") from error
    return document if isinstance(document, dict) else {}


def log_in(url: str, environment: Mapping[str, str]) -> CloudClient:
    """With the token of ``PULUMI_ACCESS_TOKEN``, else the one stored by an earlier login.

    A token that is not the stored one is tried first and then stored, as the real CLI does. Raises ``LoginMissing``.
    """
    path = _credentials_file(environment)
    document = _stored(path)
    given, stored = environment.get("PULUMI_ACCESS_TOKEN", ""), _token_of(document, url)
    if not (given or stored):
        raise LoginMissing(NO_LOGIN)
    client = CloudClient(url, given or stored)
    if given and given != stored:
        print("Logging in using access token from PULUMI_ACCESS_TOKEN", file=sys.stderr)
        user = _user(client)
        if path is not None:
            _store(path, document, url, _account(given, user))
    return client


def _token_of(document: Mapping[str, Any], url: str) -> str:
    account = (document.get("accounts") or {}).get(url) or {}
    return str((document.get("accessTokens") or {}).get(url) or account.get("accessToken") or "")


def _user(client: CloudClient) -> Mapping[str, Any]:
    try:
        return dict(client.json("GET", "/api/user"))
    except CloudError as error:
        if error.status == http.client.UNAUTHORIZED:
            client.close()
            raise CommandFailed(WRONG_TOKEN) from error
        raise


def _account(token: str, user: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "accessToken": token,
        "username": str(user.get("githubLogin", "")),
        "organizations": [str(one.get("githubLogin", "")) for one in user.get("organizations") or ()],
        "lastValidatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _store(path: Path, document: Mapping[str, Any], url: str, account: Mapping[str, Any]) -> None:
    changed = {
        **document,
        "current": url,
        "accessTokens": {**(document.get("accessTokens") or {}), url: account["accessToken"]},
        "accounts": {**(document.get("accounts") or {}), url: account},
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(changed, indent=4), encoding="utf-8")
    temporary.replace(path)
