"""Live objects by collection: one list and watch per path, shared by everything that waits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lab.engine.providers.kubernetes.client import ApiClient, ApiError, ConnectionFailed, Object, Watch
from lab.engine.providers.kubernetes.objects import name_of, namespace_of

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
RELIST_SECONDS = 0.5
"""Pause before a collection is listed again after its watch broke."""


@dataclass(frozen=True)
class Event:
    """A change in the collection ``path``; existing objects come as ``ADDED``."""

    path: str
    type: EventType
    object: Object


class Subscription:
    """Events of some collections in one queue, existing objects first. Use as a context manager."""

    def __init__(self, hub: WatchHub, paths: Sequence[str]) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._hub = hub
        self._paths = tuple(dict.fromkeys(paths))

    def __enter__(self) -> Subscription:
        for path in self._paths:
            self._hub.follow(path).add(self._events)
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._paths:
            self._hub.follow(path).remove(self._events)

    def next(self, seconds: float) -> Event | None:
        """The next event, or ``None`` after ``seconds``."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None


class _Followed:
    """One collection: its objects, kept up to date by a thread of its own."""

    def __init__(self, client: ApiClient, path: str) -> None:
        self._client = client
        self._path = path
        self._objects: dict[tuple[str, str], Object] = {}
        self._queues: list[queue.SimpleQueue[Event]] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        threading.Thread(target=self._run, name=f"watch {path}", daemon=True).start()

    def add(self, events: queue.SimpleQueue[Event]) -> None:
        with self._lock:
            for obj in self._objects.values():
                events.put(Event(self._path, "ADDED", obj))
            self._queues.append(events)

    def remove(self, events: queue.SimpleQueue[Event]) -> None:
        with self._lock:
            if events in self._queues:
                self._queues.remove(events)

    def stop(self) -> None:
        self._stopped.set()
        watch = self._watch
        if watch is not None:
            watch.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                objects, version = self._client.items(self._path)
                self._replace(objects)
                self._watch = self._client.watch(self._path, version)
                if self._stopped.is_set():
                    self._watch.close()  # stop came while the watch was being opened
                self._read(self._watch)
            except (ApiError, ConnectionFailed):
                # Also 410 Gone. What waits sees nothing new meanwhile, and times out if the server stays away.
                self._stopped.wait(RELIST_SECONDS)

    def _read(self, watch: Watch) -> None:
        try:
            for kind, obj in watch:
                if self._stopped.is_set():
                    return
                if kind == "DELETED":
                    self._put("DELETED", obj)
                elif kind in ("ADDED", "MODIFIED"):
                    self._put("ADDED" if kind == "ADDED" else "MODIFIED", obj)
        finally:
            watch.close()

    def _replace(self, objects: list[Object]) -> None:
        present = {_key(obj): obj for obj in objects}
        for key in [key for key in self._objects if key not in present]:
            self._put("DELETED", self._objects[key])
        for obj in objects:
            self._put("MODIFIED" if _key(obj) in self._objects else "ADDED", obj)

    def _put(self, kind: EventType, obj: Object) -> None:
        with self._lock:
            if kind == "DELETED":
                self._objects.pop(_key(obj), None)
            else:
                self._objects[_key(obj)] = obj
            for events in self._queues:
                events.put(Event(self._path, kind, obj))


def _key(obj: Object) -> tuple[str, str]:
    return namespace_of(obj), name_of(obj)


class WatchHub:
    """All followed collections of one server. Thread-safe; ``close`` ends every thread and connection."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._followed: dict[str, _Followed] = {}
        self._lock = threading.Lock()

    def subscribe(self, *paths: str) -> Subscription:
        """Collections by path, such as ``/api/v1/namespaces/x/pods``."""
        return Subscription(self, paths)

    def follow(self, path: str) -> _Followed:
        with self._lock:
            if path not in self._followed:
                self._followed[path] = _Followed(self._client, path)
            return self._followed[path]

    def close(self) -> None:
        with self._lock:
            followed, self._followed = self._followed, {}
        for one in followed.values():
            one.stop()
