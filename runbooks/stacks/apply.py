"""From an approved plan to applied stacks: approval, second comparison, watched updates, summary, outputs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from runbooks.core.command import Outcome
from runbooks.core.errors import NotApproved, OpsError, Refused, VerificationFailed
from runbooks.core.findings import Verdict, told_together
from runbooks.stacks import states
from runbooks.stacks.addresses import await_producers
from runbooks.stacks.existing import TAKES_OVER
from runbooks.stacks.guard import confirm_cluster
from runbooks.stacks.holders import holders_of
from runbooks.stacks.plan import (
    PROPERTY_INDENT,
    RunPlan,
    StackPlan,
    Watch,
    approved_of,
    kind_of,
    summary_data,
    summary_lines,
)
from runbooks.stacks.preparation import prepare
from runbooks.stacks.preview import (
    existing_of,
    fingerprint_of,
    plan_stack,
    producer_called,
    record_applied,
    side_by_side,
    title,
)
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import pulumi
from runbooks.tools.failures import explain
from runbooks.tools.pulumi import Event
from runbooks.tools.stack import Stack

ATTEMPTS = 3
"""How often a plan is made anew because what determines it changed before it could be applied."""


def show_plan(session: Session, plan: RunPlan, *, diff: bool = False) -> None:
    for line in summary_lines(plan, diff=diff):
        say = session.reporter.quote if line.startswith(PROPERTY_INDENT) else session.reporter.line
        say(line)
    session.reporter.event("plan", **summary_data(plan, diff=diff))
    session.journal.write("plan", **summary_data(plan))


def show_preview(session: Session, service: Service, step: str) -> StackPlan:
    """Preview one stack alone and show what it would change. Raises what the failing preview means."""
    with session.reporter.step(step):
        plan = plan_stack(session, service)
    show_plan(session, RunPlan(layers=((plan,),), target=session.target.name))
    return plan


def approve(session: Session, plan: RunPlan, *, yes: bool, again: str) -> None:
    """Ask for approval of the plan as shown. Raises `NotApproved`; `again` is the command to name then.

    On the lab none is needed. `yes` stands for a person's y; it never covers what is destructive or takes objects over.
    Raises `Refused` for what nobody can approve: objects that are in the way.
    """
    refuse_existing(session, plan, again=again)
    if session.target.ephemeral or not plan.has_changes:
        return
    destructive, adopting = plan.destructive_services, plan.adopting_services
    if not session.reporter.interactive:
        _approve_unattended(destructive, adopting, yes=yes, again=again)
    elif destructive or adopting:
        for name in dict.fromkeys((*destructive, *adopting)):
            what = "deletes or replaces what holds data" if name in destructive else "takes over what others made"
            if not session.reporter.ask_word(f"This {what}. Type {name} to go on:", name):
                raise _declined(again)
    elif not yes and not session.reporter.ask_yes("Apply this?"):
        raise _declined(again)
    session.journal.write("approved", services=[stack.service for stack in plan.stacks], destructive=list(destructive))


def refuse_existing(session: Session, plan: RunPlan, *, again: str) -> None:
    """Raise `Refused` while the cluster has objects that a stack would create and pulumi would stop at."""
    for stack in plan.stacks:
        names = [f"{kind_of(change.step.type)} {change.step.name}" for change in stack.in_the_way]
        if names:
            refuse_held(session, stack.stack)
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise Refused(
                f"{stack.service} would create what exists in the cluster already: {shown}",
                expected="objects of this stack alone; nothing was applied",
                next_step="see above whose they are: `pulumi refresh` asks for what an interrupted run left; remove "
                "the others by what made them, or `pulumi import` them, or take all of them over: "
                f'{TAKES_OVER}: "true" in {stack.stack.settings_file.name}, then {again}',
            )


def refuse_held(session: Session, stack: Stack) -> None:
    """Raise `Refused` while another run holds the stack: what it makes is not in the state yet."""
    for held in holders_of(session, stack) or ():
        raise Refused(
            f"another run holds the stack of {stack.service}: {held.told()}",
            expected="a stack that nobody is changing; wait for that run to end",
            next_step=f"./inv cancel.{stack.service} looks whether that process still lives",
        )


def _approve_unattended(destructive: Sequence[str], adopting: Sequence[str], *, yes: bool, again: str) -> None:
    if destructive:
        raise NotApproved(
            f"destructive changes to {', '.join(destructive)} need a person, and nobody can be asked here",
            expected="a terminal on which the service's name is typed; --yes never covers a destructive change",
            next_step=f"run {again} on a terminal, or make the change not destructive",
        )
    if adopting:
        raise NotApproved(
            f"{', '.join(adopting)} would take over objects that others made, and nobody can be asked here",
            expected="a terminal on which the service's name is typed; --yes never covers taking objects over",
            next_step=f"run {again} on a terminal, or take {TAKES_OVER} out of the stack's settings",
        )
    if not yes:
        raise NotApproved(
            "nobody can be asked here, and --yes was not given",
            expected="an approval of the changes above",
            next_step=f"{again} --yes",
        )


def _declined(again: str) -> NotApproved:
    return NotApproved("not approved, so nothing was applied", next_step=again)


@dataclass(kw_only=True)
class Progressed:
    """How far a run got. Written to from several threads."""

    done: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    not_started: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, where: list[str], name: str) -> None:
        with self.lock:
            where.append(name)

    @property
    def names(self) -> set[str]:
        return {*self.done, *self.unchanged, *self.failed}


def apply_run(session: Session, plan: RunPlan, *, yes: bool, again: str) -> Progressed:
    """Apply the approved plan layer by layer. The first failure lets running stacks finish and starts nothing new.

    Consumers that were blocked are previewed once their producers are applied, side by side, and approved once more.
    """
    progressed = Progressed()
    try:
        for layer in plan.layers:
            _apply_layer(session, layer, progressed, yes=yes, again=again)
    finally:
        every = [stack.service for stack in plan.stacks]
        progressed.not_started = [name for name in every if name not in progressed.names]
        show_result(session, progressed, again=again)
    return progressed


def _apply_layer(
    session: Session, layer: Sequence[StackPlan], progressed: Progressed, *, yes: bool, again: str
) -> None:
    current = _current_plans(session, layer, yes=yes, again=again)
    working = [plan for plan in current if plan.has_changes or plan.writes_outputs]
    for plan in current:
        if plan not in working:
            progressed.note(progressed.unchanged, plan.service)
    if not working:
        return
    services = services_of(session, working)
    await_producers(session, services, progressed.done)
    confirm_cluster(session)
    with session.reporter.step(title("apply", services)) as progress:
        side_by_side(session, working, lambda plan: _apply_stack(session, plan, progressed, progress.note))


def services_of(session: Session, plans: Sequence[StackPlan]) -> list[Service]:
    return [session.service(plan.service) for plan in plans]


def _current_plans(session: Session, layer: Sequence[StackPlan], *, yes: bool, again: str) -> list[StackPlan]:
    """The plans while nothing that determines them changed; the others made anew, shown and approved together."""
    current = {plan.service: plan for plan in layer}
    unsettled = list(layer)
    for _ in range(ATTEMPTS):
        forget_states(session, services_of(session, [plan for plan in unsettled if not plan.is_blocked]))
        stale = services_of(session, [plan for plan in unsettled if _is_stale(session, plan)])
        if not stale:
            return list(current.values())
        unsettled = _approved_anew(session, stale, yes=yes, again=again)
        current |= {plan.service: plan for plan in unsettled}
    raise Refused(
        f"what determines the plan of {', '.join(plan.service for plan in unsettled)} keeps changing",
        expected="program, settings, state and upstream outputs to stay as they are between preview and apply",
        next_step=f"find out who else works on it, then {again}",
    )


def _is_stale(session: Session, plan: StackPlan) -> bool:
    """Whether it has to be made anew: it waited for its producers, or what determines it changed, which is told."""
    if plan.is_blocked:
        return True
    changed = plan.fingerprint.differing(fingerprint_of(session, session.service(plan.service)))
    if plan.adopts and plan.preview and existing_of(session, plan.stack, plan.preview) != plan.existing:
        changed.append("what exists already")
    if changed:
        session.reporter.line(f"{plan.service}: {', '.join(changed)} changed since the preview, so it is made anew.")
    return bool(changed)


def forget_states(session: Session, services: Sequence[Service]) -> None:
    """Let the next comparison of these services see their states and their producers' as they are then.

    All at once, before the first is compared: a producer that several read is asked for once.
    """
    for service in services:
        for stack in (session.stack(service), *(producer_called(session, name) for name in service.reads_outputs_of)):
            states.forget(session, stack)


def _approved_anew(session: Session, services: Sequence[Service], *, yes: bool, again: str) -> list[StackPlan]:
    """Previewed side by side, shown in one plan summary, approved by one answer."""
    with session.reporter.step(title("preview", services)):
        plans = side_by_side(session, services, lambda service: plan_stack(session, service))
    for plan in plans:
        if plan.is_blocked:
            raise Refused(
                f"{plan.service} still waits for the outputs of {', '.join(plan.waits_for)}",
                expected="outputs of the producers, which were applied just before",
                next_step=f"./inv outputs.{plan.waits_for[0]}",
            )
    run = RunPlan(layers=(tuple(plans),), target=session.target.name)
    show_plan(session, run)
    approve(session, run, yes=yes, again=again)
    return plans


def _apply_stack(session: Session, plan: StackPlan, progressed: Progressed, note: Callable[[str], None]) -> None:
    """Run one watched update. Raises what its failure means."""
    watch = Watch(
        approved=approved_of(plan),
        stop=session.runner.interrupt,
        progress=lambda what: note(f"{plan.service}: {what}"),
    )
    outcome: Outcome | None = None
    try:
        outcome = session.runner.run(pulumi.up(plan.stack), on_line=watch)
        judge_update(session, plan.stack, outcome, watch)
    except BaseException as error:
        # The runner refuses to begin when the run was told to stop before: then nothing was started.
        if outcome is not None or not isinstance(error, NotApproved):
            progressed.note(progressed.failed, plan.service)
        raise
    progressed.note(progressed.done, plan.service)  # also when that cannot be written down
    record_applied(session, plan.stack, fingerprint_of(session, session.service(plan.service)))
    otherwise = "applied, no object changed" if plan.has_changes else "outputs written, nothing else changed"
    what = f"applied, {len(watch.done)} changes" if watch.done else otherwise
    session.reporter.line(f"{plan.service}: {what} in {outcome.seconds:.0f} s")
    session.reporter.event("applied", service=plan.service, changes=len(watch.done), seconds=round(outcome.seconds, 1))


def judge_update(session: Session, stack: Stack, outcome: Outcome, watch: Watch) -> None:
    """Raise what an update's end means: an operation nobody approved, an interruption, a failure."""
    states.forget(session, stack)
    if watch.violation is not None:
        event = watch.violation
        raise Refused(
            f"pulumi began to {event.op} {pulumi.type_of(event.urn)} {pulumi.name_of(event.urn)} of {stack.service}, "
            f"{unapproved(event, watch)}; it was stopped with one signal and ended with exit {outcome.exit_code}"
            + left_behind(session, stack),
            expected="the operations of the preview, and nothing stronger",
            next_step=f"./inv preview.{stack.service} --diff shows what is left to do, also what was unforeseen; "
            "then run the same command again",
        )
    if outcome.ok:
        return
    error = explain(with_errors(session, outcome, watch), stack)
    if outcome.interrupted or outcome.exit_code < 0:
        raise type(error)(
            error.summary + left_behind(session, stack), expected=error.expected, next_step=error.next_step
        )
    raise error


