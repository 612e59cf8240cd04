"""The real `pulumi` and `esc` as processes, on a lab's cloud in this process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab import toolchain
from lab.cloud import server
from tests.unit.cloud.conftest import Caller

PATIENCE = 120.0
"""Seconds after which a command counts as hanging."""
PROJECT = """\
name: {name}
runtime:
  name: python
  options:
    toolchain: pip
    virtualenv: {virtualenv}
"""


@dataclass(frozen=True)
class Scratch:
    """A project folder in which commands run. `caller` asks the cloud without them."""

    root: Path
    caller: Caller
    programs: Mapping[str, Path]
    """`pulumi`, and `esc` where it is not the user's own pulumi that runs."""
    refused: list[str]
    """What the cloud logged: requests that it has no route for."""
    project: str = ""

    @property
    def folder(self) -> Path:
        return self.root / self.project

    @property
    def environment(self) -> dict[str, str]:
        """Of every command; nothing of the user's own."""
        folders = (self.programs["pulumi"].parent, Path(sys.executable).parent, "/usr/bin", "/bin")
        return {
            "PATH": ":".join(map(str, folders)),
            "HOME": str(self.root / "home"),
            "PULUMI_HOME": str(self.root / "home" / ".pulumi"),
            "PULUMI_BACKEND_URL": self.caller.url,
            "PULUMI_ACCESS_TOKEN": self.caller.token,
            "PULUMI_CREDENTIAL_STORE": "plaintext",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # The lab's language host serves the backend of this lab only.
            "OPS_STATE": str(self.root / "state"),
        }

    def in_project(self, name: str, program: str, folder: str = "") -> Scratch:
        """The same cloud from the folder of another project, with this program."""
        other = replace(self, project=folder or name)
        other.folder.mkdir(exist_ok=True)
        (other.folder / "Pulumi.yaml").write_text(PROJECT.format(name=name, virtualenv=sys.prefix))
        other.write_program(program)
        return other

    def write_program(self, text: str) -> None:
        (self.folder / "__main__.py").write_text(text)

    def argv(self, *words: str) -> list[str]:
        """`pulumi …` or `esc …` as a command line; the user's own pulumi has the commands of esc below `env`."""
        program, *rest = words
        if program == "esc" and "esc" not in self.programs:
            return [str(self.programs["pulumi"]), "env", *(rest[1:] if rest[:1] == ["env"] else rest)]
        return [str(self.programs[program]), *rest]

    def run(
        self, *words: str, stdin: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`pulumi …` or `esc …` to its end."""
        return subprocess.run(
            self.argv(*words),
            cwd=self.folder,
            env={**self.environment, **(env or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def must(self, *words: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
        """What `pulumi WORDS` prints; a failure is an AssertionError."""
        done = self.run("pulumi", *words, stdin=stdin, env=env)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """`pulumi WORDS`, both streams in one; killed at the end where it still runs."""
        with subprocess.Popen(
            self.argv("pulumi", *words),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as child:
            try:
                yield child
            finally:
                child.kill()

    def stack(self, project: str, name: str) -> Any:
        return self.caller.get(f"/api/stacks/organization/{project}/{name}")


@contextlib.contextmanager
def open_scratch(root: Path) -> Iterator[Scratch]:
    """A scratch folder with a cloud of its own."""
    found = toolchain.resolve(print, ("pulumi", "pulumi-language-python", "esc"))
    refused: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "log", refused.append)
        cloud = server.serve_in_thread(root / "cloud")
        for folder in ("state/lab", "home"):
            (root / folder).mkdir(parents=True)
        (root / "state/lab/target.json").write_text(json.dumps({"backend": cloud.url}))
        try:
            programs = {name: tool.program for name, tool in found.items()}
            yield Scratch(root, Caller(cloud.url, cloud.token), programs, refused)
        finally:
            cloud.stop()
