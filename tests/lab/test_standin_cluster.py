"""The stand-in on the lab's real cluster answers like the recorded real CLI and provider, scenario by scenario."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract import recorded_programs as P  # noqa: N812 - a table of texts
from tests.contract.replay import RECORDED, Scenario, Stage, normal, replay
from tests.lab.conftest import Lab

pytestmark = pytest.mark.lab

PULUMI = Path(__file__).parents[2] / "lab" / "bin" / "pulumi"
NO_NODE = '"spec": {"nodeSelector": {"no": "where"}, "containers"'
SLOW = P.SLOW.replace('"spec": {"containers"', NO_NODE)
"""The recording had no node to run on; the lab's nodes run everything."""

MINI = {
    "Chart.yaml": "apiVersion: v2\nname: mini\nversion: 0.1.0\n",
    "values.yaml": "colour: blue\n",
    "templates/cm.yaml": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: mini-cm\ndata:\n  colour: {{ .Values.colour }}\n"
    ),
}


@pytest.fixture
def stage(lab: Lab, tmp_path: Path) -> Iterator[Stage]:
    """The project ``sample`` with a back end of its own on the lab's cluster; its namespace goes at the end."""
    own = tmp_path / "state" / "lab"
    own.mkdir(parents=True)
    backend = f"file://{own}/backend"
    (own / "target.json").write_text(json.dumps(lab.target | {"backend": backend}))
    (own / "kubeconfig").write_text(lab.kubeconfig.read_text())
    environment = {
        "OPS_STATE": str(tmp_path / "state"),
        "PULUMI_BACKEND_URL": backend,
        "PULUMI_CONFIG_PASSPHRASE": "recorded",
        "PULUMI_HOME": str(tmp_path / "home"),
        "KUBECONFIG": str(own / "kubeconfig"),
    }
    stage = Stage(tmp_path, [str(PULUMI)], environment)
    stage.write_project("sample", sys.executable)
    for name, text in MINI.items():
        path = stage.folder / "mini" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield stage
    lab.kubectl("delete", "namespace", "rec-sample", "--ignore-not-found", "--wait", "--timeout=60s")


def new_stack(stage: Stage) -> None:
    stage.must("stack", "init", "mx")


def configured(stage: Stage) -> None:
    new_stack(stage)
    stage.must("config", "set", "--secret", "password", "-s", "mx", stdin="hunter2-correct-horse\n")
    stage.must("config", "set", "other:port", "5432", "-s", "mx")


def up(stage: Stage, program: str) -> None:
    stage.write_program(program)
    stage.must("up", "-s", "mx", "--yes", "--skip-preview", "--output", "json")


def deployed(*programs: str) -> Callable[[Stage], None]:
    """A configured stack after an update with each program."""

    def prepare(stage: Stage) -> None:
        configured(stage)
        for program in programs:
            up(stage, program)

    return prepare


SETTLED = P.HEAD + P.NAMESPACE + P.PROTECTED + P.PLAIN_EXPORTS
SCENARIOS: list[tuple[Scenario, Callable[[Stage], None]]] = [
    (Scenario("03-preview-create", {0: P.BASE}), configured),
    (Scenario("04-up-create", {0: P.BASE}), configured),
    (Scenario("05-no-change"), deployed(P.BASE)),
    (Scenario("06-update-replace-delete", {0: P.CHANGED}), deployed(P.BASE)),
    (
        Scenario(
            "11-protect",
            {
                0: SETTLED,
                1: P.HEAD + P.NAMESPACE + P.PLAIN_EXPORTS.split("\n", 2)[0],
                4: P.HEAD + P.NAMESPACE + P.PROTECTED,
            },
        ),
        deployed(P.HEAD + P.NAMESPACE + P.GREEN + P.EXPORTS, SETTLED),
    ),
    (Scenario("17-chart", {0: P.HEAD + P.NAMESPACE + P.CHART}), deployed(P.HEAD + P.NAMESPACE + P.GREEN + P.WEB)),
    (Scenario("18-destroy"), deployed(P.HEAD + P.NAMESPACE + P.CHART)),
]


