"""Deletes: dependents before what they depend on, side by side where nothing stands between."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from lab.engine.deployment import Deployment, Stopped, protected_text
from lab.engine.events import Diagnostic, Step, StepFailed, StepStarted
from lab.engine.graph import Graph
from lab.engine.journal import Journal
from lab.engine.state import ResourceState
from lab.engine.urns import is_default_provider


def delete_left_over(deployment: Deployment, journal: Journal) -> None:
    """Delete every old resource that the program did not register (all of them when there was no program)."""
    doomed = [state for state in journal.left_over() if not is_default_provider(state.urn)]
    if _refuse_protected(deployment, doomed):
        return
    _in_order(deployment, journal, doomed)
    if deployment.failed or deployment.cancellation.is_cancelled:
        return
    for state in journal.left_over():
        if is_default_provider(state.urn):
            journal.drop(state)


def _refuse_protected(deployment: Deployment, doomed: Sequence[ResourceState]) -> bool:
    """Nothing at all is deleted when one of them is protected."""
    protected = [state for state in doomed if state.protect and not state.retain_on_delete]
    for state in reversed(protected):
        step = Step("delete", state.urn, state.type, state.copy(), None)
        deployment.emit(StepStarted(step))
        prefix = "Preview failed: " if deployment.preview else ""
        deployment.emit(Diagnostic(state.urn, f"{prefix}{protected_text(state.urn, 'deleted')}\n", "error", "error: "))
        deployment.emit(StepFailed(step))
        deployment.failed = True
    return bool(protected)


def _in_order(deployment: Deployment, journal: Journal, doomed: Sequence[ResourceState]) -> None:
    everything = journal.base.resources
    graph = Graph(everything)
    chosen = {id(state) for state in doomed}
    remaining = {index for index, state in enumerate(everything) if id(state) in chosen}
    targets = {everything[index].urn for index in remaining}
    running: dict[Future[None], int] = {}
    with ThreadPoolExecutor(max_workers=32, thread_name_prefix="delete") as pool:
        while remaining or running:
            blocked = {needed for index in [*remaining, *running.values()] for needed in graph.needs[index]}
            for index in sorted(remaining - blocked, reverse=True):
                remaining.discard(index)
                if not (deployment.failed or deployment.cancellation.is_cancelled):
                    running[pool.submit(_delete, deployment, journal, everything[index], targets)] = index
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                del running[future]
                _finish(future)


def _finish(future: Future[None]) -> None:
    try:
        future.result()
    except Stopped:
        return  # told by the deployment, which is closed now


def _delete(deployment: Deployment, journal: Journal, state: ResourceState, targets: set[str]) -> None:
    if state.external or state.pending_replacement:
        # Only looked at, or deleted by an earlier run: forgetting it is all there is to do.
        journal.drop(state)
        return
    op, logical = ("delete-replaced", False) if state.delete else ("delete", True)
    step = Step(op, state.urn, state.type, state, None, logical=logical)
    with deployment.slot():
        deployment.start(step)
        if state.deleted_with not in targets:
            deployment.delete_object(step, state)
        journal.drop(state)
        deployment.done(step)
