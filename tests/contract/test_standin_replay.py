"""The stand-in answers like the recorded real CLI: scenario by scenario, with a provider that needs no cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract import recorded_programs as P  # noqa: N812 - a table of texts
from tests.contract.replay import Scenario, Stage, replay

LAUNCHER = Path(__file__).parents[1] / "unit" / "engine" / "launcher.py"

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: lab
clusters: [{name: lab, cluster: {server: "https://127.0.0.1:6443"}}]
contexts: [{name: lab, context: {cluster: lab, user: lab}}]
users: [{name: lab, user: {token: none}}]
"""


def make_stage(root: Path) -> Stage:
    """A scratch lab (target and kubeconfig only) and the project ``sample``."""
    lab = root / "state" / "lab"
    lab.mkdir(parents=True)
    backend = f"file://{lab}/backend"
    (lab / "target.json").write_text(json.dumps({"backend": backend}))
    (lab / "kubeconfig").write_text(KUBECONFIG)
    environment = {
        "OPS_STATE": str(root / "state"),
        "PULUMI_BACKEND_URL": backend,
        "PULUMI_CONFIG_PASSPHRASE": "recorded",
        "PULUMI_HOME": str(root / "home"),
        "KUBECONFIG": str(lab / "kubeconfig"),
        "FAKE_CLUSTER": str(root / "cluster.json"),
    }
    stage = Stage(root, [sys.executable, str(LAUNCHER)], environment)
    stage.write_project("sample", sys.executable)
    stage.write_program(P.BASE)
    return stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return make_stage(tmp_path)


def new_stack(stage: Stage) -> None:
    stage.must("stack", "init", "mx")


def configured(stage: Stage) -> None:
    new_stack(stage)
    stage.must("config", "set", "--secret", "password", "-s", "mx", stdin="hunter2-correct-horse\n")
    stage.must("config", "set", "other:port", "5432", "-s", "mx")


def deployed(program: str) -> Callable[[Stage], None]:
    def prepare(stage: Stage) -> None:
        configured(stage)
        stage.write_program(program)
        stage.must("up", "-s", "mx", "--yes", "--skip-preview", "--output", "json")

    return prepare


def with_outputs_only(stage: Stage) -> None:
    """The state that scenario 08 starts from: changed labels, and a program that gives them up."""
    deployed(P.HEAD + P.LABELLED % "b" + P.EXPORTS)(stage)


def with_environment(stage: Stage) -> None:
    new_stack(stage)
    stage.must("stack", "select", "mx")
    file = stage.folder / "Pulumi.mx.yaml"
    file.write_text(file.read_text() + "environment:\n- stitch/prod\n")


def locked(stage: Stage) -> None:
    deployed(P.BASE)(stage)
    stage.write_program(P.HEAD + P.NAMESPACE)
    folder = stage.root / "state/lab/backend/.pulumi/locks/organization/sample/mx"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"pid": 8859, "username": "root", "hostname": "vm", "timestamp": "2026-11-24T02:30:00Z"}
    (folder / "6f1c7d60-1111-4222-8333-444455556666.json").write_text(json.dumps(content))


def drifted(stage: Stage) -> None:
    deployed(P.HEAD + P.NAMESPACE)(stage)


def consumer(stage: Stage) -> None:
    deployed(P.HEAD + P.NAMESPACE + P.CONFIG_MAP + P.EXPORTS)(stage)
    stage.write_project("consumer", sys.executable)


ABSENT = P.HEAD + P.NAMESPACE + 'config.require("absent")\n'
READS = P.REFERENCE + 'pulumi.export("port", producer.require_output("port"))\n'
READS_BOTH = READS + 'pulumi.export("password", producer.require_output("password"))\n'

