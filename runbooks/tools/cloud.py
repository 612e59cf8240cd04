"""HTTP to a Pulumi Cloud backend, for what its command lines keep to themselves or take a process each for.

The token goes to that backend and nowhere else.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import cached_property
from pathlib import Path
from typing import Any

from runbooks.tools.kubeconfig import is_loopback

TIMEOUT = 60.0
"""Seconds without an answer."""
LONGEST = 100_000_000
"""Bytes of an answer that are read."""


class CloudError(Exception):
    """The backend says no, or nothing; `status` is 0 then. Whoever asked says what that means."""

    def __init__(self, status: int, reason: str, answer: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.answer = answer


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """One backend and the token for it. Its methods may be called from several threads."""

    url: str
    token: str = field(repr=False)

    def ask(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[Message, str]:
        """Headers and text of the answer. Raises `CloudError`."""
        request = urllib.request.Request(  # noqa: S310 - the backend of the target, an http(s) URL
            self.url.rstrip("/") + path,
            method=method,
            data=None if body is None else body.encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json", **(headers or {})},
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return answer.headers, answer.read(LONGEST).decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            with error:
                told = as_object(error.read(LONGEST).decode("utf-8", "replace"))
                raise CloudError(error.code, str(told.get("message", "")), told) from error
        except (OSError, urllib.error.URLError) as error:
            raise CloudError(0, str(getattr(error, "reason", None) or error), {}) from error
        except http.client.HTTPException as error:
            raise CloudError(0, f"it broke off its answer ({type(error).__name__})", {}) from error
        except ValueError:  # its text quotes the token
            raise CloudError(0, "the token holds characters that no token has, such as a line break", {}) from None

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        # A proxy has nothing to do with a server on this machine.
        if is_loopback(self.url):
            return urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        import ssl

        # One context: reading the authorities takes longer than a request.
        secure = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        return urllib.request.build_opener(_NoRedirect, secure)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def as_object(body: str, notice: Callable[[dict[str, Any]], Any] | None = None) -> Mapping[str, Any]:
    """The JSON object in an answer; empty when it holds none. `notice` sees, and gives back, every object in it."""
    try:
        answer = json.loads(body or "{}", object_hook=notice)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


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
