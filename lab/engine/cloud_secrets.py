"""The service secrets manager: the cloud encrypts and decrypts, a stack file's ``secure:`` values are opaque."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable
from typing import Any

from lab.engine.cloud_client import CloudClient, stack_path

_BATCH = 500


class ServiceCrypter:
    """Implements ``secrets_manager.Crypter`` for one stack. Values met before are not sent again."""

    def __init__(self, client: CloudClient, path: str) -> None:
        self._client = client
        self._path = path
        self._lock = threading.Lock()
        self._sealed: dict[str, str] = {}
        self._plain: dict[str, str] = {}

    def encrypt(self, plaintext: str) -> str:
        with self._lock:
            known = self._sealed.get(plaintext)
        if known is not None:
            return known
        answer = self._client.json("POST", f"{self._path}/encrypt", content={"plaintext": _to_base64(plaintext)})
        with self._lock:
            ciphertext = self._sealed.setdefault(plaintext, str(answer["ciphertext"]))
            self._plain[ciphertext] = plaintext
        return ciphertext

    def decrypt(self, ciphertext: str) -> str:
        with self._lock:
            known = self._plain.get(ciphertext)
        if known is not None:
            return known
        self.preload([ciphertext])
        with self._lock:
            return self._plain[ciphertext]

    def preload(self, ciphertexts: Iterable[str]) -> None:
        with self._lock:
            wanted = [text for text in dict.fromkeys(ciphertexts) if text not in self._plain]
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            answer = self._client.json("POST", f"{self._path}/batch-decrypt", content={"ciphertexts": batch})
            opened = {key: base64.b64decode(text).decode() for key, text in answer["plaintexts"].items()}
            with self._lock:
                self._plain.update(opened)


def _to_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class ServiceManager:
    """Implements ``secrets_manager.SecretsManager``."""

    def __init__(self, client: CloudClient, *, organization: str, project: str, stack: str) -> None:
        path = stack_path(organization, project, stack)
        self._state = {"url": client.url, "owner": organization, "project": project, "stack": stack}
        self._crypter = ServiceCrypter(client, path)

    @property
    def crypter(self) -> ServiceCrypter:
        return self._crypter

    @property
    def document(self) -> dict[str, Any]:
        return {"type": "service", "state": dict(self._state)}
