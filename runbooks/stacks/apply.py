"""From an approved plan to applied stacks: approval, second comparison, watched updates, wait for producers, result."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import NotApproved, OperatorMissing, OpsError, Refused
from runbooks.core.parallel import SIDE_BY_SIDE, report_others, side_by_side, work_in_order, workers
from runbooks.stacks.fingerprint import changed_parts, fingerprint_of, record_reads, write_record
from runbooks.stacks.guard import confirm_cluster
from runbooks.stacks.plan import BEING_DELETED, IN_THE_WAY, TAKES_OVER, RunPlan, StackPlan, existing_of
from runbooks.stacks.preparation import has_stack, is_deployed, outputs_of, prepare, run_pulumi, state_of
from runbooks.stacks.preview import plan_stack, title
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.summary import show_plan
from runbooks.tools import locks, network, pulumi
from runbooks.tools.failures import explain
from runbooks.tools.locks import Held
from runbooks.tools.pulumi import (
    Event,
    as_text,
    describe_object,
    is_bookkeeping,
    name_of,
    parents_of,
    read_event,
    type_of,
)
from runbooks.tools.secret_values import hide_secrets
from runbooks.tools.stack import Stack

NOT_APPROVED = "not approved, so nothing was applied"
ATTEMPTS = 3
"""How often a plan is made again because what determines it changed before it could be applied."""


def approve(session: Session, plan: RunPlan, *, yes: bool, again: str) -> None:
    """Ask for approval of the plan as shown. Raises `NotApproved`, which names the command `again`.

    The lab needs none. `yes` stands for a user's y; it never covers what is destructive or takes objects over.
    Raises `Refused` for objects that are in the way, which no approval covers.
    """
    refuse_existing(session, plan, again=again)
    if session.target.ephemeral or not plan.has_changes:
        return
    # A service that does both gets the graver reason.
    typed = dict.fromkeys(plan.destructive_services, "deletes or replaces what holds data")
    typed = dict.fromkeys(plan.adopting_services, "takes over what this stack did not make") | typed
    if typed and not session.reporter.interactive:
        why = "; ".join(f"{name} {what}" for name, what in typed.items())
        raise NotApproved(
            f"{why}, and there is no terminal to ask on",
            expected="a terminal on which the service's name is typed; --yes covers neither a destructive change nor "
            "taking objects over",
            next_step=f"run {again} on a terminal, make the change not destructive, or remove {TAKES_OVER} from the "
            "stack config",
        )
    if not yes and not session.reporter.interactive:
        raise NotApproved(
            "--yes was not given, and there is no terminal to ask on",
            expected="an approval of the changes above",
            next_step=f"{again} --yes",
        )
    for name, what in typed.items():
        if not session.reporter.ask_word(f"{name} {what}. Type {name} to go on:", name):
            raise NotApproved(NOT_APPROVED, next_step=again)
    if not typed and not yes and not session.reporter.ask_yes("Apply this?"):
        raise NotApproved(NOT_APPROVED, next_step=again)
    services, destructive = [stack.service for stack in plan.stacks], list(plan.destructive_services)
    session.journal.write("approved", services=services, destructive=destructive)


def refuse_existing(session: Session, plan: RunPlan, *, again: str) -> None:
    """Raise `Refused` while the cluster has objects that a stack would create and pulumi would stop at."""
    for stack in plan.stacks:
        names = [describe_object(change.step.urn) for change in stack.changes if change.verb == IN_THE_WAY]
        if names:
            # Another run may be creating them now; its state does not have them yet.
            refuse_held(session, stack.stack)
            refuse_being_deleted(stack, again=again)
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            begun = f"an interrupted update of {stack.service}" in stack.existing.values()
            first = (
                f"./inv cancel.{stack.service} settles objects of an interrupted update; for others, " if begun else ""
            )
            raise Refused(
                f"{stack.service} would create what exists in the cluster already: {shown}",
                expected="objects of this stack alone; nothing was applied",
                next_step=f"{first}see the owners above: remove the objects with the tool that made them, or "
                "`pulumi import` them, or take all of them over: "
                f'{TAKES_OVER}: "true" in {stack.stack.settings_file.name}, then {again}',
            )


def refuse_being_deleted(stack: StackPlan, *, again: str) -> None:
    """Raise `Refused` while an object that the stack would create still waits for the end of its deletion."""
    names = [describe_object(urn) for urn, owner in stack.existing.items() if owner == BEING_DELETED]
    if names:
        raise Refused(
            f"{stack.service} would create what is still being deleted: {', '.join(names[:5])}",
            expected="objects that are gone; nothing was applied",
            next_step="wait; after a minute, kubectl get with -o yaml shows what holds them, in their finalizers and a "
            f"namespace's conditions; then {again}",
        )


def holders_of(session: Session, stack: Stack, *, after_interrupt: bool = False) -> list[Held] | None:
    """The runs that hold the stack; `None` on a backend that does not report them (a bucket).

    Raises the error for pulumi's failure.
    """
    folder = locks.lock_folder(stack, session.target.backend)
    if folder is not None:
        return [locks.find_holder(lock) for lock in locks.locks_in(folder)]
    if session.target.has_diy_backend:
        return None
    if not has_stack(session, stack):
        return []
    answer = run_pulumi(session, pulumi.stack_show(stack), stack, after_interrupt=after_interrupt)
    update = locks.read_current_update(answer)
    if update is None:
        return []
    # Runs of this checkout use the project's folder, or its copy in an older commit during a rollback.
    project = stack.folder.relative_to(session.root)
    folders = {str(stack.folder), *map(str, (session.state_dir / "worktrees").glob(f"*/{project}"))}
    # Every user of the lab's cloud is on this machine.
    return locks.find_holders(update, stack.name, folders, only_this_machine=session.target.ephemeral)


def refuse_held(session: Session, stack: Stack) -> None:
    """Raise `Refused` while another run holds the stack: the objects it makes are not in the state yet."""
    for held in holders_of(session, stack) or ():
        raise Refused(
            f"another run holds the stack of {stack.service}: {held.describe()}",
            expected="a stack that no other run changes; wait for that run to end",
            next_step=f"./inv cancel.{stack.service} checks whether that process is still alive",
        )


@dataclass(kw_only=True)
class Progress:
    """How far a run got, as names of services. Several threads append to its lists."""

    done: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    not_started: list[str] = field(default_factory=list)
    stale: set[str] = field(default_factory=set)
    """Services that must be previewed again before they are applied."""


def apply_run(session: Session, plan: RunPlan, *, yes: bool, again: str, parallel: int = 0) -> Progress:
    """Apply the approved plan, each stack as soon as all it needs is applied, `parallel` at once.

    Stacks that were blocked, or changed since their preview, wait until all others are applied. Then they are previewed
    and approved together, and applied. After the first failure, running stacks finish and no other starts.
    """
    run = Progress()
    layers, previews = plan.layers, Counter[str]()
    session.reporter.plan([step for layer in layers if (step := _step_title(session, layer))])
    try:
        while layers:
            deferred = _apply_wave(session, layers, run, workers(parallel, SIDE_BY_SIDE))
            unsettled = [plan.service for plan in deferred if plan.service in run.stale]
            previews.update(unsettled)
            if changing := [name for name in unsettled if previews[name] > ATTEMPTS]:
                raise Refused(
                    f"what determines the plan of {', '.join(changing)} keeps changing",
                    expected="program, settings, state and upstream outputs as they were at the preview",
                    next_step=f"stop the other process that changes it, then {again}",
                )
            current = {plan.service: plan for plan in deferred}
            if unsettled:
                services = [session.service(name) for name in unsettled]
                current |= {plan.service: plan for plan in _approve_again(session, services, yes=yes, again=again)}
            run.stale.clear()
            waves = (tuple(current[each.service] for each in layer if each.service in current) for layer in layers)
            layers = tuple(wave for wave in waves if wave)
    except OperatorMissing:
        again = again.removesuffix(" --only")  # the next run must apply what the service needs
        raise
    finally:  # after a failure or an interruption the user needs the result most
        reached = {*run.done, *run.unchanged, *run.failed}
        run.not_started = [stack.service for stack in plan.stacks if stack.service not in reached]
        show_result(session, run, again=again)
    return run


def _apply_wave(
    session: Session, layers: Sequence[Sequence[StackPlan]], run: Progress, parallel: int
) -> list[StackPlan]:
    """Apply these plans in the order of their needs; returns those that have to wait for the next wave."""
    plans = {plan.service: plan for layer in layers for plan in layer}
    needs = {name: [need for need in session.service(name).needs if need in plans] for name in plans}
    read_by_others = {name for service in plans for name in session.service(service).reads_outputs_of}
    deferred: set[str] = set()
    failures: list[BaseException] = []

    def work(name: str) -> None:
        if failures:
            return
        try:
            if _is_deferred(session, plans[name], run, deferred.intersection(needs[name])):
                deferred.add(name)
            elif plans[name].is_applied:
                _apply_stack(session, plans[name], run)
                if name in read_by_others:
                    await_producer(session, name)
            else:
                run.unchanged.append(name)
        except BaseException as error:
            failures.append(error)
            raise

    with (
        report_others(session.reporter, failures),
        ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="stack") as pool,
    ):
        finished = work_in_order(pool, [[plan.service for plan in layer] for layer in layers], needs, work)
        for layer in layers:
            step = _step_title(session, layer)
            with session.reporter.step(step) if step else contextlib.nullcontext():
                list(map(Future.result, next(finished)))
    return [plan for name, plan in plans.items() if name in deferred]


def _step_title(session: Session, layer: Sequence[StackPlan]) -> str:
    """The title of the step that applies these plans; empty when none of them is applied."""
    changing = [session.service(plan.service) for plan in layer if plan.is_applied]
    return title("apply", changing) if changing else ""


def _is_deferred(session: Session, plan: StackPlan, run: Progress, waiting: set[str]) -> bool:
    """Whether it has to wait, for a stack it needs that waits itself, or for a new preview.

    An unchanged stack is compared again only if one of its producers was applied: otherwise it is not touched.
    """
    producers = session.service(plan.service).reads_outputs_of
    is_changing = plan.is_blocked or plan.is_applied
    if not is_changing and not waiting and not any(name in run.done for name in producers):
        return False
    if not plan.is_blocked:
        for name in (plan.service, *producers):
            session.known.forget(session.stack(session.service(name)))
    is_stale = _is_stale(session, plan)
    # While a producer waits, its outputs are still going to change, so a preview now would be stale again.
    if is_stale and waiting.isdisjoint(producers):
        run.stale.add(plan.service)
    return is_stale or bool(waiting)


def _is_stale(session: Session, plan: StackPlan) -> bool:
    """Whether to preview it again, as it waited for its producers or its inputs changed. A change is reported."""
    if plan.is_blocked:
        return True
    changed = changed_parts(plan.fingerprint, fingerprint_of(session, session.service(plan.service)))
    if plan.adopts and plan.preview and existing_of(session, plan.stack, plan.preview) != plan.existing:
        changed.append("what exists already")
    if changed:
        session.reporter.line(
            f"{plan.service}: {', '.join(changed)} changed since the preview, so it is previewed again."
        )
    return bool(changed)


def _approve_again(session: Session, services: Sequence[Service], *, yes: bool, again: str) -> list[StackPlan]:
    """Preview side by side, show one plan summary, ask for one approval."""
    with session.reporter.step(title("preview", services)):
        plans = side_by_side(session.reporter, services, lambda service: plan_stack(session, service))
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


def show_result(session: Session, run: Progress, *, again: str) -> None:
    """What was done, what failed, what was not started, and the command that continues."""
    facts = {"unchanged": run.unchanged, "applied": run.done, "failed": run.failed, "not_started": run.not_started}
    for state, names in facts.items():
        if names:
            session.reporter.line(f"{state.replace('_', ' ')}: {', '.join(names)}")
    is_unfinished = bool(run.failed or run.not_started)
    if is_unfinished:
        session.reporter.line(f"to continue: {again}")
    session.reporter.event("summary", **facts, again=again if is_unfinished else "")
    session.journal.write("summary", **facts)


def _apply_stack(session: Session, plan: StackPlan, run: Progress) -> None:
    """Run one watched update. Raises the error for its failure."""
    # The context may lead elsewhere by now: minutes can lie between the preview and this stack.
    confirm_cluster(session)
    watch = Watch(
        approved=Approved.of(plan),
        stop=session.runner.interrupt,
        progress=lambda operation: session.reporter.note(f"{plan.service}: {operation}"),
    )
    command, read = record_reads(session, pulumi.up(plan.stack), plan.stack)
    try:
        outcome = run_watched(session, plan.stack, command, watch)
    except BaseException as error:
        # The runner starts nothing once the run was interrupted: then this stack is not among the failed ones.
        if watch.outcome is not None or not isinstance(error, NotApproved):
            run.failed.append(plan.service)
        raise
    run.done.append(plan.service)  # also if its record cannot be written
    fingerprint = fingerprint_of(session, session.service(plan.service))
    # The update may or may not have seen files edited meanwhile: record nothing if more than the state changed.
    if not changed_parts({**plan.fingerprint, "state": ""}, {**fingerprint, "state": ""}):
        write_record(session, plan.stack, fingerprint, read(), applied=True)
    otherwise = "applied, no object changed" if plan.has_changes else "outputs written, nothing else changed"
    count = len(watch.changed)
    result = f"applied, {count} change{'' if count == 1 else 's'}" if count else otherwise
    session.reporter.line(f"{plan.service}: {result} in {outcome.seconds:.0f} s")
    session.reporter.event("applied", service=plan.service, changes=count, seconds=round(outcome.seconds, 1))


# The watch over a running update

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
    """Receives how many objects are done with each operation that starts, and what the provider then waits for."""
    mask: Callable[[str], str] = str
    """Hides secrets in what the provider says."""
    outcome: Outcome | None = None
    """How the update ended; `None` while it runs, or where it never started."""
    violation: Event | None = None
    changed: set[str] = field(default_factory=set)
    """The URNs of the objects that this update has changed; a replace, of several operations, is one change."""
    errors: list[str] = field(default_factory=list, repr=False)
    """The lines with pulumi's errors, unmasked. A long stream is kept without its middle, so they are kept here."""

    def __call__(self, line: str) -> None:
        event = read_event(line)
        if event is None:
            return
        found = event.diagnostic
        if found is not None and found.severity == "error" and len(self.errors) < MOST_ERRORS:
            self.errors.append(line)
        if found is not None and found.ephemeral:
            message = self.mask(found.message.removeprefix(f"{found.severity}: "))
            self._report(found.urn, f"{describe_object(found.urn)}: {message}")
        has_effect = STRENGTH.get(event.op, STRONGEST) > 0
        if event.kind == "started" and not self.approved.allows(event):
            # A second signal would make pulumi end at once, and leave its lock and operations with unknown results.
            if self.violation is None:
                self.violation = event
                self.stop()
        elif event.kind == "started" and has_effect:
            self._report(event.urn, f"{event.op} {describe_object(event.urn)}")
        # pulumi does not report the end of a component, such as a chart.
        is_done = event.kind == "done" or (event.kind == "started" and event.is_component)
        if is_done and has_effect and not is_bookkeeping(event.urn):
            self.changed.add(event.urn)

    def _report(self, urn: str, what: str) -> None:
        # A preview does not know all objects of every component.
        objects = max(self.approved.objects, len(self.changed | {urn}))
        self.progress(f"{len(self.changed)} of {objects} objects done; {what}")


