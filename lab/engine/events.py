"""What happens during a run, as plain data: the engine emits it, the displays show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from lab.engine.providers import PropertyDiff
from lab.engine.state import ResourceState

# Operations counted as one change each; halves of a replace, reads and refreshes are not.
COUNTED = ("create", "update", "delete", "replace", "same")


@dataclass(frozen=True)
class Step:
    """One operation. ``old`` and ``new`` are copies made for the event. ``keys`` are the paths that force a replace.

    ``logical`` is false for the halves of a replace.
    """

    op: str
    urn: str
    type: str
    old: ResourceState | None
    new: ResourceState | None
    keys: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()
    detailed_diff: Mapping[str, PropertyDiff] | None = None
    logical: bool = True

    @property
    def provider(self) -> str:
        state = self.new or self.old
        return state.provider if state else ""


@dataclass(frozen=True)
class StepStarted:
    step: Step


@dataclass(frozen=True)
class StepDone:
    step: Step


@dataclass(frozen=True)
class StepFailed:
    step: Step


@dataclass(frozen=True)
class Diagnostic:
    """``urn`` "" belongs to the stack. ``severity``: debug, info, info#err, warning, error."""

    urn: str
    message: str
    severity: str
    prefix: str = ""
    ephemeral: bool = False


@dataclass(frozen=True)
class Notice:
    """Text of the command itself, such as the answer to Ctrl-C."""

    message: str


@dataclass(frozen=True)
class Prelude:
    """Settings of the run, secrets hidden."""

    config: Mapping[str, str]


@dataclass(frozen=True)
class Summary:
    """``changes``: operation to count. ``seconds`` of the whole run."""

    changes: Mapping[str, int]
    is_preview: bool
    result: str
    seconds: float


@dataclass(frozen=True)
class Ended:
    """The last event."""

    nothing: None = field(default=None, repr=False)


Event: TypeAlias = StepStarted | StepDone | StepFailed | Diagnostic | Notice | Prelude | Summary | Ended
Emit: TypeAlias = Callable[[Event], None]
