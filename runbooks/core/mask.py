"""Finds secrets in what is printed, in every spelling, and replaces them by `[secret]`.

A text is masked whole, or whole lines at a time: Aho-Corasick finds all `forms` of all registered values with
overlapping matches, which are merged into spans. Colour codes are removed first, so none can hide a secret.

A value of eight characters or more is masked anywhere; one of four to seven only as a whole token; nothing below four,
nor `true`, `false` and numbers under six digits. A value that is a public name of this repository (the handbook makes
the username `postgres` a secret) is masked as a whole token in what tools print, and stays in our own sentences: there
it discloses nothing, and `preview [secret]` would be unreadable.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from enum import IntEnum

from runbooks.core import forms

REPLACEMENT = b"[secret]"
_LONGEST_PATTERN = 512
_SHORT_BELOW = 8
_SHORTEST = 4
_SMALL_NUMBER = re.compile(r"[+-]?\d{1,5}|[+-]?(?=[\d.]{1,6}$)\d+\.\d+")
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")


class Rule(IntEnum):
    """Where a pattern counts as the secret. The lowest wins when two values share a spelling."""

    ANYWHERE = 0
    TOKEN = 1
    """Not inside a longer word (letters, digits, underscore)."""
    NAME = 2
    """For a public name: also not inside a longer name (`postgres-1`, `deploy.postgres`, `databases/postgres`)."""


class Masker:
    """The values to mask. Thread-safe; values may be registered at any time.

    `public_names` are this repository's own names (services, namespaces); a part of one counts as one.
    """

    def __init__(self, values: Iterable[str] = (), *, public_names: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._patterns: dict[bytes, Rule] = {}
        self._search: _Search | None = None
        names = [name.casefold() for name in public_names]
        self._public_names = frozenset([*names, *(part for name in names for part in re.split(r"[^a-z0-9]+", name))])
        self.register_all(values)

    def register(self, value: str) -> None:
        """Mask `value` from now on."""
        self.register_all((value,))

    def register_all(self, values: Iterable[str]) -> None:
        """Mask all of these values from now on."""
        with self._lock:
            for value in values:
                if value in self._values:
                    continue
                self._values.add(value)
                for pattern, rule in patterns_of(value, self._public_names):
                    # Two values may share a spelling: the stricter rule hides both.
                    self._patterns[pattern] = min(rule, self._patterns.get(pattern, rule))
                self._search = None

    def mask(self, text: str) -> str:
        """Mask every secret in a text from a tool, a cluster or a file."""
        return self._mask_text(text, own=False)

    def mask_own(self, text: str) -> str:
        """Mask every secret in one of our own sentences, except the public names of this repository."""
        return self._mask_text(text, own=True)

    def mask_bytes(self, data: bytes) -> bytes:
        """Like `mask`, for whole lines as a tool printed them, in whatever encoding."""
        return self._mask(data, own=False)

    def _mask_text(self, text: str, *, own: bool) -> str:
        data = text.encode("utf-8", "surrogatepass")
        masked = self._mask(data, own=own)
        # Almost always nothing is masked; a plan of a thousand stacks is not copied for it.
        return text if masked == data else masked.decode("utf-8", "surrogatepass")

    def _mask(self, data: bytes, *, own: bool) -> bytes:
        # Built only when text is masked, as values are registered one after the other before that.
        search = self._search
        if search is None:
            with self._lock:
                search = self._search = self._search or _Search(self._patterns)
        text, cuts = forms.cut_colour(data)
        shown = []
        position = 0
        for start, end in search.spans(text, cuts, own=own):
            shown += [text[position:start], REPLACEMENT]
            position = end
        return b"".join([*shown, text[position:]]) if shown else text


def rule_of(value: str, public_names: frozenset[str]) -> Rule | None:
    """How a value is masked; None for one that is too short or too common."""
    if len(value) < _SHORTEST or value.casefold() in ("true", "false") or _SMALL_NUMBER.fullmatch(value):
        return None
    if value.casefold() in public_names:
        return Rule.NAME
    return Rule.TOKEN if len(value) < _SHORT_BELOW else Rule.ANYWHERE


def patterns_of(value: str, public_names: frozenset[str] = frozenset()) -> Iterator[tuple[bytes, Rule]]:
    """Every byte pattern to look for because of one value, with its rule."""
    core = value.strip()
    rule = rule_of(core, public_names)
    if rule is None:
        return
    for pattern, rule_here in _spellings(value, core, rule):
        for piece in _pieces(forms.cut_colour(pattern)[0]):
            if len(piece) >= _SHORTEST:
                # A short piece of a long value would be found inside ordinary words.
                yield piece, max(rule_here, Rule.TOKEN) if len(piece) < _SHORT_BELOW else rule_here
    for line in forms.secret_lines(core):
        line_rule = rule_of(line, public_names)
        if line_rule is not None:
            yield from ((piece, line_rule) for text in forms.text_forms(line) for piece in _pieces(text))


def _spellings(value: str, core: str, rule: Rule) -> Iterator[tuple[bytes, Rule]]:
    texts = {core} | forms.line_joins(core)
    for text in texts:
        yield from ((pattern, rule) for pattern in forms.text_forms(text))
    encoded_rule = Rule.ANYWHERE if rule is Rule.ANYWHERE else Rule.TOKEN
    for text in texts | {value}:
        yield from ((pattern, encoded_rule) for pattern in forms.whole_encodings(text))
        if rule is Rule.ANYWHERE:
            yield from ((pattern, rule) for pattern in forms.embedded_base64(text) | forms.wrapped_base64(text))


def _pieces(pattern: bytes) -> Iterator[bytes]:
    """Cut a long pattern into overlapping pieces, so that a value that a tool shortened is masked too."""
    for start in range(0, max(1, len(pattern) - _LONGEST_PATTERN), _LONGEST_PATTERN - 1):
        yield pattern[start : start + _LONGEST_PATTERN]
    if len(pattern) > _LONGEST_PATTERN:
        yield pattern[-_LONGEST_PATTERN:]


class _Search:
    """All patterns, ready to search; immutable."""

    def __init__(self, rules: dict[bytes, Rule]) -> None:
        from ahocorasick_rs import BytesAhoCorasick, Implementation

        self._rules = list(rules.values())
        self._automaton = BytesAhoCorasick(list(rules), implementation=Implementation.ContiguousNFA)

    def spans(self, text: bytes, cuts: frozenset[int], *, own: bool) -> list[tuple[int, int]]:
        """Start and end of each span to mask, in order, overlapping ones merged. `own` leaves public names out.

        `cuts` are the places where a colour code separated two words.
        """
        found = []
        # Overlapping matches too: a secret may begin inside another one.
        for index, start, end in self._automaton.find_matches_as_indexes(text, overlapping=True):
            rule = self._rules[index]
            if rule is Rule.ANYWHERE or (
                not (own and rule is Rule.NAME) and _stands_alone(text, start, end, rule, cuts)
            ):
                found.append((start, end))
        merged: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged


def _stands_alone(text: bytes, start: int, end: int, rule: Rule, cuts: frozenset[int]) -> bool:
    before = b"" if start in cuts else text[max(0, start - 2) : start][::-1]
    after = b"" if end in cuts else text[end : end + 2]
    return not _is_joined(text[start], before, rule) and not _is_joined(text[end - 1], after, rule)


def _is_joined(edge: int, neighbours: bytes, rule: Rule) -> bool:
    """Whether the match continues beyond its edge; `neighbours` from the nearest outwards."""
    if not neighbours or edge not in _WORD:
        return False
    nearest = neighbours[0]
    if nearest in _WORD or rule is Rule.TOKEN:
        return nearest in _WORD
    return nearest == ord("-") or (nearest in b"./" and len(neighbours) > 1 and neighbours[1] in _WORD)