def unapproved(event: Event, watch: Watch) -> str:
    """Why nobody had approved an operation: usually because no preview showed it."""
    if event.op == "delete-replaced" and event.urn not in watch.approved.strengths:
        return (
            "which the preview did not show: it depends on something that is deleted before it is replaced, and it was"
            " dropped from the program at the same time"
        )
    return "which nobody had approved"


def with_errors(session: Session, outcome: Outcome, watch: Watch) -> Outcome:
    """The outcome, showing at least the errors that were seen while the update ran."""
    if not watch.errors:
        return outcome
    return replace(outcome, shown_stdout=session.masker.mask("\n".join(watch.errors)))


def left_behind(session: Session, stack: Stack) -> str:
    """What an interrupted update left: locks and operations whose result nobody knows. Empty when nothing."""
    told = []
    try:
        pending = states.state_of(session, stack, after_interrupt=True).pending
        held = holders_of(session, stack, after_interrupt=True)
    except OpsError as error:
        return f"; what it left behind could not be read: {error.summary}"
    if pending:
        names = ", ".join(f"{kind} {pulumi.name_of(urn)}" for kind, urn in pending)
        told.append(f"operations of unknown result: {names}")
    if held:
        told.append("its lock is still there")
    return f"; {' and '.join(told)}" if told else "; it left no lock and no operation of unknown result"


