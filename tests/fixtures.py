"""What tests of all folders build on. Nothing here starts a real pulumi, kubectl or helm.

- `ScriptedRunner`: a runner that starts no process and answers each command from a script.
- `ScriptedSession`: a session on that runner, with the four services of `TREE`, for the layers below the tasks.
- `Repo` (fixture `repo`): a repository in a temporary folder with a real target `home`, and scripted tools on PATH; for
  tasks, from their arguments to the processes. `repo.c` is the context that a task's body gets, `repo.pipe` gives it
  standard input, `repo.types` answers its questions, `repo.printed()` is what it printed. A module that needs more
  there overrides the fixture: `@pytest.fixture def repo(repo: Repo) -> Repo`.
- Objects as kubectl prints them (`namespace`, `listing`, `deployment`, `secret`, `slices`, `exposed_service`,
  `ingress`, `device`, `kubeconfig`), answers of pulumi (`step`, `preview_answer`, `preview_of`, `event`, `creating`,
  `applied`) and states (`exported`, `checkpoint`, `secret_value`).
- Real processes: `executable` writes a program, `RealRunner` starts them, `until` waits, `is_alive` looks,
  `ended_process` is one that is over, `side_by_side` calls in threads, `git` runs git.

A reply is a text, an object (printed as JSON), (exit code, stdout, stderr) or an `Answer`; a list of replies is used up
one by one, its last one for ever; a function gets the command. What runs for real is in tests/lab: a `Checkout` is a
copy of this repository, and a `Lab` is a running lab.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runbooks.core.command import Command, Outcome
from runbooks.core.journal import Journal, read_journal
from runbooks.core.mask import Masker
from runbooks.core.reporter import JsonReporter
from runbooks.core.runner import Runner
from runbooks.services import find_service
from runbooks.stacks.service import Service
from runbooks.stacks.session import Known
from runbooks.stacks.target import Target
from runbooks.tools.kubectl import Kubectl
from runbooks.tools.locks import Lock
from runbooks.tools.pulumi import Preview, Step
from runbooks.tools.pulumi_home import LANGUAGE_HOST
from runbooks.tools.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY
from runbooks.tools.stack import Stack

REAL_ROOT = Path(__file__).resolve().parents[1]
UID = "81e3d180-3df5-4d42-8e34-904e6d4b002a"
"""Of the cluster that the target is pinned to."""

# Objects as kubectl prints them

TOKEN = "t0ken-of-home"


def namespace(name: str = "kube-system", uid: str = UID) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": uid}}


def listing(*objects: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def deployment(name: str, where: str, *, ready: int = 1, wanted: int = 1, available: str = "True") -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": where, "generation": 2},
        "spec": {"replicas": wanted},
        "status": {
            "observedGeneration": 2,
            "readyReplicas": ready,
            "updatedReplicas": wanted,
            "conditions": [{"type": "Available", "status": available, "reason": "MinimumReplicasAvailable"}],
        },
    }


def secret(name: str, where: str, values: Mapping[str, str], labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {
        "kind": "Secret",
        "metadata": {"name": name, "namespace": where, "labels": dict(labels or {})},
        "data": data,
    }


def slices(*addresses: str, ready: bool | None = True, port: int = 5432) -> dict[str, Any]:
    conditions = {} if ready is None else {"ready": ready}
    endpoints = [{"addresses": [address], "conditions": conditions} for address in addresses]
    return listing({"kind": "EndpointSlice", "endpoints": endpoints, "ports": [{"port": port}]})


def exposed_service(
    name: str = "postgresql-cluster-rw-ext", where: str = "postgresql", *, hostname: str = "postgresql",
    annotations: Mapping[str, str] | None = None, ready: tuple[str, str] | None = ("True", "ProxyCreated"), **spec: Any,
) -> dict[str, Any]:  # fmt: skip
    """A Service on the tailnet; other `annotations` replace those that ask for it."""
    asked = {"tailscale.com/expose": "true", "tailscale.com/hostname": hostname} if annotations is None else annotations
    conditions = [{"type": "TailscaleProxyReady", "status": ready[0], "reason": ready[1]}] if ready else []
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": where, "annotations": dict(asked)},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": [{"port": 5432}], **spec},
        "status": {"conditions": conditions},
    }


def ingress(
    name: str, where: str, *, address: str, of_class: str = "tailscale", meta: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:  # fmt: skip
    """An Ingress to which its controller gave the address; none where that is empty."""
    return {
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": where} | dict(meta or {}),
        "spec": {"ingressClassName": of_class, **spec},
        "status": {"loadBalancer": {"ingress": [{"hostname": address}] if address else []}},
    }


def device(
    fqdn: str = "postgresql.tail1234.ts.net.", addresses: str = '["100.64.0.7"]',
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The state Secret of a proxy on the tailnet; its labels name the object it is for."""
    return secret("ts-x-0", "tailscale", {"device_fqdn": fqdn, "device_ips": addresses}, labels)