@pytest.mark.parametrize(("scenario", "prepare"), SCENARIOS, ids=[scenario.name for scenario, _ in SCENARIOS])
def test_answers_as_recorded(scenario: Scenario, prepare: Callable[[Stage], None], stage: Stage) -> None:
    prepare(stage)

    assert replay(scenario, stage) == []


def test_drift_as_recorded(stage: Stage, lab: Lab) -> None:
    """Scenario 16: an object is changed by hand, then one is deleted."""
    deployed(P.HEAD + P.NAMESPACE)(stage)
    scenario = Scenario("16-drift", {0: P.HEAD + P.NAMESPACE + P.WEB + P.GREEN})
    assert replay(scenario, stage, only=[0, 1]) == []

    lab.kubectl("-n", "rec-sample", "scale", "deployment/web", "--replicas=3")
    lab.kubectl("-n", "rec-sample", "rollout", "status", "deployment/web", "--timeout=30s")
    assert replay(Scenario("16-drift"), stage, only=[2, 3, 4, 5]) == []

    lab.kubectl("-n", "rec-sample", "delete", "deployment/web")
    assert replay(Scenario("16-drift"), stage, only=[6]) == []


FRESH = 'k8s("core/v1:ConfigMap", "fresh", metadata={"name": "fresh", "namespace": "rec-sample"}, data={"a": "b"})\n'
CUSTOM = (
    'k8s("postgresql.cnpg.io/v1:Cluster", "cr", timeouts=pulumi.CustomTimeouts(create="15s"),'
    ' metadata={"name": "c", "namespace": space}, spec={"instances": 1})\n'
)
TAKEN = FRESH.replace("fresh", "taken")
"""Programs of scenario 10."""


def labelled_with_settings(stage: Stage) -> None:
    deployed(P.HEAD + P.LABELLED % "b" + P.GREEN + P.EXPORTS)(stage)


def test_an_unreachable_cluster_as_recorded(stage: Stage) -> None:
    """Scenario 10, first part: the lab's server does not answer (nothing listens on port 9)."""
    labelled_with_settings(stage)
    kubeconfig = stage.root / "state" / "lab" / "kubeconfig"
    working = json.loads((stage.root / "state" / "lab" / "target.json").read_text())
    text = kubeconfig.read_text()
    server = next(line.split(": ", 1)[1].strip() for line in text.splitlines() if line.strip().startswith("server:"))
    kubeconfig.write_text(text.replace(server, "https://127.0.0.1:9"))
    (stage.root / "bad.kubeconfig").write_text(kubeconfig.read_text())
    assert working["cluster_uid"]
    scenario = Scenario("10-cluster-trouble", {0: P.HEAD + P.NAMESPACE + FRESH})
    assert replay(scenario, stage, only=[0, 1]) == []

    kubeconfig.write_text(text)
    assert replay(scenario, stage, only=[2]) == []


def test_an_object_that_exists_as_recorded(stage: Stage, lab: Lab) -> None:
    """Scenario 10, last part."""
    deployed(P.HEAD + P.NAMESPACE + P.GREEN + P.EXPORTS)(stage)
    lab.kubectl("-n", "rec-sample", "create", "configmap", "taken")

    assert replay(Scenario("10-cluster-trouble", {5: P.HEAD + P.NAMESPACE + TAKEN}), stage, only=[5, 6]) == []


UNAVAILABLE = "[MinimumReplicasUnavailable]"
WAITING = "Waiting for app ReplicaSet to be available (0/1 Pods available)"


