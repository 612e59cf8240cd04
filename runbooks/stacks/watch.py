"""Watches a running update: the first operation that was not approved stops it, once and gracefully.

pulumi's own `up --plan` refuses healthy first deployments, so its stream of events is followed instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import OpsError, Refused
from runbooks.stacks import states
from runbooks.stacks.holders import holders_of
from runbooks.stacks.plan import StackPlan
from runbooks.stacks.session import Session
from runbooks.tools import pulumi
from runbooks.tools.failures import explain
from runbooks.tools.pulumi import Event, describe_object, is_bookkeeping, name_of, parents_of, read_event, type_of
from runbooks.tools.stack import Stack

WEAKEST_FIRST = (
    "same read read-replacement refresh diff discard discard-replaced remove-pending-replace",
    "create import",
    "update",
    "create-replacement delete-replaced import-replacement replace",
    "delete",
)
STRENGTH = {operation: strength for strength, words in enumerate(WEAKEST_FIRST) for operation in words.split()}
"""Operation → strength; an approved one covers the weaker ones on the same resource."""
STRONGEST = 5
"""The strength of an unknown operation."""
MOST_ERRORS = 100


@dataclass(frozen=True, kw_only=True)
class Approved:
    """The operations that an update may do: for each resource, nothing stronger than the plan summary showed."""

    strengths: Mapping[str, int]
    """URN → strength of the strongest approved operation."""
    leftovers: frozenset[str] = frozenset()
    incomplete: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plan: StackPlan) -> Approved:
        strengths: dict[str, int] = {}
        for step in plan.preview.steps if plan.preview else ():
            strengths[step.urn] = max(strengths.get(step.urn, 0), STRENGTH.get(step.op, STRONGEST))
        return cls(strengths=strengths, leftovers=frozenset(plan.leftovers), incomplete=frozenset(plan.incomplete))

    @property
    def objects(self) -> int:
        """How many objects are changed."""
        return sum(strength > 0 and not is_bookkeeping(urn) for urn, strength in self.strengths.items())

    def allows(self, event: Event) -> bool:
        """Whether an operation that starts was approved."""
        if is_bookkeeping(event.urn):
            return True
        strength = STRENGTH.get(event.op, STRONGEST)
        if strength <= self.strengths.get(event.urn, 0):
            return True
        if event.op == "delete-replaced" and event.urn in self.leftovers:
            return True
        # What is left is a new object: allowed below a component whose objects the preview could not know.
        if event.op != "create" or event.urn in self.strengths:
            return False
        if event.parent:
            return event.parent in self.incomplete
        return any(parents_of(event.urn).endswith(type_of(component)) for component in self.incomplete)


@dataclass(kw_only=True)
class Watch:
    """Follows one `up --json` line by line: the first operation that was not approved stops it, once and gracefully."""

    approved: Approved
    stop: Callable[[], None]
    progress: Callable[[str], None] = lambda _: None
    """Receives each operation that starts, and how many objects are done."""
    outcome: Outcome | None = None
    """How the update ended; `None` while it runs, or where it never started."""
    violation: Event | None = None
    done: list[Event] = field(default_factory=list)
    errors: list[str] = field(default_factory=list, repr=False)
    """The lines with pulumi's errors, unmasked. A long stream is kept without its middle, so they are kept here."""

    def __call__(self, line: str) -> None:
        event = read_event(line)
        if event is None:
            return
        if event.diagnostic is not None and event.diagnostic.severity == "error" and len(self.errors) < MOST_ERRORS:
            self.errors.append(line)
        has_effect = STRENGTH.get(event.op, STRONGEST) > 0
        if event.kind == "started" and not self.approved.allows(event):
            # A second signal would make pulumi end at once, and leave its lock and operations of unknown result.
            if self.violation is None:
                self.violation = event
                self.stop()
        elif event.kind == "started" and has_effect:
            done = {each.urn for each in self.done}
            # A preview does not know all objects of every component.
            objects = max(self.approved.objects, len(done | {event.urn}))
            self.progress(f"{len(done)} of {objects} objects done; {event.op} {describe_object(event.urn)}")
        elif event.kind == "done" and has_effect and not is_bookkeeping(event.urn):
            self.done.append(event)


def run_watched(session: Session, stack: Stack, command: Command, watch: Watch) -> Outcome:
    """Run one update of the stack under the watch.

    Raises the error for its end: an operation that was not approved, an interruption, a failure.
    """
    watch.outcome = outcome = session.runner.run(command, on_line=watch)
    # Also an update that failed may have changed the state.
    session.known.forget(stack)
    if watch.violation is not None:
        event = watch.violation
        why = "which was not approved"
        # The safeguard for what a preview could leave out (docs/decisions/0005).
        if event.op == "delete-replaced" and event.urn not in watch.approved.strengths:
            why = (
                "which the preview did not show: it depends on an object that is deleted before it is replaced, and it "
                "was dropped from the program at the same time"
            )
        raise Refused(
            f"pulumi began to {event.op} {type_of(event.urn)} {name_of(event.urn)} of {stack.service}, "
            f"{why}; it was stopped with one signal and ended with exit {outcome.exit_code}"
            + describe_leftovers(session, stack),
            expected="the operations of the preview, and nothing stronger",
            next_step=f"./inv preview.{stack.service} --diff shows what is left to do, including what was unforeseen; "
            "then run the same command again",
        )
    if outcome.ok:
        return outcome
    if watch.errors:
        # The shown output of a long update lacks its middle, which may hold the errors.
        outcome = replace(outcome, shown_stdout=session.masker.mask("\n".join(watch.errors)))
    error = explain(outcome, stack)
    if outcome.interrupted or outcome.exit_code < 0:
        raise type(error)(
            error.summary + describe_leftovers(session, stack), expected=error.expected, next_step=error.next_step
        )
    raise error


def refresh_state(session: Session, stack: Stack, urns: Sequence[str]) -> None:
    """Refresh these objects of the state from the cluster, where nothing may change."""
    watch = Watch(approved=Approved(strengths={}), stop=session.runner.interrupt)
    run_watched(session, stack, pulumi.refresh(stack, urns), watch)


def describe_leftovers(session: Session, stack: Stack) -> str:
    """What an interrupted update left: its lock, and operations of unknown result."""
    try:
        pending = states.state_of(session, stack, after_interrupt=True).pending
        held = holders_of(session, stack, after_interrupt=True)
    except OpsError as error:
        return f"; what it left behind could not be read: {error.summary}"
    names = ", ".join(f"{kind} {name_of(urn)}" for kind, urn in pending)
    found = [f"operations of unknown result: {names}"] if pending else []
    found += ["its lock is still there"] if held else []
    return f"; {' and '.join(found)}" if found else "; it left no lock and no operation of unknown result"