def show_result(session: Session, progressed: Progressed, *, again: str) -> None:
    """What was done, what failed, what was not started, and the command that goes on from there."""
    for words, names in (
        ("unchanged", progressed.unchanged),
        ("applied", progressed.done),
        ("failed", progressed.failed),
        ("not started", progressed.not_started),
    ):
        if names:
            session.reporter.line(f"{words}: {', '.join(names)}")
    unfinished = bool(progressed.failed or progressed.not_started)
    if unfinished:
        session.reporter.line(f"to go on from there: {again}")
    facts = {
        "unchanged": progressed.unchanged,
        "applied": progressed.done,
        "failed": progressed.failed,
        "not_started": progressed.not_started,
    }
    session.reporter.event("summary", **facts, again=again if unfinished else "")
    session.journal.write("summary", **facts)


def show_outputs(session: Session, service: Service) -> None:
    """The stack's outputs, secrets masked, with the URLs to open."""
    stack = prepare(session, service)
    outcome = session.runner.run(pulumi.stack_output(stack))
    if not outcome.ok:
        raise explain(outcome, stack)
    outputs = pulumi.read_outputs(outcome.stdout)
    if not outputs:
        session.reporter.line(f"{service.name} has no outputs")
        return
    rows = [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in sorted(outputs.items())]
    session.reporter.table(f"outputs of {service.name}", ["output", "value"], rows)
    for _, value in rows:
        if value.startswith(("http://", "https://")):
            session.reporter.quote(f"open: {value}")


