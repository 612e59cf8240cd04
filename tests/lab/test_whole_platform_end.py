"""One setting of every service is changed, then every service is taken down. Comes last: nothing is left to test on."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runbooks.services import SERVICES
from runbooks.stacks.service import Service
from tests.lab.command_line import Checkout

pytestmark = pytest.mark.lab

CHANGED: dict[str, tuple[str, Any]] = {
    "tailscale": ("hostname", "other-operator"),
    "cf-tunnel": ("connectors", 2),
    "cert-manager": ("acme_email", "somebody@example.org"),
    "cnpg": ("pod_monitor", True),
    "postgres": ("parameters", {"max_connections": "200", "work_mem": "8MB"}),
    "n8n": ("timezone", "Europe/Berlin"),
    "glance": ("title", "Rehearsal"),
    "immich": ("machine_learning", False),
    "stitch": ("health_path", "/ready"),
    "temporal": ("retention", "4d"),
    "monitoring": ("retention", "10d"),
    "clickhouse": ("storage_size", "30Gi"),
    "superset": ("workers", 2),
    "jupyterhub": ("memory_limit", "3G"),
}
"""A plain setting of each, and another value for it."""


def test_one_changed_setting_of_every_service_is_applied_and_proven(checkout: Checkout) -> None:
    assert sorted(CHANGED) == sorted(service.name for service in SERVICES)
    for service in SERVICES:
        path = checkout.root / "pulumi" / service.folder / "Pulumi.lab.yaml"
        settings = yaml.safe_load(path.read_text()) or {}
        key, value = CHANGED[service.name]
        settings.setdefault("config", {})[f"{service.project_name}:{key}"] = value
        path.write_text(yaml.safe_dump(settings))

    checkout.inv("preview.all", "--expect-no-changes").ends_with(7)
    applied = checkout.inv("--json", "deploy.all").ends_with(0)
    (summary,) = [event for event in applied.events if event["event"] == "summary"]
    assert sorted(summary["applied"]) == sorted(CHANGED), applied.all
    assert summary["unchanged"] == []
    verdicts = [event for event in applied.events if event["event"] == "verdict"]
    assert [verdict["service"] for verdict in verdicts if not verdict["ok"]] == []


@pytest.mark.parametrize("service", SERVICES[::-1], ids=lambda service: service.name)
def test_every_service_is_taken_down(checkout: Checkout, service: Service) -> None:
    """In the opposite order of the list, in which each comes after what it needs."""
    checkout.inv(f"destroy.{service.name}").ends_with(0)
    resources = checkout.deployment(service.project_name).get("resources") or []
    assert [each["urn"] for each in resources if not each["urn"].endswith("-lab")] == []


def test_nothing_of_the_platform_is_left_in_the_cluster(checkout: Checkout) -> None:
    """But for the definitions of kinds that charts keep on purpose."""
    namespaces = checkout.get("namespaces")["items"]
    left = {each["metadata"]["name"] for each in namespaces} & {service.namespace for service in SERVICES}
    assert left - {"default", "kube-system"} == set()
