"""Verification of an app and of what it needs, deployed in a lab; then one part broken after the other."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from runbooks.checks import apps, cert_manager, cf_tunnel, inside, of_service, tailscale
from tests.lab.command_line import Deployed

from .test_verify import House, scaled_down

pytestmark = pytest.mark.lab

TUNNEL = ("cloudflare-tunnel", "cloudflare-tunnel-ingress-controller")


@pytest.fixture(scope="module")
def house(whole: Deployed) -> House:
    """A lab with everything: Postgres, tailnet and tunnel behind one app."""
    assert whole.said.code == 0, whole.said.all
    return House(whole.checkout.state_dir)


def findings(house: House, name: str, code: int) -> dict[str, dict[str, Any]]:
    """What `verify.NAME` shows, by check; of a check that is shown twice, what did not pass."""
    done = house.inv("--json", f"verify.{name}")
    assert done.returncode == code, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    shown = [event for event in events if "check" in event]
    shown.sort(key=lambda event: event["state"] != "passed")
    return {event["check"]: event for event in shown}


def failed(house: House, name: str, check: str) -> dict[str, Any]:
    found = findings(house, name, 4)[check]
    assert found["state"] == "failed", found
    assert found["cause"]
    return found


def password(house: House) -> str:
    words = ("get", "secret", "n8n-database", "-n", "n8n", "-o", "jsonpath={.data.DB_POSTGRESDB_PASSWORD}")
    return base64.b64decode(house.kubectl(*words)).decode()


@contextmanager
def changed_role(house: House, change: str, back: str) -> Iterator[None]:
    login = {"host": "127.0.0.1", "port": house.port, "user": "postgres", "password": house.password}
    with psycopg.connect(**login, dbname="n8n", connect_timeout=5, autocommit=True) as connection:
        connection.execute(change)
        try:
            yield
        finally:
            connection.execute(back)


def test_everything_deployed_is_verified_and_only_the_listed_stays_untried(house: House) -> None:
    done = house.inv("--json", "verify.all")
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    untried = {event["check"] for event in events if event.get("state") == "not tried"}
    assert untried <= of_service.LAB_UNTRIED
    assert {inside.ANSWERS, inside.CONNECTED, cert_manager.CERTIFICATES_VALID, tailscale.DEVICE_IS_PEER} <= untried
    assert not [event for event in events if event.get("state") == "failed"]


def test_the_apps_own_role_is_tried_for_real(house: House) -> None:
    found = findings(house, "n8n", 0)
    assert found[apps.OWN_SQL]["evidence"] == f"n8n in n8n at localhost:{house.port}"
    assert found[inside.ANSWERS]["state"] == "not tried"
    assert found[inside.ANSWERS]["evidence"].startswith("simulated pod")


def test_a_role_that_may_not_log_in(house: House) -> None:
    with changed_role(house, "alter role n8n nologin", "alter role n8n login"):
        assert "not permitted to log in" in failed(house, "n8n", apps.OWN_SQL)["evidence"]


def test_a_database_of_somebody_else(house: House) -> None:
    with changed_role(house, "alter database n8n owner to postgres", "alter database n8n owner to n8n"):
        assert "may not make tables" in failed(house, "n8n", apps.OWN_SQL)["evidence"]


def test_a_password_that_pods_get_and_the_server_does_not_know(house: House) -> None:
    right = password(house)
    wrong = base64.b64encode(b"Canary0Wrong0Password").decode()
    words = ("patch", "secret", "n8n-database", "-n", "n8n", "--type=merge", "-p")
    house.kubectl(*words, json.dumps({"data": {"DB_POSTGRESDB_PASSWORD": wrong}}))
    try:
        found = failed(house, "n8n", apps.OWN_SQL)
    finally:
        kept = base64.b64encode(right.encode()).decode()
        house.kubectl(*words, json.dumps({"data": {"DB_POSTGRESDB_PASSWORD": kept}}))
    assert "password authentication failed" in found["evidence"]
    written = b"".join(path.read_bytes() for path in (house.state_dir / "runs").rglob("*") if path.is_file())
    assert b"Canary0Wrong0Password" not in written
    assert right.encode() not in written


def test_a_tunnel_whose_controller_is_gone(house: House) -> None:
    with scaled_down(house, *TUNNEL):
        assert "0 of 0" in failed(house, "cf-tunnel", cf_tunnel.CONTROLLER_READY)["evidence"]


def test_a_public_ingress_that_leads_nowhere(house: House) -> None:
    words = ("patch", "ingress", "n8n-webhooks", "-n", "n8n", "--type=json", "-p")
    name = "/spec/rules/0/http/paths/0/backend/service/name"
    house.kubectl(*words, json.dumps([{"op": "replace", "path": name, "value": "gone"}]))
    try:
        for service in ("cf-tunnel", "n8n"):
            assert "Service gone, which is not there" in failed(house, service, cf_tunnel.ROUTED)["evidence"]
    finally:
        house.kubectl(*words, json.dumps([{"op": "replace", "path": name, "value": "n8n-main"}]))


def test_all_is_well_again(house: House) -> None:
    assert house.inv("verify.all").returncode == 0
