"""A copy of the checkout with one service more, `probe`, whose program each test writes itself; and a real target.

The target `home` is real to the toolkit (it is in targets.yaml, nothing on it is made unasked). Behind it stand the
lab's cluster and backend, and a person's `pulumi` on PATH, or one that writes down every signal it gets.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from runbooks.tools.pulumi_home import LANGUAGE_HOST
from tests.lab.command_line import Checkout, Result

PROVIDER = "pulumi-resource-kubernetes"
SERVICE = """

SERVICES = (
    *SERVICES,
    Service(name="probe", folder="probe", about="what a test makes of it", namespace="default", checks=("nothing",)),
)
"""
CHECKS = """

from runbooks.core.findings import State

CHECKS = {**CHECKS, "nothing": lambda *_: [Finding(check="a test may try anything", state=State.PASSED)]}
"""
PROJECT = """\
name: probe
runtime:
  name: python
  options:
    toolchain: uv
    virtualenv: ../../.venv
"""
DECLARED = """\
class Settings:
    token: str = secret("any text", generated=True)
    note: str = secret("any text of several lines", generated=True)
"""
SETTINGS = """\
# Written by a person, kept by every tool.
config:
  charts:source: lab/charts # where charts come from
  # a plain setting
  probe:word: plain
"""
PASSPHRASE = "the-passphrase-of-the-probe"
PULUMI = """\
#!/bin/sh
# The lab's plugins serve only where OPS_STATE leads to their lab, and the toolkit does not say so on a real target.
OPS_STATE={state}
export OPS_STATE
exec {pulumi} "$@"
"""
RECORDER = """\
#!{python} -B
import os, signal, subprocess, sys

child = subprocess.Popen([{pulumi!r}, *sys.argv[1:]], process_group=0)


def pass_on(number, frame):
    with open({file!r}, "a") as file:
        file.write(f"{{os.getpid()}} {{signal.Signals(number).name}}\\n")
    child.send_signal(number)


signal.signal(signal.SIGINT, pass_on)
signal.signal(signal.SIGTERM, pass_on)
sys.exit(child.wait())
"""

CONFIG_MAP = """\
import pulumi
from pulumi_kubernetes.core.v1 import ConfigMap

config = pulumi.Config()
ConfigMap("probe", metadata={{"name": f"probe-{{pulumi.get_stack()}}"}}, data={{"word": {word!r}}})
pulumi.export("word", config.get("word") or "none")
"""
DEPLOYMENT = """\
from pulumi_kubernetes.apps.v1 import Deployment

labels = {{"app": "probe"}}
containers = [{{"name": "main", "image": "registry.example/probe:1"}}]
template = {{"metadata": {{"labels": labels, "annotations": {annotations!r}}}, "spec": {{"containers": containers}}}}
spec = {{"replicas": 1, "selector": {{"matchLabels": labels}}, "template": template}}
Deployment("probe", metadata={{"name": "probe"}}, spec=spec)
"""
HELD = {"lab.homelab-ops/hold": "true"}
"""Annotations of pods that never get ready in the lab."""
BUSY_IN_PREVIEW = """\
import pathlib, time
import pulumi

pathlib.Path({started!r}).touch()
while pulumi.runtime.is_dry_run() and not pathlib.Path({gate!r}).exists():
    time.sleep(0.05)
