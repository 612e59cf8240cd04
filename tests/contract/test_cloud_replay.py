"""The requests that the real `pulumi` and `esc` sent to a cloud, sent to the lab's cloud: same status, same answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.cloud import server
from tests.contract.cloud_replay import Replay, steps

STACK = "/api/stacks/organization/postgresql/prod"
RECORDINGS = {"30-cloud-stacks": 74, "31-esc": 54, "32-esc-bind": 120}
"""Each goes on from the one before it; how many requests it has."""


@contextmanager
def replay_up_to(last: str, folder: Path) -> Iterator[tuple[int, list[str]]]:
    """Replay the recordings in order, to this one, on a new cloud: how many requests that has, and the differences."""
    cloud = server.serve_in_thread(folder)
    replay = Replay(cloud.url, cloud.token)
    try:
        for name in RECORDINGS:
            sent, found = replay_one(replay, name)
            if name == last:
                break
        yield sent, found
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
    created = json.loads(replay.send("POST", f"{STACK}/update", b"{}").body)["updateID"]
    answer = json.loads(replay.send("POST", f"{STACK}/update/{created}", b"{}").body)
    replay.started, replay.update_token = created, answer["token"]


@pytest.mark.parametrize(("name", "requests"), RECORDINGS.items(), ids=str)
def test_every_recorded_exchange_is_answered_alike(tmp_path: Path, name: str, requests: int) -> None:
    with replay_up_to(name, tmp_path) as (sent, found):
        assert found == []
        assert sent == requests


def test_the_recorded_secret_is_nowhere_on_disk(tmp_path: Path) -> None:
    """Encrypted in definitions, ciphertext in deployments."""
    with replay_up_to("32-esc-bind", tmp_path):
        texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 20
    assert not any(b"from-stdin-secret" in text or b"s3cr3t-pw-long" in text for text in texts)