def kubeconfig(
    *,
    context: str = "home",
    server: str = "https://10.0.0.2:6443",
    cluster: Mapping[str, Any] | None = None,
    user: Mapping[str, Any] | None = None,
    others: bool = True,
) -> dict[str, Any]:
    """A kubeconfig with the context, and another one that is current."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "other" if others else context,
        "contexts": [{"name": context, "context": {"cluster": "homelab", "user": "me"}}],
        "clusters": [{"name": "homelab", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "me", "user": dict(user if user is not None else {"token": TOKEN})}],
    }
    if others:
        document["contexts"].append({"name": "other", "context": {"cluster": "office", "user": "boss"}})
        document["clusters"].append({"name": "office", "cluster": {"server": "https://10.9.9.9:6443"}})
        document["users"].append({"name": "boss", "user": {"token": "t0ken-of-the-office"}})
    return document


# Answers of pulumi

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


def preview_of(*steps: Step, **facts: Any) -> Preview:
    """The same as read: the steps, and other facts of the preview."""
    return Preview(**{"steps": steps, "diagnostics": (), "change_summary": {}} | facts)


def event(service: str, op: str, kind: str = "kubernetes:core/v1:ConfigMap", name: str = "cm") -> list[str]:
    facts = {"metadata": {"op": op, "urn": urn(service, kind, name), "old": None, "new": None}}
    return [json.dumps({"resourcePreEvent": facts}), json.dumps({"resOutputsEvent": facts})]


def secret_value(plain: Any) -> dict[str, str]:
    """A secret of a state or output, as `--show-secrets` prints it."""
    return {SIGNATURE_KEY: SECRET_SIGNATURE, "plaintext": json.dumps(plain)}


def exported(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What `stack export` prints of a stack that has one object and these outputs."""
    stack = {"urn": urn("p", "pulumi:pulumi:Stack", "p"), "type": "pulumi:pulumi:Stack", "outputs": dict(outputs)}
    kind = "kubernetes:core/v1:Namespace"
    return {"version": 3, "deployment": {"resources": [stack, {"urn": urn("p", kind, "ns"), "type": kind}]}}


def checkpoint(outputs: Mapping[str, Any]) -> str:
    """The same as a file backend keeps it."""
    return json.dumps({"checkpoint": {"latest": exported(outputs)["deployment"]}})


SUMMARY = json.dumps({"summaryEvent": {"resourceChanges": {}, "result": "succeeded"}})


@dataclass(frozen=True)
class Answer:
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    does: Callable[[], None] | None = None
    """Happens while the command runs."""


def creating(service: str) -> str:
    """The answer to a preview of a service that makes one object."""
    return preview_answer(step(service, "create"))


def applied(service: str, *more: str, **answer: Any) -> Answer:
    """The answer to its update; `more` are further lines of events."""
    return Answer(stdout="\n".join([*event(service, "create"), *more, SUMMARY]), **answer)


def write_locks(backend: Path, service: str, *locks: Lock) -> None:
    """These hold stack mx of the service on a file backend."""
    folder = backend / ".pulumi" / "locks" / "organization" / service / "mx"
    folder.mkdir(parents=True, exist_ok=True)
    for number, lock in enumerate(locks):
        facts = {"pid": lock.pid, "username": lock.user, "hostname": lock.host, "timestamp": lock.since}
        (folder / f"{number}.json").write_text(json.dumps(facts))


ELSEWHERE = Lock(pid=1, user="u", host="other-machine", since="2026-11-24T07:00:00Z")
"""The lock of a process on another machine."""


# A target, and a session without processes


def target(**changes: Any) -> Target:
    facts = {"name": "home", "stack": "mx", "backend": "file:///s", "organization": "organization", "context": "home"}
    return Target(**facts | {"kubeconfig": Path("k")} | changes)


def outcome(command: Command, reply: Any) -> Outcome:
    """The `Outcome` of a command that ended with this reply."""
    if isinstance(reply, Answer):
        reply = (reply.exit_code, reply.stdout, reply.stderr)
    code, stdout, stderr = reply if isinstance(reply, tuple) else (0, reply, "")
    if not isinstance(stdout, str):
        stdout = json.dumps(stdout)
    return Outcome(
        command=command, exit_code=code, seconds=0.0, stdout=stdout, stderr=stderr, shown_stdout=stdout,
        shown_stderr=stderr,
    )  # fmt: skip


