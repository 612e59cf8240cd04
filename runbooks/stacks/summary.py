"""The plan summary that the user approves: the changes, gravest first, with the values that differ.

One description of the plan is made (`summary_data`): the event and the journal get it as it is, a terminal as lines.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from runbooks.stacks.plan import IN_THE_WAY, NO_RECORD, REPLACING, UNKNOWN, Change, Rank, RunPlan
from runbooks.stacks.session import Session
from runbooks.tools.esc import property_path
from runbooks.tools.pulumi import SECRET, Step, describe_object, name_of
from runbooks.tools.secret_values import SIGNATURE_KEY

HEADINGS = {
    Rank.DESTRUCTIVE: "DESTRUCTIVE: something that holds data or others rely on would be deleted or replaced",
    Rank.EXISTING: "EXISTS ALREADY: in the cluster, and this stack did not make it",
    Rank.REPLACE: "replaced: deleted and created again",
    Rank.RESTART: "restarted: pods are rolled",
    Rank.OTHER: "created, or updated in place",
}
SIGNS = {
    "create": "+",
    "delete": "-",
    "update": "~",
    "replace": "+-",
    "import": "=",
    "adopt": "=",
    IN_THE_WAY: "!",
    "protect": "~",
    "unprotect": "~",
    "forget": "-",
}
PROPERTY_INDENT = " " * 9
"""Begins each line that shows a property's values."""
MOST_QUIET = 20
"""Unchanged stacks that are listed by name; more of them are counted."""
MOST_LINES = 6
"""Properties of an update that are shown before it is approved."""


def show_plan(session: Session, plan: RunPlan, *, diff: bool = False, names_only: bool = False) -> None:
    """Show the plan summary and record it; `diff` shows every property of everything, `names_only` shows none."""
    data = summary_data(plan, diff=diff, mask=session.masker.mask)
    for line in summary_lines(data, diff=diff, names_only=names_only):
        # Values come from the cluster and from programs, not from us, so they are quoted (fully masked).
        show = session.reporter.quote if line.startswith(PROPERTY_INDENT) else session.reporter.line
        show(line)
    session.reporter.event("plan", **data)
    session.journal.write("plan", **data)


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
                "unchanged_since": stack.unchanged_since,
                "writes_outputs": stack.writes_outputs,
                "asked_because": list(stack.asked_because),
                "summary": dict(stack.preview.change_summary) if stack.preview else {},
                "leftovers": list(stack.leftovers),
                "incomplete": list(stack.incomplete),
                "changes": [_change_data(change, diff=diff, mask=mask) for change in stack.changes],
            }
            for stack in plan.stacks
        ],
    }


def _change_data(change: Change, *, diff: bool, mask: Callable[[str], str]) -> dict[str, Any]:
    """The change for programs. It has properties if an existing object changes; a create has them only with `diff`."""
    step = change.step
    data = {"op": step.op, "verb": change.verb, "urn": step.urn, "rank": change.rank.name.lower(), "why": change.why}
    if diff or step.op in {"delete", "update", *REPLACING}:
        return data | {"properties": property_lines(step, mask)}
    return data


def summary_lines(data: Mapping[str, Any], *, diff: bool = False, names_only: bool = False) -> list[str]:
    """The plan summary as lines, gravest first: of an update the first `MOST_LINES` properties unless `diff`.

    `names_only` leaves out all properties.
    """
    lines = [f"What would change on target {data['target']}:" if data["changes"] else f"Target {data['target']}:"]
    changes = [(stack["service"], change) for stack in data["stacks"] for change in stack["changes"]]
    leftovers = [(stack["service"], urn) for stack in data["stacks"] for urn in stack["leftovers"]]
    width = max([10, *(len(service) for service, _ in [*changes, *leftovers])])
    for rank, heading in HEADINGS.items():
        found = [(service, change) for service, change in changes if change["rank"] == rank.name.lower()]
        if found:
            lines += ["", f"  {heading}"]
        for service, change in found:
            why = f"  ({change['why']})" if change["why"] else ""
            lines.append(
                f"    {SIGNS.get(change['verb'], '?'):<2} {service:<{width}} {describe_object(change['urn'])}{why}"
            )
            differing = [] if names_only else change.get("properties", [])
            if change["op"] == "update" and not diff and len(differing) > MOST_LINES:
                more = f"… {len(differing) - MOST_LINES} more: ./inv preview.{service} --diff"
                differing = [*differing[:MOST_LINES], more]
            lines += [f"{PROPERTY_INDENT}{line}" for line in differing]
    if any(f'"{SECRET}"' in line for line in lines):
        note = "in quotes: a text that equals a secret's value, such as a port named like the user"
        lines += ["", f'  "{SECRET}" {note}']
    if leftovers:
        lines += ["", "  left over from a replace that did not finish: the old object is deleted"]
        lines += [f"    -- {service:<{width}} {describe_object(urn)}" for service, urn in leftovers]
    quiet = [stack for stack in data["stacks"] if is_quiet(stack)]
    counted = len(quiet) if len(quiet) > MOST_QUIET else 0
    named = [stack for stack in data["stacks"] if not (counted and is_quiet(stack))]
    lines += ["", *(f"  {stack['service']}: {describe_stack(stack)}" for stack in named)]
    if counted:
        again = sum(not stack["unchanged_since"] for stack in quiet)
        lines.append(f"  and {counted} unchanged, of which {again} were previewed: --json lists them")
    if any(stack["unchanged_since"] for stack in data["stacks"]):
        lines += [
            "",
            "  Not previewed again: what determines the plan is as it was then. --fresh previews all; ./inv drift.all",
        ]
        lines += ["  shows what was changed by hand in the cluster."]
    return lines


