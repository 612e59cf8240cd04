"""The real `kubectl proxy` in front of the real API server: what it lets through, and what the server answers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks.checks import inside
from runbooks.checks.cluster import NO_ENDPOINTS
from runbooks.checks.inside import NO_SERVICE, Inside, Page, answers, get_inside
from runbooks.core.environment import child_environment
from runbooks.core.findings import State
from runbooks.core.journal import Journal
from runbooks.core.mask import Masker
from runbooks.core.runner import Runner
from runbooks.tools import network
from runbooks.tools.kubectl import Kubectl
from tests.lab.command_line import Lab
from tests.lab.objects import apply, service

pytestmark = pytest.mark.lab

PAGE = Page(path="/healthz")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    masker = Masker([])
    journal = Journal.open(tmp_path / "state", "test", [], masker=masker)
    with contextlib.closing(Runner(masker=masker, journal=journal, base_env=child_environment(os.environ))) as made:
        yield made
    journal.close()


@pytest.fixture
def kubectl(lab: Lab) -> Kubectl:
    return Kubectl(program=lab.target["tools"]["kubectl"], kubeconfig=lab.kubeconfig)


@pytest.mark.parametrize(
    ("name", "evidence", "cause"),
    [
        ("nobody", 'services "nobody" not found', NO_SERVICE),
        ("lonely", 'no endpoints available for service "lonely', NO_ENDPOINTS),
    ],
)
def test_a_service_with_nobody_behind_it(
    lab: Lab, runner: Runner, kubectl: Kubectl, name: str, evidence: str, cause: str
) -> None:
    apply(lab, service("default", "lonely"))
    where = Inside(namespace="default", service=name, port=80)
    found = answers("r", where, PAGE, get_inside(runner, kubectl, where), next_step="n")
    assert (found.state, found.cause) == (State.FAILED, cause)
    assert evidence in found.evidence
    lab.kubectl("-n", "default", "delete", "service", "lonely")


@pytest.mark.parametrize(("path", "status"), [("/version", 200), ("/api/v1/secrets", 403), ("/api/v1/version", 403)])
def test_nothing_but_what_is_below_goes_through(
    tmp_path: Path, runner: Runner, kubectl: Kubectl, path: str, status: int
) -> None:
    socket_path, came = tmp_path / "s", list[int]()

    def ask(line: str) -> None:
        assert line.startswith(inside.SERVING)
        came.append(network.fetch_on_socket(socket_path, path).status)
        runner.interrupt()

    runner.run(kubectl.proxy(socket_path, "/version"), on_line=ask)
    assert came == [status]


def test_the_way_is_open_to_its_owner_alone(monkeypatch: pytest.MonkeyPatch, runner: Runner, kubectl: Kubectl) -> None:
    """The folder decides: kubectl makes the socket as it likes."""
    modes = list[int]()
    real = network.fetch_on_socket

    def look(path: Path, *rest: object) -> network.Answer:
        modes.append(path.parent.stat().st_mode & 0o777)
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(network, "fetch_on_socket", look)
    get_inside(runner, kubectl, Inside(namespace="default", service="kubernetes", port=443))("/")
    assert modes == [0o700]