def stack_command(command: Command) -> tuple[str, str]:
    """Verb and service of a pulumi command on a stack; ("get", "cluster") of a kubectl command."""
    if "-C" not in command.argv:
        return "get", "cluster"
    service, words = Path(command.argv[command.argv.index("-C") + 1]).name, command.argv[3:]
    if words[:2] == ("destroy", "--preview-only"):
        return "destroy-preview", service
    if words[0] != "stack":
        return words[0], service
    return "show" if words[1].startswith("--") else words[1], service


class ScriptedRunner:
    """Answers each command with the reply of the first word list all of whose words are in the argv.

    After those the `script` of a session: (verb, service) → replies. What has no reply fails the test there; without a
    script it is answered like an object that kubectl does not find.
    """

    def __init__(self, *known: tuple[tuple[str, ...], Any], script: dict[tuple[str, str], Any] | None = None) -> None:
        self.known, self.script = list(known), script
        self.commands: list[Command] = []
        self.signals: list[str] = []
        """The services whose commands were interrupted."""
        self.interrupted = False
        self._current = ""

    def run(self, command: Command, *, on_line: Callable[[str], None] | None = None, **_: Any) -> Outcome:
        self.commands.append(command)
        reply = self._find(command)
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if callable(reply):
            reply = reply(command)
        if not on_line and not isinstance(reply, Answer):
            return outcome(command, reply)
        before, self._current = len(self.signals), stack_command(command)[1]
        if isinstance(reply, Answer) and reply.does:
            reply.does()
        done = outcome(command, reply)
        lines = []
        for line in done.stdout.splitlines() if on_line else ():
            lines.append(line)
            on_line(line)  # type: ignore[misc]
            if len(self.signals) > before:
                break
        shown = "\n".join(lines) if on_line else done.stdout
        interrupted = len(self.signals) > before
        code = 1 if interrupted else done.exit_code
        return replace(done, exit_code=code, stdout=shown, shown_stdout=shown, interrupted=interrupted)

    def check(self, command: Command, **_: Any) -> Outcome:
        done = self.run(command)
        assert done.ok, done
        return done

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {"HOME": "/home/me"} | dict(extra)

    def interrupt(self) -> None:
        self.signals.append(self._current)

    def _find(self, command: Command) -> Any:
        for words, reply in self.known:
            if all(any(word in part for part in command.argv) for word in words):
                return reply
        if self.script is None:
            return 1, "", f"Error from server (NotFound): nothing known of {' '.join(command.argv)}"
        return self.script[stack_command(command)]

    @property
    def argvs(self) -> list[str]:
        return [" ".join(command.argv) for command in self.commands]

    @property
    def ran(self) -> list[tuple[str, str]]:
        """(verb, service) of each command; without the questions which cluster it is and what it has."""
        about_it = {"kube-system", "--raw=/version", "api-resources"}
        return [stack_command(command) for command in self.commands if not about_it.intersection(command.argv)]

    @property
    def guarded(self) -> int:
        """How often the cluster's identity was asked for."""
        return sum("kube-system" in command.argv for command in self.commands)


class ScriptedReporter(JsonReporter):
    """Keeps the questions and answers them from a list."""

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
        return "\n".join(event.get("text") or "" for event in self.events)


