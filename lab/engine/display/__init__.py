"""How a run is shown: one module a form, one ``Display`` protocol."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from lab.engine.events import Diagnostic, Event, Notice
from lab.engine.values import Secret, Value, strip_secrets

SECRET_TEXT = "[secret]"  # noqa: S105 - what is shown in place of one


class Display(Protocol):
    """Gets every event, one at a time."""

    def show(self, event: Event) -> None: ...


class SecretFilter:
    """Replaces known values in texts, as the real engine does: those of secret settings, three characters or more."""

    def __init__(self, values: Iterable[str]) -> None:
        wanted = {value for value in values if len(value) >= 3 and value not in ("true", "false")}
        self._values = sorted(wanted, key=len, reverse=True)

    def text(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, SECRET_TEXT)
        return text

    def value(self, value: Value) -> Value:
        """The same inside a value; marks are kept."""
        if not self._values:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value


class EventSink:
    """The engine's ``Emit``: filters texts, then gives the event to the display. Thread-safe.

    When nobody reads any more (``pulumi up | head``) the run goes on in silence: what it has begun must be recorded.
    """

    def __init__(self, display: Display, hidden: SecretFilter) -> None:
        self._display: Display | None = display
        self._listener: Callable[[Event], None] | None = None
        self._hidden = hidden
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Give every event to somebody else as well, from now on."""
        self._listener = listener

    def __call__(self, event: Event) -> None:
        if isinstance(event, Diagnostic):
            event = Diagnostic(
                event.urn, self._hidden.text(event.message), event.severity, event.prefix, event.ephemeral
            )
        elif isinstance(event, Notice):
            event = Notice(self._hidden.text(event.message))
        with self._lock:
            if self._listener is not None:
                self._listener(event)
            if self._display is None:
                return
            try:
                self._display.show(event)
            except BrokenPipeError:
                self._display = None
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def hidden_value(value: Value, hidden: SecretFilter, *, show_secrets: bool = False) -> Value:
    """Plain Python for display: secrets as ``[secret]``, or in clear when asked."""
    if isinstance(value, Secret):
        return strip_secrets(value) if show_secrets else SECRET_TEXT
    if isinstance(value, dict):
        return {key: hidden_value(item, hidden, show_secrets=show_secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [hidden_value(item, hidden, show_secrets=show_secrets) for item in value]
    return value if show_secrets else hidden.value(value)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def sorted_changes(changes: Mapping[str, int], order: Sequence[str]) -> list[tuple[str, int]]:
    return [(op, changes[op]) for op in order if changes.get(op)]
