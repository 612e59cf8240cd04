"""The whole platform by one command, again, and Stitch's environment taken away and given back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from runbooks.checks.of_service import LAB_UNTRIED
from runbooks.services import SERVICES, find_service
from tests.lab.command_line import Checkout, Deployed, changed, git_status

pytestmark = pytest.mark.lab

STITCH = find_service("stitch")
IN_CLUSTER = "postgresql-cluster-rw.postgresql.svc.cluster.local"


def settings(checkout: Checkout) -> str:
    return checkout.settings_file("stitch").read_text()


def test_one_command_brings_everything_up_and_proves_it(whole: Deployed) -> None:
    result = whole.result
    for service in SERVICES:
        result.shows(f"{service.name}: applied, ")
        (verdict,) = [
            each for each in result.stdout.splitlines() if each.startswith(f"verify.{service.name}: verified")
        ]
        assert " 0 failed, " in verdict
    result.shows("blocked: waits for postgres")
    assert (result.stderr, whole.changed_files) == ("", "")
    password = whole.checkout.superuser_password
    assert password not in result.all and whole.checkout.in_runs(password) == []


def test_again_nothing_is_to_do(checkout: Checkout) -> None:
    result = checkout.inv("--json", "deploy.all").ends_with(0)
    (summary,) = [event for event in result.events if event["event"] == "summary"]
    assert sorted(summary["unchanged"]) == sorted(service.name for service in SERVICES)
    assert summary["applied"] == summary["failed"] == summary["not_started"] == []
    verdicts = [event for event in result.events if event["event"] == "verdict"]
    assert [verdict["service"] for verdict in verdicts if not verdict["ok"] or verdict["failed"]] == []
    assert {check for verdict in verdicts for check in verdict["not_tried"]} == LAB_UNTRIED
    assert git_status(checkout.root) == ""


def test_a_preview_of_what_changed(checkout: Checkout) -> None:
    checkout.inv("preview.changed").ends_with(0).shows("Changed since it was last applied from here: ")


def test_everything_stitch_gets_comes_from_its_environment(checkout: Checkout) -> None:
    """And from nowhere else: its stack file holds no setting but the lab's own."""
    written = yaml.safe_load(settings(checkout))
    assert written["environment"] == ["stitch/prod"]
    assert set(written["config"]) == {"stitch:protect"}
    opened = checkout.inv("--json", "esc.open", "stitch/prod").ends_with(0)
    given: dict[str, Any] = {
        event["path"].removeprefix("pulumiConfig"): event for event in opened.events if event.get("path")
    }
    for key in STITCH.environment_keys:
        (held,) = [event for path, event in given.items() if path.strip('.["]') == key.key]
        assert held["secret"] == key.is_secret, key.key
    assert checkout.secret("stitch", "stitch-database")["POSTGRES_HOST"] == IN_CLUSTER
    deployment = checkout.get("deployment", "stitch", "-n", "stitch")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert [source["secretRef"]["name"] for source in container["envFrom"]] == ["stitch-database", "stitch"]
    assert container["image"].startswith("ghcr.io/example/stitch:")
    assert {entry["name"] for entry in container["env"]} == {"PORT"}


def test_unbound_bound_and_bound_again(checkout: Checkout) -> None:
    before = settings(checkout)
    comments = [line for line in before.splitlines() if line.startswith("#")]
    assert comments, "the template has a comment to lose"

    checkout.inv("esc.unbind", "stitch/prod").ends_with(0)
    unbound = checkout.inv("preview.stitch", "--only")
    assert unbound.code == 2, unbound.all
    missing = [key.key for key in STITCH.environment_keys if key.key not in unbound.all]
    assert missing == [], unbound.all
    assert "esc.bind stitch/prod" in unbound.all

    for _ in range(2):
        checkout.inv("esc.bind", "stitch/prod").ends_with(0)
    after = settings(checkout)
    assert yaml.safe_load(after)["environment"] == ["stitch/prod"]
    assert [line for line in after.splitlines() if line.startswith("#")] == comments
    assert yaml.safe_load(after) == yaml.safe_load(before)

    checkout.inv("deploy.stitch", "--only").ends_with(0)
    assert git_status(checkout.root) == ""


def test_a_value_that_changes_reaches_the_pod(checkout: Checkout) -> None:
    """Set from standard input; the old one goes nowhere, the new one is in no file but the lab's own state."""
    value = "Canary0Of0The0Twitch0Application"
    result = checkout.inv("esc.set", "stitch/prod", "pulumiConfig.twitch_client_secret", stdin=value).ends_with(0)
    deployed = checkout.inv("deploy.stitch", "--only").ends_with(0)
    assert value not in result.all + deployed.all
    assert checkout.secret("stitch", "stitch")["TWITCH_CLIENT_SECRET"] == value
    assert checkout.in_runs(value) == []


def test_an_apply_keeps_what_was_set(checkout: Checkout) -> None:
    before = checkout.secret("stitch", "stitch")
    checkout.inv("esc.apply", "stitch/prod").ends_with(0)
    checkout.inv("preview.stitch", "--only", "--expect-no-changes").ends_with(0)
    assert checkout.secret("stitch", "stitch") == before


def test_wiring_holds(checkout: Checkout) -> None:
    for consumer in (service for service in SERVICES if service.reads_outputs_of):
        checkout.inv(f"wire.{consumer.name}").ends_with(0).shows("postgres exports")


def test_a_missing_reference_is_set_again(checkout: Checkout) -> None:
    reference = "immich:postgres_stack: organization/postgresql/lab"
    with changed(checkout.settings_file("immich"), lambda text: text.replace(reference, "immich:unset: x")):
        checkout.inv("preview.immich", "--only").ends_with(2, "immich:postgres_stack")
        checkout.inv("wire.immich").shows("immich:postgres_stack set to organization/postgresql/lab")
    checkout.inv("deploy.immich").ends_with(0)


def test_drift_is_found_and_reported(checkout: Checkout) -> None:
    path = "/spec/ports/0/port"
    patch = ("patch", "service", "glance", "-n", "glance", "--type=json", "-p")
    port = checkout.get("service", "glance", "-n", "glance")["spec"]["ports"][0]["port"]
    other, back = (json.dumps([{"op": "replace", "path": path, "value": value}]) for value in (8099, port))
    with checkout.changed((*patch, other), (*patch, back)):
        checkout.inv("drift.glance").ends_with(7, "glance").shows("Service glance", "8099")
    checkout.inv("drift.all").ends_with(0)


@pytest.mark.parametrize("words", [("rollback.immich", "--to", "HEAD"), ("rollback.postgres", "--to", "HEAD")])
def test_a_rollback_to_the_files_that_are_applied_changes_nothing(checkout: Checkout, words: tuple[str, ...]) -> None:
    checkout.inv(*words).ends_with(0).shows(f"unchanged: {words[0].partition('.')[2]}")
    assert git_status(checkout.root) == ""


def test_status_shows_all_of_them(checkout: Checkout) -> None:
    result = checkout.inv("--json", "status").ends_with(0)
    rows = {event["service"]: event for event in result.events if event["event"] == "service"}
    assert set(rows) == {service.name for service in SERVICES}
    assert {row["stack"] for row in rows.values()} == {"lab"}
    assert {row["lock"] for row in rows.values()} == {"free"}
    assert {row["pending"] for row in rows.values()} == {"none"}
