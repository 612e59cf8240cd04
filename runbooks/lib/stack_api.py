"""What a stack holds, asked of the Pulumi Cloud itself: its state, and what the ciphertexts of its settings stand for.

`pulumi stack export --show-secrets` and `pulumi config --show-secrets` make the same requests, each in a process of
0.3 s of CPU. Where the key is not the cloud's own (a passphrase, a key service), they have to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from runbooks.lib.cloud import Cloud, as_object
from runbooks.lib.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY

ACCEPTED = {"Accept": "application/vnd.pulumi+9"}
BATCH = 500
"""Ciphertexts of one request."""


class NotTold(Exception):
    """The cloud alone cannot tell: it does not have the key."""


@dataclass(frozen=True, kw_only=True)
class StackApi:
    """The stacks of one back end. `reference` is `<organization>/<project>/<stack>`. Raises `CloudError`."""

    cloud: Cloud

    def clear_export(self, reference: str) -> str:
        """The text of `stack export --show-secrets`. Raises `NotTold` where the state's key is not the cloud's own."""
        _, text = self.cloud.ask("GET", f"{_path(reference)}/export", headers=ACCEPTED)
        document = as_object(text)
        if "deployment" not in document:
            raise NotTold("the answer is no state")
        deployment = document["deployment"] or {}
        wanted = list(_ciphertexts(deployment))
        if wanted and not self._holds_key(reference, deployment.get("secrets_providers") or {}):
            raise NotTold("another one holds the key of its secrets")
        plaintexts = self.decrypt(reference, wanted)
        # In one order, whatever order the answer has: the text tells whether the state is the same.
        return json.dumps(_cleared(document, plaintexts), sort_keys=True)

    def _holds_key(self, reference: str, provider: Mapping[str, Any]) -> bool:
        state = provider.get("state") or {}
        of_stack = "/".join(str(state.get(part, "")) for part in ("owner", "project", "stack"))
        here = str(state.get("url", "")).rstrip("/") == self.cloud.url.rstrip("/")
        return provider.get("type") == "service" and here and of_stack == reference

    def decrypt(self, reference: str, ciphertexts: Sequence[str]) -> dict[str, str]:
        """Ciphertext → text. Raises `NotTold` when one is missing in the answer."""
        found: dict[str, str] = {}
        wanted = list(dict.fromkeys(ciphertexts))
        for start in range(0, len(wanted), BATCH):
            body = json.dumps({"ciphertexts": wanted[start : start + BATCH]})
            _, text = self.cloud.ask("POST", f"{_path(reference)}/batch-decrypt", body, ACCEPTED)
            opened = as_object(text).get("plaintexts") or {}
            found |= {sealed: base64.b64decode(clear).decode("utf-8", "replace") for sealed, clear in opened.items()}
        if not found.keys() >= set(wanted):
            raise NotTold("a ciphertext was left out")
        return found


def _path(reference: str) -> str:
    return "/api/stacks/" + "/".join(quote(part, safe="") for part in reference.split("/"))


def _is_sealed(value: Any) -> bool:
    is_secret = isinstance(value, dict) and value.get(SIGNATURE_KEY) == SECRET_SIGNATURE
    return is_secret and isinstance(value.get("ciphertext"), str)


def _ciphertexts(value: Any) -> Iterator[str]:
    if _is_sealed(value):
        yield value["ciphertext"]
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _ciphertexts(inner)


def _cleared(value: Any, plaintexts: Mapping[str, str]) -> Any:
    """The value with each secret's `plaintext` in place of its `ciphertext`, as the CLI prints it."""
    if _is_sealed(value):
        return {SIGNATURE_KEY: SECRET_SIGNATURE, "plaintext": plaintexts[value["ciphertext"]]}
    if isinstance(value, dict):
        return {key: _cleared(inner, plaintexts) for key, inner in value.items()}
    return [_cleared(inner, plaintexts) for inner in value] if isinstance(value, list) else value
