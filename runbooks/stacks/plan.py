"""What a run will do: ranked changes, the plan summary that is approved, and which operations are allowed then."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runbooks.tools.pulumi import (
    SECRET,
    Event,
    Export,
    Preview,
    PropertyChange,
    State,
    Step,
    is_bookkeeping,
    name_of,
    parents_of,
    read_event,
    type_of,
)
from runbooks.tools.secret_values import SIGNATURE_KEY
from runbooks.tools.stack import Stack


class Rank(IntEnum):
    """How much a change matters; the plan summary shows the gravest first."""

    DESTRUCTIVE = 0
    EXISTING = 1
    REPLACE = 2
    RESTART = 3
    OTHER = 4


HEADINGS = {
    Rank.DESTRUCTIVE: "DESTRUCTIVE: something that holds data or others rely on would be deleted or replaced",
    Rank.EXISTING: "EXISTS ALREADY: in the cluster, and this stack did not make it",
    Rank.REPLACE: "replaced: deleted and created again",
    Rank.RESTART: "restarted: pods are rolled",
    Rank.OTHER: "the rest",
}

REPLACING = frozenset({"replace", "create-replacement", "delete-replaced"})
PRECIOUS_KUBERNETES = frozenset(
    {"PersistentVolumeClaim", "CustomResourceDefinition", "Namespace", "StatefulSet", "Database"}
)
"""Kinds whose deletion or replacement deletes data, or what other objects depend on."""
PRECIOUS_TYPES = re.compile(
    r"kubernetes:postgresql\.cnpg\.io/[^:]+:(Cluster|Database|DatabaseRole)$"
    r"|postgresql:index/(database:Database|role:Role)$"
)
WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod"})
RESTARTING_CLUSTER_PATHS = re.compile(r"^spec\.(imageName|imageCatalogRef|resources|postgresql|env|envFrom)\b")
INCOMPLETE = re.compile(r"Preview is incomplete|unknown values")
SIGNS = {
    "create": "+",
    "delete": "-",
    "update": "~",
    "replace": "+-",
    "import": "=",
    "adopt": "=",
    "in the way": "!",
    "protect": "~",
    "unprotect": "~",
    "forget": "-",
}
PROTECTION = {
    "unprotect": "pulumi would no longer refuse to delete it",
    "protect": "pulumi would refuse to delete it from then on",
}
FORGOTTEN = "only pulumi forgets it; the object stays"
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
"""Of an unknown operation."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One step that changes something, with its rank and, for the gravest, why it is one."""

    step: Step
    rank: Rank
    why: str = ""
    adopts: bool = False
    """Of what exists already: pulumi would take it over instead of failing."""

    @property
    def verb(self) -> str:
        """What is done, in a word: all halves of a replace are one."""
        if self.rank is Rank.EXISTING:
            return "adopt" if self.adopts else "in the way"
        if self.step.op == "same":
            return self.step.protection or "same"
        if is_forgotten(self.step):
            return "forget"
        return "replace" if self.step.op in REPLACING else self.step.op

    @property
    def shows_properties(self) -> bool:
        """Whether the plan summary shows its properties unasked."""
        return self.step.op == "delete" or self.step.op in REPLACING


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Everything that determines a plan, as one hash each: two equal ones lead to the same plan."""

    parts: Mapping[str, str]
    """`program`, `settings`, `upstream outputs`, `state`, `providers`, `cluster`, … → hash."""

    def differing(self, other: Fingerprint) -> list[str]:
        """The names of the parts that are not the same in both."""
        names = [*self.parts, *(name for name in other.parts if name not in self.parts)]
        return [name for name in names if self.parts.get(name) != other.parts.get(name)]


@dataclass(frozen=True, kw_only=True)
class StackPlan:
    """What one stack's update would do."""

    stack: Stack
    preview: Preview | None = None
    """`None` while it is blocked."""
    waits_for: tuple[str, ...] = ()
    """Producers that have no outputs yet: with made-up values a preview would lie."""
    changes: tuple[Change, ...] = ()
    leftovers: tuple[str, ...] = ()
    """URNs of old halves that an earlier, failed replace left to be deleted; pulumi's preview does not show them."""
    incomplete: tuple[str, ...] = ()
    """Components whose objects are not known before they are applied; creating those belongs to the approval."""
    existing: Mapping[str, str] = field(default_factory=dict)
    """URN of what would be created and is in the cluster already → its owner."""
    adopts: bool = False
    """Pulumi would take over whatever exists already (`kubernetes:upsertExistingObjects`) instead of failing."""
    writes_outputs: bool = False
    """Nothing changes, but program or settings did since the outputs were last written from here."""
    fingerprint: Fingerprint = Fingerprint(parts={})

    @property
    def service(self) -> str:
        return self.stack.service

    @property
    def is_blocked(self) -> bool:
        return bool(self.waits_for)

    @property
    def has_changes(self) -> bool:
        return bool(self.changes or self.leftovers)

    @property
    def is_destructive(self) -> bool:
        return any(change.rank is Rank.DESTRUCTIVE for change in self.changes)

    @property
    def takes_over(self) -> bool:
        """Objects of others become this stack's own; with an incomplete preview it is unknown which."""
        return self.adopts and bool(self.existing or self.incomplete)

    @property
    def in_the_way(self) -> tuple[Change, ...]:
        """What exists already, so that pulumi would fail to create it."""
        return tuple(change for change in self.changes if change.rank is Rank.EXISTING and not change.adopts)

    @property
    def state(self) -> str:
        if self.is_blocked:
            return f"blocked: waits for {', '.join(self.waits_for)}"
        if self.has_changes:
            return "would change"
        return "unchanged, outputs are written again" if self.writes_outputs else "unchanged"


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """All stacks of a run, in the layers in which they are applied."""

    layers: tuple[tuple[StackPlan, ...], ...]
    target: str = ""

    @property
    def stacks(self) -> tuple[StackPlan, ...]:
        return tuple(plan for layer in self.layers for plan in layer)

    @property
    def has_changes(self) -> bool:
        return any(plan.has_changes for plan in self.stacks)

    @property
    def destructive_services(self) -> tuple[str, ...]:
        return tuple(plan.service for plan in self.stacks if plan.is_destructive)

    @property
    def adopting_services(self) -> tuple[str, ...]:
        return tuple(plan.service for plan in self.stacks if plan.takes_over)


