"""The lab's files and folders: fixed names below `<state>/lab`, folders 0700, files 0600."""

from __future__ import annotations

import os
from pathlib import Path

from runbooks.core.files import writing

CONTEXT = "lab"
"""Name of the cluster, the context and the stack."""


class LabPaths:
    """The lab's files, from the state folder (`.ops` or `$OPS_STATE`)."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        # Beside the lab's folder: `lab.reset` removes that one while it holds the lock.
        self.lock = state_dir / "lab.lock"
        self.lab = lab = state_dir / "lab"
        self.pgpass = lab / "pgpass"
        self.record = lab / "lab.json"
        self.logs = lab / "logs"
        self.pki = lab / "pki"
        self.etcd_data = lab / "etcd"
        self.kubeconfig = lab / "kubeconfig"
        self.target = lab / "target.json"
        self.cloud = lab / "cloud"
        # The account's token, which the cloud writes at its first start.
        self.token = self.cloud / "token"
        # Stack configs: `<pulumi project>/Pulumi.lab.yaml`.
        self.stacks = lab / "stacks"
        # A file backend beside the cloud that holds the lab's own stacks: its root, its stack configs, its passphrase.
        self.backend = lab / "backend"
        self.file_stacks = lab / "file-stacks"
        self.passphrase = lab / "passphrase"
        # pulumi's own login is kept here, away from the user's.
        self.credentials = lab / "pulumi"
        self.login = self.credentials / "credentials.json"
        # Links to the tools that serve the lab and are not the user's own: first on PATH in runs and `lab.env`.
        self.bin = lab / "bin"
        # Where each tool of the last start came from.
        self.tools = lab / "tools.json"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def prepare(self) -> None:
        """Make the folders. Raises `Unwritable`."""
        of_stacks = (self.backend, self.stacks, self.file_stacks)
        with writing("the lab's folder", self.lab):
            for folder in (self.lab, self.logs, *of_stacks, self.credentials, self.bin, self.etcd_data):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)


def write_private(path: Path, text: str, *, owner: tuple[int, ...] = (), survives_power_loss: bool = True) -> None:
    """Write a file that only its owner (the user) can read, all or nothing (temporary file, fsync, rename).

    Without the fsync, which takes milliseconds, it is all or nothing when a process is killed.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        if owner:
            os.fchown(file.fileno(), *owner)
        if survives_power_loss:
            file.flush()
            os.fsync(file.fileno())
    unfinished.rename(path)
