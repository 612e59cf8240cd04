"""The state of a stack from the Pulumi Cloud, in plaintext, without a process.

`pulumi stack export --show-secrets` and `pulumi config --show-secrets` send the same requests, but each is a process of
0.2 s of CPU, and the vendor's Python client takes 0.8 s to import (docs/decisions/0014-the-cli-talks-to-the-cloud.md).
If the backend gives no usable answer, or does not hold the key (a passphrase, a key service), the caller runs pulumi,
which also explains why. The token is sent to that backend and nowhere else.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runbooks.tools.kubeconfig import is_loopback
from runbooks.tools.secret_values import parse_with_secrets

TIMEOUT = 60.0
"""Seconds to wait for an answer."""
LIMIT = 100_000_000
"""The most bytes of an answer that are read."""
BATCH = 500
"""The most ciphertexts in one request."""


class NoAnswer(Exception):
    """The backend gave no usable answer, or does not hold the key."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """One backend and the token for it. `reference` is `<organization>/<project>/<stack>`.

    Its methods may be called from several threads, and raise `NoAnswer`.
    """

    url: str
    token: str = field(repr=False)

    def export(self, reference: str, *, show_secrets: bool = True) -> str:
        """The text of `stack export --show-secrets`; it is identical as long as the state is the same."""
        document, found = self._request("GET", reference, "export")
        secrets = [item for item in found if isinstance(item.get("ciphertext"), str)] if show_secrets else []
        if "deployment" not in document:
            raise NoAnswer("the answer is not a state")
        if secrets and not self._holds_key(reference, document["deployment"].get("secrets_providers") or {}):
            raise NoAnswer("the key of the state's secrets is held elsewhere")
        plaintexts = self.decrypt(reference, [secret["ciphertext"] for secret in secrets])
        for secret in secrets:
            secret["plaintext"] = plaintexts[secret.pop("ciphertext")]
        return json.dumps(document, sort_keys=True)

    def decrypt(self, reference: str, ciphertexts: Sequence[str]) -> dict[str, str]:
        """Ciphertext → plaintext, of each of them."""
        found: dict[str, str] = {}
        wanted = list(dict.fromkeys(ciphertexts))
        for start in range(0, len(wanted), BATCH):
            body = json.dumps({"ciphertexts": wanted[start : start + BATCH]})
            answer, _ = self._request("POST", reference, "batch-decrypt", body)
            plaintexts = answer.get("plaintexts") or {}
            found |= {sealed: base64.b64decode(text).decode("utf-8", "replace") for sealed, text in plaintexts.items()}
        if not found.keys() >= set(wanted):
            raise NoAnswer("the answer lacks a ciphertext")
        return found

    def _request(
        self, method: str, reference: str, action: str, body: str | None = None
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The JSON object of the answer, and every secret in it."""
        stack = "/".join(quote(part, safe="") for part in reference.split("/"))
        request = urllib.request.Request(  # noqa: S310 - the backend of the target, an http(s) URL
            f"{self.url.rstrip('/')}/api/stacks/{stack}/{action}",
            method=method,
            data=None if body is None else body.encode(),
            headers={
                "Authorization": f"token {self.token}",
                "Content-Type": "application/json",
                "Accept": "application/vnd.pulumi+9",
            },
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                answer, secrets = parse_with_secrets(response.read(LIMIT).decode())
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{method} {action}: {error}") from error
        except ValueError:  # its text quotes the token, or the answer
            raise NoAnswer(f"{method} {action}: not JSON, or the token has characters that cannot be sent") from None
        if not isinstance(answer, dict):
            raise NoAnswer(f"{method} {action}: the answer is not an object")
        return answer, secrets

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        if is_loopback(self.url):
            return urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        # One context for all requests: reading the certificate authorities takes longer than a request.
        secure = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        return urllib.request.build_opener(_NoRedirect, secure)

    def _holds_key(self, reference: str, provider: Mapping[str, Any]) -> bool:
        state = provider.get("state") or {}
        stack = "/".join(str(state.get(part, "")) for part in ("owner", "project", "stack"))
        here = str(state.get("url", "")).rstrip("/") == self.url.rstrip("/")
        return provider.get("type") == "service" and here and stack == reference


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which would receive the token too."""

    def redirect_request(self, *_: Any) -> None:
        return None


def token_for(url: str, environ: Mapping[str, str], credentials: Path) -> str:
    """The token of a run: PULUMI_ACCESS_TOKEN, else the one that `pulumi login` wrote into the folder `credentials`.

    Empty if there is none, or only in the system's key ring (PULUMI_CREDENTIAL_STORE), which pulumi alone can read.
    """
    if environ.get("PULUMI_ACCESS_TOKEN"):
        return environ["PULUMI_ACCESS_TOKEN"]
    try:
        stored = json.loads((credentials / "credentials.json").read_text(encoding="utf-8"))
        account = (stored.get("accounts") or {}).get(url) or {}
        return str(account.get("accessToken") or (stored.get("accessTokens") or {}).get(url) or "")
    except (OSError, ValueError, AttributeError):
        return ""
