"""The account's token and the keys, made once: `token` and `keys.json`, 0600."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from lab.cloud import files

KEY_BYTES = 32


@dataclass(frozen=True)
class Keys:
    """Everything secret that the cloud itself owns."""

    token: str = field(repr=False)
    stacks: bytes = field(repr=False)
    """Encrypts stack secrets (AES-GCM)."""
    environments: bytes = field(repr=False)
    """Encrypts the secrets in stored definitions (AES-GCM)."""
    updates: bytes = field(repr=False)
    """Signs the tokens of updates."""

    def update_token(self, update: str) -> str:
        """The token of one update: the same at any time, so a restart of the cloud does not end running updates."""
        return "t-" + hmac.digest(self.updates, update.encode(), hashlib.sha256).hex()[:40]


def ensure(folder: Path) -> Keys:
    """The keys in this folder, made at the first call; with other keys nothing stored could be read."""
    files.make_private(folder)
    token = folder / "token"
    if not token.exists():
        files.write_text(token, f"pul-{secrets.token_hex(20)}")
    path = folder / "keys.json"
    stored = files.read_json(path)
    if stored is None:
        names = ("stacks", "environments", "updates")
        stored = {name: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() for name in names}
        files.write_json(path, stored)
    return Keys(
        token=token.read_text("ascii").strip(),
        **{name: base64.b64decode(key) for name, key in stored.items()},
    )
