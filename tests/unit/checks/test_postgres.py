"""The state of the Cluster object; who listens on a port, with real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from runbooks.checks import postgres
from runbooks.checks.postgres import all_within
from runbooks.core.findings import State
from runbooks.core.processes import ListenerUnknown, listeners


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_this_process_is_found_with_its_folder(server: socket.socket) -> None:
    found = listeners(server.getsockname()[1])
    assert [one.pid for one in found] == [os.getpid()]
    assert found[0].folder == Path.cwd()
    assert all_within(found, Path.cwd())
    assert not all_within(found, Path.cwd() / "elsewhere")


def test_a_port_without_a_listener(server: socket.socket) -> None:
    port = server.getsockname()[1]
    server.close()
    assert listeners(port) == []
    assert not all_within([], Path("/"))


def test_a_connection_is_no_listener(server: socket.socket) -> None:
    with socket.create_connection(server.getsockname()) as client:
        assert listeners(client.getsockname()[1]) == []


def test_a_port_of_another_user_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    held = SimpleNamespace(status=psutil.CONN_LISTEN, laddr=SimpleNamespace(port=5432), pid=None)
    monkeypatch.setattr(psutil, "net_connections", lambda _: [held])
    with pytest.raises(ListenerUnknown):
        listeners(5432)
    assert listeners(5433) == []


def test_a_system_that_shows_no_connections_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    with pytest.raises(ListenerUnknown):
        listeners(5432)


# --- the Cluster object --------------------------------------------------------------------------------------------


def cluster(ready: int = 2, *, annotations: dict[str, str] | None = None, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True"}, *status.pop("conditions", [])]
    return {
        "metadata": {"name": "postgresql-cluster", "annotations": annotations or {}},
        "spec": {"instances": 2},
        "status": {"readyInstances": ready, "phase": "Cluster in healthy state", "conditions": conditions, **status},
    }


HIBERNATED = [{"type": "cnpg.io/hibernation", "status": "True"}]


@pytest.mark.parametrize(
    ("obj", "named"),
    [
        (cluster(0, conditions=HIBERNATED), "hibernat"),
        (cluster(0, annotations={"cnpg.io/hibernation": "on"}), "hibernat"),
        (cluster(2, annotations={"cnpg.io/fencedInstances": '["postgresql-cluster-1"]'}), "postgresql-cluster-1"),
        (cluster(2, annotations={"cnpg.io/fencedInstances": '["*"]'}), "fenced"),
        (cluster(1), "1 of 2"),
        (cluster(2, currentPrimary="postgresql-cluster-1", targetPrimary="postgresql-cluster-2"), "switchover"),
        (cluster(2, currentPrimary="postgresql-cluster-1", targetPrimary="pending"), "failover"),
        (cluster(0, phase="Not enough disk space", phaseReason="Insufficient disk space"), "PersistentVolumeClaim"),
        (cluster(1, phase="Switchover in progress", phaseReason="to postgresql-cluster-2"), "to postgresql-cluster-2"),
    ],
)
def test_a_cluster_that_is_stopped_or_incomplete_is_not_ready(obj: dict[str, Any], named: str) -> None:
    """CNPG keeps `Ready` True in each of these."""
    found = postgres.cluster_is_ready(obj)
    assert found.state is State.FAILED
    assert named in f"{found.evidence} {found.cause}"


@pytest.mark.parametrize("annotations", [{}, {"cnpg.io/hibernation": "off"}, {"cnpg.io/fencedInstances": "[]"}])
def test_a_whole_cluster_is_ready(annotations: dict[str, str]) -> None:
    assert postgres.cluster_is_ready(cluster(annotations=annotations)).state is State.PASSED
