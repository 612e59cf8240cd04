"""status: one table, also when the cluster does not answer."""

from __future__ import annotations

from typing import Any

import pytest

from runbooks.core.errors import LoginMissing, NotFound, OpsError, ToolFailed
from runbooks.stacks.status import format_time, pods_ready
from runbooks.tasks import status
from runbooks.tools.locks import Lock
from tests.fixtures import UID, Repo, exported, listing, write_locks


def pod(name: str, where: str, *, ready: bool = True, phase: str = "Running") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": name, "namespace": where}, "status": {"phase": phase, "conditions": conditions}}


@pytest.fixture
def repo(repo: Repo) -> Repo:
    repo.has_stacks("cnpg", "postgresql")
    pending = [{"type": "creating", "resource": {"urn": "urn:pulumi:mx::cnpg::a:b:C::x"}}]
    state = exported({})
    state["deployment"] |= {"manifest": {"time": "2026-11-24T07:02:03.5Z"}, "pending_operations": pending}
    repo.answer("pulumi", ["stack", "export"], {"deployment": {}})
    repo.answer("pulumi", ["cnpg", "export"], state)
    repo.answer("kubectl", ["get", "pods"], listing(pod("a", "cnpg-system"), pod("b", "cnpg-system", ready=False)))
    return repo


def rows(output: str) -> dict[str, str]:
    return {line.split()[0]: " ".join(line.split()) for line in output.splitlines() if line.strip()}


def test_one_row_a_service(repo: Repo) -> None:
    write_locks(repo.backend, "cnpg", Lock(pid=12, user="me", host="desk", since="2026-11-24T07:00:00Z"))
    status.status.body(repo.c)
    told = rows(repo.printed())
    assert told["cnpg"] == (
        "cnpg mx 2026-11-24 07:02 UTC 1 1: ./inv cancel.cnpg me@desk, pid 12, since 2026-11-24T07:00:00Z 1 of 2"
    )
    assert told["postgres"] == "postgres mx - 0 none free -"
    assert told["tailscale"] == "tailscale none - - - - -"


@pytest.mark.parametrize(
    ("said", "error"),
    [("snapshot integrity failure; it was written anyway", ToolFailed), ("[401] Unauthorized", LoginMissing)],
)
def test_a_stack_that_cannot_be_read_leaves_the_others(repo: Repo, said: str, error: type[OpsError]) -> None:
    repo.answer("pulumi", ["postgres", "export"], (255, "", f"error: {said}\n"))
    with pytest.raises(error):
        status.status.body(repo.c)
    told = rows(repo.printed())
    assert told["postgres"] == "postgres mx cannot be read - - - -"
    assert told["cnpg"].startswith("cnpg mx 2026-11-24 07:02 UTC 1 1: ./inv cancel")


def test_an_unreachable_cluster_leaves_the_stacks(repo: Repo) -> None:
    repo.answer("kubectl", ["get"], (1, "", "connection refused"))
    status.status.body(repo.c)
    output = repo.printed()
    assert f"cluster {UID[:8]}" not in output
    assert rows(output)["cnpg"].endswith("free -")


def test_the_confirmed_cluster_is_named(repo: Repo) -> None:
    status.status.body(repo.c)
    output = repo.printed()
    assert f"cluster {UID[:8]}" in output
    assert "not asked" not in output


def test_a_lab_that_does_not_run_is_not_started(repo: Repo) -> None:
    repo.c.config.ops.target = "lab"
    with pytest.raises(NotFound) as caught:
        status.status.body(repo.c)
    assert caught.value.next_step == "./inv lab.up"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2026-11-24T07:02:03.079953525+00:00", "2026-11-24 07:02 UTC"),
        ("2026-11-24T09:02:03+02:00", "2026-11-24 07:02 UTC"),
        ("0001-01-01T00:00:00Z", ""),
        ("yesterday", ""),
        ("", ""),
    ],
)
def test_when_a_state_was_written(written: str, shown: str) -> None:
    assert format_time(written) == shown


def test_pods_that_have_done_their_work_do_not_count() -> None:
    pods = listing(pod("a", "x"), pod("done", "x", ready=False, phase="Succeeded"), pod("b", "y", ready=False))
    assert pods_ready(pods, "x") == "1 of 1"
    assert pods_ready(pods, "y") == "0 of 1"
    assert pods_ready(pods, "z") == "-"


def test_a_state_is_written_nowhere(repo: Repo) -> None:
    """A chart's value in a ConfigMap is no secret to pulumi, and nobody here knows it yet."""
    leaked = {"urn": "urn:pulumi:mx::cnpg::a:b:C::x", "inputs": {"data": {"password": "hunter2-of-a-chart"}}}
    repo.answer("pulumi", ["cnpg", "export"], {"deployment": {"resources": [leaked]}})
    status.status.body(repo.c)
    assert "hunter2-of-a-chart" not in repo.everything_written()
