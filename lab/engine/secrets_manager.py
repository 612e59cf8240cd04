"""What encrypts the secrets of a stack: a passphrase, or the service of a cloud."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from lab.engine.state import SECRET_SIGNATURE, SIGNATURE


class Crypter(Protocol):
    """Thread-safe. Both raise ``CommandFailed``.

    A value gets one ciphertext for the life of the process, and another one in the next: like the real CLI, which
    encrypts every secret of a state anew at each operation (pulumi pkg/resource/stack/secrets.go).
    """

    def encrypt(self, plaintext: str) -> str: ...

    def decrypt(self, ciphertext: str) -> str: ...

    def preload(self, ciphertexts: Iterable[str]) -> None:
        """They are about to be decrypted: do it at once where that is cheaper."""
        ...


class SecretsManager(Protocol):
    @property
    def crypter(self) -> Crypter:
        """Raises ``CommandFailed`` when it cannot be had, say for want of a passphrase."""
        ...

    @property
    def document(self) -> dict[str, Any]:
        """The ``secrets_providers`` of a deployment."""
        ...


def ciphertexts_in(document: Any) -> Iterator[str]:
    """Every encrypted value of a deployment, and of a settings file's ``secure:`` entries."""
    if isinstance(document, list):
        for item in document:
            yield from ciphertexts_in(item)
    elif isinstance(document, dict):
        if document.get(SIGNATURE) == SECRET_SIGNATURE and isinstance(document.get("ciphertext"), str):
            yield document["ciphertext"]
        elif set(document) == {"secure"} and isinstance(document["secure"], str):
            yield document["secure"]
        else:
            for item in document.values():
                yield from ciphertexts_in(item)
