"""What Glance reads: its configuration is a file that Glance itself takes for a template."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from runbooks.services import SERVICES

FOLDER = "apps/web/glance"
PROJECT = Path(__file__).resolve().parents[2] / "pulumi" / FOLDER


@pytest.fixture
def glance(run_program):
    return run_program(FOLDER)


def page(recording) -> dict:
    """The configuration as Glance reads it."""
    return json.loads(recording["ConfigMap", "glance"]["inputs"]["data"]["glance.yml"])


def monitored(recording) -> dict[str, dict]:
    (wide,) = [column for column in page(recording)["pages"][0]["columns"] if column["size"] == "full"]
    return {site["title"]: site for site in wide["widgets"][0]["sites"]}


def test_every_app_is_linked_by_its_tailnet_name_and_checked_inside_the_cluster(run_program, glance):
    named = run_program(FOLDER, {"glance:tailnet": "tail1234.ts.net"})
    assert monitored(named)["Immich"] == {
        "title": "Immich",
        "url": "https://immich.tail1234.ts.net/",
        "check-url": "http://immich-server.immich.svc.cluster.local:2283/api/server/ping",
        "icon": "si:immich",
        "timeout": "5s",
    }
    for site in monitored(named).values():
        assert ".svc.cluster.local:" in site["check-url"], "pods do not resolve tailnet names"
        assert site["url"].endswith(".tail1234.ts.net/")
    assert monitored(glance)["n8n"]["url"] == "https://n8n/"


def test_chosen_sites_are_shown_in_their_order(run_program):
    chosen = run_program(FOLDER, {"glance:sites": '["grafana", "immich"]'})
    assert list(monitored(chosen)) == ["Grafana", "Immich"]


def test_what_it_links_to_are_services_in_their_own_namespaces(settings_of):
    spec = importlib.util.spec_from_file_location("sites of glance", PROJECT / "sites.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert tuple(site.name for site in module.SITES) == settings_of(FOLDER).__dataclass_fields__["sites"].default
    namespaces = {service.name: service.namespace for service in SERVICES}
    namespaces["grafana"] = namespaces.get("monitoring", "monitoring")
    for site in module.SITES:
        assert site.service.partition(":")[0].split(".")[1] == namespaces.get(site.name, site.name)


def test_a_page_has_at_least_one_full_column_and_the_server_knows_of_its_proxy(glance):
    assert page(glance)["server"] == {"port": 8080, "proxied": True}
    for one in page(glance)["pages"]:
        sizes = [column["size"] for column in one["columns"]]
        assert 1 <= sizes.count("full") <= 2
        assert len(sizes) <= 3


def test_nothing_in_it_is_taken_for_a_variable_and_a_change_rolls_the_pod(run_program, glance):
    """Glance replaces `${…}` before it parses, and ends when there is no such variable."""
    odd = run_program(FOLDER, {"glance:title": "costs ${MONEY}"})
    text = odd["ConfigMap", "glance"]["inputs"]["data"]["glance.yml"]
    assert "${MONEY}" in text
    assert text.count("${") == text.count("\\${")
    templates = [recording["Deployment", "glance"]["inputs"]["spec"]["template"] for recording in (glance, odd)]
    assert len({template["metadata"]["annotations"]["checksum/config"] for template in templates}) == 2
