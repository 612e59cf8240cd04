"""Puts back what others changed in the cluster: find, show, ask, compare once more, apply.

The program, by its preview, decides what is wanted. An object is put back when it differs from the stack's state, or
when pulumi cannot apply it because another field manager holds what the program sets. It is applied with
the field manager that pulumi uses, by force, so that pulumi's next update finds its own object again.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import FieldConflict, NotFound, Refused, ToolFailed, UnexpectedChanges
from runbooks.stacks.apply import approve, refresh_state, refuse_held
from runbooks.stacks.guard import confirm_cluster
from runbooks.stacks.plan import UNKNOWN, Change, Rank, RunPlan, StackPlan, is_precious, rank_step
from runbooks.stacks.preparation import clear_state, is_deployed, prepare
from runbooks.stacks.preview import plan_stack, read_checked_preview, run_preview
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.stacks.summary import ABSENT, format_value, leaves, property_lines, show_plan, split_path, value_at
from runbooks.tools import pulumi
from runbooks.tools.kubectl import Json, Trouble, ask, full_kind, trouble_of
from runbooks.tools.pulumi import SECRET, Preview, PropertyChange, StateResource, Step, describe_object, kind_of
from runbooks.tools.secret_values import unwrap_secrets
from runbooks.tools.stack import Stack

GONE = "it is gone"
EMPTY = "it is gone and would be created again, but its data does not come back"
"""Destructive: the user chooses between this and a backup."""
KEY_CHANGED = re.compile(r"\]\.[^.\[\]]+$")
"""Matches the path of a property of a list item, which may be the item's key."""
HOLDERS = re.compile(
    r"conflicts? with \"(?P<manager>[^\"]+)\"(?: with subresource \"[^\"]*\")?(?: using \S+?)?(?: at \S+?)?:"
    r"(?:\s+(?:- )?\.[^\n]+)+"
)
"""One manager with its fields (apimachinery pkg/util/managedfields/internal/conflict.go, NewConflictError)."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """An object that must be put back, with the data to do so."""

    change: Change
    """The change from the cluster's object to the wanted one; secrets are hidden."""
    wanted: Json = field(repr=False)
    """The object to apply, with its secrets."""
    manager: str
    """The field manager with which pulumi applies it."""
    is_ahead: bool
    """The stack's state differs from the program."""
    before: Command | None = field(default=None, repr=False)
    """A command to run first: it gives that manager the list items whose keys others changed."""

    @property
    def urn(self) -> str:
        return self.change.step.urn

    @property
    def title(self) -> str:
        return describe_object(self.urn)

    @property
    def shown(self) -> Change:
        """The change for the plan summary: of an object that is gone without its properties, which can be thousands."""
        is_gone = self.change.step.op == "create"
        return replace(self.change, step=replace(self.change.step, new=None)) if is_gone else self.change

    @property
    def determined_by(self) -> tuple[object, ...]:
        """The values that must be the same when it is applied as when it was shown."""
        return (self.urn, self.change.why, property_lines(self.change.step), self.wanted, self.manager)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Cluster, state and program side by side."""

    drifted: list[Drift]
    beyond: list[Step]
    """Differences that cannot be applied to the API server, e.g. in a role of a database."""
    plan: StackPlan
    """The plan of an update; unknown while a conflict stops its preview."""
    put_back: int = 0
    """How many objects were put back before."""


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
        session.reporter.line(f"Not compared, because it is not deployed here: {', '.join(absent)}.")
    return deployed


def find_drift(session: Session, stack: Stack) -> list[pulumi.Step]:
    """The objects that differ from the stack's state. Raises the error for pulumi's failure."""
    preview = run_preview(session, stack, pulumi.refresh_preview(stack))
    return [step for step in preview.changes if not pulumi.is_bookkeeping(step.urn)]


def put_back_all(session: Session, service: Service, *, yes: bool, again: str) -> Compared:
    """Put back what differs, until nothing does and pulumi can preview the program.

    It takes several rounds, as a preview stops at the first conflict and omits all objects that depend on it.
    Raises `ToolFailed` when an object differs again after it was put back.
    """
    done: set[str] = set()
    while True:
        with session.reporter.step(f"compare {service.name} with the cluster"):
            found = compare(session, service)
        if not found.drifted:
            return replace(found, put_back=len(done))
        repeated = [each for each in found.drifted if each.urn in done]
        if repeated:
            names = (f"{each.title} ({each.change.why})" if each.change.why else each.title for each in repeated)
            raise ToolFailed(
                f"{service.name}: put back, and changed again: {', '.join(names)}",
                expected="no other manager to set what the program sets",
                next_step=f"./inv drift.{service.name} shows the properties; stop what sets them (kubectl get … "
                "--show-managed-fields), remove what others added to the same list, or remove them from the program",
            )
        _put_back(session, service, found.drifted, yes=yes, again=again)
        done |= {each.urn for each in found.drifted}


# What differs


def compare(session: Session, service: Service) -> Compared:
    """The objects of the service that differ from the program. Raises the error for a failing preview."""
    stack = prepare(session, service)
    session.known.forget(stack)
    plan, conflict = StackPlan(stack=stack), None
    try:
        plan = plan_stack(session, service)
        preview = plan.preview
    except FieldConflict as found:
        conflict, answer = found, session.runner.run(pulumi.preview(stack)).stdout
        preview = read_checked_preview(session, stack, answer)
    changed = {step.urn: step for step in find_drift(session, stack)}
    wanted = wanted_steps(preview, changed, is_complete=conflict is None) if preview else {}
    refused = {error.urn for error in preview.errors if read_holders(error.message)} if preview else set()
    # In the state's order: what an object needs comes before it.
    resources = clear_state(session, stack).export.resources
    reached = {each.urn: each for each in resources if is_applied(each, changed.get(each.urn))}
    drifted = [
        try_out(session, step, each, is_ahead=wanted[urn].op == "update")
        for urn, each in reached.items()
        if urn in wanted and (step := step_back(wanted[urn], changed.get(urn), refused=urn in refused))
    ]
    if conflict and not drifted:
        raise conflict
    beyond = [step for urn, step in changed.items() if urn not in reached]
    return Compared(drifted=drifted, beyond=beyond, plan=plan)


def wanted_steps(preview: Preview, changed: Mapping[str, Step], *, is_complete: bool) -> dict[str, Step]:
    """URN → step from the state to the program, for objects that an update would leave or change in place.

    A preview omits objects without a change. After a conflict it also omits the objects that depend on the conflicting
    one: those wait for the next round.
    """
    steps = {step.urn: step for step in preview.steps}
    same = {urn: replace(step, op="same", new=step.old, changes=()) for urn, step in changed.items()}
    return {urn: step for urn, step in ((same if is_complete else {}) | steps).items() if step.op in {"same", "update"}}


def is_applied(resource: StateResource, changed: Step | None) -> bool:
    """Whether pulumi applies it to the API server.

    A patch of a deleted object is left out: it would create an object with the patch's fields alone.
    """
    is_lost_patch = changed is not None and changed.op == "delete" and changed.type.endswith("Patch")
    return bool(resource.field_manager) and not resource.pending_delete and not is_lost_patch


def step_back(wanted: Step, changed: Step | None, *, refused: bool) -> Step | None:
    """The step from the cluster to the program; `None` where there is nothing to put back.

    `wanted` leads from the state to the program, `changed` from the state to the cluster, and is `None` where both are
    the same. A difference that the program alone made is left to an update, unless one was `refused`.
    """
    if changed is None:
        return wanted if refused else None
    if changed.op == "delete":
        return replace(wanted, op="create", old=None, changes=())
    changes = []
    for path in dict.fromkeys(change.path for change in (*changed.changes, *wanted.changes)):
        # pulumi does not read back inputs that the state lacks, although the cluster may have them.
        before = value_at(path, *((changed.new.inputs, changed.new.outputs) if changed.new else ()))
        after = value_at(path, wanted.new.inputs if wanted.new else {})
        if before != after or after == SECRET:  # two hidden values may differ
            kind = "add" if before is ABSENT else "delete" if after is ABSENT else "update"
            changes.append(PropertyChange(path=path, kind=kind, of_inputs=True))
    return replace(wanted, op="update", old=changed.new, changes=tuple(changes)) if changes or refused else None


def fill_in(value: Any, applied: Any, title: str) -> Any:
    """An object of a preview. Values that it hides or does not know yet come from the state, or are left out.

    Raises `Refused`, with the object's title, where only an index would lead to a value: it may be another item's.
    """
    if value in (SECRET, UNKNOWN):
        return applied
    if isinstance(value, Mapping):
        known = applied if isinstance(applied, Mapping) else {}
        items = {key: fill_in(item, known.get(key, ABSENT), title) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not ABSENT}
    if isinstance(value, list):
        known_items = applied if isinstance(applied, list) else []
        return [fill_in(item, _same_item(item, value, known_items, title), title) for item in value]
    return value


def _same_item(item: Any, items: Sequence[Any], applied: Sequence[Any], title: str) -> Any:
    """The applied item with the same name, which is unique in both lists; `ABSENT` for an item that hides nothing."""
    if all(leaf not in (SECRET, UNKNOWN) for _, leaf in leaves(item, ("item",))):
        return ABSENT
    name = item.get("name") if isinstance(item, Mapping) else None
    ours, theirs = (
        [each for each in side if isinstance(each, Mapping) and each.get("name") == name] for side in (items, applied)
    )
    if name in (None, SECRET, UNKNOWN) or len(ours) > 1 or len(theirs) > 1:
        raise Refused(
            f"{title} has a list item with a hidden or unknown value and no name of its own: {format_value(item)}",
            expected="a list whose items have names, as a secret does not follow an index",
            next_step="undo the change by hand, or `pulumi refresh` takes it into the state and the next deploy "
            "applies the program",
        )
    return theirs[0] if theirs else ABSENT


def try_out(session: Session, step: Step, resource: StateResource, *, is_ahead: bool) -> Drift:
    """Ask the API server, in a dry run, who holds the object's fields and whether it would accept the object.

    Raises `ToolFailed` when it would not.
    """
    inputs = fill_in(step.new.inputs if step.new else {}, unwrap_secrets(resource.inputs), describe_object(step.urn))
    namespace = resource.identity.rpartition("/")[0]
    metadata = {**inputs["metadata"], **({"namespace": namespace} if namespace else {})}
    wanted = {key: value for key, value in inputs.items() if not key.startswith("__")} | {"metadata": metadata}

    def trial(*, force: bool) -> Outcome:
        command = session.kubectl.apply(wanted, manager=resource.field_manager, force=force, dry_run=True)
        return session.runner.run(command)

    answer = trial(force=False)
    holders = list(read_holders(answer.stderr))
    if holders:
        answer = trial(force=True)
    before, more = take_over(session, step, wanted, resource.field_manager)
    holders += more
    # If the object's namespace is gone too, the object can be tried only once the namespace exists again.
    if not answer.ok and before is None and not (step.op == "create" and trouble_of(answer) is Trouble.MISSING):
        raise _not_accepted(session, answer, "nothing was changed")
    change = rank_step(step)
    # A definition has no data of its own: its objects were deleted with it.
    had_data = is_precious(step.type) and kind_of(step.type) != "CustomResourceDefinition"
    if holders:
        change = replace(change, why=f"held by {', '.join(dict.fromkeys(holders))}")
    elif step.op == "create" and had_data:
        change = replace(change, why=EMPTY, rank=Rank.DESTRUCTIVE)
    elif step.op == "create":
        change = replace(change, why=GONE)
    return Drift(change=change, wanted=wanted, manager=resource.field_manager, is_ahead=is_ahead, before=before)


def take_over(session: Session, step: Step, wanted: Json, manager: str) -> tuple[Command | None, tuple[str, ...]]:
    """The command that gives the manager the list items whose keys others changed, and those others' names."""
    if step.op != "update" or not any(KEY_CHANGED.search(each.path) for each in step.changes):
        return None, ()
    name, namespace = wanted["metadata"]["name"], wanted["metadata"].get("namespace", "")
    read = session.kubectl.get(full_kind(wanted), name, namespace=namespace, confidential=True, managers=True)
    there = ask(session.runner, read)
    shown = step.old.inputs if step.old else {}
    paths = [each.path for each in step.changes if value_at(each.path, there) == value_at(each.path, shown)]
    entries, holders = take_items(there, paths, manager)
    return (session.kubectl.set_managers(there, entries, manager=manager), holders) if holders else (None, ())


