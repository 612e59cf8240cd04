"""Starts the lab's processes in order, restarts those that crashed or changed, and stops them.

No supervisor keeps running: the processes outlive the command, and the next `lab.up` repairs them. `lab.json` has what
must be remembered between two commands (ports, processes, versions).
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.platform import ports, processes
from lab.platform.paths import LabPaths, write_private
from lab.platform.processes import ProcessId
from runbooks.core.errors import OpsError, ToolFailed, Usage
from runbooks.core.files import try_lock, writing

Report = Callable[[str], None]

PATIENCE = 10.0
"""Seconds for a running component to answer, before it counts as stuck and is restarted."""
LOG_LIMIT = 20 * 1024 * 1024
"""Bytes of a log beyond which the component's next start begins a new log; the previous one is kept."""
STOP_WITHIN = 20.0
"""Seconds that a component gets to stop by itself."""
FORMAT = 1
"""Version of the format of `lab.json`."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One long-running process of the lab. A new one is one entry in `control_plane.components`."""

    name: str
    argv: tuple[str, ...]
    probe: Callable[[], str]
    """Returns an empty text if the component is ready, else what is wrong. It never raises."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables added to those that every component gets (`base_environment`)."""
    reads: tuple[Path, ...] = ()
    """Files that it reads only at its start (config, its own code). It is restarted when their content changes."""
    port: int | None = None
    """Its port on 127.0.0.1."""
    more_ports: tuple[int, ...] = ()
    version: str = ""
    needs: tuple[str, ...] = ()
    """Components that must be ready before this one is started."""
    ready_within: float = 60.0
    """Seconds from its start until it must be ready."""
    stop_within: float = 10.0
    """Seconds before it is killed."""

    @property
    def fingerprint(self) -> str:
        """A hash that changes when the component would be started differently."""
        digest = hashlib.sha256(json.dumps([self.argv, sorted(self.env.items())]).encode())
        for path in self.reads:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class ComponentStatus:
    """One line of `lab.status`."""

    name: str
    ready: bool
    health: str
    """`ready`, `stopped`, `crashed`, or what its probe reports."""
    version: str
    pid: int | None = None
    port: int | None = None
    memory: int | None = None
    """Bytes, of the process and its descendants; pages that processes share are counted once."""


@dataclass(frozen=True)
class Started:
    """The facts of a component's last start."""

    process: ProcessId
    fingerprint: str
    version: str


@dataclass
class Record:
    """The content of `lab.json`. Changed only by the process that holds the lab's lock."""

    ports: dict[str, int] = field(default_factory=dict)
    components: dict[str, Started] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read the saved record, empty without a file. Raises `Usage` for any other content."""
        try:
            content = json.loads(path.read_text("utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"not of format {FORMAT}")  # noqa: TRY301 - read like any other wrong content
            # A lab that was started before they were called so still runs.
            stored = content["components" if "components" in content else "parts"]
            components = {
                str(name): Started(
                    ProcessId(int(one["pid"]), str(one["started"])), str(one["fingerprint"]), str(one["version"])
                )
                for name, one in stored.items()
            }
            return cls({str(name): int(port) for name, port in content["ports"].items()}, components)
        except FileNotFoundError:
            return cls()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Usage(
                f"the lab's record {path} cannot be read: {type(error).__name__}: {error}",
                expected="the file that lab.up wrote",
                next_step="./inv lab.reset   (stops the lab's processes and removes its state)",
            ) from error

    def save(self, path: Path) -> None:
        components = {
            name: asdict(started.process) | {"fingerprint": started.fingerprint, "version": started.version}
            for name, started in self.components.items()
        }
        content = {"format": FORMAT, "ports": self.ports, "components": components}
        write_private(path, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def hold_lock(paths: LabPaths, report: Report, seconds: float = 1800.0) -> Iterator[None]:
    """Hold the lock of `lab.up`, `lab.down` and `lab.reset`. A second command waits as long as a set-up may take."""
    with writing("the lab's folder", paths.state_dir):
        paths.state_dir.mkdir(parents=True, exist_ok=True)
        lock = os.fdopen(os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600), "r+b")

    with lock:
        if not try_lock(lock):
            report("another lab command is at work; waiting for it")
            if not processes.wait_until(lambda: try_lock(lock), seconds, every=0.2):
                raise OpsError(
                    f"another lab command has held {paths.lock} for more than {seconds:.0f} s",
                    expected="one lab.up, lab.down or lab.reset at a time",
                    next_step=f"fuser {paths.lock}   (which process holds it)",
                )
        yield


def is_locked(paths: LabPaths) -> bool:
    """Whether a command that starts, stops or removes the lab runs now."""
    try:
        with paths.lock.open("r+b") as lock:
            return not try_lock(lock)
    except OSError:  # no lab, or not this user's
        return False


def base_environment(paths: LabPaths) -> dict[str, str]:
    """The variables of every component: none of the caller's, and the mark by which its processes are found."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",  # the servers themselves are started by absolute paths
        "HOME": str(paths.lab),
        "LANG": "C.UTF-8",
        processes.MARK: str(paths.lab),
    }


