"""A running lab for the whole session, in a state folder of its own beside any other lab of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import platform, toolchain
from lab.platform import ports, processes
from lab.platform.supervisor import Record
from tests.lab.command_line import Checkout, Deployed, commit_everything, git_status, make_state
from tests.lab.refused_routes import every_route_of_the_cloud_is_there as every_route_of_the_cloud_is_there
from tests.lab.workshop import Workshop


@dataclass(frozen=True)
class Lab:
    """What tests need of a running lab."""

    state_dir: Path

    @property
    def lab_dir(self) -> Path:
        return self.state_dir / "lab"

    @property
    def kubeconfig(self) -> Path:
        return self.lab_dir / "kubeconfig"

    @property
    def target(self) -> dict[str, Any]:
        """The content of `target.json`."""
        content: dict[str, Any] = json.loads((self.lab_dir / "target.json").read_text("utf-8"))
        return content

    def kubectl(self, *args: str, stdin: str = "") -> str:
        """What `kubectl ARGS` prints; a failure is an AssertionError with its complaint."""
        argv = [self.target["tools"]["kubectl"], "--kubeconfig", self.kubeconfig, *args]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
        return done.stdout

    def get(self, *args: str) -> dict[str, Any]:
        """`kubectl get ARGS` as an object."""
        content: dict[str, Any] = json.loads(self.kubectl("get", *args, "--output=json"))
        return content


def kill(*pids: int) -> None:
    """SIGKILL, and wait until they are gone: before that a look at the lab may still find them well."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert processes.wait_until(lambda: not any(map(processes.identify, pids)), 10)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab that is up; a test that ends a component brings it up again itself."""
    state_dir = tmp_path_factory.mktemp("state")
    # Not 5432, which the lab of the person who runs the tests may want.
    (state_dir / "lab").mkdir(mode=0o700)
    Record(ports={"postgres": ports.pick(())}).save(state_dir / "lab" / "lab.json")
    try:
        platform.up(state_dir, print)
        yield Lab(state_dir)
    finally:
        platform.reset(state_dir, print)


@pytest.fixture(scope="session")
def helm() -> Path:
    """What `charts.*` use: the one on PATH, else built, once for this user."""
    return toolchain.resolve(print, ["helm"])["helm"].program


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """What the README's first command gives: a checkout in which `./inv deploy.postgres` was run, and what it said."""
    with first_run(tmp_path_factory.mktemp("command-line"), "deploy.postgres") as done:
        yield done


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A checkout in which `./inv deploy.all` was run as the first command, and what it said."""
    with first_run(tmp_path_factory.mktemp("whole"), "deploy.all") as done:
        yield done


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes the whole platform down comes after everything that works on it."""
    items.sort(key=lambda item: item.path.name == "test_whole_platform_end.py")


@contextlib.contextmanager
def first_run(folder: Path, *words: str) -> Iterator[Deployed]:
    """`./inv WORDS` in a new checkout, with a lab of its own that goes afterwards."""
    make_state(folder / "state")
    checkout = Checkout(folder / "checkout", folder / "state")
    commit_everything(checkout.root)
    try:
        said = checkout.inv(*words)
        yield Deployed(checkout=checkout, said=said, changed_files=git_status(checkout.root))
    finally:
        platform.reset(folder / "state", print)


@pytest.fixture(scope="session")
def workshop(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Another checkout on the same lab, in which tests may change what they like."""
    assert deployed.said.code == 0, deployed.said.all
    return Workshop(tmp_path_factory.mktemp("workshop") / "checkout", deployed.checkout.state_dir)
