"""The stand-in serves the lab only: it refuses any other back end and any other cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab.engine.failures import CommandFailed
from lab.engine.project import read_yaml

ROOT = Path(__file__).resolve().parents[2]


def lab_folder(environment: Mapping[str, str]) -> Path:
    state = environment.get("OPS_STATE") or str(ROOT / ".ops")
    return Path(state) / "lab"


@dataclass(frozen=True)
class LabBackend:
    """``url`` of the lab's back end (files or cloud) and the organization of its stacks."""

    url: str
    organization: str

    @property
    def is_cloud(self) -> bool:
        return self.url.startswith(("http://", "https://"))


def lab_backend(environment: Mapping[str, str], name: str = "pulumi") -> LabBackend:
    """The back end asked for, after checking that it is the lab's. ``name``: whose stand-in asks."""
    folder = lab_folder(environment)
    asked = environment.get("PULUMI_BACKEND_URL", "").rstrip("/")
    try:
        target: dict[str, Any] = json.loads((folder / "target.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandFailed(
            f"this {name} is the lab's stand-in and the lab has not been set up: {folder / 'target.json'} is missing. "
            f"Start it with `./inv lab.up`, or put the real {name} first on PATH"
        ) from None
    except ValueError as error:
        raise CommandFailed(f"{folder / 'target.json'} is damaged ({error}); run `./inv lab.up`") from error
    backend = str(target.get("backend", "")).rstrip("/")
    if not asked or asked not in (backend, str(target.get("file_backend", "")).rstrip("/")):
        raise CommandFailed(
            f"this {name} is the lab's stand-in and serves only the lab's back end: "
            f"PULUMI_BACKEND_URL is '{asked or 'not set'}', the lab's is '{backend}'. "
            f"Put the real {name} first on PATH for anything else"
        )
    found = LabBackend(asked, str(target.get("organization") or "organization"))
    if found.is_cloud and not _is_loopback(asked):
        raise CommandFailed(f"the lab's back end must be on loopback, and {folder / 'target.json'} has '{asked}'")
    return found


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def check_cluster(environment: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Refuse a kubeconfig, and settings that choose one, whose server is not the lab's."""
    for key in ("kubernetes:kubeconfig", "kubernetes:cluster"):
        if key in settings:
            raise CommandFailed(
                f"the setting {key} chooses a cluster, and this pulumi, the lab's stand-in, serves only the lab's "
                "cluster: remove the setting"
            )
    folder = lab_folder(environment)
    expected, authority = _cluster(folder / "kubeconfig", "")
    asked = environment.get("KUBECONFIG", "")
    if not asked:
        raise CommandFailed(
            "this pulumi is the lab's stand-in and serves only the lab's cluster: KUBECONFIG is not set, it must name "
            f"a kubeconfig of {expected}. `./inv lab.env` prints it"
        )
    found, found_authority = _cluster(Path(asked), settings.get("kubernetes:context", ""))
    if found != expected or found_authority != authority:
        raise CommandFailed(
            "this pulumi is the lab's stand-in and serves only the lab's cluster: "
            f"KUBECONFIG ({asked}) leads to {found or 'no server'}, the lab's is {expected}"
            + (" with another certificate authority" if found == expected else "")
        )


def _cluster(path: Path, context: str) -> tuple[str, str]:
    """Server and certificate authority of a context, by default the current one.

    A context that is not there is looked over: with one cluster in the file there is no other to reach.
    """
    if not path.is_file():
        raise CommandFailed(f"kubeconfig {path} is missing; `./inv lab.up` writes the lab's")
    document = read_yaml(path)
    contexts = {entry.get("name"): entry.get("context") or {} for entry in document.get("contexts") or ()}
    clusters = {entry.get("name"): entry.get("cluster") or {} for entry in document.get("clusters") or ()}
    chosen = contexts.get(context or document.get("current-context") or "")
    if chosen is None and len(clusters) == 1:
        cluster = next(iter(clusters.values()))
    else:
        cluster = clusters.get((chosen or {}).get("cluster")) or {}
    return str(cluster.get("server", "")), str(cluster.get("certificate-authority-data", ""))


def strip_python_path() -> None:
    """Take the repository, which the launcher put on PYTHONPATH for this process, away from child processes."""
    parts = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and Path(part) != ROOT]
    if parts:
        os.environ["PYTHONPATH"] = os.pathsep.join(parts)
    else:
        os.environ.pop("PYTHONPATH", None)
