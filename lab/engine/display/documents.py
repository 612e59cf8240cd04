"""The machine-readable forms: preview digest, one-line summary, event stream. Shapes as recorded from the real CLI."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from lab.engine.display import SECRET_TEXT, SecretFilter, hidden_value
from lab.engine.events import (
    Diagnostic,
    Event,
    Notice,
    Prelude,
    Step,
    StepDone,
    StepFailed,
    StepStarted,
    Summary,
)
from lab.engine.state import SECRET_SIGNATURE, SIGNATURE, ResourceState, encode, encode_resource
from lab.engine.urns import ROOT_STACK_TYPE, name_of
from lab.engine.values import Secret, Value

# Halves of a replace are in the digest only when asked for (--show-replacement-steps). Of what stays the same only the
# stack itself is in it, and what gains or loses its protection. Source: pulumi pkg/backend/display/display.go
# (shouldShow).
_HALVES = ("create-replacement", "delete-replaced", "discard-replaced")


def _is_shown_same(step: Step) -> bool:
    protected = [state.protect for state in (step.old, step.new) if state is not None]
    return step.type == ROOT_STACK_TYPE or len(set(protected)) > 1


class Digest:
    """``preview --json`` and ``refresh --preview-only --json``: one indented document at the end."""

    def __init__(self, out: TextIO, hidden: SecretFilter, *, halves: bool = False) -> None:
        self._out = out
        self._hidden = hidden
        self._left_out = () if halves else _HALVES
        self._config: Mapping[str, str] = {}
        self._steps: list[dict[str, Any]] = []
        self._refreshed: dict[str, dict[str, Any]] = {}
        self._diagnostics: list[dict[str, Any]] = []

    def show(self, event: Event) -> None:
        if isinstance(event, Prelude):
            self._config = event.config
        elif isinstance(event, StepStarted):
            self._add(event.step)
        elif isinstance(event, StepDone):
            self._finish_refresh(event.step)
        elif isinstance(event, Diagnostic):
            self._diagnose(event)
        elif isinstance(event, Summary):
            self._write(event)

    def _add(self, step: Step) -> None:
        if step.op in self._left_out or (step.op == "same" and not _is_shown_same(step)):
            return
        entry = self._entry(step)
        self._steps.append(entry)
        if step.op == "refresh":
            self._refreshed[step.urn] = entry
        else:
            self._refreshed.pop(step.urn, None)

    def _finish_refresh(self, step: Step) -> None:
        entry = self._refreshed.pop(step.urn, None)
        if entry is not None and step.op in ("refresh", "update", "delete"):
            entry.clear()
            entry.update(self._entry(step))

    def _entry(self, step: Step) -> dict[str, Any]:
        entry: dict[str, Any] = {"op": step.op, "urn": step.urn}
        if step.provider:
            entry["provider"] = step.provider
        if step.old is not None:
            entry["oldState"] = self._state(step.old)
        if step.new is not None:
            entry["newState"] = self._state(step.new)
        if step.diffs:
            entry["diffReasons"] = list(step.diffs)
        if step.keys:
            entry["replaceReasons"] = list(step.keys)
        detailed = step.detailed_diff
        entry["detailedDiff"] = (
            {path: {"kind": item.kind, "inputDiff": item.input_diff} for path, item in detailed.items()}
            if detailed
            else None
        )
        return entry

    def _state(self, state: ResourceState) -> dict[str, Any]:
        shown = state.copy(
            inputs=hidden_value(state.inputs, self._hidden), outputs=hidden_value(state.outputs, self._hidden)
        )
        return encode_resource(shown, lambda _text: SECRET_TEXT)

    def _diagnose(self, event: Diagnostic) -> None:
        if event.severity == "debug" or event.ephemeral:
            return
        entry: dict[str, Any] = {"urn": event.urn} if event.urn else {}
        self._diagnostics.append({**entry, "message": f"{event.prefix}{event.message}", "severity": event.severity})

    def _write(self, summary: Summary) -> None:
        document: dict[str, Any] = {}
        if self._config:
            document["config"] = dict(self._config)
        document["steps"] = self._steps
        if self._diagnostics:
            document["diagnostics"] = self._diagnostics
        document["duration"] = int(summary.seconds * 1e9)
        document["changeSummary"] = dict(sorted(summary.changes.items()))
        print(json.dumps(document, indent=4, ensure_ascii=False), file=self._out, flush=True)


class SummaryLine:
    """``--output json``: one line with what was done, without any property value."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._resources: list[dict[str, str]] = []

    def show(self, event: Event) -> None:
        if isinstance(event, StepStarted) and event.step.op not in ("same", "read"):
            step = event.step
            state = step.new or step.old
            entry = {"urn": step.urn, "type": step.type, "name": name_of(step.urn), "op": step.op}
            if state is not None and state.parent:
                entry["parent"] = state.parent
            self._resources.append(entry)
        elif isinstance(event, Summary):
            document: dict[str, Any] = {
                "result": event.result,
                "duration": int(event.seconds * 1e9),
                "summary": dict(sorted(event.changes.items())),
            }
            if self._resources:
                document["resources"] = self._resources
            text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
            print(text, file=self._out, flush=True)


