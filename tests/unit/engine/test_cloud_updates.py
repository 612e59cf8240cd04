"""Updates of the pulumi stand-in on a real cloud: one at a time, cancelled, killed, and without the cloud."""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.cloud import server, updates
from lab.cloud.server import Cloud
from lab.cloud.wire import ApiError
from lab.platform import ports
from tests.contract import recorded_programs as P  # noqa: N812 - a table of texts
from tests.contract.cloud_stage import RECORDED
from tests.unit.cloud.test_server import process
from tests.unit.engine.cloud_lab import SLOW, UP, WAITS, CloudLab, is_gone, open_lab

SMALL = P.HEAD + P.NAMESPACE
SHORT = 8
"""Seconds of a lease, of which the client lets a quarter pass before it renews."""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = server.serving(tmp_path / "cloud")
    yield cloud
    cloud.stop()


@pytest.fixture
def lab(cloud: Cloud, tmp_path: Path) -> CloudLab:
    return open_lab(tmp_path / "stage", cloud.url, cloud.token)


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds instead of five minutes, so that a renewal is soon."""
    monkeypatch.setattr(updates, "LEASE", SHORT)


def recorded(step: int) -> dict[str, Any]:
    """Of the scenario with two updates at once, with our stack's name."""
    steps = json.loads((RECORDED / "30-cloud-stacks.json").read_text())["steps"]
    return {key: str(value).replace("prod", "mx") for key, value in steps[step].items() if key in ("stdout", "stderr")}


def once(text: str, words: str) -> bool:
    """In the diagnostics at the end, which repeat what was shown as it came."""
    return text.rpartition("Diagnostics:")[2].count(words) == 1


# -- two at once ---------------------------------------------------------------------------------------------------


def test_a_second_update_is_refused_as_recorded_and_previews_are_not(lab: CloudLab) -> None:
    with lab.running(*UP) as first:
        first.until(WAITS)
        lab.stage.write_program(SMALL)

        refused = lab.stage.run(UP)
        destroyed = lab.stage.run(["destroy", "-s", "mx", "--yes", "--skip-preview"])
        preview = lab.stage.run(["preview", "-s", "mx"])

        assert (refused.returncode, destroyed.returncode, preview.returncode) == (1, 1, 0)
        assert refused.stderr.split() == destroyed.stderr.split() == recorded(10)["stderr"].split()
        assert refused.stdout.split() == recorded(10)["stdout"].split()
        assert lab.stage.run(["stack", "rm", "mx", "--yes", "--force"]).returncode == 1
        first.child.send_signal(signal.SIGINT)
        assert first.end() == 1
    assert lab.stage.run(UP).returncode == 0


def test_of_two_started_together_none_loses_what_the_other_did(lab: CloudLab) -> None:
    lab.stage.write_program(SMALL)
    with lab.running(*UP) as one, lab.running(*UP) as other:
        codes = sorted((one.end(), other.end()))
        said = one.output + other.output

    assert codes in ([0, 0], [0, 1]), said
    assert ("Another update is currently in progress" in said) == (codes == [0, 1])
    assert (lab.names(), lab.objects(), lab.active) == (["ns"], ["rec-sample"], "")