def _not_accepted(session: Session, answer: Outcome, so_far: str) -> ToolFailed:
    return ToolFailed(
        f"could not {answer.command.title} ({so_far}): {session.masker.mask(answer.stderr).strip()}",
        expected="an API server that accepts the object as it was applied before",
        next_step="correct the cause, or remove the object yourself where it can only be created again",
    )


# Server-side apply: field managers, and list items whose keys they changed


def read_holders(text: str) -> tuple[str, ...]:
    """The field managers that a refused apply names; empty where it was refused for another reason, or not at all."""
    return tuple(found["manager"] for found in HOLDERS.finditer(text))


Fields = dict[str, Any]
"""The `fieldsV1` of a manager: `f:NAME` for a field, `k:{…}` for an item of a list by its key, nested."""


def take_items(obj: Mapping[str, Any], paths: Iterable[str], manager: str) -> tuple[list[Any], tuple[str, ...]]:
    """The object's `managedFields` with the list items whose keys are at these paths moved to the manager.

    Also returns their former managers. A key identifies an item, e.g. the number of a Service's port. When another
    manager changes it, an apply would add a second item, and remove the first where no other manager holds it.
    """
    entries: list[Any] = copy.deepcopy(list(obj["metadata"].get("managedFields") or ()))
    own = next((each for each in entries if each["manager"] == manager and each["operation"] == "Apply"), None)
    if own is None:
        return entries, ()
    others = [each for each in entries if each is not own and each.get("apiVersion") == own["apiVersion"]]
    holders = []
    for path in filter(KEY_CHANGED.search, paths):
        item, _, key = path.rpartition(".")
        way = _way_to(obj, item)
        for other in others if way else ():
            taken = _pop(other["fieldsV1"], way, key)
            if taken is not None:
                _merge(own["fieldsV1"], taken)
                holders.append(other["manager"])
    return [each for each in entries if each["fieldsV1"]], tuple(dict.fromkeys(holders))


