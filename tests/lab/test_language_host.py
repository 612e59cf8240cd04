"""The lab's Python language host under the real CLI: how programs are found, started and stopped, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import toolchain
from runbooks.core.search_path import cache_folder
from tests.lab.command_line import processes_naming, until

pytestmark = pytest.mark.lab

VENV = Path(sys.prefix)
PROJECT = """\
name: sample
main: {main}
runtime:
  name: python
  options:
    toolchain: {toolchain}
    virtualenv: {venv}
"""
SAYS = "import pulumi\npulumi.log.warn(pulumi.Config().get('word') or 'none')\n"


@dataclass(frozen=True)
class Project:
    """A project on a file backend that counts as a lab's."""

    root: Path
    pulumi: Path

    def write(self, program: str, *, main: str = ".", toolchain: str = "uv", venv: Path = VENV) -> None:
        folder = self.root / "project"
        (folder / main).mkdir(parents=True, exist_ok=True)
        (folder / "Pulumi.yaml").write_text(PROJECT.format(main=main, toolchain=toolchain, venv=venv))
        (folder / main / "__main__.py").write_text(program)

    @property
    def environment(self) -> dict[str, str]:
        strange = ("PULUMI_", "OPS_", "VIRTUAL_")
        return {name: value for name, value in os.environ.items() if not name.startswith(strange)} | {
            "OPS_STATE": str(self.root / "state"),
            "PULUMI_BACKEND_URL": f"file://{self.root}/backend",
            "PULUMI_HOME": str(self.root / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "a passphrase",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "UV_FROZEN": "1",
            "UV_OFFLINE": "1",
            "PATH": os.pathsep.join([os.environ["PATH"], *map(str, cache_folder().glob("uv-*/bin"))]),
        }

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        argv = [self.pulumi, "-C", self.root / "project", *words, "--non-interactive"]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(argv, env=self.environment | more, text=True, **streams)

    def run(self, *words: str, **more: str) -> tuple[int, str]:
        child = self.start(*words, **more)
        output, _ = child.communicate(timeout=300)
        return child.returncode, output


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("language-host")
    for folder in ("backend", "home", "state/lab"):
        (root / folder).mkdir(parents=True)
    backend = f"file://{root}/backend"
    (root / "state/lab/target.json").write_text(json.dumps({"backend": backend, "file_backend": backend}))
    made = Project(root, toolchain.resolve(print, ["pulumi", "pulumi-language-python"])["pulumi"].program)
    made.write(SAYS)
    code, output = made.run("stack", "init", "lab")
    assert code == 0, output
    return made


@pytest.mark.parametrize(
    ("toolchain", "main", "config"),
    [("uv", ".", ()), ("pip", ".", ()), ("uv", "source/deep", ()), ("uv", ".", ("--config", "word=a b'c\"d"))],
    ids=["uv", "pip", "a program in another folder", "config"],
)
def test_a_program_runs(project: Project, toolchain: str, main: str, config: tuple[str, ...]) -> None:
    project.write(SAYS, toolchain=toolchain, main=main)
    code, output = project.run("preview", "--json", *config)
    assert code == 0, output
    messages = [each["message"] for each in json.loads(output)["diagnostics"]]
    assert f"warning: {config[1].partition('=')[2] if config else 'none'}\n" in messages


@pytest.mark.parametrize(
    ("program", "change", "words"),
    [
        ("import sys\nsys.exit(3)\n", {}, ["program exited with non-zero exit code: 3"]),
        ("raise RuntimeError('boom')\n", {}, ["Program failed with an unhandled exception:", "RuntimeError: boom"]),
        ("pulumi.Config().require('absent')\n", {}, ["sample:absent", "pulumi config set", "exit code: 1"]),
        (SAYS, {"venv": Path("/dev/null/venv")}, ["/dev/null/venv", "virtual"]),
        (SAYS, {"toolchain": "conda"}, ["unsupported toolchain option: conda"]),
    ],
    ids=["exit code", "exception", "setting", "no environment", "no such toolchain"],
)
def test_the_failure_of_a_program_is_reported_as_recorded(
    project: Project, program: str, change: dict[str, Any], words: list[str]
) -> None:
    project.write(f"import pulumi\n{program}", **change)
    code, output = project.run("preview")
    assert code != 0
    assert [word for word in words if word not in output] == [], output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_program_stops_with_its_engine(project: Project, number: signal.Signals, tmp_path: Path) -> None:
    """Cancelled gracefully, or gone from one moment to the next: no program goes on."""
    started = tmp_path / "started"
    project.write(f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(600)\n")
    child = project.start("preview")
    until(lambda: started.exists() or child.poll() is not None, "the program runs")
    child.send_signal(number)
    child.communicate(timeout=60)
    mark = f"PULUMI_HOME={project.root}/home"
    until(lambda: not processes_naming(mark), f"everything ends: {processes_naming(mark)}")
