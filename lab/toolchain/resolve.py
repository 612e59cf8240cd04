"""Finds every program of the lab: on PATH when its version fits, else in the per-user cache, else built now."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from lab.toolchain.build import Report, build, cache_folder, cached
from lab.toolchain.golang import Go, clear_own_caches, find_go
from lab.toolchain.tools import TOOLS, Module, Tool

REPORT_EVERY = 15.0
"""Seconds between two lines about builds that go on."""
BUILDERS = 2
"""Builds at the same time: one links (one core) while another compiles; more only costs memory."""


def resolve(report: Report, names: Iterable[str] = ()) -> dict[str, Path]:
    """Absolute paths of the tools called `names` (all of `TOOLS` when empty), building what is nowhere.

    Raises `OpsError` when there is no usable Go, `ToolFailed` when a build fails.
    """
    wanted = set(names) or {tool.name for tool in TOOLS}
    tools = [tool for tool in TOOLS if tool.name in wanted]
    found = {tool.name: path for tool in tools if (path := on_path(tool)) is not None}
    missing = [tool for tool in tools if tool.name not in found]
    if not missing:
        return found
    go = find_go()
    folders = _folders({tool.module.name: tool.module for tool in missing}, go, report)
    return found | {tool.name: folders[tool.module.name] / tool.name for tool in missing}


def on_path(tool: Tool) -> Path | None:
    """The program on PATH, when it runs and its version serves as well as the pinned one."""
    program = shutil.which(tool.name)
    if program is None:
        return None
    try:
        asked = subprocess.run([program, *tool.version_argv], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    fits = asked.returncode == 0 and tool.fits(asked.stdout, tool.module.version)
    return Path(program).absolute() if fits else None


def _folders(modules: dict[str, Module], go: Go, report: Report) -> dict[str, Path]:
    folders = {name: cached(module, go) for name, module in modules.items()}
    to_build = sorted(
        (modules[name] for name, folder in folders.items() if not folder.is_dir()),
        key=lambda module: -module.seconds,
    )
    if to_build:
        report(_announcement(to_build, go))
        _build_all(to_build, go, report)
        if freed := clear_own_caches(cache_folder()):
            report(f"removed what only the build needed ({freed / 1024**3:.1f} GiB)")
    return folders


def _announcement(modules: list[Module], go: Go) -> str:
    named = ", ".join(f"{module.name} {module.version}" for module in modules)
    return f"building {named} with {go.version}, once for this user: about {_estimate(modules) / 60:.0f} min"


def _estimate(modules: list[Module]) -> float:
    """Seconds for all of them here; the figures of `tools.py` are for two cores."""
    cores = min(8, os.cpu_count() or 1)
    return max(60.0, sum(module.seconds for module in modules) * 2 / cores)


def _build_all(modules: list[Module], go: Go, report: Report) -> None:
    stop = threading.Event()
    one_at_a_time = threading.Lock()

    def report_in_turn(line: str) -> None:
        with one_at_a_time:
            report(line)

    with ThreadPoolExecutor(BUILDERS, thread_name_prefix="toolchain") as pool:
        running = {pool.submit(build, module, go, report_in_turn, stop): module for module in modules}
        try:
            done = _await(running, report_in_turn)
        finally:
            # Reached early by Ctrl-C or a failed build: the other builds end, what they compiled stays cached by Go.
            stop.set()
            for future in running:
                future.cancel()
    for future in done:
        future.result()


def _await(running: dict[Future[Path], Module], report: Report) -> set[Future[Path]]:
    """The ended builds: all of them, or those until the first that failed."""
    began = time.monotonic()
    estimate = _estimate(list(running.values()))
    while True:
        done, rest = wait(running, timeout=REPORT_EVERY, return_when=FIRST_EXCEPTION)
        if not rest or any(future.exception() for future in done):
            return done
        names = ", ".join(module.name for future, module in running.items() if future in rest)
        report(f"still building {names}: {time.monotonic() - began:.0f} s of about {estimate:.0f} s")
