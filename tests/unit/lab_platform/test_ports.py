"""Ports are free ones, and who took one is named."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from lab.platform import ports
from runbooks.core.errors import OpsError


def test_a_picked_port_is_free_and_outside_the_ephemeral_range() -> None:
    port = ports.pick(())
    assert port in ports.RANGE
    assert ports.is_free(port)
    assert ports.holder(port) is None


def test_the_preferred_port_is_taken_when_it_is_free() -> None:
    free = ports.pick(())
    assert ports.pick((), preferred=free) == free
    assert ports.pick((free,), preferred=free) != free


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_listener_takes_a_port(address: str) -> None:
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.holder(port) == os.getpid()
        assert ports.pick((), preferred=port) != port
        with pytest.raises(OpsError, match=rf"port {port} of the lab's etcd is taken by process {os.getpid()} \("):
            ports.refuse_taken("etcd", port)
    ports.refuse_taken("etcd", port)


def test_a_port_that_a_dying_process_still_holds_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads end one by one; /proc shows none of its sockets once the first is gone."""
    monkeypatch.setattr(ports, "holder", lambda _port: None)
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    closing = threading.Timer(0.3, server.close)
    closing.start()
    ports.refuse_taken("etcd", port)
    assert ports.is_free(port)
    closing.join()


def test_a_port_of_another_user_is_reported_after_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "holder", lambda _port: None)
    monkeypatch.setattr(ports, "LINGERING", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OpsError, match="a process of another user"):
        ports.refuse_taken("etcd", server.getsockname()[1])
