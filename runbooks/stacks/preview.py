"""From services to one plan: each stack is previewed as soon as what it needs was, and nothing is applied."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar

from runbooks.core.command import Command
from runbooks.core.errors import STATE_FOLDER, NotFound, OpsError
from runbooks.core.files import make_folder, write_atomically
from runbooks.core.parallel import processors, results_of
from runbooks.stacks import environments, states
from runbooks.stacks.guard import check_stack_settings, read_settings
from runbooks.stacks.order import closure, layers
from runbooks.stacks.plan import UNKNOWN, Fingerprint, RunPlan, StackPlan, hash_files, hash_text, plan_of
from runbooks.stacks.preparation import prepare, set_up
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import pulumi
from runbooks.tools.failures import explain
from runbooks.tools.kubectl import Found, Json, Kubectl, Runs, ask_found, dig, text_at
from runbooks.tools.secret_values import blanked
from runbooks.tools.stack import Stack
from runbooks.tools.stack_config import StackFile

MOST_PREVIEWS = 8
"""Previews at once, on however many processors: each takes some hundred megabytes."""

Result = TypeVar("Result")


def choose(session: Session, names: Sequence[str], *, only: bool = False) -> list[tuple[Service, ...]]:
    """The services of a run in layers: those named and, unless `only`, everything they need.

    On a backend without ESC, services whose stack config binds an environment are left out and reported. One that was
    unbound is planned: its own config may have what its program needs. Raises `Usage` when the only named service is
    left out.
    """
    service_layers = layers(names if only else closure(names, session.services), session.services)
    if not session.target.has_diy_backend:
        return service_layers
    bound = [service for layer in service_layers for service in layer if _binds_environment(session, service)]
    for service in bound:
        if len(names) == 1:
            about = f"{service.name} takes its settings from the environment {service.environment}"
            environments.refuse_without_esc(session.target, service.environment, about)
        session.reporter.line(f"{service.name}: left out: {session.target.shown_backend} does not support Pulumi ESC")
    remaining = [tuple(service for service in layer if service not in bound) for layer in service_layers]
    return [layer for layer in remaining if layer]


def _binds_environment(session: Session, service: Service) -> bool:
    return bool(service.environment and StackFile.read(session.stack(service).settings_file).environment)


def announce(session: Session, named: Sequence[Service], service_layers: Sequence[Sequence[Service]]) -> None:
    """Report what a deployment is going to do, and lay out its steps."""
    names = {service.name for service in named}
    needed = [service.name for layer in service_layers for service in layer if service.name not in names]
    needs = f", which needs {', '.join(needed)}" if needed else ""
    several = len(named) + len(needed) > 1
    preview = "I preview them in that order, show one" if several else "I preview it, show a"
    apply = "apply layer by layer and prove" if several else "apply it and prove"
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


def plan_run(session: Session, service_layers: Sequence[Sequence[Service]]) -> RunPlan:
    """Preview every stack of the run, each as soon as what it needs was previewed.

    Raises the first failure after its whole layer was tried; what else runs by then is waited for.
    """
    planned: list[tuple[StackPlan, ...]] = []
    pool = preview_pool()
    try:
        finished = work_in_order(pool, service_layers, lambda service: plan_stack(session, service))
        for layer in service_layers:
            with session.reporter.step(title("preview", layer)):
                planned.append(tuple(results_of(session.reporter, next(finished))))
    finally:
        pool.shutdown(cancel_futures=True)
    return RunPlan(layers=tuple(planned), target=session.target.name)


def plan_each(session: Session, service_layers: Sequence[Sequence[Service]]) -> tuple[RunPlan, dict[str, OpsError]]:
    """Preview every stack, also beside and after one that fails; the failures by service.

    For what only looks: a preview reads the outputs in its producers' states, not their previews.
    """
    planned: list[tuple[StackPlan, ...]] = []
    failures: dict[str, OpsError] = {}
    pool = preview_pool()
    try:
        futures = {service: pool.submit(plan_stack, session, service) for layer in service_layers for service in layer}
        for layer in service_layers:
            with session.reporter.step(title("preview", layer)):
                wait([futures[service] for service in layer])
            errors = {service: futures[service].exception() for service in layer}
            for service, error in errors.items():
                if isinstance(error, OpsError):
                    failures[service.name] = error
                elif error is not None:
                    raise error
            planned.append(tuple(futures[service].result() for service in layer if errors[service] is None))
    finally:
        pool.shutdown(cancel_futures=True)
    return RunPlan(layers=tuple(planned), target=session.target.name), failures


def preview_pool() -> ThreadPoolExecutor:
    # One more than there are processors, for while another waits: a preview is almost all work, and of four at once on
    # two processors each takes a tenth more CPU than of two.
    return ThreadPoolExecutor(max_workers=min(processors() + 1, MOST_PREVIEWS), thread_name_prefix="stack")


def raise_worst(session: Session, failures: Mapping[str, OpsError]) -> None:
    """Report each failure once, with all services it was met at, and raise the one with the highest exit code."""
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


def work_in_order(
    pool: Executor, service_layers: Sequence[Sequence[Service]], work: Callable[[Service], Result]
) -> Iterator[list[Future[Result]]]:
    """Yield the futures of each layer once all its services were tried.

    Work on a service starts as soon as everything it needs is done, not when a whole layer is; what needs a failed
    service never starts, so do not ask for a layer after a failure.
    """
    # In the order of the layers: of what is ready, the earlier one starts first.
    services = {service.name: service for layer in service_layers for service in layer}
    needs = {name: [need for need in service.needs if need in services] for name, service in services.items()}
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    started: dict[str, Future[Result]] = {}
    running: dict[Future[Result], str] = {}
    for layer in service_layers:
        while True:
            for future in [future for future in running if future.done()]:
                name = running.pop(future)
                if future.exception() is None:
                    sorter.done(name)
            for name in sorted(sorter.get_ready(), key=list(services).index):
                future = started[name] = pool.submit(work, services[name])
                running[future] = name
            if all(service.name in started and started[service.name].done() for service in layer):
                break
            wait(running, return_when=FIRST_COMPLETED)
        yield [started[service.name] for service in layer]


OTHER_VERSION = re.compile(r"resource plugin \S+ is expected to have version >=\S+, but has ")
"""No registry has the newest providers; `lab.status` shows which ones the lab has."""


def plan_stack(session: Session, service: Service) -> StackPlan:
    """Preview one stack, or name the producers it waits for. Raises what the failing preview means."""
    waits_for = tuple(name for name in service.reads_outputs_of if not outputs_of(session, name))
    if waits_for:
        # Its environment would not open either: it reads the same outputs.
        return StackPlan(stack=set_up(session, service), waits_for=waits_for)
    stack = prepare(session, service)
    fingerprint = fingerprint_of(session, service)
    preview = run_preview(session, stack, pulumi.preview(stack))
    for each in preview.diagnostics:
        if each.severity == "warning" and not (session.target.ephemeral and OTHER_VERSION.search(each.message)):
            session.reporter.line(f"  {service.name} warns:")
            session.reporter.quote(f"    {each.message.removeprefix('warning: ')}")
    return plan_of(
        stack,
        preview,
        fingerprint=fingerprint,
        export=states.state_of(session, stack),
        existing=existing_of(session, stack, preview),
        adopts=takes_over(preview, read_settings(session, stack).config),
        writes_outputs=not is_last_applied(session, stack, fingerprint),
    )


def plan_end(session: Session, service: Service) -> StackPlan:
    """What destroying the service's stack would delete."""
    stack = prepare(session, service)
    fingerprint = fingerprint_of(session, service)
    preview = run_preview(session, stack, pulumi.destroy_preview(stack))
    return plan_of(stack, preview, fingerprint=fingerprint, export=states.state_of(session, stack))


