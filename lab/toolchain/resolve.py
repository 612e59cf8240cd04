"""Finds every program of the lab: the user's own if it is suitable, else one in the cache, else builds it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from lab.toolchain.build import Build, Go, Progress, Report, cached, clear_own_caches, find_go, note_use
from lab.toolchain.tools import TOOLS, Module, printed_by, read_version
from runbooks.core.search_path import cache_folder, find_program
from runbooks.tools.pulumi_home import (
    LANGUAGE_HOST,
    NO_AMBIENT,
    find_installed,
    has_language_host,
    is_on,
    user_home,
    wanted_plugins,
)

REPORT_EVERY = 15.0
"""Seconds between two lines about running builds."""
PRIOR = 0.25
"""The share of a whole build that counts as much as the figures of `tools.py` in the estimate of what is left."""
BUILDERS = 2
"""Builds at the same time: one links (one core) while another compiles. More would only use memory."""
ON_PATH, INSTALLED, BUILT = "on PATH", "plugin folder", "built here"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A program of the lab and where it came from."""

    name: str
    program: Path
    version: str
    origin: str
    """ON_PATH, INSTALLED, BUILT, or a text that names another source."""

    @property
    def short_version(self) -> str:
        """The version, with only the day of a Go pseudo-version: `v4.0.0-20260115`."""
        return re.sub(r"(-\d{8})\d{6}-[0-9a-f]{12}$", r"\1", self.version)

    @property
    def source(self) -> str:
        """The origin with its path: `on PATH /usr/bin/kubectl`, `plugin folder ~/.pulumi/plugins`, `built here`."""
        place = {ON_PATH: self.program, INSTALLED: self.program.parent.parent}.get(self.origin)
        return f"{self.origin} {place}".replace(f" {Path.home()}/", " ~/") if place else self.origin


def resolve(report: Report, names: Iterable[str]) -> dict[str, Found]:
    """Find the tools called `names`, and build those that are missing.

    A pulumi of the user's brings its language host and takes the place of `esc`. Raises `OpsError` when there is no
    usable Go, `ToolFailed` when a build fails.
    """
    wanted = set(names)
    found = {name: tool for name in sorted(wanted) if (tool := of_user(name)) is not None}
    if "pulumi" in found:
        # It has its own language host beside it, and `pulumi env` does what esc does.
        wanted -= {LANGUAGE_HOST, "esc"}
    missing = [tool for tool in TOOLS if tool.name in wanted - found.keys()]
    if missing:
        folders = _folders({tool.module.name: tool.module for tool in missing}, report)
        found |= {
            tool.name: Found(
                name=tool.name, program=folders[tool.module.name] / tool.name, version=tool.module.version, origin=BUILT
            )
            for tool in missing
        }
    return found


def of_user(name: str, environ: Mapping[str, str] = os.environ) -> Found | None:
    """The user's own program: an installed plugin, or one on PATH whose version is suitable."""
    if name.startswith("pulumi-resource-"):
        return _plugin(name.removeprefix("pulumi-resource-"), environ)
    tool = next(tool for tool in TOOLS if tool.name == name)
    program = find_program(name, environ)
    if program is None or (name == "pulumi" and not has_language_host(program)):
        return None
    printed = printed_by([program, *tool.version_argv], {**environ, "PULUMI_SKIP_UPDATE_CHECK": "true"})
    if not printed or not tool.fits(printed, tool.module.version):
        return None
    version = ".".join(map(str, read_version(printed)))
    return Found(name=name, program=program, version=f"v{version}", origin=ON_PATH)


def _plugin(name: str, environ: Mapping[str, str]) -> Found | None:
    """A provider that the user's pulumi finds: on PATH, or installed in the version that the SDK requires."""
    plugin = next((one for one in wanted_plugins() if one.name == name), None)
    if plugin is None:
        return None
    on_path = None if is_on(NO_AMBIENT, environ) else find_program(plugin.program, environ)
    if on_path is not None:
        return Found(name=plugin.program, program=on_path, version="any", origin=ON_PATH)
    folder = find_installed(plugin, user_home(environ) / "plugins")
    if folder is None:
        return None
    program = folder / plugin.program
    return Found(name=plugin.program, program=program, version=f"v{plugin.version}", origin=INSTALLED)


def _folders(modules: dict[str, Module], report: Report) -> dict[str, Path]:
    folders = {name: cached(module) for name, module in modules.items()}
    to_build = sorted(
        (modules[name] for name, folder in folders.items() if not folder.is_dir()), key=lambda module: -module.seconds
    )
    if to_build:
        go = find_go()
        named = ", ".join(f"{module.name} {module.version}" for module in to_build)
        minutes = _minutes(_estimate(to_build))
        report(f"building {named} with {go.version}, once for this user: about {minutes}")
        _build_all(to_build, go, report)
        if freed := clear_own_caches(cache_folder()):
            report(f"removed what only the build needed ({freed / 1024**3:.1f} GiB)")
    for folder in folders.values():
        note_use(folder)
    return folders


def _estimate(modules: Sequence[Module]) -> float:
    """Estimate the seconds that all builds take on this machine; the figures of `tools.py` are for two cores."""
    cores = min(8, os.cpu_count() or 1)
    return sum(module.seconds for module in modules) * 2 / cores


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min"


def _build_all(modules: Sequence[Module], go: Go, report: Report) -> None:
    stop = threading.Event()
    one_at_a_time = threading.Lock()

    def report_in_turn(line: str) -> None:
        with one_at_a_time:
            report(line)

    builds = [Build(module, go, report_in_turn, stop) for module in modules]
    began = time.monotonic()
    with ThreadPoolExecutor(BUILDERS, thread_name_prefix="toolchain") as pool:
        running = [pool.submit(build.run) for build in builds]
        try:
            while True:
                done, rest = wait(running, timeout=REPORT_EVERY, return_when=FIRST_EXCEPTION)
                if not rest or any(future.exception() for future in done):
                    break
                elapsed = time.monotonic() - began
                report_in_turn(progress_line([build.progress for build in builds], elapsed))
        finally:
            # Reached early by an interrupt or a failed build: the others stop, what they compiled stays cached by Go.
            stop.set()
            for future in running:
                future.cancel()
    for future in done:
        future.result()


def progress_line(builds: Sequence[Progress], elapsed: float) -> str:
    """`built etcd; building pulumi (812 of 1733 packages), kubernetes; about 4 min left`."""
    built = ", ".join(build.module.name for build in builds if build.done)
    going_on = ", ".join(
        build.module.name + (f" ({build.packages} of {build.total} packages)" if build.total else "")
        for build in builds
        if not build.done
    )
    words = [f"built {built}"] if built else []
    if going_on:
        words += [f"building {going_on}", f"about {_minutes(seconds_left(builds, elapsed))} left"]
    return "; ".join(words)


def seconds_left(builds: Sequence[Progress], elapsed: float) -> float:
    """Estimate from the speed until now and from the figures of `tools.py`, which count less the more is done."""
    weights = sum(build.module.seconds for build in builds)
    done = sum(build.share * build.module.seconds for build in builds) / weights
    whole = (PRIOR * _estimate([build.module for build in builds]) + elapsed) / (PRIOR + done)
    return whole * (1 - done)
