"""The programs that the lab needs, the module of each, and how it prints its version.

The versions stand in `<module>/go.mod` and nowhere else.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from runbooks.tools.pulumi import FIRST_WITH_EXIT_CODES

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Module:
    """The programs that one `go build` makes from a folder with a `go.mod`; they are cached together."""

    name: str
    path: str
    """The Go module whose version counts, as `go.mod` requires it."""
    seconds: int
    """How long a cold build takes on two cores, for the estimate shown while it runs."""
    folder_name: str = ""
    """The folder of the `go.mod`, if two modules share one; else `name`."""
    stamp: Callable[[str], tuple[str, ...]] = lambda _version: ()
    """Linker settings that set the programs' version, from a version such as `v1.36.3`."""
    beside: tuple[tuple[str, str], ...] = ()
    """Files that the programs look for in their own folder, as (Go module, path in it)."""

    @property
    def folder(self) -> Path:
        return HERE / (self.folder_name or self.name)

    @property
    def sources(self) -> list[tuple[str, bytes]]:
        """Our own Go and module files, of this folder and of those it uses: path below `HERE` → content."""
        neighbours = re.findall(r"=> \.\./(\S+)", (self.folder / "go.mod").read_text("utf-8"))
        folders = (self.folder, *(HERE / name for name in neighbours))
        files = [file for folder in folders for kind in ("*.go", "go.mod", "go.sum") for file in folder.rglob(kind)]
        return [(file.relative_to(HERE).as_posix(), file.read_bytes()) for file in sorted(files)]

    @cached_property
    def version(self) -> str:
        """The version that `go.mod` requires, with the leading v."""
        go_mod = self.folder / "go.mod"
        found = re.search(rf"^\s*(?:require\s+)?{re.escape(self.path)} (v\S+)", go_mod.read_text("utf-8"), re.MULTILINE)
        if found is None:
            raise ValueError(f"{go_mod} does not require {self.path}")
        return found.group(1)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One program of a module."""

    name: str
    module: Module
    package: str
    """The Go package to build (`./…` is ours); its last element, if not the program's name, is renamed afterwards."""
    version_argv: tuple[str, ...] = ("--version",)
    fits: Callable[[str, str], bool] = lambda _said, _pinned: False
    """Whether a program on PATH of the printed version may replace the pinned one (printed, pinned). Never
    for our own programs: what has that name on PATH is another program."""


def same_minor(printed: str, pinned: str) -> bool:
    """Whether both have the same minor version, such as `1.36.1` and `v1.36.3`."""
    return read_version(printed)[:2] == read_version(pinned)[:2]


def read_version(text: str) -> tuple[int, int, int]:
    """The first `x.y.z` in a program's output; zeros without one."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        return (0, 0, 0)
    return (int(found.group(1)), int(found.group(2)), int(found.group(3)))


def printed_by(argv: Sequence[str | Path], env: Mapping[str, str]) -> str:
    """The standard output of a program; empty if it cannot be started, fails or does not end."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


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


PULUMI_SDK = "github.com/pulumi/pulumi/sdk/v3"
PULUMI_PROVIDER = "github.com/pulumi/pulumi-kubernetes/provider/v4"


KUBERNETES = Module(name="kubernetes", path="k8s.io/kubernetes", seconds=150, stamp=_kubernetes_stamp)
ETCD = Module(name="etcd", path="go.etcd.io/etcd/server/v3", seconds=30)
KWOK = Module(name="kwok", path="sigs.k8s.io/kwok", seconds=45)
HELM = Module(
    name="helm",
    path="helm.sh/helm/v4",
    seconds=100,
    stamp=lambda version: (f"helm.sh/helm/v4/internal/version.version={version}",),
)
PULUMI = Module(
    name="pulumi",
    path="github.com/pulumi/pulumi/pkg/v3",
    seconds=160,
    stamp=lambda version: (f"{PULUMI_SDK}/go/common/version.Version={version}",),
    beside=((PULUMI_SDK, "python/cmd/pulumi-language-python-exec"),),
)
ESC_EVALUATOR = Module(name="esc-evaluator", folder_name="pulumi", path=PULUMI_SDK, seconds=10)
PULUMI_KUBERNETES = Module(
    name="pulumi-kubernetes",
    path=PULUMI_PROVIDER,
    seconds=85,
    stamp=lambda version: (f"main.version={version.removeprefix('v')}",),
    beside=tuple(
        (PULUMI_PROVIDER, f"cmd/pulumi-resource-kubernetes/{name}")
        for name in ("schema.json", "terraform-mapping.json")
    ),
)


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
        # Helm 4, or a Helm 3 that can render with `--dry-run=server` and reads OCI references.
        fits=lambda printed, _: read_version(printed) >= (3, 14, 0),
    ),
    Tool(
        name="pulumi",
        module=PULUMI,
        package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        version_argv=("version",),
        # One whose exit codes distinguish failures.
        fits=lambda printed, _: read_version(printed) >= FIRST_WITH_EXIT_CODES,
    ),
    # Ours: the vendor's language host is in no module that is served.
    Tool(name="pulumi-language-python", module=PULUMI, package="./pulumi-language-python"),
    # Ours around the vendor's: a program with the commands of its package, and one with its evaluator of environments.
    Tool(name="esc", module=PULUMI, package="./esc", version_argv=("version",), fits=lambda _said, _pinned: True),
    Tool(name="esc-evaluator", module=ESC_EVALUATOR, package="./esc-evaluator"),
    Tool(name="pulumi-resource-kubernetes", module=PULUMI_KUBERNETES, package="./pulumi-resource-kubernetes"),
)


def version_of(name: str) -> str:
    """The pinned version of a tool, for example `v1.36.3` for `kube-apiserver`."""
    return next(tool.module.version for tool in TOOLS if tool.name == name)
