"""A session without processes: scripted pulumi answers, a recording reporter, a counting guard."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runbooks import states
from runbooks.lib.command import Command, Outcome
from runbooks.lib.kubectl import Kubectl
from runbooks.lib.mask import Masker
from runbooks.lib.render import JsonReporter
from runbooks.lib.stacks import Stack
from runbooks.services import Service

TREE = (
    Service(name="net", folder="net", about="", namespace="net"),
    Service(name="op", folder="op", about="", namespace="op"),
    Service(name="db", folder="db", about="", namespace="db", needs=("op", "net")),
    Service(name="app", folder="app", about="", namespace="app", needs=("db",), reads_outputs_of=("db",)),
)


def urn(service: str, kind: str, name: str) -> str:
    return f"urn:pulumi:mx::{service}::{kind}::{name}"


def step(service: str, op: str, kind: str = "kubernetes:core/v1:ConfigMap", name: str = "cm", **more: Any) -> Any:
    new = {} if op == "delete" else {"newState": {"urn": urn(service, kind, name), "inputs": {"a": 1}, **more}}
    old = {} if op == "create" else {"oldState": {"urn": urn(service, kind, name), "inputs": {"a": 0}, **more}}
    return {"op": op, "urn": urn(service, kind, name), **old, **new}


def preview_answer(*steps: Any) -> str:
    return json.dumps({"steps": list(steps), "diagnostics": [], "changeSummary": {}}, indent=1)


def event(service: str, op: str, kind: str = "kubernetes:core/v1:ConfigMap", name: str = "cm") -> list[str]:
    facts = {"metadata": {"op": op, "urn": urn(service, kind, name), "old": None, "new": None}}
    return [json.dumps({"resourcePreEvent": facts}), json.dumps({"resOutputsEvent": facts})]


SUMMARY = json.dumps({"summaryEvent": {"resourceChanges": {}, "result": "succeeded"}})


@dataclass
class Answer:
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    does: Callable[[], None] | None = None
    """Happens while the command runs."""


def creating(service: str) -> list[Answer]:
    """The answer to a preview of a service that makes one object."""
    return [Answer(stdout=preview_answer(step(service, "create")))]


def applied(service: str, *more: str, **answer: Any) -> list[Answer]:
    """The answer to its update; `more` are further lines of events."""
    return [Answer(stdout="\n".join([*event(service, "create"), *more, SUMMARY]), **answer)]


@dataclass
class ScriptedRunner:
    """Answers (verb, service), or (get, cluster), from a script; the last of a list repeats. Others fail the test."""

    script: dict[tuple[str, str], list[Answer]]
    ran: list[tuple[str, str]] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    interrupted: bool = False
    _current: str = ""

    def run(self, command: Command, *, on_line: Callable[[str], None] | None = None, **_: Any) -> Outcome:
        if "-C" in command.argv:
            verb, service = self.verb(command), Path(command.argv[command.argv.index("-C") + 1]).name
        else:
            verb, service = "get", "cluster"  # kubectl, which is asked for what exists already
        self.ran.append((verb, service))
        self.commands.append(command)
        answers = self.script[verb, service]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        before = len(self.signals)
        self._current = service
        if answer.does:
            answer.does()
        lines = []
        for line in answer.stdout.splitlines():
            lines.append(line)
            if on_line:
                on_line(line)
            if len(self.signals) > before:
                break
        interrupted = len(self.signals) > before
        stdout = "\n".join(lines) if on_line else answer.stdout
        return Outcome(
            command=command, exit_code=1 if interrupted else answer.exit_code, seconds=0.1, stdout=stdout,
            stderr=answer.stderr, shown_stdout=stdout, shown_stderr=answer.stderr, interrupted=interrupted,
        )  # fmt: skip

    @staticmethod
    def verb(command: Command) -> str:
        words = command.argv[3:]
        if words[:2] == ("destroy", "--preview-only"):
            return "destroy-preview"
        if words[0] != "stack":
            return words[0]
        return "show" if words[1].startswith("--") else words[1]

    def interrupt(self) -> None:
        self.signals.append(self._current)


class AskedReporter(JsonReporter):
    """Keeps what was asked and answers from a list."""

    def __init__(self, answers: Iterable[str], *, interactive: bool) -> None:
        self.out = io.StringIO()
        super().__init__(Masker(), self.out, self.out)
        self.asked: list[str] = []
        self._answers = iter(answers)
        self._is_interactive = interactive

    @property
    def interactive(self) -> bool:
        return self._is_interactive

    def _ask(self, question: str) -> str:
        if not self.interactive:
            return ""
        self.asked.append(question)
        return next(self._answers)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines()]

    @property
    def text(self) -> str:
        return "\n".join(event.get("text") or event.get("said") or "" for event in self.events)


class Stage:
    """What the tasks' code needs of a session, on a file back end below a temporary folder."""

    def __init__(
        self, root: Path, script: dict[tuple[str, str], list[Answer]], *, ephemeral: bool = False,
        answers: Iterable[str] = (), interactive: bool = True,
    ) -> None:  # fmt: skip
        self.root = root
        self.state_dir = root / ".ops"
        backend = root / "backend"
        self.target = SimpleNamespace(
            name="mx", stack="mx", backend=f"file://{backend}", file_backend=backend, cluster_uid="uid-1",
            ephemeral=ephemeral, organization="organization", has_diy_backend=True, shown_backend="file://x",
        )  # fmt: skip
        self.tools = SimpleNamespace(pulumi="/bin/pulumi", pulumi_version="v3.260.0")
        self.env = {"PULUMI_CREDENTIALS_PATH": str(root / "logged-out")}
        self.kubectl = Kubectl(program="/bin/kubectl", kubeconfig=root / "kubeconfig")
        self.settings: dict[str, str] = {}
        self.runner = ScriptedRunner(script)
        self.reporter = AskedReporter(answers, interactive=interactive)
        self.known = states.Known()
        self.masker = Masker()
        self.journal = SimpleNamespace(write=lambda kind, **facts: self.journalled.append((kind, facts)))
        self.journalled: list[tuple[str, dict[str, Any]]] = []
        self.guarded = 0
        for service in TREE:
            (root / "pulumi" / service.folder).mkdir(parents=True)
            (root / "pulumi" / service.folder / "__main__.py").write_text("")
            self.write_state(service.name)

    def stack(self, service: Service) -> Stack:
        return Stack(
            service=service.name, project=service.name, name="mx", organization="organization",
            folder=self.root / "pulumi" / service.folder, program="/bin/pulumi",
        )  # fmt: skip

    prepare = set_up = stack

    def guard(self) -> None:
        self.guarded += 1

    def check_settings(self, stack: Stack) -> Any:
        return SimpleNamespace(config=self.settings, environment=())

    def has_stack(self, stack: Stack) -> bool:
        return states.has_stack(self, stack)  # type: ignore[arg-type]

    def write_state(self, service: str, *, outputs: dict[str, Any] | None = None, resources: Iterable[Any] = (),
                    pending: Iterable[Any] = ()) -> None:  # fmt: skip
        path = self.root / "backend" / ".pulumi" / "stacks" / service / "mx.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        stack = {"urn": urn(service, "pulumi:pulumi:Stack", service), "type": "pulumi:pulumi:Stack", "outputs": outputs}
        latest = {"resources": [stack, *resources], "pending_operations": list(pending)}
        path.write_text(json.dumps({"checkpoint": {"latest": latest}}))
