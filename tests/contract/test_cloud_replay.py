"""The requests that the real `pulumi` and `esc` sent to a cloud, sent to the lab's cloud: same status, same answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cloud import server
from tests.contract.cloud_replay import Replay, steps
from tests.unit.cloud.conftest import Caller

STACK = "/api/stacks/organization/postgresql/prod"
RECORDINGS = {"30-cloud-stacks": 74, "31-esc": 54, "32-esc-bind": 120}
"""Each goes on from the one before it; how many requests it has."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cloud")


@pytest.fixture(scope="module")
def replayed(folder: Path) -> dict[str, tuple[int, list[str]]]:
    """Replay all recordings in order on a new cloud: of each, how many requests it has, and the differences."""
    cloud = server.serve_in_thread(folder)
    replay = Replay(Caller(cloud.url, cloud.token))
    try:
        return {name: replay_one(replay, name) for name in RECORDINGS}
    finally:
        cloud.stop()


def replay_one(replay: Replay, name: str) -> tuple[int, list[str]]:
    sent, found = 0, []
    for number, step in enumerate(steps(name)):
        if name == "30-cloud-stacks" and step.get("argv", [])[:2] == ["pulumi", "up"] and number > 5:
            start_update(replay)
        for recorded in step.get("http", ()):
            sent += 1
            found += [f"step {number} ({' '.join(step['argv'])}): {text}" for text in replay.exchange(recorded)]
    return sent, found


def start_update(replay: Replay) -> None:
    """The recording left out the run that the next `up` meets and `cancel` ends."""
    created = replay.caller.post(f"{STACK}/update")["updateID"]
    answer = replay.caller.post(f"{STACK}/update/{created}")
    replay.started, replay.update_token = created, answer["token"]


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_exchange_is_answered_alike(replayed: dict[str, tuple[int, list[str]]], name: str) -> None:
    assert replayed[name] == (RECORDINGS[name], [])


@pytest.mark.usefixtures("replayed")
def test_the_recorded_secret_is_nowhere_on_disk(folder: Path) -> None:
    """Encrypted in definitions, ciphertext in deployments."""
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert len(texts) > 20
    assert not any(b"from-stdin-secret" in text or b"s3cr3t-pw-long" in text for text in texts)
