"""Where everything of the lab is: fixed names below `<state>/lab`, folders 0700, files 0600."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from runbooks.core.errors import OpsError

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

CONTEXT = "lab"
"""Name of the cluster, the context and the stack."""


@dataclass(frozen=True)
class LabPaths:
    """The lab's files, from the state folder (`.ops` or `$OPS_STATE`)."""

    state_dir: Path

    @property
    def lab(self) -> Path:
        return self.state_dir / "lab"

    @property
    def kubeconfig(self) -> Path:
        return self.lab / "kubeconfig"

    @property
    def target(self) -> Path:
        return self.lab / "target.json"

    @property
    def backend(self) -> Path:
        """Root of a file backend, beside the cloud that holds the lab's own stacks."""
        return self.lab / "backend"

    @property
    def cloud(self) -> Path:
        """State of the lab's cloud: stacks, environments, keys."""
        return self.lab / "cloud"

    @property
    def token(self) -> Path:
        """The account's token, written by the cloud when it starts for the first time."""
        return self.cloud / "token"

    @property
    def stacks(self) -> Path:
        """Stack settings: `<pulumi project>/Pulumi.lab.yaml`."""
        return self.lab / "stacks"

    @property
    def file_stacks(self) -> Path:
        """The same for stacks in the file backend."""
        return self.lab / "file-stacks"

    @property
    def passphrase(self) -> Path:
        """Of the stacks in the file backend."""
        return self.lab / "passphrase"

    @property
    def credentials(self) -> Path:
        """pulumi's own login file is kept here, away from the user's."""
        return self.lab / "pulumi"

    @property
    def login(self) -> Path:
        return self.credentials / "credentials.json"

    @property
    def logs(self) -> Path:
        return self.lab / "logs"

    @property
    def bin(self) -> Path:
        """Links to the tools that serve the lab and are not the person's own: first in its runs and `lab.env`."""
        return self.lab / "bin"

    @property
    def tools(self) -> Path:
        """Where each tool of the last start came from."""
        return self.lab / "tools.json"

    @property
    def record(self) -> Path:
        return self.lab / "lab.json"

    @property
    def lock(self) -> Path:
        # Beside the lab's folder: `lab.reset` removes that one while it holds the lock.
        return self.state_dir / "lab.lock"

    @property
    def pki(self) -> Path:
        return self.lab / "pki"

    @property
    def etcd_data(self) -> Path:
        return self.lab / "etcd"

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"

    def prepare(self) -> None:
        """Makes the folders; raises `OpsError` where that is not possible."""
        folders = (
            self.lab,
            self.logs,
            self.backend,
            self.stacks,
            self.file_stacks,
            self.credentials,
            self.bin,
            self.etcd_data,
        )
        try:
            for folder in folders:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise self.unusable(error) from error

    def unusable(self, error: OSError) -> OpsError:
        return OpsError(
            f"the lab cannot have its folder: {error}",
            expected=f"{self.state_dir} can be written",
            next_step="export OPS_STATE=/a/folder/of/yours, then ./inv lab.up",
        )


def write_private(path: Path, content: str | bytes, *, survives_power_loss: bool = True) -> None:
    """Writes a file that only the user can read, all or nothing (temporary file, fsync, rename).

    Without the fsync, which takes milliseconds, it is all or nothing when a process is killed.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    data = content.encode() if isinstance(content, str) else content
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if survives_power_loss:
            file.flush()
            os.fsync(file.fileno())
    unfinished.rename(path)
