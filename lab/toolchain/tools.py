"""Which programs the lab needs, from which module, and how each says its version.

The versions stand in `<module>/go.mod` and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Module:
    """One folder with a `go.mod`: built as a whole, cached as a whole."""

    name: str
    path: str
    """The Go module whose version counts, as `go.mod` requires it."""
    seconds: int
    """How long a cold build takes on two cores, for the estimate shown while it runs."""
    stamp: Callable[[str], tuple[str, ...]] = lambda _version: ()
    """Linker settings that tell the programs their own version, from a version such as `v1.36.3`."""

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def sources(self) -> list[Path]:
        """Our own Go files; none where the module only names programs of others."""
        return sorted(self.folder.rglob("*.go"))

    @property
    def version(self) -> str:
        """As required in `go.mod`, with the leading v."""
        return _required_version(self.folder / "go.mod", self.path)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One program of a module."""

    name: str
    module: Module
    package: str
    """The Go package to build (`./…` is ours); its last element, if not the program's name, is renamed afterwards."""
    version_argv: tuple[str, ...] = ("--version",)
    fits: Callable[[str, str], bool]
    """Whether a program on PATH that says this version serves as well as the pinned one (said, pinned)."""


@cache
def _required_version(go_mod: Path, path: str) -> str:
    found = re.search(rf"^\s*(?:require\s+)?{re.escape(path)} (v\S+)", go_mod.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{go_mod} does not require {path}")
    return found.group(1)


def same_minor(said: str, pinned: str) -> bool:
    """Equal up to the minor version: `1.36.1` for `v1.36.3`."""
    return read_version(said)[:2] == read_version(pinned)[:2]


def helm_renders_charts(said: str, _pinned: str) -> bool:
    """Helm 4, or a Helm 3 that can render with `--dry-run=server` and reads OCI references."""
    return read_version(said) >= (3, 14, 0)


def never(_said: str, _pinned: str) -> bool:
    """For our own programs: whatever has that name on PATH is something else."""
    return False


def read_version(text: str) -> tuple[int, int, int]:
    """The first `x.y.z` in what a program says about itself; zeros when there is none."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        return (0, 0, 0)
    return (int(found.group(1)), int(found.group(2)), int(found.group(3)))


def _kubernetes_stamp(version: str) -> tuple[str, ...]:
    # Helm's capability checks and kubectl's skew warning read these from the server's /version.
    major, minor, _patch = read_version(version)
    settings = {
        "gitVersion": version,
        "gitMajor": str(major),
        "gitMinor": str(minor),
        "gitCommit": "module",
        "gitTreeState": "archive",
    }
    return tuple(f"k8s.io/component-base/version.{name}={value}" for name, value in settings.items())


def _helm_stamp(version: str) -> tuple[str, ...]:
    return (f"helm.sh/helm/v4/internal/version.version={version}",)


KUBERNETES = Module(name="kubernetes", path="k8s.io/kubernetes", seconds=210, stamp=_kubernetes_stamp)
ETCD = Module(name="etcd", path="go.etcd.io/etcd/server/v3", seconds=45)
KWOK = Module(name="kwok", path="sigs.k8s.io/kwok", seconds=70)
HELM = Module(name="helm", path="helm.sh/helm/v4", seconds=100, stamp=_helm_stamp)
ESC = Module(name="esc", path="github.com/pulumi/esc", seconds=40)


def _kubernetes(name: str) -> Tool:
    return Tool(name=name, module=KUBERNETES, package=f"k8s.io/kubernetes/cmd/{name}", fits=same_minor)


TOOLS: tuple[Tool, ...] = (
    Tool(name="etcd", module=ETCD, package="go.etcd.io/etcd/server/v3", fits=same_minor),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    Tool(name="kwok", module=KWOK, package="sigs.k8s.io/kwok/cmd/kwok", fits=same_minor),
    Tool(
        name="helm",
        module=HELM,
        package="helm.sh/helm/v4/cmd/helm",
        version_argv=("version", "--short"),
        fits=helm_renders_charts,
    ),
    # Ours, around the vendor's evaluator of environments.
    Tool(name="esc-evaluator", module=ESC, package="./evaluator", fits=never),
)


def version_of(name: str) -> str:
    """The pinned version of a tool, for example `v1.36.3` for `kube-apiserver`."""
    return next(tool.module.version for tool in TOOLS if tool.name == name)
