"""The account's token and the keys, made once (`token` and `keys.json`, 0600), and the encryption of stack secrets."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lab.cloud import files
from lab.cloud.wire import ApiError, Json
from lab.platform.paths import write_private
from runbooks.tools.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY

KEY_BYTES = 32
NONCE_BYTES = 12


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
        """The token of one update. It never changes, so a restart of the cloud does not end running updates."""
        return "t-" + hmac.digest(self.updates, update.encode(), hashlib.sha256).hex()[:40]


def ensure(folder: Path) -> Keys:
    """Read the keys in this folder, or make them at the first call. Other keys could not read the stored data."""
    files.make_private(folder)
    token = folder / "token"  # a file of its own: targets name it as their `token_file`
    if not token.exists():
        write_private(token, f"pul-{secrets.token_hex(20)}")
    path = folder / "keys.json"
    stored = files.read_json(path)
    if stored is None:
        names = ("stacks", "environments", "updates")
        stored = {name: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() for name in names}
        files.write_json(path, stored)
    return Keys(token=token.read_text("ascii").strip(), **{name: base64.b64decode(key) for name, key in stored.items()})


@dataclass(frozen=True)
class Seal:
    """Encrypts and decrypts for one stack; the ciphertexts of other stacks are refused."""

    key: bytes
    stack: str
    """`organization/project/stack`."""

    def encrypt(self, plaintext: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, plaintext, self.stack.encode())

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Decrypt a ciphertext. Raises `ApiError` 400 if it was not encrypted here for this stack."""
        nonce, sealed = ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:]
        try:
            return AESGCM(self.key).decrypt(nonce, sealed, self.stack.encode())
        except (InvalidTag, ValueError) as error:
            raise ApiError(400, f"the ciphertext was not encrypted for {self.stack}") from error


def from_base64(text: object) -> bytes:
    """Decode base64. Raises `ApiError` 400 for anything else."""
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise ApiError(400, "a value is not base64") from error


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def as_esc(value: Any, decrypt: Callable[[str], str], secret: bool = False) -> Json:
    """An output of a state file as an ESC value, `{value, secret}` all the way down.

    `decrypt` opens the ciphertext (base64) of a secret and gives its JSON text. What is inside a secret is secret.
    """
    if isinstance(value, dict) and value.get(SIGNATURE_KEY) == SECRET_SIGNATURE:
        text = value["plaintext"] if "plaintext" in value else decrypt(value["ciphertext"])
        return as_esc(json.loads(text), decrypt, secret=True)
    mark: Json = {"secret": True} if secret else {}
    if isinstance(value, dict):
        return {"value": {key: as_esc(item, decrypt, secret) for key, item in value.items()}, **mark}
    if isinstance(value, list):
        return {"value": [as_esc(item, decrypt, secret) for item in value], **mark}
    return mark if value is None else {"value": value, **mark}
