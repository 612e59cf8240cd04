"""Deployments through the real command line, on a lab of their own: first, again, held, broken, stopped, destroyed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import platform
from lab.platform import ports
from lab.platform.record import Record

ROOT = Path(__file__).parents[2]
PATIENCE = 600
"""Seconds a deployment may take on a busy machine before the test gives up."""

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Bench:
    """`./inv` on a lab in a state folder of its own."""

    state_dir: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OPS_")}
        return {**kept, "OPS_STATE": str(self.state_dir), **more}

    def inv(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / "inv", *words], cwd="/", env=self.environment(**more), capture_output=True, text=True, check=False,
            timeout=PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def events(self, *words: str) -> tuple[int, list[dict[str, Any]]]:
        done = self.inv("--json", *words)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def settings(self, project: str) -> Path:
        return self.state_dir / "lab/stacks" / project / "Pulumi.lab.yaml"

    def locks(self, project: str) -> Path:
        return self.state_dir / "lab/backend/.pulumi/locks/organization" / project / "lab"

    def state(self, project: str) -> Path:
        return self.state_dir / "lab/backend/.pulumi/stacks" / project / "lab.json"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    state_dir = tmp_path_factory.mktemp("deployments")
    (state_dir / "lab").mkdir(mode=0o700)
    Record(ports={"postgres": ports.pick(())}).save(state_dir / "lab" / "lab.json")
    try:
        platform.up(state_dir, print)
        yield Bench(state_dir)
    finally:
        platform.reset(state_dir, print)


@pytest.fixture(scope="module")
def first(bench: Bench) -> subprocess.CompletedProcess[str]:
    """The first deployment of Postgres and all it needs."""
    return bench.inv("deploy.postgres")


@pytest.fixture
def deployed(bench: Bench, first: subprocess.CompletedProcess[str]) -> Bench:
    assert first.returncode == 0, first.stdout + first.stderr
    return bench


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def held_by(bench: Bench, project: str, pid: int, host: str = "") -> Path:
    folder = bench.locks(project)
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "11111111-2222-3333-4444-555555555555.json"
    holder = {
        "pid": pid,
        "username": "somebody",
        "hostname": host or socket.gethostname(),
        "timestamp": "2100-01-01T00:00:00Z",
    }
    lock.write_text(json.dumps(holder))
    return lock


def test_first_deployment_ends_with_evidence(first: subprocess.CompletedProcess[str]) -> None:
    assert first.returncode == 0, first.stdout + first.stderr
    assert "PostgreSQL 18" in first.stdout
    assert "applied: " in first.stdout and "postgres: verified" in first.stdout
    for words in ("+  cnpg", "+  postgres", "Cluster postgresql-cluster"):
        assert words in first.stdout
    assert first.stderr == ""


def test_second_run_changes_nothing_and_says_so(deployed: Bench) -> None:
    code, events = deployed.events("deploy.postgres")
    assert code == 0
    kinds = [event["event"] for event in events]
    assert kinds[0] in {"target", "announce", "line"} and "plan" in kinds and "verdict" in kinds
    summary = next(event for event in events if event["event"] == "summary")
    assert summary["unchanged"] == ["tailscale", "cnpg", "postgres"] and summary["applied"] == []
    assert all(event["state"] in {"in progress", "done"} for event in events if event["event"] == "step")


def test_working_tree_stays_clean(deployed: Bench) -> None:
    status = ["git", "status", "--short", "--", "pulumi", "charts.yaml", "targets.yaml"]
    before = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    deployed.inv("preview.all")
    assert subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=True).stdout == before


def test_expect_no_changes(deployed: Bench) -> None:
    assert deployed.inv("preview.postgres", "--expect-no-changes").returncode == 0
    settings = deployed.settings("postgresql")
    with changed(settings, settings.read_text().replace("storage_size: 1Gi", "storage_size: 9Gi")):
        done = deployed.inv("preview.postgres", "--only", "--diff", "--expect-no-changes")
    assert done.returncode == 7, done.stdout + done.stderr
    assert "postgres would change" in done.stderr
    assert "spec.storage.size" in done.stdout and "9Gi" in done.stdout


def test_outputs_are_masked(deployed: Bench) -> None:
    done = deployed.inv("outputs.postgres")
    assert done.returncode == 0
    assert "postgresql-cluster-rw.postgresql.svc.cluster.local" in done.stdout
    assert done.stdout.count("[secret]") == 3


def test_lock_of_a_living_process_stops_the_run_and_stays(deployed: Bench) -> None:
    lock = held_by(deployed, "postgresql", os.getpid())
    settings = deployed.settings("postgresql")
    try:
        with changed(settings, settings.read_text().replace("storage_size: 1Gi", "storage_size: 9Gi")):
            done = deployed.inv("deploy.postgres", "--only")
        assert done.returncode == 5, done.stdout + done.stderr
        assert f"process {os.getpid()}" in done.stderr and "./inv cancel.postgres" in done.stderr
        refused = deployed.inv("cancel.postgres")
        assert refused.returncode == 5 and "goes on" in refused.stderr
        assert lock.exists()
    finally:
        lock.unlink()


def test_lock_of_a_dead_process_is_removed_on_demand(deployed: Bench) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    lock = held_by(deployed, "postgresql", gone.pid)
    done = deployed.inv("cancel.postgres")
    assert done.returncode == 0, done.stderr
    assert "it is gone" in done.stdout and not lock.exists()
    assert deployed.inv("deploy.postgres", "--only").returncode == 0


def test_lock_of_another_machine_needs_a_person(deployed: Bench) -> None:
    lock = held_by(deployed, "postgresql", 1, host="elsewhere")
    try:
        done = deployed.inv("cancel.postgres")
        assert done.returncode == 8 and "somebody on elsewhere" in done.stdout
        assert lock.exists()
    finally:
        lock.unlink()


def test_wrong_passphrase(deployed: Bench) -> None:
    with changed(deployed.state_dir / "lab/passphrase", "wrong-passphrase-4711"):
        done = deployed.inv("preview.postgres", "--only")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "passphrase" in done.stderr and "4711" not in done.stdout + done.stderr


def test_setting_that_the_program_refuses(deployed: Bench) -> None:
    settings = deployed.settings("postgresql")
    with changed(settings, settings.read_text().replace("config:", "config:\n  postgresql:instances: many", 1)):
        done = deployed.inv("deploy.postgres", "--only")
    assert done.returncode in {1, 2}, done.stdout + done.stderr
    assert "instances" in done.stderr and "Traceback" not in done.stderr


def test_needed_service_is_not_destroyed(deployed: Bench) -> None:
    for name in ("cnpg", "tailscale"):
        done = deployed.inv(f"destroy.{name}")
        assert done.returncode == 5, done.stdout + done.stderr
        assert "postgres still stands" in done.stderr and "./inv destroy.postgres" in done.stderr


@pytest.mark.parametrize(("sent", "ends"), [(signal.SIGINT, 8), (signal.SIGTERM, 8), (signal.SIGKILL, -signal.SIGKILL)])
def test_stopped_update_is_finished_by_the_next_one(deployed: Bench, sent: signal.Signals, ends: int) -> None:
    """One signal while the update runs: it ends gracefully, leaves no lock, and the same command goes on.

    Also when the wrapper itself is killed: then the update gets its one signal from the guard that waits beside it.
    """
    destroyed = deployed.inv("destroy.postgres")
    assert destroyed.returncode == 0, destroyed.stdout + destroyed.stderr
    child = subprocess.Popen(
        [ROOT / "inv", "--json", "deploy.postgres", "--only"], cwd="/", env=deployed.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    watchdog = threading.Timer(PATIENCE, child.kill)
    watchdog.start()
    assert child.stdout is not None
    events = []
    for line in child.stdout:
        events.append(json.loads(line))
        if events[-1].get("title", "").startswith("apply") and events[-1].get("state") == "in progress":
            _wait(lambda: locked(deployed) or child.poll() is not None)
            child.send_signal(sent)
    code = child.wait()
    child.communicate()
    watchdog.cancel()
    assert code == ends, events[-5:]
    _wait(lambda: not locked(deployed))
    again = deployed.inv("deploy.postgres", "--only")
    assert again.returncode == 0, again.stdout + again.stderr


def locked(bench: Bench) -> bool:
    return bool(list(bench.locks("postgresql").glob("*.json")))


def _wait(ready: Callable[[], bool]) -> None:
    """Until it is; polls in short turns, and gives up after `PATIENCE`."""
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, "waited too long"
        pause.wait(0.02)
