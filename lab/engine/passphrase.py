"""The passphrase secrets manager, in the real CLI's format, so that either reads what the other wrote.

A manager's state ("salt", ``encryptionsalt`` of a stack file) is ``v1:<salt>:<ciphertext of "pulumi">``, a ciphertext
is ``v1:<nonce>:<AES-256-GCM>``, all parts base64. The key is PBKDF2-HMAC-SHA256 of the passphrase, a million rounds
(about 0.3 s of CPU), so it is derived when a value is first needed and kept for the life of the process.
Source: pulumi sdk/go/common/resource/config/crypt.go, pkg/secrets/passphrase.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.engine.failures import CommandFailed

ROUNDS = 1_000_000
CHECK_TEXT = "pulumi"
INCORRECT = "incorrect passphrase"
MISSING = "passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE environment variables"

_keys: dict[tuple[str, bytes], bytes] = {}
_keys_lock = threading.Lock()


def read_passphrase(environment: Mapping[str, str]) -> str:
    """From ``PULUMI_CONFIG_PASSPHRASE`` (set but empty counts) or the file that ``…_FILE`` names."""
    if "PULUMI_CONFIG_PASSPHRASE" in environment:
        return environment["PULUMI_CONFIG_PASSPHRASE"]
    file = environment.get("PULUMI_CONFIG_PASSPHRASE_FILE", "")
    if not file:
        raise CommandFailed(MISSING)
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CommandFailed(f"unable to read PULUMI_CONFIG_PASSPHRASE_FILE: {error}") from error


def _derive(passphrase: str, salt: bytes) -> bytes:
    with _keys_lock:
        key = _keys.get((passphrase, salt))
        if key is None:
            key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, ROUNDS, dklen=32)
            _keys[passphrase, salt] = key
        return key


class PassphraseCrypter:
    """Implements ``secrets_manager.Crypter`` with one derived key."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self._known: dict[str, str] = {}

    def encrypt(self, plaintext: str) -> str:
        known = self._known.get(plaintext)
        if known is not None:
            return known
        nonce = os.urandom(12)
        sealed = self._cipher.encrypt(nonce, plaintext.encode(), None)
        ciphertext = f"v1:{base64.b64encode(nonce).decode()}:{base64.b64encode(sealed).decode()}"
        self._known[plaintext] = ciphertext
        return ciphertext

    def preload(self, ciphertexts: Iterable[str]) -> None:
        """Nothing: decrypting costs next to nothing here."""

    def decrypt(self, ciphertext: str) -> str:
        """Raises ``CommandFailed`` when the text is malformed or of another key."""
        from cryptography.exceptions import InvalidTag

        version, _, rest = ciphertext.partition(":")
        nonce, _, sealed = rest.partition(":")
        if version != "v1" or not sealed:
            raise CommandFailed("bad value: expected a ciphertext of the form v1:<nonce>:<value>")
        try:
            plain = self._cipher.decrypt(base64.b64decode(nonce), base64.b64decode(sealed), None).decode()
        except (InvalidTag, ValueError) as error:
            raise CommandFailed(
                "failed to decrypt a secret: it was encrypted with another passphrase or salt"
            ) from error
        return plain


class PassphraseManager:
    """The secrets manager of one stack: ``salt`` is its state, the key is derived on first use."""

    def __init__(self, salt: str, environment: Mapping[str, str]) -> None:
        self.salt = salt
        self._environment = environment
        self._crypter: PassphraseCrypter | None = None
        self._lock = threading.Lock()

    @classmethod
    def create(cls, environment: Mapping[str, str]) -> PassphraseManager:
        """With a new random salt."""
        salt = os.urandom(8)
        crypter = PassphraseCrypter(_derive(read_passphrase(environment), salt))
        manager = cls(f"v1:{base64.b64encode(salt).decode()}:{crypter.encrypt(CHECK_TEXT)}", environment)
        manager._crypter = crypter
        return manager

    @property
    def document(self) -> dict[str, Any]:
        return {"type": "passphrase", "state": {"salt": self.salt}}

    @property
    def crypter(self) -> PassphraseCrypter:
        """Raises ``CommandFailed`` when there is no passphrase or it is not the right one."""
        with self._lock:
            if self._crypter is None:
                self._crypter = self._unlock()
            return self._crypter

    def _unlock(self) -> PassphraseCrypter:
        version, _, rest = self.salt.partition(":")
        salt, _, check = rest.partition(":")
        if version != "v1" or not check:
            raise CommandFailed("malformed state value: expected an encryption salt of the form v1:<salt>:<check>")
        crypter = PassphraseCrypter(_derive(read_passphrase(self._environment), base64.b64decode(salt)))
        try:
            correct = crypter.decrypt(check) == CHECK_TEXT
        except CommandFailed:
            correct = False
        if not correct:
            raise CommandFailed(INCORRECT)
        return crypter