def test_an_update_works_on_the_state_that_another_left_while_it_prepared(
    lab: CloudLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would make everything again, and forget what the other made."""
    lab.stage.write_program(SMALL)
    others: list[Any] = []

    def number() -> uuid.UUID:
        """Of an update that is announced; before the first one gets its own, another one runs to its end."""
        if not others:
            others.append(None)
            others[0] = lab.stage.run(UP)
        return uuid.uuid4()

    monkeypatch.setattr(updates, "uuid", SimpleNamespace(uuid4=number))

    late = lab.stage.run(UP)

    assert (others[0].returncode, late.returncode) == (0, 0), late.stderr
    assert "2 created" in others[0].stdout
    assert "2 unchanged" in late.stdout
    assert lab.names() == ["ns"]


# -- cancelled -----------------------------------------------------------------------------------------------------


def test_a_cancelled_update_notices_while_it_waits_and_stops(lab: CloudLab, short_lease: None) -> None:
    with lab.running(*UP) as update:
        program = update.until(WAITS)

        said = lab.stage.must("cancel", "--yes", "mx")
        before = lab.deployment()
        code = update.end()

    assert said == "The currently running update for 'mx' has been canceled!\n"
    assert code == 1
    assert once(update.output, "error: the cloud has ended this update: [403] Forbidden: The update was cancelled.")
    assert once(update.output, "error: update failed")
    assert is_gone(program)
    assert lab.deployment() == before
    assert (lab.names(), lab.pending(), lab.active) == (["ns"], [("creating", "slow")], "")
    assert lab.results() == ["failed"]
    again = lab.stage.run(["cancel", "--yes", "mx"])
    assert (again.returncode, again.stderr) == (1, "error: stack mx has never been updated\n")


def test_a_cancelled_update_does_nothing_that_it_could_not_record(lab: CloudLab) -> None:
    lab.gated()
    with lab.running(*UP) as update:
        update.until("ns created")

        lab.stage.must("cancel", "--yes", "mx")
        before = lab.deployment()
        lab.gate.touch()
        code = update.end()

    assert code == 1
    assert once(update.output, "[403] Forbidden: The update was cancelled.")
    assert lab.deployment() == before
    assert lab.objects() == ["rec-sample"]
    assert lab.stage.run(UP).returncode == 0
    assert lab.names() == ["late", "ns"]


def test_what_a_cancelled_update_says_late_does_not_reach_the_next_one(lab: CloudLab) -> None:
    lab.gated()
    with lab.running(*UP) as cancelled:
        cancelled.until("ns created")
        lab.stage.must("cancel", "--yes", "mx")
        with lab.running(*UP) as following:
            following.until("Updating")
            _until(lambda: lab.active, "the next update has begun")
            lab.gate.touch()
            codes = (following.end(), cancelled.end())

    assert codes == (0, 1), following.output
    assert lab.names() == ["late", "ns"]
    assert lab.results() == ["succeeded", "failed"]


@pytest.mark.parametrize("kind", ["destroy", "refresh"])
def test_other_operations_are_cancelled_too(lab: CloudLab, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between their start and their first change."""
    lab.stage.write_program(SMALL)
    lab.stage.must(*UP)
    (lab.stage.root / "cluster.json").write_text("{}" if kind == "refresh" else '{"rec-sample": {}}')
    token = updates.Updates._lease

    def cancelled(self: updates.Updates, update: Any) -> Any:
        stack = self.store.load("sample", "mx")
        if not update.is_preview:
            self.store.save_update(stack, update)
            self.store.end_update(stack, update, "cancelled")
        return token(self, update)

    monkeypatch.setattr(updates.Updates, "_lease", cancelled)

    done = lab.stage.run([kind, "-s", "mx", "--yes", "--skip-preview"])

    assert done.returncode == 1
    assert once(done.stdout, "[403] Forbidden: The update was cancelled.")
    assert lab.names() == ["ns"]
    assert lab.objects() == ([] if kind == "refresh" else ["rec-sample"])


# -- killed --------------------------------------------------------------------------------------------------------


def test_a_killed_update_stays_active_until_it_is_cancelled(lab: CloudLab) -> None:
    with lab.running(*UP) as update:
        program = update.until(WAITS)
        update.kill()

    assert is_gone(program)
    assert lab.active
    assert (lab.names(), lab.pending()) == (["ns"], [("creating", "slow")])
    refused = lab.stage.run(UP)
    assert (refused.returncode, refused.stderr.split()) == (1, recorded(10)["stderr"].split())
    assert lab.stage.run(["preview", "-s", "mx"]).returncode == 0

    lab.stage.must("cancel", "--yes", "mx")

    assert (lab.active, lab.pending()) == ("", [("creating", "slow")])
    lab.stage.must("refresh", "-s", "mx", "--yes", "--skip-preview")
    assert lab.pending(), "a create that may have happened is not forgotten silently"
    lab.stage.write_program(SMALL)
    assert "with 1 pending operations from previous deployment" in lab.stage.must(*UP)
    lab.stage.must("refresh", "-s", "mx", "--yes", "--skip-preview", "--clear-pending-creates")
    assert lab.pending() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signalled_update_records_what_it_did_and_frees_the_stack(lab: CloudLab, number: signal.Signals) -> None:
    with lab.running(*UP) as update:
        program = update.until(WAITS)
        update.child.send_signal(number)
        code = update.end()

    assert code == 1
    assert 'Resource operation was cancelled for "slow-x"' in update.output
    assert is_gone(program)
    assert (lab.names(), lab.pending(), lab.active) == (["ns", "slow"], [], "")
    assert lab.results() == ["failed"]


def test_a_second_signal_leaves_the_update_active(lab: CloudLab) -> None:
    """As a kill does, and as the lock of a file back end stays."""
    # The provider of these tests answers a cancellation at once; a resource of this name it does not.
    lab.stage.write_program(SLOW.replace("slow-x", "slow-deaf"))
    with lab.running(*UP) as update:
        program = update.until(WAITS)
        update.child.send_signal(signal.SIGINT)
        update.until("received; cancelling")
        update.child.send_signal(signal.SIGINT)
        code = update.end()

    assert code == 1
    assert is_gone(program)
    assert lab.active
    assert lab.pending() == [("creating", "slow")]


def test_a_killed_update_frees_the_stack_when_its_lease_ends(lab: CloudLab, short_lease: None) -> None:
    with lab.running(*UP) as update:
        update.until(WAITS)
        update.kill()
    lab.stage.write_program(SMALL)
    killed = lab.active

    assert lab.stage.run(UP).returncode == 1
    _until(lambda: lab.stage.run(UP).returncode == 0, "the lease has ended")

    assert killed not in ("", lab.active)
    assert lab.results()[:2] == ["succeeded", "failed"]


# -- the lease is lost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "[401] Unauthorized: No credentials provided or are invalid."),
        (403, "[403] Forbidden: The update's lease has ended."),
        (409, "[409] Conflict: The update was taken over."),
    ],
)
@pytest.mark.parametrize("where", ["renewal", "checkpoint"])
def test_a_refused_lease_ends_the_update(
    lab: CloudLab, monkeypatch: pytest.MonkeyPatch, where: str, status: int, text: str
) -> None:
    if where == "renewal":
        monkeypatch.setattr(updates, "LEASE", SHORT)
    else:
        lab.gated()
    with lab.running(*UP) as update:
        program = update.until(WAITS if where == "renewal" else "ns created")

        def refuse(_: object) -> None:
            raise ApiError(status, text.partition("] ")[2])

        monkeypatch.setattr(updates, "_refuse_without_lease", refuse)
        lab.gate.touch()
        code = update.end()

    assert code == 1
    assert once(update.output, f"error: the cloud has ended this update: {text}")
    assert update.output.rpartition("Diagnostics:")[2].count("error:") == 2, "and that the update failed"
    assert is_gone(program)
    assert lab.objects() == (["rec-sample", "rec-sample/slow-x"] if where == "renewal" else ["rec-sample"])


