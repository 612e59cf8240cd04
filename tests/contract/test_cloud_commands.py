"""The recorded commands of scenarios 30, 31 and 32, run by the real CLIs on the lab's cloud.

Same exit code, and every decisive line of the recorded answer on the same stream. The recording is of pulumi 3.260 and
esc 0.26 on a sketch of a cloud, so what is known to differ stands in `DIFFERS` with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract import scratch
from tests.contract.cloud_replay import steps
from tests.contract.scratch import Scratch
from tests.fixtures import until

PRODUCER = """
import pathlib, time
import pulumi
config = pulumi.Config()
gate = config.get("gate")
class Part(pulumi.ComponentResource):
    pass
if gate:
    Part("sample:index:Part", "before")
    pathlib.Path(gate + ".reached").touch()
    while not pathlib.Path(gate).exists():
        time.sleep(0.02)
    Part("sample:index:Part", "after")
pulumi.export("host", "postgresql-cluster-rw.postgresql.svc.cluster.local")
pulumi.export("ts_hostname", "postgresql")
pulumi.export("port", 5432)
pulumi.export("k8s_namespace", "postgresql")
pulumi.export("user", pulumi.Output.secret("postgres"))
pulumi.export("password", config.require_secret("password"))
"""
CONSUMER = """
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
assert os.environ["KUBECONFIG"] == "/of/the/environment"
pulumi.export("port", pulumi.Config("postgresql").require("port"))
"""


@dataclass(frozen=True, kw_only=True)
class Differs:
    """A step that need not be as recorded: also this exit code, and without these lines."""

    reason: str
    exit: int | None = None
    lacks: tuple[str, ...] = ()


FROM_PATH = Differs(
    reason="the recorded provider came from PATH", lacks=('"diagnostics": [', '"severity": "warning"', "diagnostics:")
)
SHORT = "the recorded user and organization had one name, so names lacked it"
ENDS_WITH_1 = Differs(reason="newer CLIs end with 1 when an environment does not evaluate", exit=1)
DIFFERS = {
    ("30-cloud-stacks", 4): FROM_PATH,
    ("30-cloud-stacks", 9): Differs(
        reason="the recorded server kept no history",
        lacks=('"environment": {}', '"config": {}', '"resourcechanges": {}'),
    ),
    ("31-esc", 0): Differs(reason="the version", lacks=("v0.26.0",)),
    ("31-esc", 2): Differs(reason=SHORT, lacks=("stitch/prod",)),
    ("31-esc", 3): Differs(reason=SHORT, lacks=('"stitch/prod"',)),
    ("31-esc", 14): ENDS_WITH_1,
    ("31-esc", 15): ENDS_WITH_1,
    ("31-esc", 17): ENDS_WITH_1,
    ("31-esc", 18): ENDS_WITH_1,
    ("31-esc", 22): Differs(
        reason="the recorded server stored secrets in plaintext",
        lacks=("fn::secret: from-stdin-secret", "- yaml:16:13"),
    ),
    ("32-esc-bind", 9): FROM_PATH,
    ("32-esc-bind", 13): Differs(
        reason="newer CLIs bind it all the same; the recorded server gave no code with its diagnostics",
        exit=0,
        lacks=("error: [0]", 'diags: environment "stitch/none" not found'),
    ),
    ("32-esc-bind", 17): FROM_PATH,
    ("32-esc-bind", 20): Differs(
        reason="the recorded server did not name the imported environment",
        lacks=('yaml:3:5: stack "postgresql/none" not found',),
    ),
}

MOMENTARY = re.compile(r"\$|\"?[Dd]uration|\"(?:magic|version|time|start|end)|Last updated|127.0.0.1")
"""Lines of the recording that only that moment could have written."""
PROGRESS = re.compile(r"^(?:@ |(?:[+~-]+ )?pulumi:pulumi:stack )")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    with scratch.open_scratch(tmp_path_factory.mktemp("cloud")) as opened:
        write_definitions(opened.root / "defs")
        yield opened
        assert opened.refused == []


def write_definitions(folder: Path) -> None:
    """The files below `$ROOT/defs` that the recorded commands read, from the requests they led to."""
    folder.mkdir()
    for step in (*steps("31-esc"), *steps("32-esc-bind")):
        for word in step.get("argv", ()):
            if word.startswith("$ROOT/defs/"):
                sent = next(one["request"] for one in step["http"] if one["method"] == "PATCH")
                (folder / word.removeprefix("$ROOT/defs/")).write_text(sent)


def recorded(name: str) -> list[dict[str, Any]]:
    """The steps, with the lab's organization for the recorded one, and without the notice that esc is retired."""
    bare = [{key: value for key, value in step.items() if key != "http"} for step in steps(name)]
    text = re.sub(r"\blab/(stitch|postgresql)\b", r"organization/\1", json.dumps(bare))
    text = text.replace('\\"owner\\": \\"lab', '\\"owner\\": \\"organization').replace(
        '\\n  \\"lab\\"', '\\n  \\"organization\\"'
    )
    found: list[dict[str, Any]] = json.loads(text.replace("$RETIRED_NOTICE\\n", ""))
    return found