def is_quiet(stack: Mapping[str, Any]) -> bool:
    """Whether there is nothing to say of the stack but that it is unchanged."""
    return not any(stack[fact] for fact in ("changes", "leftovers", "waits_for", "writes_outputs"))


def describe_stack(stack: Mapping[str, Any]) -> str:
    """The counted changes of a stack, or its state."""
    if not stack["changes"] and not stack["leftovers"]:
        asked = [reason for reason in stack["asked_because"] if reason != NO_RECORD]
        return str(stack["state"]) + (f" (previewed: {asked[0]})" if asked else "")
    counts = count_verbs(change["verb"] for change in stack["changes"])
    more = f", and the objects of {', '.join(map(name_of, stack['incomplete']))}" if stack["incomplete"] else ""
    return (counts or f"{len(stack['leftovers'])} to clean up") + more


def count_verbs(verbs: Iterable[str]) -> str:
    """`2 to create, 1 to delete`; empty when there are none."""
    counts = Counter(verbs)
    return ", ".join(f"{count} {'' if verb == IN_THE_WAY else 'to '}{verb}" for verb, count in counts.items())


# Properties that differ; secrets stay `[secret]`

LONGEST_VALUE = 160
"""Characters of a value that are shown."""
HIDDEN = frozenset({"managedFields", "__inputs", "__fieldManager", "__initialApiVersion", "__internal"})
"""Bookkeeping of the provider and the API server, which no program sets."""
PATH_PART = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]|\[\"((?:[^\"\\]|\\.)*)\"\]")
PROPERTY_SIGNS = {"add": "+", "delete": "-", "update": "~"}
ABSENT = object()
NOT_KNOWN_YET = "(unknown until applied)"


def property_lines(step: Step, mask: Callable[[str], str] = str) -> list[str]:
    """One line for each property that differs: `~ data.colour: "blue" => "green" (replaces)`.

    A create lists what will be there, a delete what will be gone.
    """

    def line(sign: str, path: str, *values: Any, replaces: bool = False) -> str:
        shown = " => ".join(format_value(value, mask) for value in values)
        return f"{sign} {path}: {shown}{' (replaces)' if replaces else ''}"

    old, new = step.old.inputs if step.old else {}, step.new.inputs if step.new else {}
    if step.op == "delete":
        return [line("-", path, value) for path, value in leaves(old)]
    if step.old is None or step.op == "create":
        return [line("+", path, value) for path, value in leaves(new)]
    lines = []
    for change in sorted(step.changes, key=lambda change: change.path):
        kind = change.kind.removesuffix("-replace")
        sides = (old, step.old.outputs) if change.of_inputs else (step.old.outputs, old)
        before = value_at(change.path, *sides)
        after = value_at(change.path, new)
        values = {"add": [after], "delete": [before]}.get(kind, [before, after])
        lines.append(line(PROPERTY_SIGNS.get(kind, "~"), change.path, *values, replaces=change.forces_replace))
    if lines:
        return lines
    # The provider gave no detailed difference.
    names = step.reasons or sorted(key for key in {*old, *new} - HIDDEN if old.get(key) != new.get(key))
    return [
        line("~", name, value_at(name, old), value_at(name, new), replaces=name in step.replace_reasons)
        for name in names
    ]


def value_at(path: str, *sides: Any) -> Any:
    """The value at a path such as `spec.ports[0].port` or `metadata.labels["a/b"]`, on the first side that has one.

    `ABSENT` where there is none. Below a secret everything is `[secret]`.
    """
    for side in sides:
        value = side
        for part in split_path(path):
            if value == SECRET:
                break
            if isinstance(part, int):
                value = value[part] if isinstance(value, list) and part < len(value) else ABSENT
            else:
                value = value.get(part, ABSENT) if isinstance(value, Mapping) else ABSENT
        if value is not ABSENT:
            return value
    return ABSENT


def split_path(path: str) -> list[str | int]:
    """The keys and indexes of a property's path."""
    parts = (part.groups() for part in PATH_PART.finditer(path))
    return [
        int(index) if index is not None else name if name is not None else quoted.replace('\\"', '"')
        for name, index, quoted in parts
    ]


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every property with its path; empty mappings and lists count as leaves."""
    if isinstance(value, Mapping) and value and SIGNATURE_KEY not in value:
        for key, item in value.items():
            if key not in HIDDEN:
                yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    elif path or value != {}:
        yield property_path(path), value


def format_value(value: Any, mask: Callable[[str], str] = str) -> str:
    """A value as one line of JSON. It is masked before it is cut, as the masker would not find half a secret."""
    if value is ABSENT:
        return NOT_KNOWN_YET
    if value == SECRET or (isinstance(value, Mapping) and SIGNATURE_KEY in value):
        return SECRET
    text = mask(json.dumps(value, ensure_ascii=False).replace(f'"{UNKNOWN}"', NOT_KNOWN_YET))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"
