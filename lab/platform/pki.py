"""The lab's keys and certificates: one authority, server and client certificates, the key of service account tokens."""

from __future__ import annotations

import secrets
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from lab import certificates
from lab.certificates import Wanted
from lab.platform.control_plane import Pki
from lab.platform.paths import write_private

KIND: dict[str, Any] = {"duration": timedelta(days=3650), "backdated": timedelta(hours=1), "algorithm": "ECDSA"}
SERVER = Wanted(
    common_name="lab",
    dns_names=(
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ),
    addresses=("127.0.0.1", "10.96.0.1"),
    **KIND,
)
CLIENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "apiserver-etcd": ("lab:apiserver", ()),
    # Its controllers act with this one identity; a service account for each would cost seconds and memory.
    "controller-manager": ("system:kube-controller-manager", ("system:masters",)),
    "scheduler": ("system:kube-scheduler", ()),
    "kwok": ("lab:kwok", ()),
}
"""Client certificates: user and groups by the file's name."""


def ensure(folder: Path) -> Pki:
    """The lab's PKI, made at the first call, all or nothing; it stays, since kubeconfigs hold its authority."""
    if not folder.is_dir():
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        _make(Pki(unfinished))
        unfinished.rename(folder)
    return Pki(folder)


def _make(pki: Pki) -> None:
    # The authority's key is not kept: nothing has to be signed later, and what is not there cannot leak.
    authority = certificates.self_signed(Wanted(common_name="lab-ca", is_authority=True, **KIND))
    write_private(pki.ca, authority.certificate)
    wanted = {"server": SERVER} | {
        name: Wanted(common_name=user, organizations=groups, **KIND) for name, (user, groups) in CLIENTS.items()
    }
    for name, one in wanted.items():
        pair = certificates.signed_by(one, authority)
        write_private(pki.key(name), pair.key)
        write_private(pki.certificate(name), pair.certificate)
    account = certificates.new_key("ECDSA")
    write_private(pki.key("service-account"), certificates.private_pem(account))
    write_private(pki.service_account_public_key, certificates.public_pem(account))
    write_private(pki.tokens, f'{secrets.token_urlsafe(32)},lab-admin,lab-admin,"system:masters"\n')
