"""Secrets in streamed output: found in every spelling, across any split, and replaced by `[secret]`.

Aho-Corasick over all `forms` of all registered values with overlapping matches, merged into spans. Between two reads
only the longest suffix that could still become a secret is held back. Colour codes inside a secret do not hide it: the
text is searched as it is and as a terminal would show it; the codes themselves are kept, so what comes after has the
right colour.

What is masked (`Rule`): a value of eight characters or more anywhere; a shorter one, from four characters, and a word
of the platform's own names only where it stands alone; never `true`, `false`, or a number under six digits.
"""

from __future__ import annotations

import itertools
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple, Protocol

from ahocorasick_rs import BytesAhoCorasick, Implementation

from runbooks.core import forms

REPLACEMENT = b"[secret]"
_LONGEST_PATTERN = 512
_HEAD = 4
_LONGEST_BEGINNING = len(b"\\\\\\\\u001")
"""Of an escape character as JSON spells it."""
_SHORT_BELOW = 8
_SHORTEST = 4
_SMALL_NUMBER = re.compile(r"[+-]?\d{1,5}|[+-]?(?=[\d.]{1,6}$)\d+\.\d+")
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_NAME = _WORD | frozenset(b"-")
_JOINTS = frozenset(b"./")


class Rule(IntEnum):
    """Where a pattern counts as the secret. The lowest wins when two values share a spelling."""

    ANYWHERE = 0
    TOKEN = 1
    """Not inside a longer word (letters, digits, underscore)."""
    NAME = 2
    """Nor as a part of a longer name (`postgres-1`, `deploy.postgres`, `databases/postgres`)."""


