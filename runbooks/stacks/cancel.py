"""Removes what a killed update left: its lock on the stack, and pending operations whose results are unknown.

`pulumi cancel` on a file backend deletes the lock while the other run continues, so it is called only when that process
is known to be gone, or after a user who was shown the holder typed the service's name.

pulumi keeps a creation whose end it did not see (docs/decisions/0020), so the cluster is asked: what exists is taken
into the state, the rest is dropped. Nothing in the cluster changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from runbooks.core.errors import NotApproved, Refused
from runbooks.stacks.apply import holders_of, refresh_state, refuse_held
from runbooks.stacks.guard import confirm_cluster
from runbooks.stacks.plan import find_objects, manifest_of
from runbooks.stacks.preparation import run_pulumi
from runbooks.stacks.session import Session
from runbooks.tools import pulumi
from runbooks.tools.failures import explain
from runbooks.tools.kubectl import Json, ask, dig, full_kind
from runbooks.tools.locks import Held, Holder
from runbooks.tools.pulumi import State, Step, describe_object
from runbooks.tools.stack import Stack


def remove_lock(session: Session, stack: Stack) -> None:
    """Remove the stack's lock. Raises `Refused`, `NotApproved`, or the error for pulumi's failure."""
    held = holders_of(session, stack)
    if held == []:
        session.reporter.line(f"the stack of {stack.service} is not locked")
        return
    approve_removal(session, stack, held)
    # Between the question and its answer another run may have taken the stack.
    known = {entry.lock.identity for entry in held or ()}
    if any(entry.lock.identity not in known for entry in holders_of(session, stack) or ()):
        raise Refused(
            f"another run took the stack of {stack.service} just now",
            expected="the lock that was shown",
            next_step=f"./inv cancel.{stack.service}",
        )
    run_pulumi(session, pulumi.cancel(stack), stack)
    session.reporter.line(f"the lock of {stack.service} is removed")


def approve_removal(session: Session, stack: Stack, held: list[Held] | None) -> None:
    """Return when every holder is gone, or a user who was shown the others typed the name.

    `None` for `held`: the backend does not show who holds it. Raises `Refused` while a holder lives, `NotApproved` when
    the name was not typed.
    """
    for entry in held or ():
        session.reporter.line(f"held by {entry.describe()}")
        if entry.holder is Holder.ALIVE:
            raise Refused(
                f"the stack of {stack.service} is held by a run that is alive: {entry.describe()}",
                expected="a holder that is gone; removing the lock would not stop it, and two runs would write one "
                "state",
                next_step=f"wait for it, or stop it with one signal: kill -INT {entry.lock.pid}",
            )
    if held is not None and all(entry.holder is Holder.GONE for entry in held):
        return
    session.reporter.line(
        "this machine cannot tell whether that run is alive; if it is, its changes and the next run's will mix"
    )
    if not session.reporter.ask_word(f"Type {stack.service} to remove the lock anyway:", stack.service):
        raise NotApproved(
            f"the lock of {stack.service} was left alone",
            expected="the service's name, typed on a terminal, once you know that the other run has ended",
            next_step=f"ask its owner, then ./inv cancel.{stack.service}",
        )


def settle(session: Session, stack: Stack, *, yes: bool, again: str) -> None:
    """Find out what became of each pending operation, show it, and write the state without them.

    Raises `NotApproved` when objects would be taken into the state of a real target and the user does not agree.
    """
    answer = run_pulumi(session, pulumi.stack_export(stack), stack)
    export, document = pulumi.read_export(answer), json.loads(answer)
    session.reporter.event("pending", service=stack.service, operations=[list(entry) for entry in export.pending])
    if not export.pending:
        return
    operations: Sequence[Mapping[str, Any]] = document["deployment"].pop("pending_operations")
    there = {resource.urn for resource in export.resources}
    unrecorded = {
        urn: Step(op="create", urn=urn, new=State(inputs=operation["resource"].get("inputs") or {}))
        for operation, (kind, urn) in zip(operations, export.pending, strict=True)
        if kind == "creating" and urn not in there
    }
    manifests = {urn: manifest for urn, step in unrecorded.items() if (manifest := manifest_of(step))}
    if manifests:
        confirm_cluster(session)
    found = find_objects(manifests, session.kubectl, session.runner)
    managers = {urn: manager_of(session, manifests[urn], each.namespace) for urn, each in found.items()}
    taken = {urn: each for urn, each in found.items() if managers[urn]}
    for kind, urn in export.pending:
        result = describe_result(urn, managers.get(urn), is_unrecorded=urn in unrecorded, can_be_found=urn in manifests)
        session.reporter.quote(f"pending: {kind} {describe_object(urn)}: {result}")
    if taken and not (session.target.ephemeral or yes):
        question = f"Take {len(taken)} objects that the interrupted update created into the state of {stack.service}?"
        if not session.reporter.interactive or not session.reporter.ask_yes(question):
            raise NotApproved(
                f"not approved, so the state of {stack.service} is as it was",
                expected="an approval of the objects above",
                next_step=again if session.reporter.interactive else f"{again} --yes",
            )
    refuse_held(session, stack)
    resources = list(document["deployment"].get("resources") or ())
    for operation, (_, urn) in zip(operations, export.pending, strict=True):
        if each := taken.get(urn):
            identity = "/".join(filter(None, (each.namespace, each.name)))
            # Under another field manager, the next update could not remove what this one set.
            outputs = {"__fieldManager": managers[urn]}
            resources.append({**operation["resource"], "id": identity, "outputs": outputs})
    document["deployment"]["resources"] = resources
    write_state(session, stack, json.dumps(document), taken=list(taken))
    session.reporter.line(f"{stack.service}: no operation is pending any more")
    session.reporter.advice(f"next: ./inv deploy.{stack.service}, which continues the update")


def manager_of(session: Session, manifest: Json, namespace: str) -> str:
    """The field manager with which pulumi created the object; empty where another tool did."""
    kind, name = full_kind(manifest), manifest["metadata"]["name"]
    read = session.kubectl.get(kind, name, namespace=namespace, confidential=True, managers=True)
    entries = dig(ask(session.runner, read), "metadata", "managedFields") or ()
    return next((each["manager"] for each in entries if each["manager"].startswith("pulumi-")), "")


def describe_result(urn: str, manager: str | None, *, is_unrecorded: bool, can_be_found: bool) -> str:
    """Describe the result of a pending operation, and what is done about it; `manager` is None without an object."""
    if not is_unrecorded:
        return "dropped; the next preview compares what the state has with the program"
    if manager is not None:
        return (
            "it exists, so it is taken into the state" if manager else "dropped; what exists was made by another tool"
        )
    if can_be_found:
        return "it does not exist, so it is dropped"
    if pulumi.type_of(urn).startswith("pulumi:providers:"):
        return "a provider exists in the state alone, so it is dropped"
    return (
        "dropped; whether it exists cannot be seen from here. If the next deploy reports that it does: "
        f"pulumi import {pulumi.type_of(urn)} {pulumi.name_of(urn)} ID"
    )


def write_state(session: Session, stack: Stack, document: str, *, taken: Sequence[str]) -> None:
    """Write the state, then read what was taken into it from the cluster. Raises the error for pulumi's failure."""
    outcome = session.runner.run(pulumi.stack_import(stack, document))
    session.known.forget(stack)
    if not outcome.ok:
        raise explain(outcome, stack)
    if taken:
        refresh_state(session, stack, taken)
