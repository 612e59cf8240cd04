"""Makes one plan for several services: previews each stack as soon as those it needs are, and applies nothing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from runbooks.core.command import Command
from runbooks.core.errors import NotFound, OpsError, Usage
from runbooks.core.files import Unwritable
from runbooks.core.parallel import processors, results_of, work_in_order, workers
from runbooks.stacks.fingerprint import (
    Record,
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
from runbooks.stacks.plan import UNKNOWN, RunPlan, StackPlan, plan_of
from runbooks.stacks.preparation import (
    check_stack_settings,
    check_values,
    is_deployed,
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
from runbooks.tools.kubectl import Found, Json, Kubectl, Runs, ask_found, dig, text_at
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


OTHER_VERSION = re.compile(r"resource plugin \S+ is expected to have version >=\S+, but has ")
"""A warning that the lab leaves out: no registry has the newest providers. `lab.status` shows the lab's versions."""


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
            f"  {service.name}: an interrupted update left {len(pending)} operations of unknown result: "
            f"./inv cancel.{service.name} settles them"
        )
    record = read_record(session, stack)
    reasons: list[str] = []
    if changing is not None:
        producers = [name for name in service.reads_outputs_of if name in changing]
        reasons = reasons_to_ask(session, stack, fingerprint, record, producers, once)
        if record and not reasons:
            writes = not is_last_applied(session, fingerprint, record)
            return StackPlan(stack=stack, fingerprint=fingerprint, unchanged_since=record.since, writes_outputs=writes)
    return replace(_preview_changes(session, stack, fingerprint, record), asked_because=tuple(reasons))


def _preview_changes(
    session: Session, stack: Stack, fingerprint: Mapping[str, str], record: Record | None
) -> StackPlan:
    """Preview the stack. Without changes, record its inputs; with a change, remove the record."""
    writes_outputs = not is_last_applied(session, fingerprint, record)
    command, read = record_reads(session, pulumi.preview(stack), stack)
    preview = _preview_program(session, stack, command)
    for each in preview.diagnostics:
        if each.severity == "warning" and not (session.target.ephemeral and OTHER_VERSION.search(each.message)):
            session.reporter.line(f"  {stack.service} warns:")
            session.reporter.quote(f"    {each.message.removeprefix('warning: ')}")
    reads = read()
    plan = plan_of(
        stack,
        preview,
        export=state_of(session, stack),
        existing=existing_of(session, stack, preview),
        adopts=takes_over(preview, read_settings(session, stack).config),
    )
    if plan.has_changes:
        remove_record(session, stack, fingerprint, record)
    elif not changed_parts(fingerprint, dict(fingerprint) | files_of(session, stack)):  # else it may have seen an edit
        with contextlib.suppress(Unwritable):  # without a record the next run previews again
            write_record(session, stack, fingerprint, reads, applied=not writes_outputs)
    return replace(plan, fingerprint=fingerprint, writes_outputs=writes_outputs)


def _preview_program(session: Session, stack: Stack, command: Command) -> pulumi.Preview:
    """Preview the stack. Raises the error for its failure, a wrong value of its environment by the program's own words.

    The program is asked again, as pulumi blanks a secret even inside a key: the `postgres` of `postgresql:sslmode`.
    """
    try:
        return run_preview(session, stack, command)
    except Usage:
        service = session.service(stack.service)
        if service.environment:
            file = read_settings(session, stack)
            check_values(session, service, file, open_bound(session, file))
        raise


def find_drift(session: Session, stack: Stack) -> list[pulumi.Step]:
    """The objects that differ from the stack's state. Raises the error for pulumi's failure."""
    preview = run_preview(session, stack, pulumi.refresh_preview(stack))
    return [step for step in preview.changes if not pulumi.is_bookkeeping(step.urn)]


def find_deployed(session: Session, services: Sequence[Service]) -> list[Service]:
    """The services that are deployed on the target; reports the others. Raises `NotFound` when none is."""
    deployed = [service for service in services if is_deployed(session, session.stack(service))]
    absent = [service.name for service in services if service not in deployed]
    if not deployed:
        raise NotFound(
            f"{', '.join(absent)}: not deployed on {session.target.name}, so nothing can have drifted",
            expected="a stack that was applied",
            next_step=f"./inv deploy.{absent[0]}",
        )
    if absent:
        session.reporter.line(f"Not deployed here, so not compared: {', '.join(absent)}.")
    return deployed