"""


class ProbeCheckout(Checkout):
    """The checkout with the probe."""

    def __init__(self, root: Path, state_dir: Path) -> None:
        super().__init__(root, state_dir)
        self.real = root.with_name(f"{root.name}-real-bin")
        self.recorder = root.with_name(f"{root.name}-recorder-bin")
        self.signals_file = root.with_name(f"{root.name}-signals")
        self.passphrase = root.with_name(f"{root.name}-passphrase")
        self.project = root / "pulumi" / "probe"
        self._add_probe()
        self._add_pulumi()
        self.passphrase.write_text(PASSPHRASE + "\n")
        self.passphrase.chmod(0o600)
        self.write_target()

    def _add_probe(self) -> None:
        self.project.mkdir()
        for name, text in (("Pulumi.yaml", PROJECT), ("Pulumi.lab.yaml", SETTINGS), ("Pulumi.mx.yaml", SETTINGS)):
            (self.project / name).write_text(text)
        (self.project / "settings.py").write_text(DECLARED)
        self.write_program(CONFIG_MAP.format(word="first"))
        for name, more in (("services.py", SERVICE), ("checks/of_service.py", CHECKS)):
            with (self.root / "runbooks" / name).open("a") as module:
                module.write(more)

    def write_target(self, **changes: str) -> None:
        lab = self.target
        entry = {key: lab[key] for key in ("kubeconfig", "context", "cluster_uid")}
        entry |= {"stack": "mx", "backend": lab["file_backend"], "organization": "organization"}
        entry |= {"passphrase_file": str(self.passphrase)}
        kept = {key: value for key, value in (entry | changes).items() if value != "absent"}
        text = yaml.safe_dump({"default": "lab", "targets": {"home": kept}}, sort_keys=False)
        (self.root / "targets.yaml").write_text("# mine\n" + text)

    def _add_pulumi(self) -> None:
        """A person's pulumi, with language host and provider; and one that writes down each signal and passes it on."""
        pulumi = Path(self.target["tools"]["pulumi"]).resolve()
        provider = (self.lab_dir / "bin" / PROVIDER).resolve()
        self._add_program(self.real, PULUMI.format(state=self.state_dir, pulumi=pulumi))
        python, plain = self.root / ".venv/bin/python", str(self.real / "pulumi")
        self._add_program(self.recorder, RECORDER.format(python=python, pulumi=plain, file=str(self.signals_file)))
        for folder in (self.real, self.recorder):
            (folder / LANGUAGE_HOST).symlink_to(pulumi.with_name(LANGUAGE_HOST))
            (folder / PROVIDER).symlink_to(provider)

    def _add_program(self, folder: Path, text: str) -> None:
        folder.mkdir()
        (folder / "pulumi").write_text(text)
        (folder / "pulumi").chmod(0o755)

    # --- what tests do with it --------------------------------------------------------------------------------------

    def write_program(self, text: str) -> None:
        (self.project / "__main__.py").write_text(text)

    @property
    def with_pulumi(self) -> dict[str, str]:
        """The environment with the person's pulumi first on PATH: it then serves every target."""
        return {"PATH": f"{self.real}:{self.environment()['PATH']}"}

    @property
    def with_recorder(self) -> dict[str, str]:
        """The same with the pulumi that records signals."""
        return {"PATH": f"{self.recorder}:{self.environment()['PATH']}"}

    def at_home(self, *words: str, **more: Any) -> Result:
        """`./inv --target home WORDS`."""
        return self.inv("--target", "home", *words, env=self.with_pulumi | more.pop("env", {}), **more)

    def make_stack_at_home(self) -> None:
        """The probe's stack on the real target, with its secrets, made the way a person makes it."""
        words, question = ("--target", "home", "stack.init", "probe"), ("Create organization/probe/mx?", "y")
        made = self.typed(*words, answers=[question], env=self.with_pulumi)
        made.ends_with(0).shows("secrets.set probe token --generate")
        for key in ("token", "note"):
            self.at_home("secrets.set", "probe", key, "--generate").ends_with(0)

    @property
    def signals(self) -> list[str]:
        """The signals that each pulumi got, as `PID NAME`."""
        return self.signals_file.read_text().splitlines() if self.signals_file.exists() else []

    def forget_probe(self) -> None:
        """Take away what earlier tests made of the probe: objects, stacks, settings, signals, program.

        The lab's stack is in its cloud, that of the target `home` in its file backend.
        """
        self.kubectl("delete", "--ignore-not-found", "deployment/probe", "configmap/probe-lab", "configmap/probe-mx")
        backend = self.lab_dir / "backend" / ".pulumi"
        for folder in (*backend.glob("*/probe"), *backend.glob("locks/organization/probe")):
            shutil.rmtree(folder)
        shutil.rmtree(self.lab_dir / "cloud" / "stacks" / "probe", ignore_errors=True)
        shutil.rmtree(self.lab_dir / "stacks" / "probe", ignore_errors=True)
        for record in self.state_dir.glob("applied/*/probe.json"):
            record.unlink()
        self.signals_file.unlink(missing_ok=True)
        (self.project / "Pulumi.mx.yaml").write_text(SETTINGS)
        self.write_target()
        self.write_program(CONFIG_MAP.format(word="first"))
