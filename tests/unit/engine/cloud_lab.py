"""A scratch lab on a cloud of its own, in which the stand-in runs as a process that can be watched and disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.contract import recorded_programs as P  # noqa: N812 - a table of texts
from tests.contract.cloud_stage import CloudStage, make_stage
from tests.unit.cloud.conftest import Caller

PATIENCE = 60.0
"""Seconds after which a process of the stand-in is taken for hanging."""

SLOW = P.HEAD + P.NAMESPACE + P.SLOW % "x"
"""Makes a namespace, then waits for a Deployment that never gets ready."""
WAITS = "Waiting for app ReplicaSet"

UP = ("up", "-s", "mx", "--yes", "--skip-preview")

GATED = (
    P.HEAD
    + P.NAMESPACE
    + """
import pathlib, time
def wait(_):
    while not pathlib.Path(%r).exists():
        time.sleep(0.02)
    return "late"
late = ns.metadata.apply(wait)
k8s("core/v1:ConfigMap", "late", metadata={"name": late}, data={"colour": "blue"})
"""
)
"""Makes a namespace, waits for a file, then makes a ConfigMap; with the file's path."""


@dataclass
class Running:
    """A process of the stand-in; both of its streams are read together."""

    child: subprocess.Popen[str]
    output: str = ""
    _timer: threading.Timer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._timer = threading.Timer(PATIENCE, self.child.kill)
        self._timer.daemon = True
        self._timer.start()

    def until(self, words: str) -> psutil.Process:
        """Read up to the line with these words. The program that it runs, as a process."""
        for line in self.child.stdout or ():
            self.output += line
            if words in line:
                return self.program()
        raise AssertionError(f"ended without {words!r}:\n{self.output}")

    def program(self) -> psutil.Process:
        children = psutil.Process(self.child.pid).children()
        return next(one for one in children if any("program_child.py" in word for word in one.cmdline()))

    def end(self) -> int:
        """Wait for it; its exit code."""
        self.output += self.child.communicate()[0]
        self._timer.cancel()
        assert "Traceback (most recent call last)" not in self.output, self.output
        return self.child.returncode

    def kill(self) -> None:
        """Nothing happens to one that has ended."""
        self.child.kill()
        self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
        self._timer.cancel()


@dataclass
class CloudLab:
    """``stage`` runs the stand-in, ``caller`` asks the cloud without it."""

    stage: CloudStage
    caller: Caller

    @property
    def stack(self) -> str:
        return "/api/stacks/organization/sample/mx"

    @property
    def gate(self) -> Path:
        return self.stage.root / "gate"

    def gated(self) -> None:
        self.stage.write_program(GATED % str(self.gate))

    @contextlib.contextmanager
    def running(self, *argv: str) -> Iterator[Running]:
        child = subprocess.Popen(
            [*self.stage.launcher, *argv],
            cwd=self.stage.folder,
            env={**os.environ, **self.stage.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running = Running(child)
        try:
            yield running
        finally:
            running.kill()

    @property
    def active(self) -> str:
        """The update that runs, as the cloud says."""
        return str(self.caller.get(self.stack)["activeUpdate"])

    def deployment(self) -> dict[str, Any]:
        deployment: dict[str, Any] = self.caller.get(f"{self.stack}/export")["deployment"]
        return deployment

    def names(self) -> list[str]:
        """The resources that the state has, by name, without provider and stack."""
        urns = [one["urn"] for one in self.deployment().get("resources") or ()]
        return sorted(urn.rsplit("::", 1)[-1] for urn in urns if "::pulumi:" not in urn)

    def pending(self) -> list[tuple[str, str]]:
        found = self.deployment().get("pending_operations") or ()
        return [(one["type"], one["resource"]["urn"].rsplit("::", 1)[-1]) for one in found]

    def results(self) -> list[str]:
        """Of the updates, the newest first."""
        return [one["result"] for one in self.caller.get(f"{self.stack}/updates")["updates"]]

    def objects(self) -> list[str]:
        """What the cluster has."""
        return sorted(json.loads((self.stage.root / "cluster.json").read_text()))


def open_lab(root: Path, url: str, token: str) -> CloudLab:
    """The project ``sample`` with the stack ``mx``, its program ``SLOW``."""
    stage = make_stage(root, url, token, "sample")
    stage.must("stack", "init", "mx")
    stage.write_program(SLOW)
    return CloudLab(stage, Caller(url, token))


def is_gone(process: psutil.Process) -> bool:
    """Within a few seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.wait(20)
    return not process.is_running()
