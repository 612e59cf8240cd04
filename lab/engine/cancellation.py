"""One token that says: stop what can be stopped. Set by the first SIGINT or SIGTERM."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancelled(Exception):
    """Raised by work that gave up because the token was set."""


class CancellationToken:
    """Thread-safe. Long work waits with ``wait`` in place of sleeping and calls ``check`` between steps."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def is_cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Set the token and run the callbacks, each once."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
            self._event.set()
        for callback in callbacks:
            callback()

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds``; true when cancelled meanwhile."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise ``Cancelled`` when the token is set."""
        if self._event.is_set():
            raise Cancelled

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` at cancellation, or at once when that was before."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()
