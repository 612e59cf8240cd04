"""The cloud as a component of the lab: where the target says, with its token, and back with its state after a crash."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lab import platform
from tests.lab.command_line import Lab, kill
from tests.lab.refused_routes import refused_routes
from tests.unit.cloud.conftest import Caller

pytestmark = pytest.mark.lab

ENVIRONMENT = "/api/esc/environments/organization/tried/lab"


def caller(lab: Lab) -> Caller:
    return Caller(lab.target["backend"], Path(lab.target["token_file"]).read_text())


def component(lab: Lab) -> platform.ComponentStatus:
    return next(one for one in platform.status(lab.state_dir) if one.name == "cloud")


def test_the_target_leads_to_the_cloud(lab: Lab) -> None:
    assert caller(lab).get("/api/user")["githubLogin"] == "lab"
    token = Path(lab.target["token_file"])
    assert token == lab.lab_dir / "cloud" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert caller(lab).url == f"http://127.0.0.1:{component(lab).port}"


def test_it_comes_back_with_everything_after_a_crash(lab: Lab) -> None:
    account = caller(lab)
    account.post("/api/esc/environments/organization", {"project": "tried", "name": "lab"})
    assert account.send("PATCH", ENVIRONMENT, b"values: {a: {fn::secret: kept-secret}}").status == 200
    before = component(lab)
    assert before.pid is not None
    kill(before.pid)
    platform.up(lab.state_dir, print)
    after = component(lab)
    assert after.ready
    assert (after.port, after.pid != before.pid) == (before.port, True)
    again = caller(lab)
    assert again.token == account.token
    session = again.post(f"{ENVIRONMENT}/open")["id"]
    assert again.get(f"{ENVIRONMENT}/open/{session}")["properties"]["a"]["value"] == "kept-secret"


def test_a_refused_request_is_found_in_its_log(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert caller(lab).send("GET", "/api/none").status == 404
    (found,) = refused_routes(tmp_path_factory.getbasetemp())
    assert found.endswith("GET '/api/none': no such route")


def test_it_is_small(lab: Lab) -> None:
    """With its evaluator, which the test before has started."""
    memory = component(lab).memory
    assert memory is not None
    assert memory < 60 * 1024 * 1024