class EventStream:
    """``up|refresh|destroy --json``: one engine event a line, at once."""

    def __init__(self, out: TextIO, hidden: SecretFilter, clock: Callable[[], float] = time.time) -> None:
        self._out = out
        self._documents = EventDocuments(hidden, clock)

    def show(self, event: Event) -> None:
        text = json.dumps(self._documents.document(event), separators=(",", ":"), ensure_ascii=False)
        print(text, file=self._out, flush=True)


class EventDocuments:
    """Engine events as JSON, numbered from 1, secrets hidden: for the event stream and for a cloud."""

    def __init__(self, hidden: SecretFilter, clock: Callable[[], float] = time.time) -> None:
        self._hidden = hidden
        self._clock = clock
        self._sequence = 0

    def document(self, event: Event) -> dict[str, Any]:
        self._sequence += 1
        return {"sequence": self._sequence, "timestamp": int(self._clock()), **self._body(event)}

    def _body(self, event: Event) -> dict[str, Any]:
        if isinstance(event, Prelude):
            return {"preludeEvent": {"config": dict(event.config)}}
        if isinstance(event, StepStarted):
            return {"resourcePreEvent": {"metadata": self._metadata(event.step)}}
        if isinstance(event, StepDone):
            return {"resOutputsEvent": {"metadata": self._metadata(event.step)}}
        if isinstance(event, StepFailed):
            return {"resOpFailedEvent": {"metadata": self._metadata(event.step), "status": 0, "steps": 0}}
        if isinstance(event, Diagnostic):
            return {"diagnosticEvent": _diagnostic(event)}
        if isinstance(event, Notice):
            return {"stdoutEvent": {"message": event.message, "color": "never"}}
        if isinstance(event, Summary):
            return {
                "summaryEvent": {
                    "maybeCorrupt": False,
                    "durationSeconds": max(round(event.seconds), 1),
                    "resourceChanges": dict(sorted(event.changes.items())),
                    "PolicyPacks": {},
                    "isPreview": event.is_preview,
                    "result": event.result,
                }
            }
        return {"cancelEvent": {}}

    def _metadata(self, step: Step) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "op": step.op,
            "urn": step.urn,
            "type": step.type,
            "old": self._state(step.old),
            "new": self._state(step.new),
        }
        if step.keys:
            metadata["keys"] = list(step.keys)
        if step.diffs:
            metadata["diffs"] = list(step.diffs)
        metadata["detailedDiff"] = (
            {path: {"diffKind": item.kind, "inputDiff": item.input_diff} for path, item in step.detailed_diff.items()}
            if step.detailed_diff
            else None
        )
        if step.logical:
            metadata["logical"] = True
        metadata["provider"] = step.provider
        return metadata

    def _state(self, state: ResourceState | None) -> dict[str, Any] | None:
        if state is None:
            return None
        document: dict[str, Any] = {"type": state.type, "urn": state.urn}
        for name, given in (("custom", state.custom), ("delete", state.delete)):
            if given:
                document[name] = True
        document["id"] = state.id
        document["parent"] = state.parent
        if state.protect:
            document["protect"] = True
        document["inputs"] = self._values(state.inputs)
        document["outputs"] = self._values(state.outputs)
        document["provider"] = state.provider
        if state.init_errors:
            document["initErrors"] = state.init_errors
        return document

    def _values(self, value: Value) -> Any:
        return encode(_marked(self._hidden.value(value)), lambda _text: SECRET_TEXT)


def _marked(value: Value) -> Value:
    """Secrets in their tagged form, without their content."""
    if isinstance(value, Secret):
        return {SIGNATURE: SECRET_SIGNATURE, "ciphertext": SECRET_TEXT}
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    return [_marked(item) for item in value] if isinstance(value, list) else value


def _diagnostic(event: Diagnostic) -> dict[str, Any]:
    document: dict[str, Any] = {"urn": event.urn} if event.urn else {}
    if event.prefix:
        document["prefix"] = event.prefix
    document.update({"message": event.message, "color": "never", "severity": event.severity})
    if event.ephemeral:
        document["ephemeral"] = True
    return document