def test_a_state_that_the_cloud_cannot_take_ends_the_update(lab: CloudLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.gated()
    with lab.running(*UP) as update:
        update.until("ns created")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("lab.cloud.files.write_private", full)
        lab.gate.touch()
        code = update.end()

    assert code == 1
    assert once(update.output, "error: this update cannot go on: [500] Internal Server Error: see cloud.log")
    assert lab.objects() == ["rec-sample"]


# -- the cloud is away ---------------------------------------------------------------------------------------------


def test_an_update_outlives_a_cloud_that_starts_again(tmp_path: Path) -> None:
    port = ports.pick(())
    with process(tmp_path / "cloud", port) as first:
        lab = open_lab(tmp_path / "stage", f"http://127.0.0.1:{port}", (tmp_path / "cloud" / "token").read_text())
        lab.gated()
        with lab.running(*UP) as update:
            update.until("ns created")
            first.kill()
            first.wait()
            lab.gate.touch()
            with process(tmp_path / "cloud", port):
                assert update.end() == 0, update.output
                assert (lab.names(), lab.pending(), lab.active) == (["late", "ns"], [], "")
                assert lab.results() == ["succeeded"]
                assert lab.objects() == ["late", "rec-sample"]


def test_an_update_without_its_cloud_stops_and_says_so_once(tmp_path: Path) -> None:
    port = ports.pick(())
    with process(tmp_path / "cloud", port) as cloud:
        lab = open_lab(tmp_path / "stage", f"http://127.0.0.1:{port}", (tmp_path / "cloud" / "token").read_text())
        lab.gated()
        with lab.running(*UP) as update:
            program = update.until("ns created")
            cloud.kill()
            cloud.wait()
            lab.gate.touch()
            began = time.monotonic()
            code = update.end()
            seconds = time.monotonic() - began

    assert code == 1
    assert once(update.output, f"the lab's cloud does not answer at http://127.0.0.1:{port}: connection refused.")
    assert once(update.output, "`pulumi cancel` ends it at once")
    assert seconds < 45
    assert is_gone(program)
    assert lab.objects() == ["rec-sample"], "nothing is made that could not be recorded"
    with process(tmp_path / "cloud", port):
        assert (lab.names(), lab.pending()) == (["ns"], [])
        lab.stage.must("cancel", "--yes", "mx")
        assert lab.stage.run(UP).returncode == 0


def test_without_a_cloud_every_command_says_so_once(tmp_path: Path) -> None:
    port = ports.pick(())
    with process(tmp_path / "cloud", port):
        lab = open_lab(tmp_path / "stage", f"http://127.0.0.1:{port}", (tmp_path / "cloud" / "token").read_text())
    for words in (UP, ("preview", "-s", "mx"), ("stack", "ls"), ("cancel", "--yes", "mx"), ("whoami",)):
        done = lab.stage.run(words)
        assert done.returncode == 1
        assert done.stderr == (
            f"error: the lab's cloud does not answer at http://127.0.0.1:{port}: connection refused. "
            "`./inv lab.up` starts it\n"
        )


def _until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
