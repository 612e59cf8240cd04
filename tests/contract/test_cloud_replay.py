"""The stand-ins for pulumi and esc on a cloud answer like the recorded real ones: scenarios 30, 31 and 32."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab.cloud import server
from tests.contract.cloud_stage import (
    CONSUMER,
    PRODUCER,
    SEES_ENVIRONMENT,
    CloudStage,
    definitions,
    make_stage,
    replay_steps,
    write_project,
)

BETTER = {
    r"30-cloud-stacks step 7 .*has besides \['lastUpdate', 'updateInProgress'\]": "the recorded server kept no times",
    r"30-cloud-stacks step 9 .*has besides \['(create|postgresql:password)'\]": "the recorded server kept no history",
    r"31-esc step 0 .*v0.26.0-lab.standin": "the stand-in is named for what it is",
    r"31-esc step 22 .*'\"\[secret\]\"'.*'ciphertext: ": "the recorded server stored secrets in clear",
    r"32-esc-bind step 10 .*using pulumi-resource-": "the stand-in takes no provider from PATH",
    r"32-esc-bind step 13 .*'error: \[400\] evaluation failed', 'Diags: environment \"stitch/none\" not found'": (
        "the recorded server gave no code"
    ),
    r"32-esc-bind step 17 .*kubeconfig: \"\$TMP    port": "the recording lost a line end",
    r"32-esc-bind step 20 .*'stitch/prod:3:5: stack \"postgresql/none\" not found'": (
        "the recorded server told no names of imported environments"
    ),
}
"""Differences from the recording that are meant to be, and why."""


def unexpected(differences: Iterator[str]) -> list[str]:
    return [text for text in differences if not any(re.match(pattern, text, re.DOTALL) for pattern in BETTER)]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Cloud]:
    cloud = server.serving(tmp_path_factory.mktemp("cloud") / "cloud")
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def stage(cloud: server.Cloud, tmp_path_factory: pytest.TempPathFactory) -> CloudStage:
    stage = make_stage(tmp_path_factory.mktemp("stage"), cloud.url, cloud.token, "postgresql")
    stage.write_program(PRODUCER)
    definitions(stage)
    return stage


def test_stacks_as_recorded(stage: CloudStage) -> None:
    """Scenario 30 up to the update that another one holds up."""
    differences = unexpected(replay_steps(stage, "30-cloud-stacks", range(10)))

    assert not differences, "\n".join(differences)


def test_environments_as_recorded(stage: CloudStage) -> None:
    differences = unexpected(replay_steps(stage, "31-esc", range(24)))

    assert not differences, "\n".join(differences)


def test_binding_as_recorded(stage: CloudStage) -> None:
    write_project(stage, "sample", "stitch")
    (stage.folder / "Pulumi.prod.yaml").unlink()
    stage.write_program(CONSUMER)

    differences = unexpected(replay_steps(stage, "32-esc-bind", range(23), {17: SEES_ENVIRONMENT}))

    assert not differences, "\n".join(differences)
