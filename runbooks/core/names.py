"""Checks names that users type: suggests the nearest known ones, and refuses names that a tool would misread."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

from runbooks.core.errors import NotFound, Usage


def nearest(name: str, candidates: Iterable[str], n: int = 3) -> list[str]:
    """The `n` candidates most like `name`, best first; never empty when there are candidates at all."""

    def likeness(candidate: str) -> tuple[float, str]:
        return (-SequenceMatcher(None, name.casefold(), candidate.casefold()).ratio(), candidate)

    # The best ones even if they are not similar, so that the user sees which names exist.
    return sorted(set(candidates), key=likeness)[:n]


def check_name(kind: str, name: str, candidates: Iterable[str], *, list_with: str = "./inv --list") -> str:
    """Return `name` if it is one of `candidates`.

    Raises `NotFound` with the three nearest names, and `Usage` for an empty name or one that a tool would take
    for an option.
    """
    known_names = list(candidates)
    refuse_option_like(kind, name)
    if name not in known_names:
        raise unknown(kind, name, known_names, list_with=list_with)
    return name


def unknown(kind: str, name: str, candidates: Iterable[str], *, list_with: str = "./inv --list") -> NotFound:
    """The error for a name that is none of `candidates`, with the three nearest."""
    near = ", ".join(nearest(name, candidates)) or "none exist yet"
    return NotFound(f"no {kind} is called {name!r}", expected=f"one of the nearest names: {near}", next_step=list_with)


def refuse_option_like(kind: str, name: str) -> None:
    """Raise `Usage` for a name that is empty, starts with a dash or holds white space or control characters."""
    if not name:
        raise Usage(f"the name of the {kind} is empty", expected=f"a {kind}'s name")
    if name.startswith("-"):
        raise Usage(
            f"{name!r} starts with a dash, so every tool would read it as an option",
            expected=f"a {kind}'s name",
        )
    if any(character.isspace() or not character.isprintable() for character in name):
        raise Usage(f"the {kind} {name!r} holds white space or control characters", expected=f"a plain {kind}'s name")