def replay(at: Scratch, name: str, only: Sequence[int]) -> list[str]:
    """Runs steps of a recording; one text for each difference."""
    return [text for number in only for text in differences(at, name, number)]


def differences(at: Scratch, name: str, number: int) -> Iterator[str]:
    step = recorded(name)[number]
    allowed = DIFFERS.get((name, number), Differs(reason=""))
    if "file" in step:
        found = Path(step["file"].replace("$ROOT", str(at.root))).read_text()
        missing = missing_lines(step["text"], found)
    elif "argv" in step:
        env = {key: value.replace("$ROOT", str(at.root)) for key, value in step.get("env", {}).items()}
        words = [word.replace("$ROOT", str(at.root)) for word in step["argv"]]
        done = at.run(*words, stdin=step.get("stdin"), env=env | dict.fromkeys(step.get("env_unset", ()), ""))
        found = f"{done.stdout}\n{done.stderr}"
        missing = missing_lines(step["stdout"], done.stdout) + missing_lines(step["stderr"], done.stderr)
        if done.returncode not in (step["exit"], allowed.exit):
            yield f"{name} step {number} ({' '.join(words)}): exit {done.returncode}, recorded {step['exit']}:\n{found}"
    else:
        return
    if missing := [line for line in missing if line not in allowed.lacks]:
        yield f"{name} step {number} ({step.get('argv', step.get('file'))}): lacks {missing}:\n{found}"


def missing_lines(wanted: str, found: str) -> list[str]:
    """Lines of the recorded text that the answer lacks; layout, colons, case and order apart."""
    given = {comparable(line) for line in found.splitlines()}
    lines = [line for line in wanted.splitlines() if line.strip() and not MOMENTARY.search(line)]
    return [line for line in map(comparable, lines) if line not in given and not PROGRESS.search(line)]


def comparable(line: str) -> str:
    line = re.sub(r"(secure|ciphertext)\"?: \S+", r"\1", line)
    return " ".join(line.casefold().rstrip(",").split())


PARTS = ("stacks", "a second update and a cancelled one", "environments", "binding")


@pytest.fixture(scope="module")
def replayed(cloud: Scratch) -> dict[str, list[str]]:
    """The differences of each part of the recording, which goes on from the one before it."""
    producer = cloud.in_project("postgresql", PRODUCER, folder="sample")
    parts = (replay_stacks, replay_cancelled, replay_environments, replay_binding)
    return {name: part(producer) for name, part in zip(PARTS, parts, strict=True)}


def replay_stacks(producer: Scratch) -> list[str]:
    """Scenario 30 up to the update that another one holds up."""
    return replay(producer, "30-cloud-stacks", range(10))


def replay_cancelled(producer: Scratch) -> list[str]:
    """The rest of it. The recording server did not end a cancelled run, the lab's cloud does."""
    gate = producer.root / "gate"
    producer.must("config", "set", "gate", str(gate), "-s", "prod")
    with producer.running("up", "--yes", "--skip-preview", "--non-interactive", "-s", "prod") as update:
        until(lambda: update.poll() is not None or gate.with_suffix(".reached").exists(), "the gate", scratch.PATIENCE)
        assert update.poll() is None, update.communicate()
        found = replay(producer, "30-cloud-stacks", [10, 11])
        before = producer.must("stack", "export", "-s", "prod")
        gate.touch()
        output, _ = update.communicate(timeout=scratch.PATIENCE)
    assert update.returncode != 0
    assert "failed to save snapshot: [403] Forbidden: The update was cancelled." in output
    assert producer.must("stack", "export", "-s", "prod") == before
    found += replay(producer, "30-cloud-stacks", [13])
    producer.must("config", "rm", "gate", "-s", "prod")
    again = producer.must("up", "--yes", "--skip-preview", "--output", "json", "-s", "prod")
    assert json.loads(again)["result"] == "succeeded"
    return found


def replay_environments(producer: Scratch) -> list[str]:
    return replay(producer, "31-esc", range(24))


def replay_binding(producer: Scratch) -> list[str]:
    (producer.folder / "Pulumi.prod.yaml").unlink()
    consumer = producer.in_project("stitch", CONSUMER, folder="sample")
    found = replay(consumer, "32-esc-bind", range(14))
    if "stitch/none" in (consumer.folder / "Pulumi.prod.yaml").read_text():
        consumer.must("config", "env", "rm", "stitch/none", "--yes", "-s", "prod")
    found += replay(consumer, "32-esc-bind", range(14, 17))
    # Not in the recording, but in what its next preview showed.
    consumer.must("env", "set", "organization/stitch/odd", "environmentVariables.KUBECONFIG", "/of/the/environment")
    consumer.write_program(SEES_ENVIRONMENT)
    return found + replay(consumer, "32-esc-bind", range(17, 23))


@pytest.mark.parametrize("part", PARTS)
def test_every_command_ends_as_recorded(replayed: dict[str, list[str]], part: str) -> None:
    assert not replayed[part], "\n".join(replayed[part])