def find_drift(session: Session, stack: Stack) -> list[pulumi.Step]:
    """The objects that differ from the stack's state. Raises what pulumi's failure means."""
    preview = run_preview(session, stack, pulumi.refresh_preview(stack))
    return [step for step in preview.changes if not pulumi.is_bookkeeping(step.urn)]


def find_deployed(session: Session, services: Sequence[Service]) -> list[Service]:
    """The services that are deployed on the target; reports the others. Raises `NotFound` when none is."""
    deployed = [service for service in services if states.is_deployed(session, session.stack(service))]
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
    """Run a preview and read its answer. Raises what its failure means, and `Refused` as `read_preview` does."""
    outcome = session.runner.run(command)
    if not outcome.ok:
        raise explain(outcome, stack)
    return read_preview(session, stack, outcome.stdout)


def read_preview(session: Session, stack: Stack, answer: str) -> pulumi.Preview:
    """Read pulumi's answer. Raises `Refused` when its settings led it to another cluster.

    They hold more than the stack config and its environments: also what `config:` of Pulumi.yaml sets.
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
    """URN → owner of what the preview would create and the cluster has already."""
    found = find_existing(preview, session.kubectl, session.runner)
    if found:
        begun = {urn for kind, urn in states.state_of(session, stack).pending if kind == "creating"}
        found |= dict.fromkeys(begun & found.keys(), f"an interrupted update of {stack.service}")
    return found


def find_existing(preview: pulumi.Preview, kubectl: Kubectl, runner: Runs) -> dict[str, str]:
    """URN → owner (empty when the object names none) of everything to be created that the cluster has already.

    One call of kubectl finds them all, except those whose names are not known yet. Raises `KubectlFailed`.

    pulumi's own preview says `create` for them. Its update then stops half-way, or takes them over silently where
    `kubernetes:upsertExistingObjects` is on (pulumi-kubernetes provider/pkg/await/await.go, Creation).
    """
    wanted = {step.urn: manifest for step in preview.changes if (manifest := manifest_of(step))}
    found = ask_found(runner, kubectl.find_all(list(wanted.values()))) if wanted else []
    existing = {}
    for urn, manifest in wanted.items():
        match = next((each for each in found if _is_object(each, manifest)), None)
        if match is not None:
            within = f" in {match.release_namespace}" if match.release_namespace else ""
            existing[urn] = f"the helm release {match.release}{within}" if match.release else ""
    return existing


def manifest_of(step: pulumi.Step) -> Json | None:
    """What kubectl needs to find the object of a step that creates one; `None` for every other step.

    A patch changes an existing object. kubectl cannot find a secret or unknown name.
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
    """A kind without namespaces is found without one; an object without a namespace in the context's own."""
    metadata = manifest["metadata"]
    is_same_name = (found.api_version, found.kind, found.name) == (
        manifest["apiVersion"],
        manifest["kind"],
        metadata["name"],
    )
    return is_same_name and (
        found.namespace == metadata.get("namespace") or not found.namespace or "namespace" not in metadata
    )