def run_preview(session: Session, stack: Stack, command: Command) -> pulumi.Preview:
    """Run a preview and read its answer. Raises the error for its failure, and `Refused` as `read_preview` does."""
    return read_preview(session, stack, run_pulumi(session, command, stack))


def read_preview(session: Session, stack: Stack, answer: str) -> pulumi.Preview:
    """Read pulumi's answer. Raises `Refused` when its settings led it to another cluster.

    These settings include more than the stack config and its environments: also `config:` of Pulumi.yaml.
    """
    preview = pulumi.read_preview(answer)
    settings = {key: None if value == pulumi.SECRET else value for key, value in preview.settings.items()}
    source = f"the settings of {stack.service}, as pulumi combined them"
    where = f"remove it from {stack.folder / 'Pulumi.yaml'} or {stack.settings_file}"
    check_stack_settings(settings, session.target, source=source, next_step=where)
    return preview


# What the cluster has already

TAKES_OVER = "kubernetes:upsertExistingObjects"


def existing_of(session: Session, stack: Stack, preview: pulumi.Preview) -> dict[str, str]:
    """URN → owner of each object that the preview would create and that the cluster has already."""
    found = find_existing(preview, session.kubectl, session.runner)
    if found:
        begun = {urn for kind, urn in state_of(session, stack).pending if kind == "creating"}
        found |= dict.fromkeys(begun & found.keys(), f"an interrupted update of {stack.service}")
    return found


def find_existing(preview: pulumi.Preview, kubectl: Kubectl, runner: Runs) -> dict[str, str]:
    """URN → owner (empty when the object names none) of everything to be created that the cluster has already.

    One call of kubectl finds all objects whose names are known. Raises `KubectlFailed`.

    pulumi's own preview says `create` for them. Its update then stops half-way, or takes them over silently where
    `kubernetes:upsertExistingObjects` is on (pulumi-kubernetes provider/pkg/await/await.go, Creation).
    """
    wanted = {step.urn: manifest for step in preview.changes if (manifest := manifest_of(step))}
    found = find_objects(wanted, kubectl, runner)
    return {urn: _describe_owner(each) for urn, each in found.items()}


def _describe_owner(found: Found) -> str:
    if not found.release:  # a namespace alone names no release
        return ""
    return f"the helm release {found.release}" + (f" in {found.release_namespace}" if found.release_namespace else "")


def find_objects(manifests: Mapping[str, Json], kubectl: Kubectl, runner: Runs) -> dict[str, Found]:
    """URN → object, of those that the cluster has."""
    found = ask_found(runner, kubectl.find_all(list(manifests.values()))) if manifests else []
    return {urn: each for urn, manifest in manifests.items() for each in found if _is_object(each, manifest)}


def manifest_of(step: pulumi.Step) -> Json | None:
    """What kubectl needs to find the object of a step that creates one; `None` for every other step.

    A patch is left out, as it changes an existing object; so is an object whose name is secret or unknown.
    """
    inputs = step.new.inputs if step.op == "create" and step.new else {}
    is_object = step.type.startswith("kubernetes:") and not step.type.endswith("Patch")
    facts = [text_at(inputs, "apiVersion"), text_at(inputs, "kind"), text_at(inputs, "metadata", "name")]
    namespace = dig(inputs, "metadata", "namespace")
    if not is_object or not all(facts) or UNKNOWN in (*facts, namespace) or isinstance(namespace, Mapping):
        return None
    metadata = {"name": facts[2]} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": facts[0], "kind": facts[1], "metadata": metadata}


def _is_object(found: Found, manifest: Json) -> bool:
    """Whether the found object is this one. A kind may have no namespaces; the default is the context's namespace."""
    kind, metadata = (manifest["apiVersion"], manifest["kind"]), manifest["metadata"]
    if (found.api_version, found.kind) != kind or found.name != metadata["name"]:
        return False
    return not found.namespace or found.namespace == metadata.get("namespace", found.namespace)


def takes_over(preview: pulumi.Preview, settings: Mapping[str, Any]) -> bool:
    """Whether pulumi would take existing objects over instead of failing: by stack config or bound environment."""
    value = preview.settings.get(TAKES_OVER, settings.get(TAKES_OVER))
    return str(value).lower() == "true"