# From a preview to a plan


def plan_of(
    stack: Stack,
    preview: Preview,
    *,
    fingerprint: Fingerprint,
    export: Export | None = None,
    existing: Mapping[str, str] = MappingProxyType({}),
    adopts: bool = False,
    writes_outputs: bool = False,
) -> StackPlan:
    """Rank what the preview proposes. The stack itself and default providers do not count as changes."""
    changes: dict[tuple[str, str], Change] = {}
    for step in preview.changes:
        if not is_bookkeeping(step.urn):
            owner = existing.get(step.urn)
            change = rank_step(step) if owner is None else rank_existing(step, owner, adopts=adopts)
            # A replace may come as three steps; the plan summary has one.
            changes.setdefault((change.verb, step.urn), change)
    incomplete = (each.urn for each in preview.diagnostics if each.urn and INCOMPLETE.search(each.message))
    return StackPlan(
        stack=stack,
        preview=preview,
        changes=tuple(sorted(changes.values(), key=lambda change: change.rank)),
        leftovers=tuple(each.urn for each in export.resources if each.pending_delete) if export else (),
        incomplete=tuple(dict.fromkeys(incomplete)),
        existing=existing,
        adopts=adopts,
        writes_outputs=writes_outputs,
        fingerprint=fingerprint,
    )


def rank_existing(step: Step, owner: str, *, adopts: bool) -> Change:
    """Rank a create of an object that the cluster has already; `owner` is empty when the object names none."""
    why = "pulumi would stop at it"
    if adopts:
        is_retained = step.new is not None and step.new.retained
        why = (
            "taken over; it stays when this stack is destroyed"
            if is_retained
            else "taken over, and deleted with this stack"
        )
    return Change(step=step, rank=Rank.EXISTING, why=f"of {owner}; {why}" if owner else why, adopts=adopts)


