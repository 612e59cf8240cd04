"""Makes one plan for several services: previews each stack as soon as those it needs are, and applies nothing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from runbooks.core.command import Command
from runbooks.core.errors import OpsError, Usage
from runbooks.core.files import Unwritable
from runbooks.core.parallel import processors, results_of, work_in_order, workers
from runbooks.stacks.fingerprint import (
    changed_parts,
    cluster_of_charts,
    files_of,
    fingerprint_of,
    is_last_applied,
    read_record,
    reasons_to_ask,
    record_reads,
    remove_record,
    write_record,
)
from runbooks.stacks.plan import RunPlan, StackPlan, existing_of, plan_of, takes_over
from runbooks.stacks.preparation import (
    check_stack_settings,
    check_values,
    open_bound,
    outputs_of,
    prepare,
    read_settings,
    run_pulumi,
    set_up,
    state_of,
)
from runbooks.stacks.service import Service, closure, layers
from runbooks.stacks.session import Once, Session
from runbooks.stacks.target import refuse_without_esc
from runbooks.tools import pulumi
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import StackFile

MOST_PREVIEWS = 8
"""Previews at once, on however many processors: each takes some hundred megabytes."""


def choose(session: Session, names: Sequence[str], *, only: bool = False) -> list[tuple[Service, ...]]:
    """The services of a run in layers: those named and, unless `only`, everything they need.

    On a backend without ESC, services whose stack config binds an environment are left out and reported. A service
    without a binding is planned, as its own config may have what its program needs. Raises `Usage` if the only named
    service is left out.
    """
    service_layers = layers(names if only else closure(names, session.services), session.services)
    if not session.target.has_diy_backend:
        return service_layers
    bound = [
        service
        for layer in service_layers
        for service in layer
        if service.environment and StackFile.read(session.stack(service).settings_file).environment
    ]
    for service in bound:
        if len(names) == 1:
            about = f"{service.name} takes its settings from the environment {service.environment}"
            refuse_without_esc(session.target, service.environment, about)
        session.reporter.line(f"{service.name}: left out: {session.target.shown_backend} does not support Pulumi ESC")
    remaining = [tuple(service for service in layer if service not in bound) for layer in service_layers]
    return [layer for layer in remaining if layer]


def announce(session: Session, named: Sequence[Service], service_layers: Sequence[Sequence[Service]]) -> None:
    """Report what a deployment will do, and show its steps."""
    names = {service.name for service in named}
    needed = [service.name for layer in service_layers for service in layer if service.name not in names]
    needs = f", which needs {', '.join(needed)}" if needed else ""
    several = len(named) + len(needed) > 1
    preview = "I preview them in that order, show one" if several else "I preview it, show a"
    apply = "apply each after what it needs and prove" if several else "apply it and prove"
    approval = "" if session.target.ephemeral else ", and change nothing before you agree"
    session.reporter.announce(
        f"Deploying {', '.join(service.name for service in named)}{needs}: {preview} plan summary{approval}; then I "
        f"{apply} that it works."
    )
    session.reporter.plan([*titles(service_layers, "preview"), *titles(service_layers, "apply")])


def titles(service_layers: Iterable[Sequence[Service]], verb: str) -> list[str]:
    return [title(verb, layer) for layer in service_layers]


def title(verb: str, layer: Sequence[Service]) -> str:
    return f"{verb} {', '.join(service.name for service in layer)}"


def plan_run(
    session: Session,
    service_layers: Sequence[Sequence[Service]],
    *,
    keep_going: bool = False,
    fresh: bool = False,
    parallel: int = 0,
) -> RunPlan:
    """Preview every stack of the run, each as soon as those it needs are previewed; `fresh` also those on record.

    Raises the first failure after its whole layer was tried and all running previews ended. With `keep_going`, for
    tasks that apply nothing, every stack is previewed and the plan has the failures.
    """
    planned: list[tuple[StackPlan, ...]] = []
    failures: dict[str, OpsError] = {}
    changing: set[str] = set()
    once = Once()
    services = {service.name: service for layer in service_layers for service in layer}

    def awaited(service: Service) -> Collection[str]:
        """With `keep_going` the producers, whose changes decide whether it is on record: with `fresh` none is asked."""
        if not keep_going:
            return service.needs
        return () if fresh else service.reads_outputs_of

    needs = {each: [services[name] for name in awaited(each) if name in services] for each in services.values()}

    previewed: list[str] = []

    def work(service: Service) -> StackPlan:
        plan = plan_stack(session, service, changing=None if fresh else changing, once=once)
        if plan.has_changes:
            changing.add(service.name)
        previewed.append(service.name)
        session.reporter.note(f"{len(previewed)} of {len(services)} stacks previewed")
        return plan

    # One more than there are processors, to use the time in which another waits. A preview is mostly computing: four at
    # once on two processors take a tenth more CPU each than two.
    at_once = workers(parallel, min(processors() + 1, MOST_PREVIEWS))
    # Go's collector spreads over all processors, which costs a tenth more where each preview has but one of them.
    for_each = max(1, processors() // max(1, min(at_once, len(services))))
    session = session.with_variables(GOMAXPROCS=str(for_each))
    pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="stack")
    try:
        if len(services) > 1:
            pool.submit(cluster_of_charts, session)  # while the stacks are listed: some of them have charts
        finished = work_in_order(pool, service_layers, needs, work, keep_going=keep_going)
        for layer in service_layers:
            with session.reporter.step(title("preview", layer)):
                done = next(finished)
                if keep_going:
                    errors = {service.name: future.exception() for service, future in zip(layer, done, strict=True)}
                    failures |= {name: error for name, error in errors.items() if isinstance(error, OpsError)}
                    done = [future for future in done if not isinstance(future.exception(), OpsError)]
                planned.append(tuple(results_of(session.reporter, done)))
    finally:
        pool.shutdown(cancel_futures=True)
    return RunPlan(layers=tuple(planned), target=session.target.name, failures=failures)


def raise_worst(session: Session, failures: Mapping[str, OpsError]) -> None:
    """Report each failure once, with all services that have it, and raise the one with the highest exit code."""
    by_text: dict[str, list[str]] = {}
    for name, error in failures.items():
        text = re.sub(rf"\b{re.escape(name)}\b", "*", "\n".join(error.lines()))
        by_text.setdefault(text, []).append(name)
    groups = sorted(by_text.values(), key=lambda names: failures[names[0]].exit_code)
    for names in groups[:-1]:
        session.reporter.advice(failures[names[0]].beside(f"{', '.join(names)}: not previewed: "))
    if groups:
        names = groups[-1]
        session.reporter.line(f"{', '.join(names)}: not previewed")
        raise failures[names[0]]


def plan_stack(
    session: Session, service: Service, *, changing: Collection[str] | None = None, once: Once | None = None
) -> StackPlan:
    """Preview one stack, or name the producers it waits for. Raises the error for a failing preview.

    With `changing`, the services that this run would change so far, a stack whose inputs are on record as unchanged is
    not previewed again, unless one of its producers is among them.
    """
    waits_for = tuple(name for name in service.reads_outputs_of if not outputs_of(session, name))
    if waits_for:
        # Its environment would not open either: it reads the same outputs.
        return StackPlan(stack=set_up(session, service), waits_for=waits_for)
    stack = prepare(session, service)
    fingerprint = fingerprint_of(session, service, once)
    pending = state_of(session, stack).pending
    if pending:
        session.reporter.advice(
            f"  {service.name}: an interrupted update left {len(pending)} operations with unknown results: "
            f"./inv cancel.{service.name} settles them"
        )
    record = read_record(session, stack)
    writes_outputs = not is_last_applied(session, fingerprint, record)
    reasons: list[str] = []
    if changing is not None:
        producers = [name for name in service.reads_outputs_of if name in changing]
        reasons = reasons_to_ask(session, stack, fingerprint, record, producers, once)
    if record and changing is not None and not reasons:
        plan = StackPlan(stack=stack, unchanged_since=record.since)
    else:
        command, read_reads = record_reads(session, pulumi.preview(stack), stack)
        preview = _preview_program(session, stack, command)
        reads = read_reads()
        plan = plan_of(
            stack,
            preview,
            export=state_of(session, stack),
            existing=existing_of(session, stack, preview),
            adopts=takes_over(preview, read_settings(session, stack).config),
        )
        # Without changes its inputs are recorded, unless a file was edited meanwhile, which it may have seen.
        if plan.has_changes:
            remove_record(session, stack, fingerprint, record)
        elif not changed_parts(fingerprint, dict(fingerprint) | files_of(session, stack)):
            with contextlib.suppress(Unwritable):  # without a record the next run previews again
                write_record(session, stack, fingerprint, reads, applied=not writes_outputs)
    return replace(plan, fingerprint=fingerprint, writes_outputs=writes_outputs, asked_because=tuple(reasons))


OTHER_VERSION = re.compile(r"resource plugin \S+ is expected to have version >=\S+, but has ")
"""A warning that the lab leaves out: no registry has the newest providers. `lab.status` shows the lab's versions."""


