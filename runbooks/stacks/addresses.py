"""Where producers answer: a proxy counts as ready before this machine hears of its device."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from runbooks.stacks.preview import outputs_of
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import network

NAME, PORT = "ts_hostname", "port"
"""The outputs with the address that a consumer's provider connects to."""
PATIENCE = 120.0
"""Seconds a new device has to join the tailnet and to be known here; the lab has none to wait for."""
LAB_PATIENCE = 10.0
LOOK_AGAIN = 1.0


def await_producers(session: Session, consumers: Iterable[Service], applied: Collection[str]) -> None:
    """Wait until every producer that this run applied answers where its consumers' providers will connect.

    No more than patience: what does not answer in time is told, and pulumi's own failure says the rest.
    """
    read = dict.fromkeys(name for service in consumers for name in service.reads_outputs_of)
    for name in (name for name in read if name in applied):
        outputs = outputs_of(session, name)
        host, port = outputs.get(NAME), outputs.get(PORT)
        if isinstance(host, str) and host and isinstance(port, int | float):
            _await(session, name, host, int(port))


def _await(session: Session, name: str, host: str, port: int) -> None:
    """Wait for one, until it answers, patience ends, or the run is told to stop."""
    trouble = _trouble(host, port)
    if not trouble:
        return
    until = time.monotonic() + (LAB_PATIENCE if session.target.ephemeral else PATIENCE)
    with session.reporter.step(f"wait for {name} at {host}:{port}") as progress:
        while trouble and time.monotonic() < until and not session.runner.interrupted:
            progress.note(trouble)
            time.sleep(LOOK_AGAIN)
            trouble = _trouble(host, port)
    if trouble:
        session.reporter.advice(
            f"{name} does not answer at {host}:{port} yet ({trouble}), so what connects to it may fail: "
            f"./inv verify.{name} says why"
        )


def _trouble(host: str, port: int) -> str:
    """What a connection meets; nothing once somebody answers."""
    try:
        network.connect(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        return str(error) or type(error).__name__
    return ""
