"""The protocol of an operation: one at a time, by lease, and refused once it was cancelled."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from lab.cloud import updates
from tests.unit.cloud.conftest import Caller
from tests.unit.cloud.operation import STACK, Operation, create_stack, deployment


@pytest.fixture(autouse=True)
def stack(caller: Caller) -> None:
    create_stack(caller)


def test_an_update_from_start_to_end(caller: Caller) -> None:
    update = Operation.started(caller, metadata={"message": "why", "environment": {"exec.kind": "cli"}})
    running = caller.get(STACK)
    assert (running["activeUpdate"], running["version"]) == (update.id, 1)
    assert running["currentOperation"]["kind"] == "update"
    assert running["currentOperation"]["author"] == "lab"
    assert update.checkpoint(deployment({"port": 5432})).status == 204
    summary = {"sequence": 1, "timestamp": 1, "summaryEvent": {"resourceChanges": {"create": 1}}}
    assert update.inside("POST", "events/batch", {"events": [{"sequence": 0}, summary]}).status == 200
    done = update.complete()
    assert (done.status, done.body) == (204, b"")
    ended = caller.get(STACK)
    assert (ended["activeUpdate"], "currentOperation" in ended) == ("", False)
    assert caller.get(f"{STACK}/export") == deployment({"port": 5432})
    (history,) = caller.get(f"{STACK}/updates?pageSize=10&page=1")["updates"]
    assert (history["result"], history["version"], history["message"]) == ("succeeded", 1, "why")
    assert (history["resourceChanges"], history["environment"]) == ({"create": 1}, {"exec.kind": "cli"})
    assert caller.get(f"{STACK}/updates/latest")["info"] == history


def test_previews_run_beside_an_update_and_leave_nothing(caller: Caller) -> None:
    update = Operation.started(caller)
    preview = Operation.started(caller, "preview", options={"dryRun": True})
    assert preview.token
    assert caller.get(STACK)["activeUpdate"] == update.id
    assert preview.checkpoint(deployment()).status == 400
    assert preview.complete().status == 204
    assert caller.get(STACK)["activeUpdate"] == update.id
    update.complete()
    assert len(caller.get(f"{STACK}/updates")["updates"]) == 1


def test_a_cancelled_update_is_refused_everywhere(caller: Caller) -> None:
    update = Operation.started(caller)
    update.checkpoint(deployment({"kept": True}))
    assert update.cancel().status == 204
    assert caller.get(STACK)["activeUpdate"] == ""
    refused = [
        update.renew(),
        update.checkpoint(deployment({"late": True})),
        update.inside("POST", "events/batch", {"events": []}),
        update.complete(),
    ]
    assert [reply.status for reply in refused] == [403] * 4
    assert refused[0].content["message"] == "Forbidden: The update was cancelled."
    assert caller.get(f"{STACK}/export") == deployment({"kept": True})
    assert caller.get(f"{STACK}/updates")["updates"][0]["result"] == "failed"
    assert Operation.started(caller).complete().status == 204


def test_the_next_update_does_not_take_the_cancelled_ones_token(caller: Caller) -> None:
    cancelled = Operation.started(caller)
    cancelled.cancel()
    following = Operation.started(caller)
    following.token = cancelled.token
    assert following.checkpoint(deployment()).status == 401


def test_cancelling_what_has_ended_is_a_conflict(caller: Caller) -> None:
    update = Operation.started(caller)
    update.complete()
    assert update.cancel().status == 409


def test_a_lease_that_ran_out_frees_the_stack(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "LEASE", 0)
    left = Operation.started(caller)
    monkeypatch.setattr(updates, "LEASE", 300)
    assert left.renew().status == 403
    following = Operation.started(caller)
    assert caller.get(STACK)["activeUpdate"] == following.id
    assert left.checkpoint(deployment()).status == 403
    assert [one["result"] for one in caller.get(f"{STACK}/updates")["updates"]] == ["in-progress", "failed"]


@pytest.mark.parametrize("seconds", [0, -1, 301, "300", None])
def test_a_lease_is_renewed_for_five_minutes_at_most(caller: Caller, seconds: object) -> None:
    update = Operation.started(caller)
    renewed = update.renew().content
    assert set(renewed) == {"token", "tokenExpiration"}
    assert update.inside("POST", "renew_lease", {"duration": seconds}).status == 400
    update.token = renewed["token"]
    assert update.complete().status == 204


def test_saying_the_end_twice_is_fine_and_differently_is_not(caller: Caller) -> None:
    update = Operation.started(caller)
    assert update.complete("failed").status == 204
    assert update.complete("failed").status == 204
    assert update.complete("succeeded").status == 403
    assert update.complete("perhaps").status == 400


def test_the_end_of_a_preview_may_be_said_twice(caller: Caller) -> None:
    preview = Operation.started(caller, "preview")
    assert [preview.complete().status for _ in range(2)] == [204, 204]
    preview.token = "t-0"
    assert preview.complete().status == 401


def test_an_update_is_started_once(caller: Caller) -> None:
    update = Operation.started(caller)
    assert update.start().status == 409
    missing = Operation(caller, "5a3c1e9e-0000-0000-0000-000000000000")
    assert missing.start().status == 404


def test_the_accounts_token_does_not_open_what_is_inside_an_update(caller: Caller) -> None:
    update = Operation.started(caller)
    assert caller.send("POST", f"{update.path}/complete", {"status": "succeeded"}).status == 401
    assert caller.send("GET", STACK, Authorization=f"update-token {update.token}").status == 401


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"not gzip", "gzip"),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip"),
        (b"{}", "br"),
        (b"{", ""),
        (b"[]", ""),
        (b"\xff", ""),
    ],
)
def test_a_broken_body_is_a_bad_request(caller: Caller, body: bytes, encoding: str) -> None:
    update = Operation.started(caller)
    headers = {"Authorization": f"update-token {update.token}", "Content-Encoding": encoding}
    sent = caller.send("PATCH", f"{update.path}/checkpoint", body, **headers)
    assert (sent.status, sent.content["code"]) == (400, 400)


@pytest.mark.parametrize("state", [{"version": 2, "deployment": {}}, {"version": 3, "deployment": None}, {}])
def test_a_state_that_no_export_could_be_is_refused(caller: Caller, state: dict[str, object]) -> None:
    update = Operation.started(caller)
    assert update.inside("PATCH", "checkpoint", state).status == 400


def test_only_the_last_updates_are_remembered(caller: Caller, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.cloud.stack_store.REMEMBERED", 3)
    for number in range(5):
        update = Operation.started(caller)
        update.checkpoint(deployment({"number": number}))
        update.complete()
    assert [one["version"] for one in caller.get(f"{STACK}/updates")["updates"]] == [5, 4, 3]
    assert [one["version"] for one in caller.get(f"{STACK}/updates?pageSize=2&page=2")["updates"]] == [3]
    assert caller.get(f"{STACK}/export/3") == deployment({"number": 2})
    assert caller.send("GET", f"{STACK}/export/2").status == 404
    assert len(list((folder / "stacks" / "postgresql" / "lab" / "versions").iterdir())) == 3


def test_half_an_end_frees_the_stack(caller: Caller, folder: Path) -> None:
    """The server was killed after it had written the update's end, and before the stack's."""
    update = Operation.started(caller)
    file = folder / "stacks" / "postgresql" / "lab" / "stack.json"
    before = file.read_text()
    update.complete()
    file.write_text(before)
    assert caller.get(STACK)["activeUpdate"] == ""
    assert update.complete().status == 204
    assert Operation.started(caller).complete().status == 204
    assert [one["result"] for one in caller.get(f"{STACK}/updates")["updates"]] == ["succeeded", "succeeded"]


def test_a_dead_lease_does_not_hold_up_an_import(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "LEASE", 0)
    Operation.started(caller)
    caller.post(f"{STACK}/import", deployment())
    assert [one["kind"] for one in caller.get(f"{STACK}/updates")["updates"]] == ["import", "update"]
