"""What the records of runs say: which command, where it went, how it ended, what it would have changed and did change.

The records are masked already; what is not in them is not known, and never made up.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbooks.core.journal import read_journal, runs_of
from runbooks.stacks.plan import count_verbs
from runbooks.tools.pulumi import name_of, type_of

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PlannedChange:
    """One line of a plan summary."""

    verb: str
    """`create`, `update`, `replace`, `delete`, …"""
    kind: str
    name: str
    destructive: bool
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class StackPreview:
    """What a preview said about one stack."""

    at: datetime
    service: str
    stack: str
    """The reference, `<organization>/<project>/<stack>`."""
    target: str
    state: str
    """`unchanged`, `would change`, or what it waits for."""
    changes: tuple[PlannedChange, ...]

    @property
    def is_unchanged(self) -> bool:
        return self.state.startswith("unchanged")

    @property
    def told(self) -> str:
        """Its changes, count_verbs; else its state."""
        return count_verbs(change.verb for change in self.changes) or self.state


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a task, as its record has it."""

    began: datetime
    task: str
    command: str
    """As it was typed, behind `./inv`."""
    target: str
    """Empty for a run that went to none."""
    exit_code: int | None
    """None when the record has no end: the run still goes on, or was killed."""
    previews: tuple[StackPreview, ...]
    applied: tuple[str, ...]
    """Names of the services whose stacks it changed as planned."""
    failed: tuple[str, ...]
    """Those it began to change and did not finish."""
    proofs: Mapping[str, str]
    """Service → what its verification count_verbs."""


def read_runs(state_dir: Path) -> list[Run]:
    """All runs that are kept, oldest first. A record without a readable beginning is left out."""
    found = (_read_run(read_journal(path)) for path in runs_of(state_dir))
    return [run for run in found if run is not None]


def _read_run(records: Sequence[Record]) -> Run | None:
    first = next((record for record in records if record["kind"] == "run"), None)
    began = _time(first) if first else None
    if first is None or began is None:
        return None
    argv = [str(word) for word in _list(first.get("argv"))]
    targets = [str(record["target"]) for record in _of_kind(records, "target") if record.get("target")]
    codes = [record.get("exit_code") for record in _of_kind(records, "end")]
    return Run(
        began=began,
        task=str(first.get("task") or ""),
        command=shlex.join(["./inv", *(_one_line(word) for word in argv[1:])]),
        target=targets[-1] if targets else "",
        exit_code=codes[-1] if codes and isinstance(codes[-1], int) else None,
        previews=tuple(preview for record in _of_kind(records, "plan") for preview in _previews(record)),
        applied=_names(records, "applied"),
        failed=_names(records, "failed"),
        proofs={
            str(record.get("service")): str(record.get("summary") or "") for record in _of_kind(records, "verdict")
        },
    )


def _of_kind(records: Sequence[Record], kind: str) -> Iterator[Record]:
    return (record for record in records if record["kind"] == kind)


def _names(records: Sequence[Record], state: str) -> tuple[str, ...]:
    """Of the services that a deployment left in that state."""
    return tuple(str(name) for record in _of_kind(records, "summary") for name in _list(record.get(state)))


def _previews(record: Record) -> Iterator[StackPreview]:
    at = _time(record)
    for stack in _list(record.get("stacks")):
        if at is None or not isinstance(stack, dict):
            continue
        changes = [change for change in _list(stack.get("changes")) if isinstance(change, dict)]
        yield StackPreview(
            at=at,
            service=str(stack.get("service") or ""),
            stack=str(stack.get("stack") or ""),
            target=str(record.get("target") or ""),
            state=str(stack.get("state") or "not known"),
            changes=tuple(_change(change) for change in changes),
        )


def _change(change: Record) -> PlannedChange:
    urn = str(change.get("urn") or "")
    return PlannedChange(
        verb=str(change.get("verb") or change.get("op") or "change"),
        kind=type_of(urn).rpartition(":")[2],
        name=name_of(urn),
        destructive=change.get("rank") == "destructive",
        why=str(change.get("why") or ""),
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _time(record: Record) -> datetime | None:
    """In UTC, as records have it."""
    try:
        return datetime.fromisoformat(str(record.get("time"))).astimezone(UTC)
    except ValueError:
        return None


def _one_line(word: str) -> str:
    return "".join(character if character.isprintable() else " " for character in word)
