"""What the lab told its controllers: where its files are and which port the platform's database has."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

FIRST_CLUSTER = ("postgresql", "postgresql-cluster")
"""Namespace and name of the platform's own Cluster: its port is a setting of the lab."""


@dataclass(frozen=True)
class Settings:
    """`lab_dir` is the lab's state folder, private to its user."""

    lab_dir: Path

    @property
    def kubeconfig(self) -> Path:
        return self.lab_dir / "kubeconfig"

    def imposed_port(self, namespace: str, name: str) -> int | None:
        """The port a Cluster's server must have, from `target.json`, else from LAB_POSTGRES_PORT; None: any."""
        if (namespace, name) != FIRST_CLUSTER:
            return None
        told = self._target_setting("postgresql", "postgresql:port") or os.environ.get("LAB_POSTGRES_PORT", "")
        return int(told) if told.isdigit() else None

    def _target_setting(self, project: str, key: str) -> str:
        try:
            target = json.loads((self.lab_dir / "target.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        return str(target.get("settings", {}).get(project, {}).get(key, ""))