def rank_step(step: Step) -> Change:
    """Rank one step; what is destructive needs the typed name of its service."""
    why = why_destructive(step)
    if why:
        return Change(step=step, rank=Rank.DESTRUCTIVE, why=why)
    if step.op in REPLACING:
        because = f"because of {', '.join(step.replace_reasons)}" if step.replace_reasons else ""
        return Change(step=step, rank=Rank.REPLACE, why=because)
    rank = Rank.RESTART if restarts(step) else Rank.OTHER
    why = FORGOTTEN if is_forgotten(step) else PROTECTION.get(step.protection, "")
    return Change(step=step, rank=rank, why=why)


def why_destructive(step: Step) -> str:
    """Why the step is destructive, or an empty text when it is not."""
    if step.op == "delete" and not is_bookkeeping(step.urn) and not is_forgotten(step):
        return "deleted" if not step.protected else "deleted although it is protected"
    if step.op in REPLACING:
        if step.protected:
            return "replaced although it is protected"
        if is_precious(step.type):
            return f"a {kind_of(step.type)} is replaced"
    return ""


def is_forgotten(step: Step) -> bool:
    """A delete that only pulumi's state sees (`retainOnDelete`): the object stays in the cluster."""
    return step.op == "delete" and step.old is not None and step.old.retained


def is_precious(type_token: str) -> bool:
    """Whether losing it loses data, or what other objects depend on. An RBAC `Role` is not a role of a database."""
    if PRECIOUS_TYPES.match(type_token):
        return True
    return type_token.startswith("kubernetes:") and kind_of(type_token).removesuffix("Patch") in PRECIOUS_KUBERNETES


def kind_of(type_token: str) -> str:
    return type_token.rpartition(":")[2]


def restarts(step: Step) -> bool:
    """Whether an update in place rolls pods: a changed pod template, or a Postgres setting that restarts instances."""
    if step.op != "update":
        return False
    paths = [change.path for change in step.changes] or list(step.reasons)
    kind = kind_of(step.type)
    if kind in WORKLOADS:
        return any(path.startswith(("spec.template", "spec.containers")) or path == "spec" for path in paths)
    if step.type.startswith("kubernetes:postgresql.cnpg.io/") and kind == "Cluster":
        return any(RESTARTING_CLUSTER_PATHS.match(path) or path == "spec" for path in paths)
    return False


# The plan summary

PROPERTY_INDENT = " " * 9
"""Begins each line that shows a property's values."""


MOST_LINES = 6
"""Properties of an update that are shown before it is approved."""


def summary_lines(plan: RunPlan, *, diff: bool = False, mask: Callable[[str], str] = str) -> list[str]:
    """The plan summary as lines, gravest first, with what differs: of an update the first `MOST_LINES` properties.

    Deletes and replaces always show all of them, `diff` shows all of everything.
    """
    lines = [f"What would change on target {plan.target}:" if plan.has_changes else f"Target {plan.target}:"]
    for rank in Rank:
        found = [(stack, change) for stack in plan.stacks for change in stack.changes if change.rank is rank]
        if found:
            lines += ["", f"  {HEADINGS[rank]}"]
        for stack, change in found:
            why = f"  ({change.why})" if change.why else ""
            sign, kind = SIGNS.get(change.verb, "?"), kind_of(change.step.type)
            lines.append(f"    {sign:<2} {stack.service:<10} {kind} {change.step.name}{why}")
            if diff or change.shows_properties or change.step.op == "update":
                differing = property_lines(change.step, mask)
                if not (diff or change.shows_properties) and len(differing) > MOST_LINES:
                    rest = len(differing) - MOST_LINES
                    differing = [*differing[:MOST_LINES], f"… {rest} more: ./inv preview.{stack.service} --diff"]
                lines += [f"{PROPERTY_INDENT}{line}" for line in differing]
    leftovers = [(stack.service, urn) for stack in plan.stacks for urn in stack.leftovers]
    if leftovers:
        lines += ["", "  left over from a replace that did not finish: the old object is deleted"]
        lines += [f"    -- {service:<10} {kind_of(type_of(urn))} {name_of(urn)}" for service, urn in leftovers]
    return [*lines, "", *(f"  {stack_line(stack)}" for stack in plan.stacks)]


def stack_line(plan: StackPlan) -> str:
    """One line a stack: the counted changes, or its state."""
    if plan.is_blocked or not plan.has_changes:
        return f"{plan.service}: {plan.state}"
    counts = count_verbs(change.verb for change in plan.changes) or f"{len(plan.leftovers)} to clean up"
    more = f", and the objects of {', '.join(map(name_of, plan.incomplete))}" if plan.incomplete else ""
    return f"{plan.service}: {counts}{more}"