def run_watched(session: Session, stack: Stack, command: Command, watch: Watch) -> Outcome:
    """Run one update of the stack under the watch.

    Raises the error for its end: an operation that was not approved, an interruption, a failure.
    """
    watch.mask = session.masker.mask
    watch.outcome = outcome = session.runner.run(command, on_line=watch)
    # Also an update that failed may have changed the state.
    session.known.forget(stack)
    if watch.violation is not None:
        left, _ = describe_leftovers(session, stack)
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
            f"{why}; it was stopped with one signal and ended with exit {outcome.exit_code}; {left}",
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
        left, next_step = describe_leftovers(session, stack)
        raise type(error)(f"{error.summary}; {left}", expected=error.expected, next_step=next_step)
    raise error


def refresh_state(session: Session, stack: Stack, urns: Sequence[str]) -> None:
    """Refresh these objects of the state from the cluster, where nothing may change."""
    watch = Watch(approved=Approved(strengths={}), stop=session.runner.interrupt)
    run_watched(session, stack, pulumi.refresh(stack, urns), watch)


def describe_leftovers(session: Session, stack: Stack) -> tuple[str, str]:
    """What an interrupted update left, its lock and operations with unknown results, and the next step."""
    again = "run the same command again"
    settle_first = f"./inv cancel.{stack.service} settles that, then {again}"
    try:
        pending = state_of(session, stack, after_interrupt=True).pending
        held = holders_of(session, stack, after_interrupt=True)
    except OpsError as error:
        return f"what it left behind could not be read: {error.summary}", settle_first
    names = ", ".join(f"{kind} {name_of(urn)}" for kind, urn in pending)
    found = [f"operations with unknown results: {names}"] if pending else []
    found += ["its lock is still there"] if held else []
    if not found:
        return "it left no lock and no operation with an unknown result", again
    return " and ".join(found), settle_first