SCENARIOS: list[tuple[Scenario, Callable[[Stage], None]]] = [
    (Scenario("01-stacks"), lambda _stage: None),
    (Scenario("02-config"), new_stack),
    (Scenario("03-preview-create"), configured),
    (Scenario("04-up-create"), configured),
    (Scenario("05-no-change"), deployed(P.BASE)),
    (Scenario("06-update-replace-delete", {0: P.CHANGED}), deployed(P.BASE)),
    (
        Scenario(
            "08-program-errors",
            {
                0: ABSENT,
                2: ABSENT.replace("require(", "require_secret("),
                3: P.HEAD + P.NAMESPACE + 'raise RuntimeError("boom")\n',
                5: "import not_there\n",
                6: "def broken(:\n",
            },
        ),
        with_outputs_only,
    ),
    (Scenario("09-passphrase"), deployed(P.BASE)),
    (
        Scenario(
            "11-protect",
            {
                0: P.HEAD + P.NAMESPACE + P.PROTECTED + P.PLAIN_EXPORTS,
                1: P.HEAD + P.NAMESPACE + P.PLAIN_EXPORTS.split("\n", 2)[0],
                4: P.HEAD + P.NAMESPACE + P.PROTECTED,
            },
        ),
        deployed(P.HEAD + P.NAMESPACE + P.PROTECTED + P.PLAIN_EXPORTS),
    ),
    (Scenario("13-esc-refused"), with_environment),
    (Scenario("14-locks", skip={0: "written by hand"}), locked),
    (Scenario("17-chart", {0: P.HEAD + P.NAMESPACE + P.CHART}), deployed(P.HEAD + P.NAMESPACE + P.GREEN + P.WEB)),
    (Scenario("18-destroy"), deployed(P.HEAD + P.NAMESPACE + P.CHART)),
]


@pytest.mark.parametrize(("scenario", "prepare"), SCENARIOS, ids=[scenario.name for scenario, _ in SCENARIOS])
def test_answers_as_recorded(scenario: Scenario, prepare: Callable[[Stage], None], stage: Stage) -> None:
    prepare(stage)

    assert replay(scenario, stage) == []


def test_stack_references_as_recorded(stage: Stage) -> None:
    """Scenario 12: a second project, and a secret output."""
    consumer(stage)
    secret = P.HEAD + P.NAMESPACE + P.CONFIG_MAP + P.SECRET + P.EXPORTS
    scenario = Scenario(
        "12-stack-reference",
        {
            0: secret,
            3: READS_BOTH,
            8: READS + 'producer.require_output("absent")\n',
            9: P.REFERENCE + 'pulumi.export("password", producer.require_output("password"))\n',
        },
    )

    assert replay(scenario, stage, only=[0]) == []
    stage.project = "consumer"
    assert replay(scenario, stage, only=range(1, 10)) == []


def test_settings_outside_the_project_as_recorded(stage: Stage) -> None:
    """Scenario 20: ``--config-file``."""
    stage.write_program(
        'import pulumi\nconfig = pulumi.Config()\npulumi.export("a", config.require("a"))\n'
        'pulumi.export("s", config.require_secret("s"))\n'
    )

    assert replay(Scenario("20-config-file"), stage) == []
    assert (stage.root / "elsewhere" / "Pulumi.lab.yaml").exists()
    assert "config:" not in (stage.folder / "Pulumi.lab.yaml").read_text()


def test_drift_as_recorded(stage: Stage) -> None:
    """Scenario 16: an object is changed by hand, then one is deleted."""
    drifted(stage)
    both = P.HEAD + P.NAMESPACE + P.WEB + P.GREEN
    scenario = Scenario("16-drift", {0: both})
    assert replay(scenario, stage, only=[0, 1]) == []

    cluster = stage.root / "cluster.json"
    objects = json.loads(cluster.read_text())
    objects["rec-sample/web"]["spec"]["replicas"] = 3
    cluster.write_text(json.dumps(objects))
    assert replay(Scenario("16-drift"), stage, only=[2, 3, 4, 5]) == []

    del objects["rec-sample/web"]
    cluster.write_text(json.dumps(objects))
    assert replay(Scenario("16-drift"), stage, only=[6]) == []