class Masker:
    """The values that nobody may see. Thread-safe; values may be registered at any time, also while streams are open.

    `platform_words` are the platform's own names (services, namespaces, charts): a secret that is one of them, or a
    part of one, is masked only where it stands alone.
    """

    def __init__(self, values: Iterable[str] = (), *, platform_words: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._patterns: dict[bytes, Rule] = {}
        self._compiled: Patterns | None = None
        self._platform_words = frozenset(_words(platform_words))
        self.register_all(values)

    def register(self, value: str) -> None:
        """From now on `value` is masked in everything that goes through."""
        self.register_all((value,))

    def register_all(self, values: Iterable[str]) -> None:
        """Register several at once."""
        with self._lock:
            for value in values:
                if value in self._values:
                    continue
                self._values.add(value)
                for pattern, rule in patterns_of(value, self._platform_words):
                    self._patterns[pattern] = min(rule, self._patterns.get(pattern, rule))
                self._compiled = None

    def compiled(self) -> Patterns:
        """The search structure over everything registered so far, built when first asked for."""
        ready = self._compiled
        if ready is not None:
            return ready
        with self._lock:
            if self._compiled is None:
                self._compiled = Patterns(self._patterns)
            return self._compiled

    def mask(self, text: str) -> str:
        """A whole text at once."""
        return _mask_text(self, text)

    def stream(self) -> MaskStream:
        """For output that arrives piece by piece; one stream for each pipe."""
        return MaskStream(self)

    def own_words(self) -> OwnWords:
        """The same secrets, for what the toolkit itself says."""
        return OwnWords(self)


class OwnWords:
    """Masks the toolkit's own sentences: all secrets but those that are a word of the platform's own names.

    Such a word tells nothing where we wrote it ourselves, and without it nobody could read `preview postgres`, as the
    handbook makes the username `postgres` a secret. What a tool said goes through the `Masker` first.
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._all: Patterns | None = None
        self._kept = Patterns({})

    def compiled(self) -> Patterns:
        """Built again when a secret was registered since."""
        latest = self._masker.compiled()
        if latest is not self._all:
            self._kept = latest.without_names()
            self._all = latest
        return self._kept

    def mask(self, text: str) -> str:
        """A whole text at once."""
        return _mask_text(self, text)


class Compiles(Protocol):
    """Whoever can say what to look for right now."""

    def compiled(self) -> Patterns: ...


def _mask_text(source: Compiles, text: str) -> str:
    return MaskStream(source).finish(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")


def rule_of(value: str, platform_words: frozenset[str]) -> Rule | None:
    """How a value is masked; None for what is too short or too common to be."""
    if len(value) < _SHORTEST or value.casefold() in ("true", "false") or _SMALL_NUMBER.fullmatch(value):
        return None
    if value.casefold() in platform_words:
        return Rule.NAME
    return Rule.TOKEN if len(value) < _SHORT_BELOW else Rule.ANYWHERE


def patterns_of(value: str, platform_words: frozenset[str] = frozenset()) -> Iterator[tuple[bytes, Rule]]:
    """Every byte pattern to look for on account of one value, with its rule."""
    core = value.strip()
    rule = rule_of(core, platform_words)
    if rule is None:
        return
    for pattern, rule_here in _spellings(value, core, rule):
        for piece in _pieces(pattern):
            if len(piece) >= _SHORTEST:
                yield piece, max(rule_here, Rule.TOKEN) if len(piece) < _SHORT_BELOW else rule_here
    for line in forms.secret_lines(core):
        line_rule = rule_of(line, platform_words)
        if line_rule is not None:
            yield from ((piece, line_rule) for text in forms.text_forms(line) for piece in _pieces(text))


def _spellings(value: str, core: str, rule: Rule) -> Iterator[tuple[bytes, Rule]]:
    texts = {core} | forms.line_joins(core)
    for text in texts:
        yield from ((pattern, rule) for pattern in forms.without_escape_sequences(forms.text_forms(text)))
        yield from ((pattern, rule) for pattern in forms.text_forms(text))
    encoded_rule = Rule.ANYWHERE if rule is Rule.ANYWHERE else Rule.TOKEN
    for text in texts | {value}:
        yield from ((pattern, encoded_rule) for pattern in forms.whole_encodings(text))
        if rule is Rule.ANYWHERE:
            yield from ((pattern, rule) for pattern in forms.embedded_base64(text) | forms.wrapped_base64(text))


def _pieces(pattern: bytes) -> Iterator[bytes]:
    """A long pattern as overlapping pieces: it bounds what a stream holds back, and masks a secret that is cut off."""
    if len(pattern) <= _LONGEST_PATTERN:
        yield pattern
        return
    for start in range(0, len(pattern) - _LONGEST_PATTERN, _LONGEST_PATTERN - 1):
        yield pattern[start : start + _LONGEST_PATTERN]
    yield pattern[-_LONGEST_PATTERN:]


def _words(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield name.casefold()
        yield from re.split(r"[^a-z0-9]+", name.casefold())


class View(NamedTuple):
    """A text to search, and the same text with what stands before it, to see whether a match stands alone.

    `context` has two bytes of history (fewer at the start) and a space for every colour code; `starts` are the
    positions in `text` at which a code was taken out.
    """

    text: bytes
    history: bytes
    context: bytes
    final: bool
    starts: tuple[int, ...] = ()

    def context_at(self, position: int) -> int:
        """Where the byte at `position` of `text` is in `context`."""
        return len(self.history) + position + bisect_right(self.starts, position)


class Span(NamedTuple):
    """Bytes to leave out, `start` up to `end`; `announced` when `[secret]` was already written for them."""

    start: int
    end: int
    announced: bool = False


class Patterns:
    """All patterns, ready to search; immutable, shared by all streams."""

    def __init__(self, rules: dict[bytes, Rule]) -> None:
        self._sorted = sorted(rules)
        self._rules = [rules[pattern] for pattern in self._sorted]
        self._longest = max(map(len, self._sorted), default=0)
        self._automaton = BytesAhoCorasick(self._sorted, implementation=Implementation.ContiguousNFA)
        heads = sorted({pattern[:_HEAD] for pattern in self._sorted if len(pattern) > _HEAD})
        self._heads = BytesAhoCorasick(heads, implementation=Implementation.ContiguousNFA)
        self._beginnings = {pattern[:n] for pattern in self._sorted for n in range(1, min(_HEAD, len(pattern)))}

    def __bool__(self) -> bool:
        return bool(self._sorted)

    def without_names(self) -> Patterns:
        """All of them but the words of the platform's own names."""
        rules = zip(self._sorted, self._rules, strict=True)
        return Patterns({pattern: rule for pattern, rule in rules if rule is not Rule.NAME})

    def find(self, view: View) -> tuple[list[Span], int]:
        """The spans of all secrets in the view, unmerged, and the position from which on nothing can be decided yet."""
        open_from = len(view.text) if view.final else self._held_from(view.text)
        spans = []
        for index, start, end in self._automaton.find_matches_as_indexes(view.text, overlapping=True):
            rule = self._rules[index]
            alone = rule is Rule.ANYWHERE or _stands_alone(view, start, end, rule)
            if alone is None:
                open_from = min(open_from, start)
            elif alone:
                spans.append(Span(start, end))
        return spans, open_from

    def _held_from(self, text: bytes) -> int:
        """Start of the longest suffix that is a proper prefix of some pattern; the length of the text when none is."""
        first = max(0, len(text) - self._longest + 1)
        tail = text[first:]
        for _, start, _ in self._heads.find_matches_as_indexes(tail, overlapping=True):
            if self._is_proper_prefix(tail[start:]):
                return first + start
        for start in range(max(0, len(tail) - _HEAD + 1), len(tail)):
            if tail[start:] in self._beginnings:
                return first + start
        return len(text)

    def _is_proper_prefix(self, text: bytes) -> bool:
        position = bisect_left(self._sorted, text)
        return any(
            len(pattern) > len(text) and pattern.startswith(text) for pattern in self._sorted[position : position + 2]
        )


def _stands_alone(view: View, start: int, end: int, rule: Rule) -> bool | None:
    """Whether a match is a whole token; None when what follows has not arrived yet."""
    left = view.context_at(start)
    right = view.context_at(end - 1) + 1
    before = view.context[max(0, left - 2) : left]
    after = view.context[right : right + 2]
    if _is_joined(view.text[start], before[::-1], rule):
        return False
    if not view.final and (not after or (rule is Rule.NAME and len(after) == 1 and after[0] in _JOINTS)):
        return None
    return not _is_joined(view.text[end - 1], after, rule)


def _is_joined(edge: int, neighbours: bytes, rule: Rule) -> bool:
    """Whether the match goes on beyond its edge; `neighbours` from the nearest outwards."""
    if not neighbours or edge not in _WORD:
        return False
    if rule is Rule.TOKEN:
        return neighbours[0] in _WORD
    return neighbours[0] in _NAME or (neighbours[0] in _JOINTS and len(neighbours) > 1 and neighbours[1] in _WORD)


class MaskStream:
    """One pipe's bytes on their way to somebody's eyes. Same result however the bytes are cut into reads."""

    def __init__(self, source: Compiles) -> None:
        self._source = source
        self._reset()

    def _reset(self) -> None:
        self._pending = b""
        # How many bytes at the start of `_pending` belong to a secret that was announced already, in the text as it
        # is and in the text as shown; and what stood before `_pending` in both.
        self._raw_covered = self._shown_covered = 0
        self._raw_history = self._shown_history = b""

    def feed(self, data: bytes) -> bytes:
        """What may be shown by now. Bytes that could be the beginning of a secret come with a later call."""
        return self._advance(self._pending + data, final=False)

    def flush(self) -> bytes:
        """The rest; the stream is then as new."""
        return self.finish(b"")

    def finish(self, data: bytes) -> bytes:
        """`feed` and `flush` in one."""
        shown = self._advance(self._pending + data, final=True)
        self._reset()
        return shown

    def _advance(self, text: bytes, *, final: bool) -> bytes:
        patterns = self._source.compiled()
        plain = (
            not _may_hold_escapes(text)
            and self._raw_covered == self._shown_covered
            and self._raw_history == self._shown_history
        )
        advance = self._advance_plain if plain else self._advance_coloured
        return advance(patterns, text, final)

    def _advance_plain(self, patterns: Patterns, text: bytes, final: bool) -> bytes:
        spans, cut = patterns.find(View(text, self._raw_history, self._raw_history + text, final))
        if not spans and not self._raw_covered:
            self._pending = text[cut:]
            self._raw_history = self._shown_history = (self._raw_history + text[max(0, cut - 2) : cut])[-2:]
            return text[:cut]
        merged = _merged(_carried(self._raw_covered), spans)
        self._pending = text[cut:]
        self._raw_covered = self._shown_covered = _covered_after(merged, cut)
        self._raw_history = self._shown_history = (self._raw_history + text[max(0, cut - 2) : cut])[-2:]
        return _left_out(text, merged, cut)

    def _advance_coloured(self, patterns: Patterns, text: bytes, final: bool) -> bytes:
        unfinished = None if final else forms.UNFINISHED_ESCAPE.search(text)
        end = unfinished.start() if unfinished else len(text)
        runs = _visible_runs(text, end)
        shown = b"".join(text[start:stop] for start, stop in runs)
        starts = _positions(runs)
        context = self._shown_history + b" ".join(text[start:stop] for start, stop in runs)
        shown_spans, shown_cut = patterns.find(View(shown, self._shown_history, context, final, starts))
        raw_spans, raw_cut = patterns.find(View(text, self._raw_history, self._raw_history + text, final))
        shown_merged = _merged(_carried(self._shown_covered), shown_spans)
        raw_merged = _merged(_carried(self._raw_covered), raw_spans)
        cut = _outside_escapes(runs, min(end, raw_cut, _raw_position(runs, starts, shown_cut, end)))
        shown_before_cut = sum(max(0, min(stop, cut) - start) for start, stop in runs)
        together = _merged(raw_merged, _raw_spans(runs, starts, shown_merged))
        self._pending = text[cut:]
        self._raw_covered = _covered_after(raw_merged, cut)
        self._shown_covered = _covered_after(shown_merged, shown_before_cut)
        self._raw_history = (self._raw_history + text[:cut])[-2:]
        self._shown_history = (self._shown_history + forms.ESCAPE_SEQUENCE.sub(b" ", text[:cut]))[-2:]
        return _left_out(text, together, cut)


def _may_hold_escapes(text: bytes) -> bool:
    """Quickly: False only when there is no colour code in the text, nor the beginning of one at its end."""
    return b"\x1b" in text or b"u001b" in text or b"u001B" in text or b"\\" in text[-_LONGEST_BEGINNING:]


def _carried(covered: int) -> list[Span]:
    return [Span(0, covered, announced=True)] if covered else []


def _merged(first: list[Span], second: list[Span]) -> list[Span]:
    """Overlapping spans as one; announced when what begins it is."""
    merged: list[Span] = []
    for span in sorted(first + second, key=lambda span: (span.start, not span.announced, span.end)):
        last = merged[-1] if merged else None
        if last is None or span.start >= last.end:
            merged.append(span)
        elif span.end > last.end:
            merged[-1] = Span(last.start, span.end, last.announced)
    return merged


def _covered_after(merged: list[Span], cut: int) -> int:
    """How far the span that is open at `cut` reaches beyond it."""
    told = (span for span in merged if span.start < cut or span.announced)
    return max((span.end - cut for span in told if span.end > cut), default=0)


def _left_out(text: bytes, merged: list[Span], cut: int) -> bytes:
    kept = []
    position = 0
    for span in merged:
        if span.start >= cut:
            break
        kept.append(text[position : span.start])
        if not span.announced:
            kept.append(REPLACEMENT)
        position = min(span.end, cut)
    kept.append(text[position:cut])
    return b"".join(kept)


def _visible_runs(text: bytes, end: int) -> list[tuple[int, int]]:
    """Start and stop of what stands between colour codes, empty runs included."""
    runs = []
    start = 0
    for escape in forms.ESCAPE_SEQUENCE.finditer(text, 0, end):
        runs.append((start, escape.start()))
        start = escape.end()
    runs.append((start, end))
    return runs


def _positions(runs: list[tuple[int, int]]) -> tuple[int, ...]:
    """Where in the shown text every run but the first begins."""
    positions = []
    length = 0
    for start, stop in runs[:-1]:
        length += stop - start
        positions.append(length)
    return tuple(positions)


def _raw_position(runs: list[tuple[int, int]], starts: tuple[int, ...], position: int, end: int) -> int:
    """Where the byte at `position` of the shown text is in the text itself; `end` for the one after the last."""
    run = bisect_right(starts, position)
    begin = starts[run - 1] if run else 0
    raw = runs[run][0] + position - begin
    return raw if raw < runs[run][1] else end


def _outside_escapes(runs: list[tuple[int, int]], cut: int) -> int:
    """The cut itself, or the start of the colour code it would tear apart."""
    for (_, stop), (start, _) in itertools.pairwise(runs):
        if stop < cut < start:
            return stop
    return cut


def _raw_spans(runs: list[tuple[int, int]], starts: tuple[int, ...], spans: list[Span]) -> list[Span]:
    """Spans of the shown text as spans of the text itself: one for each run they touch, all but the first announced."""
    raw = []
    for span in spans:
        announced = span.announced
        position = span.start
        while position < span.end:
            run = bisect_right(starts, position)
            begin = starts[run - 1] if run else 0
            start, stop = runs[run]
            length = min(span.end - position, stop - (start + position - begin))
            raw.append(Span(start + position - begin, start + position - begin + length, announced))
            position += length
            announced = True
    return raw