class ScriptedSession:
    """What the tasks' code needs of a session, on a file backend below a temporary folder."""

    def __init__(
        self, root: Path, script: dict[tuple[str, str], Any], *, ephemeral: bool = False,
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
        self.env = {"PULUMI_CREDENTIALS_PATH": str(root / "logged-out"), "PULUMI_HOME": str(root / "pulumi-home")}
        self.kubectl = Kubectl(program="/bin/kubectl", kubeconfig=root / "kubeconfig")
        self.context = SimpleNamespace(name="home", cluster_name="home", server="https://home")
        known = [(("kube-system",), namespace(uid=UID)), (("/version",), "{}"), (("api-resources",), "")]
        self.runner = ScriptedRunner(*known, script=script)
        self.reporter = ScriptedReporter(answers, interactive=interactive)
        self.known = Known()
        self.masker = Masker()
        self.journal = SimpleNamespace(
            folder=root / "run", write=lambda kind, **facts: self.journalled.append((kind, facts))
        )
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

    def with_reporter(self, reporter: Any) -> ScriptedSession:
        other = copy.copy(self)
        other.reporter = reporter
        return other

    def with_variables(self, **variables: str) -> ScriptedSession:
        other = copy.copy(self)
        other.env = {**self.env, **variables}
        return other

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

    def write_state(self, service: str, *, outputs: dict[str, Any] | None = None, resources: Iterable[Any] = (),
                    pending: Iterable[Any] = ()) -> None:  # fmt: skip
        path = self.root / "backend" / ".pulumi" / "stacks" / service / "mx.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        stack = {"urn": urn(service, "pulumi:pulumi:Stack", service), "type": "pulumi:pulumi:Stack", "outputs": outputs}
        latest = {"resources": [stack, *resources], "pending_operations": list(pending)}
        path.write_text(json.dumps({"checkpoint": {"latest": latest}}))


# A repository with tools on PATH

PASSPHRASE = "passphrase-of-home"

PROGRAM = """\
import json, os, sys
home, tool, argv = {home!r}, sys.argv[1], sys.argv[2:]
stdin = sys.stdin.read() if "--secret" in argv or argv[-2:] == ["--file", "-"] else ""
with open(f"{{home}}/{{tool}}.calls", "a") as calls:
    calls.write(json.dumps({{"argv": argv, "env": dict(os.environ), "stdin": stdin}}) + "\\n")
for line in reversed(open(f"{{home}}/{{tool}}.answers").readlines()):
    words, code, out, err = json.loads(line)
    if all(any(part == word[2:] if word[:2] == "==" else word in part for part in argv) for word in words):
        sys.stdout.write(out); sys.stderr.write(err); sys.exit(code)
sys.stderr.write(f"error: no answer for {{argv}}\\n"); sys.exit(99)
"""


DEPLOYED = json.dumps(
    {"checkpoint": {"latest": {"resources": [{"urn": "urn:pulumi:mx::p::kubernetes:core/v1:Namespace::ns"}]}}}
)


class Repo:
    """A repository with the projects of this one, without their programs, and a target `home`."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.root = home / "checkout"
        self.state = home / "state"
        self.bin = home / "bin"
        self.backend = home / "backend"
        for folder in (self.root, self.bin, self.backend):
            folder.mkdir()
        self._copy_projects()
        self._write_target()
        (home / "fake.py").write_text(PROGRAM.format(home=str(home)))
        self.install("pulumi")
        executable(self.bin / LANGUAGE_HOST)
        self.install("kubectl")
        self.c = SimpleNamespace(config=SimpleNamespace(ops=SimpleNamespace(target="home", json=False)))
        monkeypatch.setenv("OPS_STATE", str(self.state))
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
        monkeypatch.setenv("HOME", str(home))
        for name in ("OPS_TARGET", "OPS_JSON", "PULUMI_HOME", "PULUMI_CREDENTIALS_PATH", "PULUMI_CONFIG_PASSPHRASE"):
            monkeypatch.delenv(name, raising=False)
        for module in ("core.files", "run", "stacks.guard", "checks.machine", "checks.modal"):
            monkeypatch.setattr(f"runbooks.{module}.ROOT", self.root)
        self.answer("kubectl", ["get", "namespace", "kube-system"], namespace(uid=UID))
        self.answer("pulumi", ["version"], "v3.260.0\n")

    def _copy_projects(self) -> None:
        for source in (REAL_ROOT / "pulumi").rglob("Pulumi*.yaml"):
            if not source.name.startswith("Pulumi.mx"):
                copied = self.root / source.relative_to(REAL_ROOT)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copied)

    def _write_target(self) -> None:
        (self.root / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(user={"token": TOKEN})))
        (self.root / "passphrase").write_text(PASSPHRASE + "\n")
        (self.root / "passphrase").chmod(0o600)
        self.set_target(
            stack="mx", backend=f"file://{self.backend}", organization="organization", kubeconfig="kubeconfig",
            context="home", passphrase_file="passphrase", cluster_uid=UID,
        )  # fmt: skip

    @property
    def target(self) -> dict[str, str]:
        """The target's entry in targets.yaml."""
        path = self.root / "targets.yaml"
        entry: dict[str, str] = yaml.safe_load(path.read_text())["targets"]["home"] if path.exists() else {}
        return entry

    def set_target(self, **changes: str | None) -> None:
        """Change keys of the target; `None` removes one."""
        entry = {key: value for key, value in (self.target | changes).items() if value is not None}
        text = yaml.safe_dump({"default": "home", "targets": {"home": entry}}, sort_keys=False)
        (self.root / "targets.yaml").write_text("# mine\n" + text)

    def config_file(self, service: str) -> Path:
        return self.root / "pulumi" / find_service(service).folder / "Pulumi.mx.yaml"

    def has_superuser_password(self) -> None:
        """The one secret that the stack config of postgres needs."""
        self.config_file("postgres").write_text("config:\n  postgresql:superuser_password:\n    secure: v1:abc\n")
        self.answer("pulumi", ["config", "--show-secrets"], {})

    def install(self, tool: str) -> None:
        executable(self.bin / tool, f'exec {sys.executable} -I {self.home}/fake.py {tool} "$@"')
        (self.home / f"{tool}.answers").touch()

    def on_cloud(self, url: str = "https://api.pulumi.com") -> None:
        """The target's backend is the Pulumi Cloud, and every stack is there."""
        self.set_target(backend=url, organization="acme", passphrase_file=None)
        projects = [yaml.safe_load(path.read_text())["name"] for path in self.root.rglob("Pulumi.yaml")]
        self.answer("pulumi", ["stack", "ls"], [{"name": f"acme/{project}/mx"} for project in projects])
        self.answer("pulumi", ["stack", "export"], {"deployment": {}})

    def remove(self, tool: str) -> None:
        (self.bin / tool).unlink()

    def answer(self, tool: str, words: list[str], reply: Any) -> None:
        """The newest answer whose words are all in the argv counts; `==word` has to be an argument as a whole."""
        code, out, err = reply if isinstance(reply, tuple) else (0, reply, "")
        with (self.home / f"{tool}.answers").open("a") as answers:
            answers.write(json.dumps((words, code, out if isinstance(out, str) else json.dumps(out), err)) + "\n")

    def calls(self, tool: str) -> list[dict[str, Any]]:
        path = self.home / f"{tool}.calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def argvs(self, tool: str) -> list[str]:
        return [" ".join(call["argv"]) for call in self.calls(tool)]

    def has_stacks(self, *projects: str, state: str = DEPLOYED, outputs: Mapping[str, Any] | None = None) -> None:
        """Put a state of stack mx into the file backend: this one, or one with these outputs."""
        if outputs is not None:
            state = checkpoint(outputs)
        for project in projects:
            folder = self.backend / ".pulumi" / "stacks" / project
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "mx.json").write_text(state)

    def pipe(self, data: bytes) -> None:
        """Put this on standard input."""
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    def types(self, *lines: str) -> None:
        """A person at a terminal types these lines at the questions, in order."""
        left = iter(lines)
        self._monkeypatch.setattr("runbooks.core.reporter.Reporter.interactive", True)
        self._monkeypatch.setattr("runbooks.core.reporter.Reporter._ask", lambda *_: next(left))

    def printed(self) -> str:
        """What was printed since the last call."""
        return self._capsys.readouterr().out

    def everything_written(self) -> str:
        """All that a run left in the state folder, as one text."""
        parts = [path.read_bytes().decode("utf-8", "replace") for path in self.state.rglob("*") if path.is_file()]
        return "\n".join(parts)


