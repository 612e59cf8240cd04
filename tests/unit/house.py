"""A made-up home: a checkout with a real target, and a pulumi and a kubectl on PATH that answer from a list.

Everything between the task and the process is real: targets, guard, runner, journal, masker.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.answers import kubeconfig, namespace

REAL_ROOT = Path(__file__).resolve().parents[2]
UID = "81e3d180-3df5-4d42-8e34-904e6d4b002a"
TOKEN = "t0ken-of-the-house"
PASSPHRASE = "passphrase-of-the-house"

PROGRAM = """\
import json, os, sys
home, tool, argv = {home!r}, sys.argv[1], sys.argv[2:]
stdin = sys.stdin.read() if "--secret" in argv or argv[-2:] == ["--file", "-"] else ""
with open(f"{{home}}/{{tool}}.calls", "a") as calls:
    calls.write(json.dumps({{"argv": argv, "env": dict(os.environ), "stdin": stdin}}) + "\\n")
for words, code, out, err in json.load(open(f"{{home}}/{{tool}}.answers")):
    if all(any(part == word[2:] if word[:2] == "==" else word in part for part in argv) for word in words):
        sys.stdout.write(out); sys.stderr.write(err); sys.exit(code)
sys.stderr.write(f"error: no answer for {{argv}}\\n"); sys.exit(99)
"""


DEPLOYED = json.dumps(
    {"checkpoint": {"latest": {"resources": [{"urn": "urn:pulumi:mx::p::kubernetes:core/v1:Namespace::ns"}]}}}
)


class House:
    """The scratch checkout with its fakes."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.root = home / "checkout"
        self.state = home / "state"
        self.bin = home / "bin"
        self.backend = home / "backend"
        self.known: dict[str, list[tuple[list[str], int, str, str]]] = {"pulumi": [], "kubectl": []}
        for folder in (self.root, self.bin, self.backend):
            folder.mkdir()
        self._copy_projects()
        self._write_target()
        (home / "fake.py").write_text(PROGRAM.format(home=str(home)))
        for tool in self.known:
            self.install(tool)
        self.c = SimpleNamespace(config=SimpleNamespace(ops=SimpleNamespace(target="home", json=False)))
        monkeypatch.setenv("OPS_STATE", str(self.state))
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
        monkeypatch.setenv("HOME", str(home))
        for name in ("OPS_TARGET", "OPS_JSON", "PULUMI_HOME", "PULUMI_CREDENTIALS_PATH", "PULUMI_CONFIG_PASSPHRASE"):
            monkeypatch.delenv(name, raising=False)
        for module in ("runbooks.core.files", "runbooks.run"):
            monkeypatch.setattr(f"{module}.ROOT", self.root)
        self.answer("kubectl", ["get", "namespace", "kube-system"], namespace(uid=UID))
        self.answer("pulumi", ["version"], "v3.260.0\n")

    def _copy_projects(self) -> None:
        for source in (REAL_ROOT / "pulumi").rglob("Pulumi*.yaml"):
            if not source.name.startswith("Pulumi.mx"):
                copied = self.root / source.relative_to(REAL_ROOT)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copied)

    def _write_target(self, **changes: str) -> None:
        (self.root / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(user={"token": TOKEN})))
        (self.root / "passphrase").write_text(PASSPHRASE + "\n")
        (self.root / "passphrase").chmod(0o600)
        entry = {
            "stack": "mx",
            "backend": f"file://{self.backend}",
            "organization": "organization",
            "kubeconfig": "kubeconfig",
            "context": "home",
            "passphrase_file": "passphrase",
            "cluster_uid": UID,
        }
        self.write_target(entry | changes)

    def write_target(self, entry: dict[str, str]) -> None:
        text = yaml.safe_dump({"default": "home", "targets": {"home": entry}}, sort_keys=False)
        (self.root / "targets.yaml").write_text("# mine\n" + text)

    def target_entry(self) -> dict[str, str]:
        entry: dict[str, str] = yaml.safe_load((self.root / "targets.yaml").read_text())["targets"]["home"]
        return entry

    def install(self, tool: str) -> None:
        self.known.setdefault(tool, [])
        script = self.bin / tool
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -I {self.home}/fake.py {tool} "$@"\n')
        script.chmod(0o755)
        self._write_answers(tool)

    def on_cloud(self, url: str = "https://api.pulumi.com") -> None:
        """The target's backend is the Pulumi Cloud, and every stack is there."""
        entry = self.target_entry() | {"backend": url, "organization": "acme"}
        entry.pop("passphrase_file", None)
        self.write_target(entry)
        projects = [yaml.safe_load(path.read_text())["name"] for path in self.root.rglob("Pulumi.yaml")]
        self.answer("pulumi", ["stack", "ls"], [{"name": f"acme/{project}/mx"} for project in projects])
        self.answer("pulumi", ["stack", "export"], {"deployment": {}})

    def remove(self, tool: str) -> None:
        (self.bin / tool).unlink()

    def answer(self, tool: str, words: list[str], reply: Any) -> None:
        """The newest answer whose words are all in the argv counts; `==word` has to be an argument as a whole."""
        code, out, err = reply if isinstance(reply, tuple) else (0, reply, "")
        self.known[tool].insert(0, (words, code, out if isinstance(out, str) else json.dumps(out), err))
        self._write_answers(tool)

    def _write_answers(self, tool: str) -> None:
        (self.home / f"{tool}.answers").write_text(json.dumps(self.known[tool]))

    def calls(self, tool: str) -> list[dict[str, Any]]:
        path = self.home / f"{tool}.calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def argvs(self, tool: str) -> list[str]:
        return [" ".join(call["argv"]) for call in self.calls(tool)]

    def has_stacks(self, *projects: str, state: str = DEPLOYED) -> None:
        """Put a state of stack mx into the file backend; one resource without secrets, unless told otherwise."""
        for project in projects:
            folder = self.backend / ".pulumi" / "stacks" / project
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "mx.json").write_text(state)

    def everything_written(self) -> str:
        """All that a run left in the state folder, as one text."""
        parts = [path.read_bytes().decode("utf-8", "replace") for path in self.state.rglob("*") if path.is_file()]
        return "\n".join(parts)


class Typed(io.StringIO):
    """Standard input of a person: a terminal with these lines."""

    def isatty(self) -> bool:
        return True


class Piped(io.TextIOWrapper):
    """Standard input of a pipe."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
