"""A session without processes: scripted answers of pulumi and kubectl, a recording reporter."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runbooks.core.command import Command, Outcome
from runbooks.core.mask import Masker
from runbooks.core.reporter import JsonReporter
from runbooks.stacks.service import Service
from runbooks.stacks.session import Known
from runbooks.tools.kubectl import Kubectl
from runbooks.tools.stack import Stack

UID = "uid-1"
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
    guarded: int = 0
    """How often the cluster was asked who it is."""
    _current: str = ""

    def run(self, command: Command, *, on_line: Callable[[str], None] | None = None, **_: Any) -> Outcome:
        if "-C" in command.argv:
            verb, service = self.verb(command), Path(command.argv[command.argv.index("-C") + 1]).name
        else:
            verb, service = "get", "cluster"  # kubectl, which is asked for what exists already
            if "kube-system" in command.argv:
                self.guarded += 1
                identity = json.dumps({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": UID}})
                return Outcome(command=command, exit_code=0, seconds=0.1, stdout=identity, stderr="")
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
    """What the tasks' code needs of a session, on a file backend below a temporary folder."""

    def __init__(
        self, root: Path, script: dict[tuple[str, str], list[Answer]], *, ephemeral: bool = False,
        answers: Iterable[str] = (), interactive: bool = True,
    ) -> None:  # fmt: skip
        self.root = root
        self.state_dir = root / ".ops"
        backend = root / "backend"
        self.target = SimpleNamespace(
            name="mx", stack="mx", backend=f"file://{backend}", file_backend=backend, cluster_uid=UID,
            is_pinned=True, context="home", settings={},
            ephemeral=ephemeral, organization="organization", has_diy_backend=True, shown_backend="file://x",
        )  # fmt: skip
        self.tools = SimpleNamespace(pulumi="/bin/pulumi", pulumi_version="v3.260.0")
        self.env = {"PULUMI_CREDENTIALS_PATH": str(root / "logged-out")}
        self.kubectl = Kubectl(program="/bin/kubectl", kubeconfig=root / "kubeconfig")
        self.context = SimpleNamespace(name="home", cluster_name="home", server="https://home")
        self.runner = ScriptedRunner(script)
        self.reporter = AskedReporter(answers, interactive=interactive)
        self.known = Known()
        self.masker = Masker()
        self.journal = SimpleNamespace(write=lambda kind, **facts: self.journalled.append((kind, facts)))
        self.journalled: list[tuple[str, dict[str, Any]]] = []
        self.services = TREE
        for service in TREE:
            (root / "pulumi" / service.folder).mkdir(parents=True)
            (root / "pulumi" / service.folder / "__main__.py").write_text("")
            (root / "pulumi" / service.folder / "Pulumi.yaml").write_text(f"name: {service.name}\n")
            self.write_state(service.name)

    def stack(self, service: Service) -> Stack:
        own = self.root / "stacks" / service.name if self.target.ephemeral else None
        return Stack(
            service=service.name, project=service.name, name="mx", organization="organization",
            folder=self.root / "pulumi" / service.folder, program="/bin/pulumi", init_folder=own,
            config_file=own / "Pulumi.mx.yaml" if own else None,
        )  # fmt: skip

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)

    @property
    def prepared(self) -> dict[str, Stack]:
        """Every stack is there and ready."""
        return {service.name: self.stack(service) for service in self.services}

    def write_settings(self, settings: dict[str, str]) -> None:
        """The config of every stack."""
        for service in self.services:
            file = self.stack(service).settings_file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"config": settings}))

    @property
    def guarded(self) -> int:
        return self.runner.guarded

    def write_state(self, service: str, *, outputs: dict[str, Any] | None = None, resources: Iterable[Any] = (),
                    pending: Iterable[Any] = ()) -> None:  # fmt: skip
        path = self.root / "backend" / ".pulumi" / "stacks" / service / "mx.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        stack = {"urn": urn(service, "pulumi:pulumi:Stack", service), "type": "pulumi:pulumi:Stack", "outputs": outputs}
        latest = {"resources": [stack, *resources], "pending_operations": list(pending)}
        path.write_text(json.dumps({"checkpoint": {"latest": latest}}))
