"""Where the lab's keys and certificates are. Making them is `pki.py`, which costs an import of half a second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pki:
    """The files, each `<name>.crt` and `<name>.key` in one folder (0700)."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def service_account_key(self) -> Path:
        return self.folder / "service-account.key"

    @property
    def service_account_public_key(self) -> Path:
        return self.folder / "service-account.pub"

    @property
    def tokens(self) -> Path:
        """Static tokens of the API server (CSV: token, user, uid, groups)."""
        return self.folder / "tokens.csv"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def admin_token(self) -> str:
        return self.tokens.read_text("ascii").split(",", 1)[0]


def ensure(folder: Path) -> Pki:
    """The lab's PKI, made at the first call; afterwards it stays, since kubeconfigs hold its authority."""
    if not folder.is_dir():
        from lab.platform import pki

        pki.make(folder)
    return Pki(folder)
