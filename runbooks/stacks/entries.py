"""Identity of list entries: which entry of one list is which entry of another.

A position identifies nothing, because an entry inserted in front shifts all the others. An entry is known by its rest
(everything in it but the secrets), or by a name that is unique in both lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NAMES = ("name", "id", "key")
"""Keys that name an entry. No other key does: two hooks of one region are two hooks."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What identifies a list entry; every text is JSON with sorted keys, so that `1`, `"1"` and `true` differ."""

    exact: str = field(repr=False)
    """The whole entry with its secrets, for comparison only."""
    masked: str
    """The whole entry with a mark in place of each secret."""
    rest: str
    """The entry without its secrets; empty when nothing is left that could identify it."""
    names: Mapping[str, str]
    """Its values at the keys of `NAMES`, where they are a text or a number."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Which entry of the other list an entry is."""

    index: int | None = None
    """`None` when it is none of them, or when that cannot be decided."""
    doubt: str = ""
    """Why it cannot be decided."""


def match_entries(old: Sequence[Entry], new: Sequence[Entry]) -> list[Match]:
    """For each entry of `old` its match in `new`.

    Lists that are equal but for the values of their secrets match as they stand, even where entries cannot be told
    apart: no edit was made, so every secret stays at the very place where it is now.
    """
    if [entry.masked for entry in old] == [entry.masked for entry in new]:
        return [Match(index=number) for number in range(len(old))]
    return [_match(number, old, new) for number in range(len(old))]


def _match(number: int, old: Sequence[Entry], new: Sequence[Entry]) -> Match:
    entry = old[number]
    if not entry.rest:
        return Match(doubt="it has nothing but secrets, and the list was edited")
    twins = [index for index, other in enumerate(old) if other.rest == entry.rest]
    found = [index for index, other in enumerate(new) if other.rest == entry.rest]
    if len(twins) == len(found) == 1:
        return Match(index=found[0])
    if not found:
        return _match_by_name(entry, old, new)
    if len({old[twin].exact for twin in twins}) == 1 and len(found) <= len(twins):
        return Match(index=found[min(twins.index(number), len(found) - 1)])
    alike = ", ".join(f"[{index}]" for index in found)
    return Match(doubt=f"without the secrets it equals {alike} of the file, and there are {len(twins)} on the backend")


def _match_by_name(entry: Entry, old: Sequence[Entry], new: Sequence[Entry]) -> Match:
    keys = [key for key in NAMES if _is_unique(key, old) and _is_unique(key, new)]
    found = {key: _index_of(key, entry.names[key], new) for key in keys}
    if len(set(found.values())) > 1:
        return Match(doubt=f"{' and '.join(f'`{key}`' for key in keys)} do not lead to the same entry of the file")
    return Match(index=next(iter(found.values()), None))


def _is_unique(key: str, entries: Sequence[Entry]) -> bool:
    """Whether every entry has the key, each with a value of its own."""
    values = {entry.names.get(key, "") for entry in entries}
    return "" not in values and len(values) == len(entries)


def _index_of(key: str, value: str, entries: Sequence[Entry]) -> int | None:
    return next((index for index, entry in enumerate(entries) if entry.names[key] == value), None)


def pair_entries(old: Sequence[Entry], new: Sequence[Entry]) -> dict[int, int]:
    """New index to old index, to show differences: equal entries first, in order, then the same entry changed."""
    pairs: dict[int, int] = {}
    for before, entry in enumerate(old):
        equal = (after for after, other in enumerate(new) if after not in pairs and other.exact == entry.exact)
        if (after := next(equal, None)) is not None:
            pairs[after] = before
    paired = set(pairs.values())
    for before, match in enumerate(match_entries(old, new)):
        if before not in paired and match.index is not None and match.index not in pairs:
            pairs[match.index] = before
    return pairs


def moved_entries(pairs: Mapping[int, int]) -> set[int]:
    """New indexes of the paired entries whose order among each other changed."""
    after = sorted(pairs)
    before = sorted(pairs, key=lambda index: pairs[index])
    return {index for index, same in zip(after, before, strict=True) if index != same}