def name_readers(session: Session, run: Progress, plan: RunPlan, *, look: str) -> None:
    """Name the deployed services that read outputs of what was applied and are not part of this run.

    `look` is the command that shows whether they change: a new password, for example, reaches them with their update.
    """
    chosen = {each.service for each in plan.stacks}
    others = [
        each for each in session.services if each.name not in chosen and set(each.reads_outputs_of) & set(run.done)
    ]
    try:
        deployed = side_by_side(session.reporter, others, lambda each: is_deployed(session, session.stack(each)))
    except OpsError:  # the deployment itself succeeded
        return
    which = ", ".join(each.name for each, there in zip(others, deployed, strict=True) if there)
    if which:
        session.reporter.line(f"outputs of what was applied are also read by {which}: {look} shows what that changes")


# Where producers answer: a proxy counts as ready before this machine hears of its device

NAME, PORT = "ts_hostname", "port"
"""The outputs with the address that a consumer's provider connects to."""
PATIENCE = 120.0
"""Seconds within which a new device must join the tailnet and resolve here; in the lab it resolves at once."""
LAB_PATIENCE = 10.0
LOOK_AGAIN = 1.0


def await_producer(session: Session, name: str) -> None:
    """Wait until a producer that was just applied answers where its consumers' providers will connect.

    A producer that does not answer in time is reported; the consumer's update then fails with pulumi's own explanation.
    """
    outputs = outputs_of(session, name)
    host, port = outputs.get(NAME), outputs.get(PORT)
    if not (isinstance(host, str) and host and isinstance(port, int | float)):
        return
    until = time.monotonic() + (LAB_PATIENCE if session.target.ephemeral else PATIENCE)
    trouble = _connection_trouble(host, int(port))
    if trouble:
        limit = f"for at most {until - time.monotonic():.0f} s"
        session.reporter.line(f"{name}: waiting until it answers at {host}:{int(port)}, {limit} ({trouble})")
    while trouble and time.monotonic() < until and not session.runner.interrupted:
        time.sleep(LOOK_AGAIN)
        trouble = _connection_trouble(host, int(port))
    if trouble:
        session.reporter.advice(
            f"{name} does not answer at {host}:{int(port)} yet ({trouble}), so its consumers may fail: "
            f"./inv verify.{name} shows why"
        )


def _connection_trouble(host: str, port: int) -> str:
    """Why the connection fails; empty once a server answers."""
    try:
        network.connect(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        return str(error) or type(error).__name__
    return ""


# After the update


def show_outputs(session: Session, service: Service) -> None:
    """The stack's outputs, secrets masked, with the URLs to open."""
    stack = prepare(session, service)
    outputs = hide_secrets(state_of(session, stack).outputs)
    if not outputs:
        session.reporter.line(f"{service.name} has no outputs")
        return
    rows = [[name, as_text(value)] for name, value in sorted(outputs.items())]
    session.reporter.table(f"outputs of {service.name}", ["output", "value"], rows)
    for _, value in rows:
        if value.startswith(("http://", "https://")) and not session.target.ephemeral:  # the lab has no tailnet
            session.reporter.quote(f"open: {value}")