def _preview_program(session: Session, stack: Stack, command: Command) -> pulumi.Preview:
    """Preview the stack and show its warnings.

    Raises the error for its failure; for a wrong value of its environment with the program's own words. The program is
    asked again, as pulumi blanks a secret even inside a key: the `postgres` of `postgresql:sslmode`.
    """
    try:
        preview = run_preview(session, stack, command)
    except Usage:
        service = session.service(stack.service)
        if service.environment:
            file = read_settings(session, stack)
            check_values(session, service, file, open_bound(session, file))
        raise
    for each in preview.diagnostics:
        if each.severity == "warning" and not (session.target.ephemeral and OTHER_VERSION.search(each.message)):
            session.reporter.line(f"  {stack.service} warns:")
            session.reporter.quote(f"    {each.message.removeprefix('warning: ')}")
    return preview


def run_preview(session: Session, stack: Stack, command: Command) -> pulumi.Preview:
    """Run a preview and read its answer. Raises the error for its failure, and what `read_checked_preview` raises."""
    return read_checked_preview(session, stack, run_pulumi(session, command, stack))


def read_checked_preview(session: Session, stack: Stack, answer: str) -> pulumi.Preview:
    """Read pulumi's answer. Raises `Refused` when its settings led it to another cluster.

    These settings include more than the stack config and its environments: also `config:` of Pulumi.yaml.
    """
    preview = pulumi.read_preview(answer)
    settings = {key: None if value == pulumi.SECRET else value for key, value in preview.settings.items()}
    source = f"the settings of {stack.service}, as pulumi combined them"
    where = f"remove it from {stack.folder / 'Pulumi.yaml'} or {stack.settings_file}"
    check_stack_settings(settings, session.target, source=source, next_step=where)
    return preview
