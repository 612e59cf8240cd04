"""The type `Stack`: one stack of one Pulumi project, with everything that a pulumi command needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Stack:
    """`-C folder --stack name [--config-file config_file]`, started as `program` with `env`."""

    service: str
    """The service's name in the runbooks."""
    project: str
    """Pulumi's project name, as in `Pulumi.yaml`."""
    name: str
    """The stack's name, e.g. `mx` or `lab`."""
    organization: str
    """`organization` on file backends."""
    folder: Path
    """Absolute folder of the project's `Pulumi.yaml`."""
    config_file: Path | None = None
    """The stack config if it is not in the project's folder (the lab); passed as `--config-file`."""
    init_folder: Path | None = None
    """Where `stack init` runs: a folder with a copy of `Pulumi.yaml`, into which it writes the stack config.

    `None` means the project's own folder.
    """
    program: str = "pulumi"
    """Absolute path of the pulumi to start."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def reference(self) -> str:
        """`<organization>/<project>/<stack>`, as a `StackReference` takes it."""
        return f"{self.organization}/{self.project}/{self.name}"

    @property
    def selector(self) -> str:
        """The value of `--stack`: the name alone on file and bucket backends, with the organization on the cloud."""
        return self.name if self.organization == "organization" else f"{self.organization}/{self.name}"

    @property
    def settings_file(self) -> Path:
        return self.config_file or self.folder / f"Pulumi.{self.name}.yaml"
