"""The state of a run in progress: what is new, what of the old is still there, what is under way.

Every change is written at once, so that a run killed at any moment leaves a state that says what was done and what may
have been (``pending_operations``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.engine.state import PendingOperation, ResourceState, Snapshot


class Journal:
    """Thread-safe. ``save`` is ``None`` in previews: nothing is written."""

    def __init__(self, base: Snapshot, save: Callable[[Snapshot], None] | None) -> None:
        self.base = base
        self._save = save
        self._lock = threading.RLock()
        self._new: list[ResourceState] = []
        self._done: set[int] = set()
        self._under_way: list[PendingOperation] = []
        self._interrupted = list(base.pending)
        self._dirty = bool(base.pending)

    def left_over(self) -> list[ResourceState]:
        """Resources of the old state that nothing has dealt with."""
        with self._lock:
            return [state for state in self.base.resources if id(state) not in self._done]

    def snapshot(self) -> Snapshot:
        """New resources in the order they were finished, then what is left of the old ones."""
        with self._lock:
            pending = [*self._interrupted, *self._under_way]
            return Snapshot([*self._new, *self.left_over()], pending, self.base.secrets_provider)

    def add(self, new: ResourceState, old: ResourceState | None, *, changed: bool = True) -> None:
        """``new`` takes the place of ``old``."""
        with self._lock:
            self._new.append(new)
            if old is not None:
                self._done.add(id(old))
            self._dirty = self._dirty or changed
            self._write()

    def changed(self) -> None:
        """A recorded resource was changed in place."""
        with self._lock:
            self._dirty = True
            self._write()

    def drop(self, old: ResourceState, *, changed: bool = True) -> None:
        with self._lock:
            self._done.add(id(old))
            self._dirty = self._dirty or changed
            self._write()

    def forget_interrupted(self, *, keep_creates: bool) -> None:
        """Clear the pending operations of earlier runs."""
        with self._lock:
            kept = [item for item in self._interrupted if keep_creates and item.type == "creating"]
            self._dirty = self._dirty or len(kept) != len(self._interrupted)
            self._interrupted = kept
            self._write()

    @contextmanager
    def under_way(self, state: ResourceState, type: str) -> Iterator[None]:
        """Record an operation while it runs. The next write forgets it: one write for its end and its result."""
        operation = PendingOperation(state.copy(), type)
        with self._lock:
            self._under_way.append(operation)
            self._dirty = True
            self._write()
        try:
            yield
        finally:
            with self._lock:
                self._under_way.remove(operation)
                self._dirty = True

    def flush(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        if self._dirty and self._save is not None:
            self._save(self.snapshot())
        self._dirty = False
