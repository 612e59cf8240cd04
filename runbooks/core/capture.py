"""One output pipe of a child: all of it in memory for parsers, masked lines for people, both bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from runbooks.core.mask import MaskStream

LARGEST_OUTPUT = 256 * 1024 * 1024
"""Bytes of one stream that are kept for parsers."""
LARGEST_SHOWN = 4 * 1024 * 1024
"""Bytes of one stream that are kept for people: the first quarter and the last three."""
LONGEST_LINE = 64 * 1024
"""A line longer than this is shown in parts, so that a child without line breaks shows something as well."""


class Capture:
    """What arrives on one pipe. `feed` and `close` are called by the thread that waits for the child.

    `on_line` gets every complete line as the child wrote it, without its line break; `on_shown` gets masked text, whole
    lines where there are any. Neither may raise. Confidential output (no `mask`) is never shown.
    """

    def __init__(
        self,
        mask: MaskStream | None,
        *,
        on_line: Callable[[str], None] | None = None,
        on_shown: Callable[[str], None] | None = None,
        limit: int = LARGEST_OUTPUT,
    ) -> None:
        self.total = 0
        """Bytes that arrived, kept or not."""
        self._limit = limit
        self._chunks: list[bytes] = []
        self._mask = mask
        self._shown = Excerpt()
        self._lines = LineCutter(on_line) if on_line else None
        self._shown_lines = WholeLines(on_shown) if on_shown else None

    @property
    def overflowed(self) -> bool:
        """Whether more arrived than is kept for parsers."""
        return self.total > self._limit

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        if not self.overflowed:
            self._chunks.append(data)
        if self._mask:
            self._show(self._mask.feed(data))
        if self._lines:
            self._lines.feed(data)

    def close(self) -> None:
        """Nothing more will come: what was held back is shown."""
        if self._mask:
            self._show(self._mask.flush())
        for lines in (self._lines, self._shown_lines):
            if lines:
                lines.close()

    def text(self) -> str:
        """All that was kept, as the child wrote it; bytes that are not UTF-8 replaced."""
        return b"".join(self._chunks).decode("utf-8", "replace")

    def shown(self) -> str:
        """Masked, and shortened in the middle when it is very long."""
        return self._shown.text()

    def _show(self, masked: bytes) -> None:
        self._shown.feed(masked)
        if self._shown_lines:
            self._shown_lines.feed(masked)


class LineCutter:
    """Cuts bytes into lines at line breaks alone; a character is never torn apart, whatever the reads were."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest: list[bytes] = []

    def feed(self, data: bytes) -> None:
        *complete, rest = data.split(b"\n")
        for line in complete:
            self._rest.append(line)
            self._deliver()
        if rest:
            self._rest.append(rest)

    def close(self) -> None:
        if self._rest:
            self._deliver()

    def _deliver(self) -> None:
        line = b"".join(self._rest)
        self._rest.clear()
        self._take(line.removesuffix(b"\r").decode("utf-8", "replace"))


class WholeLines:
    """Hands bytes on up to the last line break there is, several lines at once."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        end = data.rfind(b"\n") + 1
        ready, self._rest = (self._rest + data[:end], data[end:]) if end else (b"", self._rest + data)
        if len(self._rest) > LONGEST_LINE:
            ready, self._rest = ready + self._rest, b""
        self._deliver(ready)

    def close(self) -> None:
        ready, self._rest = self._rest, b""
        self._deliver(ready)

    def _deliver(self, ready: bytes) -> None:
        if ready:
            self._take(ready.decode("utf-8", "replace"))


class Excerpt:
    """The beginning and the end of a text of any length."""

    def __init__(self, limit: int = LARGEST_SHOWN) -> None:
        self._head_room = limit // 4
        self._tail_room = limit - self._head_room
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._tail_length = 0
        self._left_out = 0

    def feed(self, data: bytes) -> None:
        head = data[: self._head_room]
        if head:
            self._head.append(head)
            self._head_room -= len(head)
        tail = data[len(head) :]
        if tail:
            self._tail.append(tail)
            self._tail_length += len(tail)
        while self._tail_length > self._tail_room:
            self._shorten_tail()

    def _shorten_tail(self) -> None:
        surplus = self._tail_length - self._tail_room
        oldest = self._tail.popleft()
        if len(oldest) > surplus:
            self._tail.appendleft(oldest[surplus:])
        self._left_out += min(surplus, len(oldest))
        self._tail_length -= min(surplus, len(oldest))

    def text(self) -> str:
        mark = f"\n[… {self._left_out} bytes left out …]\n".encode() if self._left_out else b""
        return b"".join([*self._head, mark, *self._tail]).decode("utf-8", "replace")
