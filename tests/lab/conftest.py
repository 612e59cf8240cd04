"""A running lab for the whole session, in a state folder of its own beside any other lab of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import platform, toolchain
from tests.lab.command_line import Checkout, Deployed, Lab, commit_everything, git_status, make_state
from tests.lab.objects import temporary_namespace
from tests.lab.probe import ProbeCheckout
from tests.lab.refused_routes import every_route_of_the_cloud_is_there as every_route_of_the_cloud_is_there


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab that is up; a test that ends a component brings it up again itself."""
    state_dir = tmp_path_factory.mktemp("state")
    make_state(state_dir)
    try:
        platform.up(state_dir, print)
        yield Lab(state_dir)
    finally:
        platform.reset(state_dir, print)


@pytest.fixture
def namespace(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    with temporary_namespace(lab, request.node.name) as name:
        yield name


@pytest.fixture(scope="session")
def helm() -> Path:
    """What `charts.*` use: the one on PATH, else built, once for this user."""
    return toolchain.resolve(print, ["helm"])["helm"].program


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """What the README's first command gives: a checkout in which `./inv deploy.postgres` was run, and its result."""
    with first_run(tmp_path_factory.mktemp("command-line"), "deploy.postgres") as done:
        yield done


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A checkout in which `./inv deploy.all` was run as the first command, and its result."""
    with first_run(tmp_path_factory.mktemp("whole"), "deploy.all") as done:
        yield done


@pytest.fixture(scope="session")
def checkout(whole: Deployed) -> Checkout:
    """The checkout with the whole platform; a module that works on less has its own."""
    return whole.checkout


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes the whole platform down comes after everything that works on it."""
    items.sort(key=lambda item: item.path.name == "test_whole_platform_end.py")
    for item in items:
        if "whole" in getattr(item, "fixturenames", ()):
            item.add_marker("whole")


@contextlib.contextmanager
def first_run(folder: Path, *words: str) -> Iterator[Deployed]:
    """`./inv WORDS` in a new checkout, with a lab of its own that goes afterwards."""
    make_state(folder / "state")
    checkout = Checkout(folder / "checkout", folder / "state")
    commit_everything(checkout.root)
    try:
        result = checkout.inv(*words).ends_with(0)
        yield Deployed(checkout=checkout, result=result, changed_files=git_status(checkout.root))
    finally:
        platform.reset(folder / "state", print)


@pytest.fixture(scope="session")
def probe_checkout(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> ProbeCheckout:
    """Another checkout on the same lab, with the service `probe`, in which tests may change what they like."""
    return ProbeCheckout(tmp_path_factory.mktemp("probe") / "checkout", deployed.checkout.state_dir)
