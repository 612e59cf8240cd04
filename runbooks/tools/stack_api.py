"""Stacks, asked of the Pulumi Cloud itself: which there are, their states, what ciphertexts of settings stand for.

`pulumi stack ls`, `stack export` and `config --show-secrets` make the same requests, each in a process of 0.3 s of CPU.
Where the key is not the cloud's own (a passphrase, a key service), they have to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from runbooks.tools.cloud import Cloud, as_object
from runbooks.tools.pulumi import StackRow
from runbooks.tools.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY

ACCEPTED = {"Accept": "application/vnd.pulumi+9"}
BATCH = 500
"""Ciphertexts of one request."""


class NotTold(Exception):
    """The cloud alone cannot tell: it does not have the key."""


@dataclass(frozen=True, kw_only=True)
class StackApi:
    """The stacks of one backend. `reference` is `<organization>/<project>/<stack>`. Raises `CloudError`."""

    cloud: Cloud

    def stacks(self, organization: str) -> dict[str, StackRow]:
        """By their references, those of all projects."""
        found: dict[str, StackRow] = {}
        query = {"organization": organization}
        while True:
            answer = self._json("GET", f"/api/user/stacks?{urlencode(query)}")
            if "stacks" not in answer:
                raise NotTold("the answer is no list of stacks")
            for item in answer["stacks"] or ():
                reference = f"{item['orgName']}/{item['projectName']}/{item['stackName']}"
                # The service says 0 while an update runs.
                updating = item.get("lastUpdate") == 0
                found[reference] = StackRow(name=reference, resource_count=item.get("resourceCount"), updating=updating)
            if not answer.get("continuationToken"):
                return found
            query["continuationToken"] = answer["continuationToken"]

    def clear_export(self, reference: str) -> str:
        """The text of `stack export --show-secrets`. Raises `NotTold` where the state's key is not the cloud's own."""
        sealed: list[dict[str, Any]] = []

        def notice(item: dict[str, Any]) -> dict[str, Any]:
            if item.get(SIGNATURE_KEY) == SECRET_SIGNATURE and isinstance(item.get("ciphertext"), str):
                sealed.append(item)
            return item

        _, text = self.cloud.ask("GET", f"{_path(reference)}/export", headers=ACCEPTED)
        document = as_object(text, notice)
        if "deployment" not in document:
            raise NotTold("the answer is no state")
        if sealed and not self._holds_key(reference, document["deployment"].get("secrets_providers") or {}):
            raise NotTold("another one holds the key of its secrets")
        plaintexts = self.decrypt(reference, [secret["ciphertext"] for secret in sealed])
        for secret in sealed:
            secret["plaintext"] = plaintexts[secret.pop("ciphertext")]
        # In one order, whatever order the answer has: the text tells whether the state is the same.
        return json.dumps(document, sort_keys=True)

    def decrypt(self, reference: str, ciphertexts: Sequence[str]) -> dict[str, str]:
        """Ciphertext → text. Raises `NotTold` when one is missing in the answer."""
        found: dict[str, str] = {}
        wanted = list(dict.fromkeys(ciphertexts))
        for start in range(0, len(wanted), BATCH):
            body = json.dumps({"ciphertexts": wanted[start : start + BATCH]})
            opened = self._json("POST", f"{_path(reference)}/batch-decrypt", body).get("plaintexts") or {}
            found |= {sealed: base64.b64decode(clear).decode("utf-8", "replace") for sealed, clear in opened.items()}
        if not found.keys() >= set(wanted):
            raise NotTold("a ciphertext was left out")
        return found

    def _json(self, method: str, path: str, body: str | None = None) -> Mapping[str, Any]:
        return as_object(self.cloud.ask(method, path, body, ACCEPTED)[1])

    def _holds_key(self, reference: str, provider: Mapping[str, Any]) -> bool:
        state = provider.get("state") or {}
        of_stack = "/".join(str(state.get(part, "")) for part in ("owner", "project", "stack"))
        here = str(state.get("url", "")).rstrip("/") == self.cloud.url.rstrip("/")
        return provider.get("type") == "service" and here and of_stack == reference


def _path(reference: str) -> str:
    return "/api/stacks/" + "/".join(quote(part, safe="") for part in reference.split("/"))