def _way_to(obj: Any, path: str) -> list[tuple[str, Any]]:
    """The path to a list item in `managedFields`: fields (`f`) by name, items (`k`) by content; empty without one."""
    way: list[tuple[str, Any]] = []
    for part in split_path(path):
        try:
            obj = obj[part]
        except (KeyError, IndexError, TypeError):
            return []
        way.append(("k", obj) if isinstance(part, int) else ("f", part))
    return way


def _key(fields: Fields, step: tuple[str, Any]) -> str | None:
    """The key of a field, or of the list item with the same key values."""
    kind, what = step
    if kind == "f":
        return f"f:{what}" if f"f:{what}" in fields else None
    keys = ((each, json.loads(each[2:])) for each in fields if each.startswith("k:"))
    return next((each for each, key in keys if isinstance(what, dict) and key.items() <= what.items()), None)


def _pop(fields: Fields, way: Sequence[tuple[str, Any]], named: str) -> Fields | None:
    """Remove the item at the path's end from the fields, and the parents that become empty; return it.

    `None` when it is not held here, or `named` is not a part of its key.
    """
    key = _key(fields, way[0])
    if key is None:
        return None
    if len(way) == 1:
        return {key: fields.pop(key)} if named in json.loads(key[2:]) else None
    taken = _pop(fields[key], way[1:], named)
    if not fields[key]:
        del fields[key]
    return None if taken is None else {key: taken}