def takes_over(preview: pulumi.Preview, settings: Mapping[str, Any]) -> bool:
    """Whether pulumi would take existing objects over instead of failing: by stack config or bound environment."""
    value = preview.settings.get(TAKES_OVER, settings.get(TAKES_OVER))
    return str(value).lower() == "true"


# What determines a plan


def fingerprint_of(session: Session, service: Service) -> Fingerprint:
    """Everything that determines the plan of the service's stack, read again at each call."""
    stack = session.stack(service)
    root = session.root
    parts = {
        "program files": hash_files([stack.folder, root / "pulumi" / "lib", root / "charts.yaml"]),
        "settings": hash_files([stack.settings_file]),
        "provider versions": hash_files([root / "uv.lock"]),
        "pulumi": f"{session.tools.pulumi} {session.tools.pulumi_version}",
        "target": f"{session.target.backend} {stack.reference} {session.target.cluster_uid}",
        "state": states.state_hash(session, stack),
    }
    charts = charts_folder(session, stack)
    if charts is not None:
        parts["charts"] = hash_files([charts])
    opened = environments.take_opened(session, read_settings(session, stack))
    if opened:
        values = [(value.path, value.value, value.secret) for each in opened for value in each.values]
        parts["opened environment"] = hash_text(json.dumps(values, sort_keys=True, default=str))
    for name in service.reads_outputs_of:
        parts[f"outputs of {name}"] = states.outputs_digest(session, producer_stack(session, name))
    return Fingerprint(parts=parts)


def charts_folder(session: Session, stack: Stack) -> Path | None:
    """The folder charts are taken from instead of their repositories, where `charts:source` names one.

    A relative one is below the repository's root, as `pulumi/lib/charts.py` takes it.
    """
    source = read_settings(session, stack).config.get("charts:source")
    if not isinstance(source, str) or "://" in source:
        return None
    return (session.root / source).resolve()


def outputs_of(session: Session, name: str) -> dict[str, object]:
    """The producer's outputs as its state holds them (secrets encrypted); empty while it was never applied."""
    return dict(states.state_of(session, producer_stack(session, name)).outputs)


def producer_stack(session: Session, name: str) -> Stack:
    return prepare(session, session.service(name))


# What was applied from here


DECIDING = ("program files", "settings", "opened environment", "provider versions", "charts")
"""Parts of a fingerprint that can change outputs without changing a resource."""


def _record_path(session: Session, stack: Stack) -> Path:
    return session.state_dir / "applied" / session.target.name / f"{stack.project}.json"


def _deciding(session: Session, stack: Stack, fingerprint: Fingerprint) -> dict[str, str]:
    """What is written down of a fingerprint. Of a producer's outputs the plain ones: no secret, not even as a hash.

    A secret one that changes is a change of the consumer's own resources, which its preview shows.
    """
    upstream = {
        f"outputs of {name}": hash_text(states.canonical(blanked(outputs_of(session, name))))
        for name in session.service(stack.service).reads_outputs_of
    }
    return {name: fingerprint.parts[name] for name in DECIDING if name in fingerprint.parts} | upstream


def is_last_applied(session: Session, stack: Stack, fingerprint: Fingerprint) -> bool:
    """Whether the stack was last applied from here with the same program and settings.

    pulumi's JSON preview shows resources only: a new or changed output alone looks like no change.
    """
    path = _record_path(session, stack)
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # never written, or not readable: then it is applied once more
        return False
    return bool(recorded == _deciding(session, stack, fingerprint))


def record_applied(session: Session, stack: Stack, fingerprint: Fingerprint) -> None:
    """Write down what was applied from here. Raises `Unwritable`: the next deploy then applies it once more."""
    path = _record_path(session, stack)
    what = "the record of what was applied"
    make_folder(path.parent, what)
    text = json.dumps(_deciding(session, stack, fingerprint), indent=1) + "\n"
    write_atomically(path, text, mode=0o600, what=what, next_step=STATE_FOLDER)