ENDING = ("state", "target", "settings", "pulumi")
"""The parts of a fingerprint that determine what destroying a stack does."""


def refuse_if_changed(session: Session, service: Service, plan: StackPlan, *, again: str) -> None:
    """Raise `Refused` when what determines an end is no longer what it was at its preview; it runs no program."""
    forget_states(session, [service])
    changed = [part for part in plan.fingerprint.differing(fingerprint_of(session, service)) if part in ENDING]
    if changed:
        raise Refused(
            f"{', '.join(changed)} of {service.name} changed since the preview",
            expected="the state that was shown and approved",
            next_step=again,
        )


def prove(
    session: Session, services: Sequence[Service], verify: Callable[[Session, Service], Verdict], *, done: Sequence[str]
) -> None:
    """Verify each service; `done` are those that this run changed.

    Raises `VerificationFailed` when one does not hold, after all were looked at.
    """
    verdicts = {service.name: verify(session, service) for service in services}
    if len(verdicts) > 1:
        session.reporter.line(f"verify.all: {told_together(verdicts)}")
    unproven = [name for name, verdict in verdicts.items() if not verdict.ok]
    if unproven:
        name = unproven[0]
        changed = any(each in done for each in unproven)
        by_hand = (
            f"; ./inv drift.{name} shows what was changed by hand in the cluster, ./inv repair.{name} puts it back"
        )
        raise VerificationFailed(
            f"{', '.join(unproven)}: {'applied' if changed else 'nothing was to apply'}, but not proven to work",
            expected="every deciding check to pass",
            next_step=f"./inv verify.{name}{'' if changed else by_hand}",
        )