def count_verbs(verbs: Iterable[str]) -> str:
    """`2 to create, 1 to delete`; empty when there are none."""
    counts = Counter(verbs)
    return ", ".join(f"{count} {'' if verb == 'in the way' else 'to '}{verb}" for verb, count in counts.items())


def summary_data(plan: RunPlan, *, diff: bool = False, mask: Callable[[str], str] = str) -> dict[str, Any]:
    """The plan summary for programs: one entry a stack, with its changes, gravest first."""
    return {
        "target": plan.target,
        "changes": plan.has_changes,
        "destructive": list(plan.destructive_services),
        "adopting": list(plan.adopting_services),
        "stacks": [
            {
                "service": stack.service,
                "stack": stack.stack.reference,
                "state": stack.state,
                "waits_for": list(stack.waits_for),
                "summary": dict(stack.preview.change_summary) if stack.preview else {},
                "leftovers": list(stack.leftovers),
                "changes": [_change_data(change, diff=diff, mask=mask) for change in stack.changes],
            }
            for stack in plan.stacks
        ],
    }


def _change_data(change: Change, *, diff: bool, mask: Callable[[str], str]) -> dict[str, Any]:
    step = change.step
    data = {"op": step.op, "verb": change.verb, "urn": step.urn, "rank": change.rank.name.lower(), "why": change.why}
    shows = diff or change.shows_properties or step.op == "update"
    return {**data, "properties": property_lines(step, mask)} if shows else data


# Differences of properties; secrets stay `[secret]`