def interrupted(stage: Stage, *signals: signal.Signals) -> tuple[int, str, float]:
    """Signals an update that waits; its exit code, output, and seconds to its end."""
    argv = [*stage.launcher, "up", "--non-interactive", "-s", "mx", "--yes", "--skip-preview"]
    with subprocess.Popen(
        argv,
        cwd=stage.folder,
        env={**stage.environment, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if WAITING in output and UNAVAILABLE in output:
                break
        started = time.monotonic()
        for one in signals:
            process.send_signal(one)
        output += process.stdout.read()
        code = process.wait(timeout=30)
    return code, output, time.monotonic() - started


def recorded_ending(number: int, stage: Stage) -> set[str]:
    """Decisive lines of a recorded interrupted update."""
    steps = json.loads((RECORDED / "15-signals.json").read_text())["steps"]
    lines = normal(steps[number]["output"], stage).splitlines()
    return {line for line in lines if line.startswith(("    \t* ", "    error: "))}


@pytest.mark.parametrize(
    ("number", "name", "signals"),
    [(0, "one-sigint", [signal.SIGINT]), (14, "sigterm", [signal.SIGTERM])],
)
def test_an_interrupted_update_as_recorded(number: int, name: str, signals: list[signal.Signals], stage: Stage) -> None:
    """Scenario 15: the object is there, not ready, and recorded; the next runs know it."""
    deployed(P.HEAD + P.NAMESPACE)(stage)
    stage.write_program(P.HEAD + P.NAMESPACE + SLOW % name)
    code, output, seconds = interrupted(stage, *signals)
    assert code == 1, output
    assert seconds < 5.0
    assert recorded_ending(number, stage) - set(normal(output, stage).splitlines()) == set()
    after = range(number + 1, number + 7)
    assert replay(Scenario("15-signals", {number + 6: P.HEAD + P.NAMESPACE}), stage, only=after) == []


def test_a_killed_update_as_recorded(stage: Stage) -> None:
    """Scenario 15: the lock and the pending operation stay; a refresh clears the latter."""
    deployed(P.HEAD + P.NAMESPACE)(stage)
    stage.write_program(P.HEAD + P.NAMESPACE + SLOW % "sigkill")
    code, output, _ = interrupted(stage, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    steps = Scenario("15-signals").steps()
    first = next(number for number, step in enumerate(steps) if step.get("signal") == "SIGKILL") + 1
    last = Scenario("15-signals", {len(steps) - 1: P.HEAD + P.NAMESPACE})
    assert replay(last, stage, only=range(first, len(steps))) == []


USES_UID = (
    'k8s("core/v1:ConfigMap", "uses-uid", metadata={"name": "uses-uid", "namespace": space},'
    ' data={"uid": ns.metadata.apply(lambda metadata: metadata["uid"])})\n'
)


def test_generated_values_as_recorded(stage: Stage) -> None:
    """Scenario 19, without its plan files: a preview shows a made-up uid, the update the real one."""
    new_stack(stage)
    up(stage, P.HEAD + P.NAMESPACE)
    program = P.HEAD + P.NAMESPACE + USES_UID
    assert replay(Scenario("19-plan-false-violation", {3: program}), stage, only=[3, 4]) == []


SERVICE = (
    'k8s("core/v1:Service", "b", metadata={{"name": "b", "namespace": space, "labels": {{"v": "{version}"}}}},'
    ' spec={{"type": "ExternalName", "externalName": "one.example"}})\n'
)
MAP = 'k8s("core/v1:ConfigMap", "a", metadata={{"name": "{name}", "namespace": space}}, data={{"k": "1"}})\n'
ACCOUNT = 'k8s("core/v1:ServiceAccount", "d", metadata={"name": "d", "namespace": space})\n'
BAD = (
    'k8s("core/v1:Service", "bad", metadata={"name": "bad", "namespace": space},'
    ' spec={"ports": [{"port": 99999999}]})\n'
)


def test_the_event_stream_as_recorded(stage: Stage) -> None:
    """Scenario 21: creates, then an update, a replacement and a failure at once, then deletes."""
    new_stack(stage)
    uid = 'pulumi.export("uid", ns.metadata.apply(lambda metadata: metadata["uid"]))\n'
    up(stage, P.HEAD + P.NAMESPACE + USES_UID + uid)
    head = P.HEAD + P.NAMESPACE
    first = head + MAP.format(name="a") + SERVICE.format(version="1") + ACCOUNT
    second = head + MAP.format(name="a2") + SERVICE.format(version="2") + BAD
    differences = replay(Scenario("21-events", {0: first, 1: second, 4: head}), stage)
    # The recorded failure came before the replacement's last step was told, this one may come after it.
    assert [text for text in differences if not text.startswith("21-events step 2 ")] == []
    assert all("lacks events {}" in text for text in differences)
