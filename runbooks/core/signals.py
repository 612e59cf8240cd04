"""Ctrl-C and SIGTERM while children run: each child gets exactly one signal, whatever the person presses."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

_FORWARDED_AS = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    # The terminal is gone. No tool of ours survives SIGHUP by itself; SIGTERM lets it finish in order.
    signal.SIGHUP: signal.SIGTERM,
}


class Signalled(Protocol):
    """A running child, as far as a signal concerns it."""

    def forward(self, signum: signal.Signals) -> bool:
        """Send it, unless one was sent before; whether it was sent."""
        ...

    def wake(self) -> None:
        """Let the thread that waits for the child have a look."""
        ...


class SignalRelay:
    """Catches signals in the main thread and hands them to the children of one runner.

    The handlers are there from `install` to `uninstall`. While nothing is at work they do what would have happened
    without them, except that SIGTERM and SIGHUP become KeyboardInterrupt, so that a run always ends in order.
    """

    def __init__(self) -> None:
        self.seen: list[signal.Signals] = []
        """Every signal that came, in order."""
        self._children: set[Signalled] = set()
        self._at_work: set[object] = set()
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def is_installed(self) -> bool:
        return bool(self._previous)

    def install(self) -> None:
        """Only the main thread can; elsewhere nothing happens. A signal that is ignored stays ignored (nohup, `&`)."""
        if self.is_installed or threading.current_thread() is not threading.main_thread():
            return
        for signum in _FORWARDED_AS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._previous[signum] = signal.signal(signum, self._handle)

    def uninstall(self) -> None:
        """Put back what was there; only from the main thread."""
        while self._previous:
            signum, handler = self._previous.popitem()
            if signal.getsignal(signum) == self._handle:
                signal.signal(signum, handler)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While a child is started, runs and is put on record, a signal breaks nothing of that off: it is noted."""
        token = object()
        self._at_work.add(token)
        try:
            yield
        finally:
            self._at_work.discard(token)

    def add(self, child: Signalled, *, seen: int) -> None:
        """From now on the child gets what comes, and what came after the first `seen` signals, while it was started."""
        self._children.add(child)
        if len(self.seen) > seen:
            child.forward(_FORWARDED_AS[self.seen[seen]])

    def remove(self, child: Signalled) -> None:
        self._children.discard(child)

    def running(self) -> tuple[Signalled, ...]:
        return tuple(self._children)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        signum = signal.Signals(number)
        self.seen.append(signum)
        for child in self.running():
            child.forward(_FORWARDED_AS[signum])
            child.wake()
        if not self._at_work:
            self._as_before(signum, frame)

    def _as_before(self, signum: signal.Signals, frame: FrameType | None) -> None:
        handler: Callable[[int, FrameType | None], Any] | int | None = self._previous.get(signum)
        if callable(handler):
            handler(signum, frame)
        else:
            raise KeyboardInterrupt(signum.name)
