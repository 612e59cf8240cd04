"""Verification against the real thing: a deployed lab, then one part broken after the other."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.platform import ports
from runbooks.checks import postgres, sql
from tests.lab.command_line import Deployed

ROOT = Path(__file__).parents[2]
PATIENCE = 1200
"""Seconds a command may take on a busy machine before the test gives up."""

pytestmark = pytest.mark.lab


class House:
    """The command line on a lab of its own, and kubectl beside it."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.lab_dir = state_dir / "lab"

    def inv(self, *words: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OPS_")}
        return subprocess.run(
            [sys.executable, ROOT / "tasks.py", *words],
            cwd="/",
            env={**kept, "OPS_STATE": str(self.state_dir)},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )

    @property
    def target_file(self) -> Path:
        return self.lab_dir / "target.json"

    @property
    def target(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.target_file.read_text())
        return content

    def kubectl(self, *words: str) -> str:
        argv = [self.target["tools"]["kubectl"], f"--kubeconfig={self.lab_dir / 'kubeconfig'}", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300)
        return done.stdout

    @property
    def password(self) -> str:
        words = ("get", "secret", "postgresql-cluster-superuser", "-n", "postgresql", "-o", "jsonpath={.data.password}")
        return base64.b64decode(self.kubectl(*words)).decode()

    @property
    def port(self) -> int:
        return int(self.target["settings"]["postgresql"]["postgresql:port"])


@pytest.fixture(scope="module")
def house(deployed: Deployed) -> House:
    assert deployed.said.code == 0, deployed.said.all
    return House(deployed.checkout.state_dir)


def test_everything_is_verified_with_evidence(house: House) -> None:
    done = house.inv("verify.all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the server answers SQL as the exported user: PostgreSQL 18" in done.stdout
    for name in ("tailscale", "cnpg", "postgres"):
        assert f"verify.{name}: verified: " in done.stdout
    row = next(
        line.split() for line in done.stdout.splitlines() if line.startswith("postgresql/postgresql-cluster-rw-ext")
    )
    assert row == ["postgresql/postgresql-cluster-rw-ext", "localhost", "ok", "ok", "--", "--", "--"]
    assert "FAIL" not in done.stdout


def test_what_the_lab_cannot_try_is_said_and_counted(house: House) -> None:
    done = house.inv("--json", "verify.postgres")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    untried = {event["check"]: event["evidence"] for event in events if event.get("state") == "not tried"}
    assert untried == {
        "this machine sees the device as a peer": "the lab has no tailnet",
        "its name resolves to the device's address": "the lab has no tailnet",
    }
    (verdict,) = [event for event in events if event["event"] == "verdict"]
    assert verdict["ok"] is True
    assert verdict["summary"].endswith("0 failed, 2 not tried")


def test_no_run_leaves_the_password_anywhere(house: House) -> None:
    done = house.inv("verify.postgres")
    written = b"".join(path.read_bytes() for path in (house.state_dir / "runs").rglob("*") if path.is_file())
    assert house.password not in done.stdout + done.stderr
    assert house.password.encode() not in written
    left = {path.name for path in (house.state_dir / "runs").rglob("*") if path.is_file()}
    assert left == {"journal.jsonl"}


# --- one part broken after the other -----------------------------------------------------------------------------


@contextmanager
def scaled_down(house: House, namespace: str, deployment: str) -> Iterator[None]:
    where = (f"--namespace={namespace}", f"deployment/{deployment}")
    house.kubectl("scale", *where, "--replicas=0")
    try:
        yield
    finally:
        house.kubectl("scale", *where, "--replicas=1")
        house.kubectl("rollout", "status", *where, "--timeout=180s")


@contextmanager
def renamed(house: House) -> Iterator[None]:
    annotate = ("annotate", "service", "postgresql-cluster-rw-ext", "-n", "postgresql", "--overwrite")
    house.kubectl(*annotate, "tailscale.com/hostname=elsewhere")
    try:
        yield
    finally:
        house.kubectl(*annotate, "tailscale.com/hostname=localhost")


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def changed(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    before = path.read_text()
    path.write_text(change(before))
    try:
        yield
    finally:
        path.write_text(before)


def failed_check(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 4, done.stdout + done.stderr
    assert "error: not verified" in done.stderr
    return next(line for line in done.stdout.splitlines() if "FAIL" in line)


def test_an_operator_that_is_gone(house: House) -> None:
    with scaled_down(house, "cnpg-system", "cnpg-cloudnative-pg"):
        done = house.inv("verify.postgres")
    assert "the CloudNativePG operator is ready" in failed_check(done)
    assert "likely cause:" in done.stdout
    assert "kubectl -n cnpg-system get deploy,pods" in done.stderr


def test_a_name_that_is_not_the_exported_one(house: House) -> None:
    with renamed(house):
        done = house.inv("verify.postgres")
    assert "it asks for elsewhere, exported is localhost" in failed_check(done)
    assert "verify ts_hostname" in done.stdout


def test_a_stack_that_is_not_there(house: House) -> None:
    with moved_away(house.lab_dir / "cloud/stacks/postgresql/lab/stack.json"):
        done = house.inv("verify.postgres")
    assert "there is no such stack yet" in failed_check(done)
    assert "./inv deploy.postgres" in done.stderr


# --- the guard, through the real command line ---------------------------------------------------------------------


def test_another_cluster_is_refused(house: House) -> None:
    uid = house.target["cluster_uid"]
    with changed(house.target_file, lambda text: text.replace(uid, "00000000-dead-beef-0000-000000000000")):
        done = house.inv("verify.postgres")
    assert done.returncode == 5, done.stdout + done.stderr
    assert f"wrong cluster: context 'lab' leads to https://127.0.0.1:{_server_port(house)}" in done.stderr
    assert uid in done.stderr
    assert "00000000-dead-beef" in done.stderr


@pytest.mark.parametrize("context", ["", "absent"])
def test_a_context_that_is_not_there_is_refused(house: House, context: str) -> None:
    with changed(house.target_file, lambda text: text.replace('"context": "lab"', f'"context": "{context}"')):
        done = house.inv("preview.all")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "context" in done.stderr


def test_a_server_that_does_not_answer_is_refused(house: House) -> None:
    closed = ports.pick(())
    with changed(house.lab_dir / "kubeconfig", lambda text: text.replace(str(_server_port(house)), str(closed))):
        done = house.inv("preview.all")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "the API server does not answer" in done.stderr
    assert house.target["cluster_uid"] in done.stderr
    assert "preview" not in done.stdout


def _server_port(house: House) -> int:
    words = ("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    return int(house.kubectl(*words).rpartition(":")[2])


# --- SQL on the real server -----------------------------------------------------------------------------------------


def login(house: House, **changes: Any) -> sql.Login:
    given = {"host": "localhost", "port": house.port, "user": "postgres", "password": house.password}
    return sql.Login(**(given | changes))


def test_the_real_server_tells_its_version(house: House) -> None:
    assert sql.select_version(login(house)).startswith("PostgreSQL 18")
    assert sql.select_version(login(house, address="127.0.0.1", host="any.name.at.all")).startswith("PostgreSQL 18")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"password": "wrong-password"}, "the exported password is not the server's"),
        ({"user": "nobody"}, "the exported password is not the server's"),
        ({"database": "absent"}, "not the expected one"),
    ],
)
def test_the_real_server_refuses(house: House, changes: dict[str, str], cause: str) -> None:
    with pytest.raises(sql.SqlFailed) as caught:
        sql.select_version(login(house, **changes))
    assert cause in caught.value.cause


def test_the_listener_is_the_labs_own_server(house: House) -> None:
    found = postgres.listeners(house.port)
    assert postgres.all_within(found, house.lab_dir)
    assert not postgres.all_within(found, house.lab_dir / "backend")
