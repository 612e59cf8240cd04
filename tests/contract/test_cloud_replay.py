"""The requests that the real `pulumi` and `esc` sent to a cloud, sent to the lab's cloud: same status, same answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cloud import server
from tests.contract.cloud_replay import Replay, steps

STACK = "/api/stacks/organization/postgresql/prod"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cloud")


@pytest.fixture(scope="module")
def replay(folder: Path) -> Iterator[Replay]:
    cloud = server.serving(folder)
    yield Replay(cloud.url, cloud.token)
    cloud.stop()


def start_update(replay: Replay) -> None:
    """The recording left out the run that the next `up` meets and `cancel` ends."""
    created = json.loads(replay.send("POST", f"{STACK}/update", b"{}").body)["updateID"]
    answer = json.loads(replay.send("POST", f"{STACK}/update/{created}", b"{}").body)
    replay.started, replay.update_token = created, answer["token"]


@pytest.mark.parametrize(
    ("scenario", "exchanges"), [("30-cloud-stacks", 74), ("31-esc", 54), ("32-esc-bind", 120)], ids=lambda one: str(one)
)
def test_every_recorded_exchange_is_answered_alike(replay: Replay, scenario: str, exchanges: int) -> None:
    """The three recordings go on from one another, so they run in this order."""
    found, sent = [], 0
    for number, step in enumerate(steps(scenario)):
        if scenario == "30-cloud-stacks" and step.get("argv", [])[:2] == ["pulumi", "up"] and number > 5:
            start_update(replay)
        for recorded in step.get("http", ()):
            sent += 1
            found += [f"step {number} ({' '.join(step['argv'])}): {text}" for text in replay.exchange(recorded)]
    assert found == []
    assert sent == exchanges


def test_the_recorded_secret_is_nowhere_on_disk(replay: Replay, folder: Path) -> None:
    """Encrypted in definitions, ciphertext in deployments."""
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert len(texts) > 20
    assert not any(b"from-stdin-secret" in text or b"s3cr3t-pw-long" in text for text in texts)
