"""Which backend a plugin serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.plugins.postgresql.service import refusal

CLOUD = "http://127.0.0.1:8400"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a shell after `lab.env`."""
    lab = tmp_path / "state" / "lab"
    lab.mkdir(parents=True)
    (lab / "target.json").write_text(json.dumps({"backend": CLOUD, "file_backend": f"file://{lab}/backend"}))
    return {"OPS_STATE": str(tmp_path / "state"), "PULUMI_BACKEND_URL": CLOUD}


def test_the_backends_of_the_lab_are_served(environment: dict[str, str]) -> None:
    files = f"file://{environment['OPS_STATE']}/lab/backend"
    assert refusal(environment) == ""
    assert refusal(environment | {"PULUMI_BACKEND_URL": files}) == ""


@pytest.mark.parametrize("other", ["", "file:///srv/stacks", "https://api.pulumi.com", "http://127.0.0.1:84000"])
def test_another_backend_is_refused(environment: dict[str, str], other: str) -> None:
    text = refusal(environment | {"PULUMI_BACKEND_URL": other})
    assert f"seen: PULUMI_BACKEND_URL is {other or 'not set'}" in text
    assert f"OPS_STATE={environment['OPS_STATE']}" in text
    assert "pulumi plugin install resource postgresql" in text


@pytest.mark.parametrize("state", ["", "/nowhere"])
def test_without_a_lab_nothing_is_served(environment: dict[str, str], state: str) -> None:
    assert refusal(environment | {"OPS_STATE": state})


def test_a_damaged_target_is_a_refusal(environment: dict[str, str]) -> None:
    (Path(environment["OPS_STATE"]) / "lab" / "target.json").write_text("[")
    assert refusal(environment)
