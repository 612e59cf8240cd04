"""Refresh: read every recorded resource and take over what is really there."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from lab.engine.cancellation import Cancelled
from lab.engine.deployment import Deployment, Stopped
from lab.engine.events import Diagnostic, Step
from lab.engine.failures import CommandFailed
from lab.engine.journal import Journal
from lab.engine.providers import DiffKind, PropertyDiff, ProviderError
from lab.engine.state import ResourceState, Snapshot, now
from lab.engine.urns import is_provider
from lab.engine.values import strip_secrets

_INVERSE: dict[DiffKind, DiffKind] = {
    "add": "delete",
    "add-replace": "delete",
    "delete": "add",
    "delete-replace": "add",
    "update": "update",
    "update-replace": "update",
}


def refresh(deployment: Deployment, journal: Journal, *, quiet: bool = False) -> Snapshot:
    """The snapshot after reading everything. ``quiet``: only the reads are shown, not what they found.

    Raises ``Stopped`` when a read failed.
    """
    before = journal.base.resources
    with ThreadPoolExecutor(max_workers=16, thread_name_prefix="refresh") as pool:
        futures = [pool.submit(_refresh_one, deployment, state, quiet) for state in before]
        results: list[ResourceState | None] = []
        for state, future in zip(before, futures, strict=True):
            try:
                results.append(future.result())
            except Stopped:
                results.append(state)
    deployment.check_open()
    return Snapshot(_without_gone(before, results), list(journal.base.pending), journal.base.secrets_provider)


def _refresh_one(deployment: Deployment, old: ResourceState, quiet: bool) -> ResourceState | None:
    if old.external or old.pending_replacement:
        return old
    step = Step("refresh", old.urn, old.type, old, old)
    if not old.custom or is_provider(old.type):
        deployment.start(step)
        if not quiet:
            deployment.done(step)
            deployment.count(Step("same", old.urn, old.type, old, old))
        return old
    with deployment.slot():
        deployment.start(step)
        new = _read(deployment, step, old)
    if not quiet:
        _show(deployment, old, new)
    return new


def _read(deployment: Deployment, step: Step, old: ResourceState) -> ResourceState | None:
    try:
        result = deployment.provider_for(old).read(old.urn, old.type, old.id, dict(old.inputs), dict(old.outputs))
    except (ProviderError, CommandFailed, Cancelled) as error:
        raise deployment.fail(step, old.urn, error) from error
    if result.id is None:
        return None
    if result.reasons:
        lines = "".join(f"* {reason}\n" for reason in result.reasons)
        deployment.emit(
            Diagnostic(old.urn, f"Refreshed resource is in an unhealthy state:\n{lines}", "warning", "warning: ")
        )
    same = strip_secrets(result.outputs) == strip_secrets(old.outputs) and list(result.reasons) == old.init_errors
    return old.copy(
        id=result.id,
        inputs=result.inputs,
        outputs=result.outputs,
        init_errors=list(result.reasons),
        modified=old.modified if same else now(),
    )


def _show(deployment: Deployment, old: ResourceState, new: ResourceState | None) -> None:
    if new is None:
        deployment.done(Step("delete", old.urn, old.type, old, None))
        return
    diff = deployment.provider_for(old).diff(old.urn, old.type, new.id, new.inputs, new.outputs, old.inputs, ())
    if not diff.changes:
        deployment.done(Step("refresh", old.urn, old.type, old, new))
        deployment.count(Step("same", old.urn, old.type, old, new))
        return
    deployment.done(Step("update", old.urn, old.type, old, new, detailed_diff=_inverted(diff.detailed_diff)))


def _inverted(detailed: Mapping[str, PropertyDiff]) -> dict[str, PropertyDiff]:
    """The provider says how to get back from what is there; shown is how what is there differs."""
    return {path: PropertyDiff(_INVERSE[entry.kind], False) for path, entry in detailed.items()}


def _without_gone(before: list[ResourceState], after: list[ResourceState | None]) -> list[ResourceState]:
    """References to what is gone are dropped, and so are properties that depend on nothing, as the real engine does."""
    gone = {old.urn for old, new in zip(before, after, strict=True) if new is None}
    kept = [state for state in after if state is not None]
    for state in kept:
        state.dependencies = [urn for urn in state.dependencies if urn not in gone]
        remaining = {key: [urn for urn in urns if urn not in gone] for key, urns in state.property_dependencies.items()}
        state.property_dependencies = {key: urns for key, urns in remaining.items() if urns}
    return kept