@dataclass
class Supervisor:
    """Starts and stops components. The caller holds the lab's lock (`hold_lock`)."""

    paths: LabPaths
    record: Record
    report: Report
    _since: dict[str, float] = field(default_factory=dict)
    """Component → when this run first looked at it, or started it (monotonic)."""
    _fresh: set[str] = field(default_factory=set)
    """The components that this run started."""

    def bring_up(self, components: Sequence[Component]) -> None:
        """Start the components and wait until every one is ready; needs that are not among them count as ready.

        Raises `OpsError` for a port that another process took, `ToolFailed` (with the last lines of the log) for a
        component that ends or is not ready in its time.
        """
        for component in components:
            if not self._is_running(component):
                self._clear_way(component)
        waiting = {component.name: component for component in components}
        while waiting:
            for component in [one for one in waiting.values() if waiting.keys().isdisjoint(one.needs)]:
                if self._is_ready(component):
                    del waiting[component.name]
            if waiting:
                time.sleep(0.03)

    def _is_running(self, component: Component) -> bool:
        """Whether it runs and was started as it is declared now."""
        started = self.record.components.get(component.name)
        if started is None or started.fingerprint != component.fingerprint:
            return False
        return processes.is_alive(started.process)

    def _clear_way(self, component: Component) -> None:
        """Stop the rest of an earlier start, then require the component's ports to be free."""
        started = self.record.components.get(component.name)
        if started is not None and processes.is_alive(started.process):
            self.report(f"{component.name} has changed settings: starting it again")
            processes.end(started.process, seconds=component.stop_within)
        elif started is not None:
            self.report(f"{component.name} had ended: starting it again")
        # Of a lab.up that was killed between starting a process and writing it down.
        for stray in processes.started_as(self.paths.lab, component.argv):
            processes.end(stray, seconds=component.stop_within)
        for port in (component.port, *component.more_ports):
            if port is not None:
                ports.refuse_taken(component.name, port)

    def _is_ready(self, component: Component) -> bool:
        """Check the component once; start it if it does not run. Raises `ToolFailed` after too many failures."""
        if component.name not in self._since:
            self._since[component.name] = time.monotonic()
            if not self._is_running(component):
                self._start(component)
                return False
        trouble = component.probe()
        seconds = time.monotonic() - self._since[component.name]
        is_fresh = component.name in self._fresh
        if not trouble:
            if is_fresh:
                self.report(" ".join(f"{component.name} {component.version} ready after {seconds:.1f} s".split()))
            return True
        if is_fresh:
            self._give_up_in_time(component, trouble, seconds)
        elif seconds > PATIENCE:
            self.report(f"{component.name} is stuck ({trouble}): starting it again")
            processes.end(self.record.components[component.name].process, seconds=component.stop_within)
            self._since[component.name] = time.monotonic()
            self._start(component)
        return False

    def _give_up_in_time(self, component: Component, trouble: str, seconds: float) -> None:
        ended = not processes.is_alive(self.record.components[component.name].process)
        if not ended and seconds < component.ready_within:
            return
        what = "ended right after its start" if ended else f"is not ready: {trouble}"
        log = self.paths.log(component.name)
        lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()[-40:] if line.strip()]
        last = " / ".join([line[:300] for line in lines if not line.startswith("--- started")][-2:])
        raise ToolFailed(
            f"{component.name} {what} (after {seconds:.0f} s); its last lines: {last or 'none'}",
            expected="a component that runs and answers its probe",
            next_step=f"read {log}, then ./inv lab.up",
        )

    def _start(self, component: Component) -> None:
        log = self.paths.log(component.name)
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.rename(log.with_name(f"{log.name}.1"))
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
            file.write(f"--- started {now}\n")
        self._fresh.add(component.name)
        try:
            env = base_environment(self.paths) | dict(component.env)
            process = processes.start(component.argv, env=env, cwd=self.paths.lab, log=log)
        except OSError as error:
            raise ToolFailed(
                f"{component.name} cannot be started: {error}",
                expected=f"{component.argv[0]} is a program that runs here",
                next_step="./inv lab.up   (builds what is missing)",
            ) from error
        self.record.components[component.name] = Started(process, component.fingerprint, component.version)
        self.record.save(self.paths.record)

    def end_all(self) -> None:
        """Stop the components, last started first, then all other processes of this lab (its Postgres servers)."""
        for name, started in reversed(self.record.components.items()):
            if processes.is_alive(started.process) and not processes.end(started.process, seconds=STOP_WITHIN):
                self.report(f"{name} did not stop within {STOP_WITHIN:.0f} s and was killed")
        self._end_leftovers()
        if self.record.components:
            self.record.components.clear()
            self.record.save(self.paths.record)

    def _end_leftovers(self) -> None:
        """Stop every process that has the lab's mark, recorded or not; Postgres by its fast shutdown."""
        left = processes.of_lab(self.paths.lab)
        for process in left:
            # To Postgres SIGTERM means: wait until the last client has disconnected.
            processes.send(process, signal.SIGINT if processes.is_postgres(process.pid) else signal.SIGTERM)
        if not processes.wait_until(lambda: not any(map(processes.is_alive, left)), STOP_WITHIN):
            for process in filter(processes.is_alive, left):
                self.report(f"process {process.pid} ({processes.name_of(process.pid)}) was killed")
                processes.send(process, signal.SIGKILL)
        if not processes.wait_until(lambda: not processes.of_lab(self.paths.lab), 5.0):
            names = (f"{one.pid} ({processes.name_of(one.pid)})" for one in processes.of_lab(self.paths.lab))
            raise ToolFailed(
                f"processes of the lab are still there: {', '.join(names)}",
                expected="none",
                next_step="./inv lab.down   (once more)",
            )