def _merge(fields: Fields, more: Fields) -> None:
    for key, inner in more.items():
        _merge(fields.setdefault(key, {}), inner)


# Put back


def _put_back(session: Session, service: Service, found: Sequence[Drift], *, yes: bool, again: str) -> None:
    """Show the differences, ask, compare once more, and apply exactly what was shown."""
    stack = prepare(session, service)
    changes = tuple(sorted((each.shown for each in found), key=lambda change: change.rank))
    run = RunPlan(layers=((StackPlan(stack=stack, changes=changes),),), target=session.target.name)
    show_plan(session, run, diff=True)
    approve(session, run, yes=yes, again=again)
    refuse_held(session, stack)
    with session.reporter.step(f"put back what differs of {service.name}") as progress:
        now = compare(session, service).drifted
        if [each.determined_by for each in now] != [each.determined_by for each in found]:
            raise Refused(
                f"what differs of {service.name} has changed since it was shown; nothing was put back",
                expected="cluster, state and program to stay as they are between comparison and apply",
                next_step=again,
            )
        confirm_cluster(session)
        for each in now:
            progress.note(each.title)
            for command in (each.before, session.kubectl.apply(each.wanted, manager=each.manager)):
                answer = session.runner.run(command) if command else None
                if answer and not answer.ok:
                    raise _not_accepted(session, answer, f"to continue: {again}")
            session.reporter.event("put_back", service=service.name, urn=each.urn)
            session.journal.write("put_back", service=service.name, urn=each.urn)
        ahead = [each.urn for each in found if each.is_ahead]
        if ahead:
            # Refresh the state for the objects that were put back. An update would do so too, but it takes over all
            # fields that were ever set with kubectl, and removes what others added.
            refresh_state(session, stack, ahead)
    session.reporter.line(f"{service.name}: put back: {', '.join(each.title for each in found)}")


def refuse_beyond(service: Service, steps: Sequence[Step]) -> None:
    """Raise `UnexpectedChanges` for what differs and cannot be put back through the API server."""
    if steps:
        names = ", ".join(describe_object(step.urn) for step in steps)
        raise UnexpectedChanges(
            f"{service.name}: not put back, as pulumi did not apply it to the API server: {names}",
            expected="differences in objects of the cluster alone",
            next_step=f"`pulumi refresh` takes it into the state, then ./inv deploy.{service.name} applies the program",
        )