LONGEST_VALUE = 160
"""Characters of a value that are shown."""
HIDDEN = frozenset({"managedFields", "__inputs", "__fieldManager", "__initialApiVersion", "__internal"})
"""Bookkeeping of the provider and the API server, which no program sets."""
PATH_PART = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]|\[\"((?:[^\"\\]|\\.)*)\"\]")
PROPERTY_SIGNS = {"add": "+", "delete": "-", "update": "~"}
ABSENT = object()
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""The placeholder of a value that is not known before it is applied (pulumi pkg/resource/stack/deployment.go)."""
NOT_KNOWN_YET = "(unknown until applied)"


def property_lines(step: Step, mask: Callable[[str], str] = str) -> list[str]:
    """One line a property that differs: `~ data.colour: "blue" => "green" (replaces)`.

    A create lists what will be there, a delete what will be gone.
    """
    if step.op == "delete":
        return [f"- {path}: {format_value(value, mask)}" for path, value in leaves(step.old.inputs if step.old else {})]
    if step.old is None or step.op == "create":
        return [f"+ {path}: {format_value(value, mask)}" for path, value in leaves(step.new.inputs if step.new else {})]
    if step.changes:
        changes = sorted(step.changes, key=lambda change: change.path)
        return [_line(change, step.old, step.new, mask) for change in changes]
    old, new = step.old.inputs, step.new.inputs if step.new else {}
    differing = sorted(key for key in {*old, *new} - HIDDEN if old.get(key) != new.get(key))
    return [
        f"~ {name}: {format_value(value_at(old, name), mask)} => {format_value(value_at(new, name), mask)}"
        f"{' (replaces)' if name in step.replace_reasons else ''}"
        for name in step.reasons or differing
    ]


def _line(change: PropertyChange, old: State, new: State | None, mask: Callable[[str], str]) -> str:
    kind = change.kind.removesuffix("-replace")
    sides = [old.inputs, old.outputs] if change.of_inputs else [old.outputs, old.inputs]
    found = (value_at(side, change.path) for side in sides)
    before = format_value(next((value for value in found if value is not ABSENT), ABSENT), mask)
    after = format_value(value_at(new.inputs, change.path) if new is not None else ABSENT, mask)
    text = {"add": after, "delete": before}.get(kind, f"{before} => {after}")
    return f"{PROPERTY_SIGNS.get(kind, '~')} {change.path}: {text}{' (replaces)' if change.forces_replace else ''}"


def value_at(properties: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as `spec.ports[0].port` or `metadata.labels["a/b"]`; `ABSENT` where there is none.

    Below a secret everything is `[secret]`.
    """
    value: Any = properties
    for part in PATH_PART.finditer(path):
        if value == SECRET:
            return SECRET
        name, index, quoted = part.groups()
        if index is not None:
            value = value[int(index)] if isinstance(value, list) and int(index) < len(value) else ABSENT
        else:
            key = name if name is not None else quoted.replace('\\"', '"')
            value = value.get(key, ABSENT) if isinstance(value, Mapping) else ABSENT
        if value is ABSENT:
            return ABSENT
    return value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every property with its path; empty mappings and lists count as leaves."""
    if isinstance(value, Mapping) and value and SIGNATURE_KEY not in value:
        for key, item in value.items():
            if key not in HIDDEN:
                plain = not re.search(r"[.\[\]\"]", key)
                dotted = f"{path}.{key}" if path else key
                yield from leaves(item, dotted if plain else f"{path}[{json.dumps(key)}]")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    elif path or value != {}:
        yield path, value


def format_value(value: Any, mask: Callable[[str], str] = str) -> str:
    """A value as one line of JSON, cut where it is long, after `mask`: a secret cut in two would be in no form."""
    if value is ABSENT:
        return NOT_KNOWN_YET
    if value == SECRET or (isinstance(value, Mapping) and SIGNATURE_KEY in value):
        return SECRET
    text = mask(json.dumps(value, ensure_ascii=False).replace(f'"{UNKNOWN}"', NOT_KNOWN_YET))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"


# What may happen after the approval


@dataclass(frozen=True, kw_only=True)
class Approved:
    """What an update may do: for each resource, nothing stronger than the plan summary showed."""

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

    def allows(self, event: Event) -> bool:
        """Whether an operation that starts was approved."""
        if is_bookkeeping(event.urn):
            return True
        strength = STRENGTH.get(event.op, STRONGEST)
        if strength <= self.strengths.get(event.urn, 0):
            return True
        if event.op == "delete-replaced" and event.urn in self.leftovers:
            return True
        if event.op != "create" or event.urn in self.strengths:
            return False
        if event.parent:
            return event.parent in self.incomplete
        return any(parents_of(event.urn).endswith(type_of(component)) for component in self.incomplete)


MOST_ERRORS = 100


@dataclass(kw_only=True)
class Watch:
    """Follows one `up --json` line by line: the first operation that was not approved stops it, once and gracefully."""

    approved: Approved
    stop: Callable[[], None]
    progress: Callable[[str], None] = lambda _: None
    violation: Event | None = None
    done: list[Event] = field(default_factory=list)
    errors: list[str] = field(default_factory=list, repr=False)
    """The lines with pulumi's errors, unmasked: a long stream is kept for people with its middle left out."""

    def __call__(self, line: str) -> None:
        event = read_event(line)
        if event is None:
            return
        if event.diagnostic is not None and event.diagnostic.severity == "error" and len(self.errors) < MOST_ERRORS:
            self.errors.append(line)
        has_effect = STRENGTH.get(event.op, STRONGEST) > 0
        if event.kind == "started" and not self.approved.allows(event):
            if self.violation is None:
                self.violation = event
                self.stop()
        elif event.kind == "started" and has_effect:
            self.progress(f"{event.op} {kind_of(type_of(event.urn))} {name_of(event.urn)}")
        elif event.kind == "done" and has_effect and not is_bookkeeping(event.urn):
            self.done.append(event)


# Fingerprints


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """One hash over names and contents of files and whole folders; what is missing counts as missing.

    Byte code, hidden files and stack settings (which are fingerprinted apart) are left out.
    """
    digest = hashlib.sha256()
    for path in sorted({found for each in paths for found in _files_in(each)}):
        digest.update(f"{path}\0".encode())
        digest.update(path.read_bytes() if path.is_file() else b"\0missing")
        digest.update(b"\0")
    return digest.hexdigest()


STACK_CONFIG = re.compile(r"^Pulumi\..+\.yaml$")


def _files_in(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for found in path.rglob("*"):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in found.relative_to(path).parts)
        if found.is_file() and not hidden and found.suffix != ".pyc" and not STACK_CONFIG.match(found.name):
            yield found