class Typed(io.StringIO):
    """Standard input of a person: a terminal with these lines."""

    def isatty(self) -> bool:
        return True


# Real processes


def executable(path: Path, text: str = "") -> Path:
    """A program with this text: a script of /bin/sh, unless its first line says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


class RealRunner:
    """A runner that starts processes, its journal in `folder`, and what it shows and reports."""

    def __init__(self, folder: Path, secret: str, **options: Any) -> None:
        self.shown: list[tuple[str, str]] = []
        self.reported: list[str] = []
        self.masker = Masker([secret])
        self.journal = Journal.open(folder, "test", ["inv", "test"], masker=self.masker)
        options = {"show": lambda stream, text: self.shown.append((stream, text))} | options
        self.runner = Runner(
            masker=self.masker, journal=self.journal, base_env=os.environ, report=self.reported.append, **options
        )

    def shown_on(self, stream: str) -> str:
        return "".join(text for name, text in self.shown if name == stream)

    def records(self, kind: str = "command") -> list[dict[str, Any]]:
        return [record for record in read_journal(self.journal.path) if record["kind"] == kind]

    def close(self) -> None:
        self.runner.close()
        self.journal.close()


def until(is_so: Callable[[], Any], what: str = "it", seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:.0f} s"
        time.sleep(0.005)


def side_by_side(work: Callable[[int], object], count: int) -> None:
    """Call `work` with 0, 1, … at the same time, each in a thread of its own."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def ended_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def git(root: Path, *words: str) -> str:
    """What `git WORDS` prints, with a name and an address for commits."""
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()
