"""Builds one pinned Go module into the cache: once per user, whoever asks, and all or nothing."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.toolchain.golang import Go, build_environment, using_caches
from lab.toolchain.tools import TOOLS, Module
from runbooks.lib.errors import ToolFailed

Report = Callable[[str], None]


def cache_folder() -> Path:
    """`homelab-ops` in the user's cache folder (XDG); made when missing."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".cache"
    folder = base / "homelab-ops"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def linker_flags(module: Module) -> str:
    stamps = " ".join(f"-X {setting}" for setting in module.stamp(module.version))
    return f"-s -w {stamps}".strip()


def cache_key(module: Module, go: Go) -> str:
    """The folder's name: other module files or sources, another Go or other flags are another build."""
    digest = hashlib.sha256()
    for text in (
        *(path.read_bytes() for path in (module.folder / "go.mod", module.folder / "go.sum", *module.sources)),
        go.version.encode(),
        linker_flags(module).encode(),
        platform.machine().encode(),
    ):
        digest.update(len(text).to_bytes(8, "big") + text)
    return f"{module.name}-{module.version}-{digest.hexdigest()[:12]}"


def cached(module: Module, go: Go) -> Path:
    """Where the module's programs are, or would be, in the cache."""
    return cache_folder() / "bin" / cache_key(module, go)


def build(module: Module, go: Go, report: Report, stop: threading.Event) -> Path:
    """The folder with the module's programs, built now unless another run has just done it.

    Raises `ToolFailed` with the log's path. `stop` ends the build early (another one failed, or Ctrl-C).
    """
    target = cached(module, go)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _turn(target, report, stop) as lock:
        if target.is_dir():
            return target
        if stop.is_set():
            raise ToolFailed(f"building {module.name} {module.version} was stopped")
        for leftover in target.parent.glob(f".{target.name}.*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
        unfinished = target.parent / f".{target.name}.{os.getpid()}"
        unfinished.mkdir()
        log = target.parent / f"{target.name}.log"
        _run_go(module, go, unfinished, log, lock, report, stop)
        log.unlink()
        _use_tool_names(module, unfinished)
        unfinished.rename(target)
    return target


@contextlib.contextmanager
def _turn(target: Path, report: Report, stop: threading.Event) -> Iterator[int]:
    """Holds the build's lock file. The Go child inherits it, so an orphaned build still counts as running."""
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        told = False
        while not stop.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    report(f"another run is building {target.name}; waiting for it")
                    told = True
                stop.wait(0.2)
        yield lock.fileno()


def _run_go(module: Module, go: Go, output: Path, log: Path, lock: int, report: Report, stop: threading.Event) -> None:
    packages = [tool.package for tool in TOOLS if tool.module is module]
    # Without debug information, which is stripped anyway, the compiler is a seventh faster.
    flags = ["-mod=readonly", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", linker_flags(module)]
    started = time.monotonic()
    with log.open("wb") as written, using_caches(cache_folder()) as caches:
        child = subprocess.Popen(
            # Out of the way of whatever else the person does with the machine meanwhile.
            ["nice", "-n", "10", go.program, "build", *flags, "-o", f"{output}/", *packages],
            cwd=module.folder,
            env=build_environment(go, cache_folder()),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock, caches),
        )
        try:
            _wait(child, stop)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    seconds = time.monotonic() - started
    if child.returncode != 0:
        raise ToolFailed(
            f"building {module.name} {module.version} failed after {seconds:.0f} s: {_last_words(log)}",
            expected="the pinned Go module builds (it needs the Go module proxy the first time)",
            next_step=f"read {log}, then run the same command again: what was built is kept",
        )
    report(f"built {module.name} {module.version} in {seconds:.0f} s")


def _wait(child: subprocess.Popen[bytes], stop: threading.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)
            return


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return " / ".join(lines[-2:]) or "no output"


def _use_tool_names(module: Module, folder: Path) -> None:
    """`go build` names a program after its package's last element (`server` for etcd)."""
    for tool in TOOLS:
        if tool.module is not module:
            continue
        built = tool.package.rsplit("/", 1)[-1]
        if built.startswith("v") and built[1:].isdigit():
            built = tool.package.rsplit("/", 2)[-2]
        if built != tool.name:
            (folder / built).rename(folder / tool.name)
