"""A scratch lab whose back end is a real lab cloud in this process, and recorded cloud scenarios made to fit it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.replay import Stage, compare

RECORDED = Path(__file__).parent / "recorded" / "cloud"
ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "tests" / "unit" / "engine" / "launcher.py"

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: lab
clusters: [{name: lab, cluster: {server: "https://127.0.0.1:6443"}}]
contexts: [{name: lab, context: {cluster: lab, user: lab}}]
users: [{name: lab, user: {token: none}}]
"""

PRODUCER = """
import pulumi
config = pulumi.Config()
pulumi.export("host", "postgresql-cluster-rw.postgresql.svc.cluster.local")
pulumi.export("ts_hostname", "postgresql")
pulumi.export("port", 5432)
pulumi.export("k8s_namespace", "postgresql")
pulumi.export("user", pulumi.Output.secret("postgres"))
pulumi.export("password", config.require_secret("password"))
"""

CONSUMER = """
import os
import pulumi
config, postgresql = pulumi.Config(), pulumi.Config("postgresql")
pulumi.export("host", config.require("POSTGRES_HOST"))
pulumi.export("port", postgresql.require_int("port"))
pulumi.export("password", postgresql.require_secret("password"))
pulumi.export("user", postgresql.require_secret("username"))
"""


SEES_ENVIRONMENT = """
import os
import pulumi
pulumi.export("kubeconfig", os.environ["KUBECONFIG"])
pulumi.export("port", pulumi.Config("postgresql").require("port"))
"""


@dataclass
class CloudStage(Stage):
    """``esc`` in an argv runs the esc stand-in, everything else the pulumi one."""

    def argv(self, recorded: list[str]) -> list[str]:
        program = [sys.executable, "-m", "lab.esc"] if recorded[0] == "esc" else list(self.launcher)
        return [*program, *recorded[1:]]


def make_stage(root: Path, url: str, token: str, project: str) -> CloudStage:
    """The scratch lab and one project folder, ``sample`` on disk as in the recordings."""
    lab = root / "state" / "lab"
    lab.mkdir(parents=True)
    target = {"backend": url, "organization": "organization", "cloud": {"url": url}}
    (lab / "target.json").write_text(json.dumps(target))
    (lab / "kubeconfig").write_text(KUBECONFIG)
    environment = {
        "OPS_STATE": str(root / "state"),
        "PULUMI_BACKEND_URL": url,
        "PULUMI_ACCESS_TOKEN": token,
        "PULUMI_HOME": str(root / "home"),
        "KUBECONFIG": str(lab / "kubeconfig"),
        "FAKE_CLUSTER": str(root / "cluster.json"),
        "PYTHONPATH": str(ROOT),
    }
    stage = CloudStage(root, [sys.executable, str(LAUNCHER)], environment, project="sample")
    write_project(stage, "sample", project)
    return stage


def write_project(stage: Stage, folder: str, project: str) -> None:
    stage.write_project(folder, sys.executable)
    file = stage.root / folder / "Pulumi.yaml"
    file.write_text(file.read_text().replace(f"name: {folder}", f"name: {project}"))


def steps(name: str) -> list[dict[str, Any]]:
    document = json.loads((RECORDED / f"{name}.json").read_text())
    return [_ours(step) for step in document["steps"]]


def _ours(step: dict[str, Any]) -> dict[str, Any]:
    """The recorded organization and server by the lab's, and without the notice that the real esc is retired."""
    text = json.dumps({key: value for key, value in step.items() if key != "http"})
    text = re.sub(r"\blab/(stitch|postgresql)\b", r"organization/\1", text)
    text = text.replace('"owner\\": \\"lab', '"owner\\": \\"organization')
    text = text.replace('[\\n  \\"lab\\"', '[\\n  \\"organization\\"').replace("http://127.0.0.1:18080", "$URL")
    ours: dict[str, Any] = json.loads(text.replace("$RETIRED_NOTICE\\n", "").replace("$RETIRED_NOTICE", ""))
    return ours


def definitions(stage: Stage) -> None:
    """The files below ``$ROOT/defs`` that the recorded commands read, from the requests they led to."""
    folder = stage.root / "defs"
    folder.mkdir(exist_ok=True)
    for name in ("31-esc", "32-esc-bind"):
        for step in json.loads((RECORDED / f"{name}.json").read_text())["steps"]:
            for word in step.get("argv", ()):
                if word.startswith("$ROOT/defs/"):
                    sent = [one["request"] for one in step["http"] if one["method"] == "PATCH"]
                    (folder / word.removeprefix("$ROOT/defs/")).write_text(sent[0])


def replay_steps(stage: CloudStage, name: str, only: range, programs: Mapping[int, str] | None = None) -> Iterator[str]:
    """Runs the steps; one text a difference. ``programs``: what a step runs, from that step on."""
    for number in only:
        step = steps(name)[number]
        if programs and number in programs:
            stage.write_program(programs[number])
        where = f"{name} step {number} ({' '.join(step.get('argv', ['-']))})"
        if "file" in step:
            path = Path(step["file"].replace("$ROOT", str(stage.root)))
            recorded, found = _masked(step["text"]), _masked(path.read_text())
            if recorded.split() != found.split():
                yield f"{where}: {path.name} holds {found!r}, recorded {recorded!r}"
        if "argv" not in step:
            continue
        environment = {**os.environ, **stage.environment, **step.get("env", {})}
        for variable in step.get("env_unset", ()):
            environment.pop(variable, None)
        done = subprocess.run(
            [word.replace("$ROOT", str(stage.root)) for word in stage.argv(step["argv"])],
            cwd=stage.folder,
            env={key: value.replace("$ROOT", str(stage.root)) for key, value in environment.items()},
            input=step.get("stdin"),
            stdin=None if "stdin" in step else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        yield from (f"{where}: {text}" for text in compare(step, done, stage))


def _masked(text: str) -> str:
    return re.sub(r"secure: \S+", "secure: …", text)
