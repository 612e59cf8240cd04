"""Before and during a destroy: its preview, what forbids it, and what blocks the deletion of a namespace.

pulumi waits ten minutes for a namespace and reports nothing meanwhile.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from runbooks.core.errors import OpsError, Refused
from runbooks.stacks.fingerprint import changed_parts, fingerprint_of
from runbooks.stacks.plan import StackPlan, plan_of
from runbooks.stacks.preparation import prepare, state_of
from runbooks.stacks.preview import run_preview
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools import pulumi
from runbooks.tools.kubectl import Json, KubectlFailed, ask, dig, items, metadata, text_at
from runbooks.tools.stack import Stack

DECIDES_DESTROY = ("state", "target", "settings", "pulumi")
"""The parts of a fingerprint that determine a destroy, which runs no program."""


def plan_end(session: Session, service: Service) -> StackPlan:
    """What destroying the service's stack would delete."""
    stack = prepare(session, service)
    fingerprint = fingerprint_of(session, service)
    preview = run_preview(session, stack, pulumi.destroy_preview(stack))
    return replace(plan_of(stack, preview, export=state_of(session, stack)), fingerprint=fingerprint)


def refuse_while_pending(session: Session, stack: Stack, *, again: str) -> None:
    """Raise `Refused` while the state may lack objects that an interrupted update created: a destroy misses those."""
    count = sum(kind == "creating" for kind, _ in state_of(session, stack).pending)
    if count:
        raise Refused(
            f"an interrupted update of {stack.service} left {count} creations with unknown results",
            expected="a state that has every object of the stack, so that all of them are deleted",
            next_step=f"./inv cancel.{stack.service} settles them, then {again}",
        )


def refuse_if_changed(session: Session, service: Service, plan: StackPlan, *, again: str) -> None:
    """Raise `Refused` when what determines a destroy changed since its preview."""
    session.known.forget(session.stack(service))
    changed = [
        part for part in changed_parts(plan.fingerprint, fingerprint_of(session, service)) if part in DECIDES_DESTROY
    ]
    if changed:
        raise Refused(
            f"{', '.join(changed)} of {service.name} changed since the preview",
            expected="the state that was shown and approved",
            next_step=again,
        )


# Namespaces that are not deleted: their conditions, and objects whose finalizers are not removed

PATIENCE = 25.0
"""Seconds in which a healthy namespace is deleted."""
LOOK_AGAIN = 5.0
REMAINING = re.compile(r"(?P<kind>[a-z0-9.-]+?)\.? has \d+ resource instances")
"""How the namespace controller counts what is left (k8s.io/kubernetes pkg/controller/namespace/deletion)."""
MOST_OBJECTS = 5


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """Why a namespace is not gone yet."""

    namespace: str
    conditions: tuple[str, ...]
    """What the namespace controller reports, as it reports it."""
    objects: tuple[str, ...] = ()
    """The objects that wait for a finalizer to be removed, each with its finalizer."""
    is_api: bool = False
    """Whether an API of the cluster does not answer, as then no namespace is ever deleted."""

    @property
    def cause(self) -> str:
        held = f"; held by {', '.join(self.objects)}" if self.objects else ""
        return f"the namespace {self.namespace} still exists: {'; '.join(self.conditions) or 'no reason given'}{held}"

    @property
    def next_step(self) -> str:
        if self.is_api:
            return (
                "kubectl get apiservices shows which API is not available; "
                "repair it, or remove it if its service is gone for good"
            )
        if self.objects:
            kind, name, *_ = self.objects[0].split()
            return (
                "start the controller of that finalizer again; only if it is gone for good, remove the finalizer: "
                f"kubectl -n {self.namespace} edit {kind.lower()} {name}"
            )
        return f"kubectl get namespace {self.namespace} -o yaml shows what it waits for"


@contextlib.contextmanager
def report_stuck_namespaces(session: Session, plan: StackPlan) -> Iterator[None]:
    """While the block deletes namespaces of the plan, report those that are not gone in time, and why.

    When the block fails, its error also names what holds them.
    """
    names = {
        text_at(step.old.inputs, "metadata", "name") or step.name
        for step in (change.step for change in plan.changes)
        if step.op == "delete" and step.old and step.type == "kubernetes:core/v1:Namespace"
    }
    over, found = threading.Event(), dict[str, Stuck]()
    watching = threading.Thread(target=_watch, args=(session, names, over, found), name="namespaces", daemon=True)
    watching.start()
    try:
        yield
    except OpsError as error:
        for stuck in found.values():
            raise type(error)(
                f"{error.summary}; {stuck.cause}", expected=error.expected, next_step=stuck.next_step
            ) from error
        raise
    finally:
        over.set()
        watching.join()


def _watch(session: Session, names: set[str], over: threading.Event, found: dict[str, Stuck]) -> None:
    """Check the namespaces repeatedly; report each cause once."""
    since: dict[str, float] = {}
    while names and not over.wait(LOOK_AGAIN):
        try:
            there = {metadata(each)[1]: each for each in items(ask(session.runner, session.kubectl.get("namespaces")))}
            leaving = {
                name: there[name] for name in names & there.keys() if dig(there[name], "metadata", "deletionTimestamp")
            }
            for name in found.keys() - leaving.keys():
                del found[name]
            for name, namespace in leaving.items():
                if time.monotonic() - since.setdefault(name, time.monotonic()) < PATIENCE:
                    continue
                stuck = explain_namespace(session, namespace)
                before, found[name] = found.get(name), stuck
                if stuck != before and (before is None or stuck.objects or stuck.is_api):
                    session.reporter.quote(f"  {stuck.cause}")
                    session.reporter.advice(f"  next: {stuck.next_step}")
        except OpsError:  # the command that deletes reports a cluster that does not answer
            continue


def explain_namespace(session: Session, namespace: Json) -> Stuck:
    """Find what blocks its deletion. Raises `KubectlFailed`."""
    name = metadata(namespace)[1]
    conditions = [each for each in dig(namespace, "status", "conditions") or () if each.get("status") == "True"]
    messages = tuple(str(each.get("message", "")) for each in conditions)
    kinds = dict.fromkeys(found["kind"] for each in messages for found in REMAINING.finditer(each))
    objects: list[str] = []
    for kind in kinds:
        with contextlib.suppress(KubectlFailed):
            answer = ask(session.runner, session.kubectl.get(kind, namespace=name))
            objects += [held for each in items(answer) if (held := _held(each))]
    shown = (*objects[:MOST_OBJECTS], *([f"{len(objects) - MOST_OBJECTS} more"] if len(objects) > MOST_OBJECTS else []))
    is_api = any(each.get("type") == "NamespaceDeletionDiscoveryFailure" for each in conditions)
    return Stuck(namespace=name, conditions=messages, objects=shown, is_api=is_api)


def _held(obj: Json) -> str:
    """`ConfigMap left-behind (finalizer example.com/x)`; empty where nothing holds the object."""
    finalizers: Sequence[str] = dig(obj, "metadata", "finalizers") or ()
    return f"{obj.get('kind')} {metadata(obj)[1]} (finalizer {', '.join(finalizers)})" if finalizers else ""
