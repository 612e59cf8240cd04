"""The forms for people: progress lines (the default) and ``--diff``. Plain text, one line an event."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TextIO

from lab.engine.display import SecretFilter, count, hidden_value, sorted_changes
from lab.engine.display.properties import difference_lines, output_lines, property_lines
from lab.engine.events import Diagnostic, Event, Notice, Prelude, Step, StepDone, StepFailed, StepStarted, Summary
from lab.engine.state import ResourceState
from lab.engine.urns import ROOT_STACK_TYPE, name_of, type_of

MARKS = {
    "create": "+ ",
    "update": "~ ",
    "delete": "- ",
    "replace": "+-",
    "create-replacement": "++",
    "delete-replaced": "--",
    "read": "> ",
    "refresh": "~ ",
    "same": "  ",
}
_PLANNED = {
    "create": "create",
    "update": "update",
    "delete": "delete",
    "replace": "replace",
    "create-replacement": "create replacement",
    "delete-replaced": "delete original",
    "read": "read",
    "refresh": "refreshing",
}
_DOING = {
    "create": "creating",
    "update": "updating",
    "delete": "deleting",
    "replace": "replacing",
    "create-replacement": "creating replacement",
    "delete-replaced": "deleting original",
    "read": "reading",
    "refresh": "refreshing",
}
_DONE = {
    "create": "created",
    "update": "updated",
    "delete": "deleted",
    "replace": "replaced",
    "create-replacement": "created replacement",
    "delete-replaced": "deleted original",
    "read": "read",
    "refresh": "refreshed",
}
_TITLES = {
    ("update", True): "Previewing update",
    ("update", False): "Updating",
    ("refresh", True): "Previewing refresh",
    ("refresh", False): "Refreshing",
    ("destroy", True): "Previewing destroy",
    ("destroy", False): "Destroying",
}
_ORDER = ("create", "update", "delete", "replace")
_SUMMED = {"create": "created", "update": "updated", "delete": "deleted", "replace": "replaced"}


def title_of(kind: str, *, preview: bool, stack: str, end: str = ":") -> str:
    return f"{_TITLES[kind, preview]} ({stack}){end}"


def resource_lines(changes: Mapping[str, int], errored: int, *, preview: bool) -> list[str]:
    """The block ``Resources:``."""
    lines = ["Resources:"]
    listed = sorted_changes(changes, _ORDER)
    for op, number in listed:
        lines.append(f"    {MARKS[op]}{number} {'to ' + op if preview else _SUMMED[op]}")
    unchanged = f"{changes['same']} unchanged" if changes.get("same") else ""
    total = f"{sum(number for _, number in listed)} changes." if len(listed) > 1 else ""
    if unchanged or total:
        lines.append(f"    {f'{total} {unchanged}'.strip()}")
    if errored:
        lines.append(f"    {errored} errored")
    return lines


class _Told:
    """Diagnostics by resource, in the order in which resources first had one; "" is the stack."""

    def __init__(self, root_urn: str) -> None:
        self.root_urn = root_urn
        self.by_urn: dict[str, list[Diagnostic]] = {}

    def add(self, event: Diagnostic) -> None:
        if event.severity != "debug" and not event.ephemeral:
            self.by_urn.setdefault(event.urn or self.root_urn, []).append(event)

    def counts(self, urn: str) -> str:
        events = self.by_urn.get(urn, ())
        errors = sum(event.severity == "error" for event in events)
        warnings = sum(event.severity == "warning" for event in events)
        messages = len(events) - errors - warnings
        parts = ((errors, "error"), (warnings, "warning"), (messages, "message"))
        return "; ".join(count(number, noun) for number, noun in parts if number)

    def lines(self) -> list[str]:
        lines = ["Diagnostics:"] if self.by_urn else []
        for urn, events in self.by_urn.items():
            lines.append(f"  {type_of(urn)} ({name_of(urn)}):")
            for event in events:
                text = f"{event.prefix}{event.message}".rstrip("\n")
                lines += [f"    {line}" if line else "" for line in text.split("\n")]
            lines.append("")
        return lines


class Progress:
    """One line when something starts, is done, fails or is said; blocks at the end."""

    def __init__(
        self,
        out: TextIO,
        hidden: SecretFilter,
        *,
        kind: str,
        preview: bool,
        title: str,
        root_urn: str,
        show_secrets: bool,
        show_outputs: bool = True,
    ) -> None:
        self._out = out
        self._hidden = hidden
        self._preview = preview
        self._show_secrets = show_secrets
        self._show_outputs = show_outputs and kind != "refresh"
        self._told = _Told(root_urn)
        self._root: Step | None = None
        self._failed: set[str] = set()
        self._started: dict[tuple[str, str], float] = {}
        self._rows: dict[str, Step] = {}
        self._title = title

    def _print(self, *lines: str) -> None:
        for line in lines:
            print(line, file=self._out)
        self._out.flush()

    def show(self, event: Event) -> None:
        if isinstance(event, Prelude):
            self._print(self._title, "")
        elif isinstance(event, StepStarted):
            self._start(event.step)
        elif isinstance(event, StepDone):
            self._done(event.step)
        elif isinstance(event, StepFailed):
            self._fail(event.step)
        elif isinstance(event, Diagnostic):
            self._diagnose(event)
        elif isinstance(event, Notice):
            self._print(event.message)
        elif isinstance(event, Summary):
            self._end(event)

    def _start(self, step: Step) -> None:
        self._rows[step.urn] = step
        self._started[step.urn, step.op] = time.monotonic()
        if step.type == ROOT_STACK_TYPE:
            self._root = step
        if step.op == "same" or (step.type == ROOT_STACK_TYPE and step.op != "delete"):
            return
        verb = _PLANNED[step.op] if self._preview else f"{_DOING[step.op]} (0s)"
        self._print(_row(step, f"{verb} {_changed(step)}"))

    def _done(self, step: Step) -> None:
        if step.type == ROOT_STACK_TYPE:
            self._root = step
            if step.op != "delete":
                return
        if step.op == "same" or (self._preview and step.op != "update"):
            return
        if self._preview:
            if self._rows.get(step.urn, step).op == "refresh":
                self._print(_row(step, f"update {_changed(step)}"))
            return
        seconds = time.monotonic() - self._started.get((step.urn, step.op), time.monotonic())
        self._print(_row(step, f"{_DONE[step.op]} ({seconds:.2f}s) {_changed(step)}"))

    def _fail(self, step: Step) -> None:
        self._failed.add(step.urn)
        verb = _PLANNED[step.op] if self._preview else f"**{_DOING[step.op].split()[0]} failed**"
        self._print(_row(step, f"{verb} {self._told.counts(step.urn)}"))

    def _diagnose(self, event: Diagnostic) -> None:
        self._told.add(event)
        if event.severity == "debug":
            return
        first = f"{event.prefix}{event.message}".strip("\n").split("\n", 1)[0]
        urn = event.urn or self._told.root_urn
        if event.severity == "error":
            self._failed.add(urn)
        step = self._rows.get(urn)
        mark = MARKS.get(step.op, "  ") if step is not None else "  "
        verb = "" if step is None or step.op == "same" else (_PLANNED if self._preview else _DOING)[step.op]
        self._print(f" {mark} {type_of(urn)} {name_of(urn)} {verb} {first}".rstrip())

    def _end(self, summary: Summary) -> None:
        for urn in [self._told.root_urn, *(urn for urn in self._told.by_urn if urn != self._told.root_urn)]:
            self._print(self._last_row(urn))
        diagnostics = self._told.lines()
        self._print(*(diagnostics or [""]))
        outputs = self._outputs(summary)
        if outputs:
            self._print("Outputs:", *outputs, "")
        self._print(*resource_lines(summary.changes, len(self._failed), preview=self._preview), "")
        if not self._preview:
            self._print(f"Duration: {_duration(summary.seconds)}", "")

    def _last_row(self, urn: str) -> str:
        step = self._rows.get(urn)
        if step is None:
            return f"    {type_of(urn)} {name_of(urn)}  {self._told.counts(urn)}".rstrip()
        failed = urn in self._failed and not self._preview
        verb = "**failed**" if failed else (_PLANNED if self._preview else _DONE).get(step.op, "")
        if step.op == "same" and not failed:
            verb = ""
        return _row(step, f"{verb} {self._told.counts(urn)}")

    def _outputs(self, summary: Summary) -> list[str]:
        step = self._root
        if step is None or step.new is None or not self._show_outputs:
            return []
        if self._preview and summary.result != "succeeded" and step.op == "same":
            return []
        new = hidden_value(step.new.outputs, self._hidden, show_secrets=self._show_secrets)
        old = hidden_value(step.old.outputs, self._hidden, show_secrets=self._show_secrets) if step.old else None
        return output_lines(old, new, only_changed=self._preview)


def _row(step: Step, text: str) -> str:
    return f" {MARKS[step.op]} {type_of(step.urn)} {name_of(step.urn)} {text}".rstrip() + " "


def _changed(step: Step) -> str:
    """``[diff: +added,-removed,~changed]`` by top-level property."""
    if not step.detailed_diff or step.op in ("create", "delete"):
        return ""
    marks: dict[str, str] = {}
    for path, item in step.detailed_diff.items():
        top = path.split(".", 1)[0].split("[", 1)[0]
        kind = item.kind.split("-", 1)[0]
        mark = {"add": "+", "delete": "-", "update": "~"}[kind] if top == path else "~"
        marks[top] = mark if marks.get(top, mark) == mark else "~"
    return "[diff: " + ",".join(f"{mark}{top}" for top, mark in sorted(marks.items())) + "]"


def _duration(seconds: float) -> str:
    whole = max(int(seconds + 0.999), 1)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


class Difference:
    """``--diff``: every changed resource with its properties, indented below its parent."""

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        hidden: SecretFilter,
        *,
        preview: bool,
        title: str,
        root_urn: str,
        show_secrets: bool,
    ) -> None:
        self._out = out
        self._err = err
        self._hidden = hidden
        self._preview = preview
        self._show_secrets = show_secrets
        self._told = _Told(root_urn)
        self._depths: dict[str, int] = {}
        self._errored: set[str] = set()
        self._title = title

    def _print(self, *lines: str) -> None:
        for line in lines:
            print(line, file=self._out)
        self._out.flush()

    def show(self, event: Event) -> None:
        if isinstance(event, Prelude):
            self._print(self._title)
        elif isinstance(event, StepStarted):
            if event.step.op != "refresh" or event.step.type == ROOT_STACK_TYPE:
                self._resource(event.step)
        elif isinstance(event, StepDone):
            self._done(event.step)
        elif isinstance(event, Diagnostic):
            self._diagnose(event)
        elif isinstance(event, Notice):
            self._print(event.message)
        elif isinstance(event, Summary):
            self._end(event)

    def _diagnose(self, event: Diagnostic) -> None:
        if event.ephemeral:
            print(event.message.rstrip("\n"), file=self._err)
            return
        self._told.add(event)
        if event.severity == "error":
            self._errored.add(event.urn or self._told.root_urn)

    def _resource(self, step: Step) -> None:
        state = step.new or step.old
        parent = state.parent if state else ""
        depth = self._depths.get(parent, -1) + 1
        self._depths[step.urn] = depth
        if step.op == "same" and step.type != ROOT_STACK_TYPE:
            return
        if step.op in ("create-replacement", "delete-replaced"):
            return
        op = "same" if step.op == "refresh" else step.op
        lead = " " * (4 * depth)
        self._print(f"{lead}{MARKS[op]}{step.type}: ({op})")
        self._print(*self._head(step, state, lead))
        self._print(*self._body(step, 4 * depth + 4))

    def _head(self, step: Step, state: ResourceState | None, lead: str) -> list[str]:
        old_id = step.old.id if step.old else ""
        lines = [f"{lead}    [id={old_id}]"] if old_id else []
        lines.append(f"{lead}    [urn={step.urn}]")
        if state is not None and state.provider:
            lines.append(f"{lead}    [provider={state.provider}]")
        return lines

    def _body(self, step: Step, indent: int) -> list[str]:
        old = self._shown(step.old.inputs) if step.old else {}
        new = self._shown(step.new.inputs) if step.new else {}
        if step.op in ("create", "read"):
            return property_lines(new, indent)
        if step.op == "delete":
            return property_lines(old, indent)
        return difference_lines(old, new, indent) if step.op in ("update", "replace") else []

    def _shown(self, values: dict[str, object]) -> dict[str, object]:
        shown = hidden_value(values, self._hidden, show_secrets=self._show_secrets)
        return {key: item for key, item in shown.items() if not key.startswith("__")}

    def _done(self, step: Step) -> None:
        if step.urn in self._depths or step.op == "refresh":
            self._root_outputs(step)
            return
        self._resource(step)  # found by a refresh

    def _root_outputs(self, step: Step) -> None:
        if step.type != ROOT_STACK_TYPE or step.new is None or step.op == "refresh":
            return
        old = self._shown(step.old.outputs) if step.old else None
        lines = output_lines(old, self._shown(step.new.outputs), only_changed=True)
        if lines:
            self._print("    --outputs:--", *lines)

    def _end(self, summary: Summary) -> None:
        self._print(*self._told.lines())
        self._print(*resource_lines(summary.changes, len(self._errored), preview=self._preview))
        if not self._preview:
            self._print("", f"Duration: {_duration(summary.seconds)}")
