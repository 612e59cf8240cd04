"""What `apps/web/glance` asks pulumi for."""

from __future__ import annotations

import importlib.util
import itertools
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


def test_its_objects_come_in_order(glance):
    assert glance.error is None
    chain = ("Namespace", "ConfigMap", "Deployment", "Service", "Ingress")
    assert glance.names() == {(kind, "glance") for kind in chain}
    for before, kind in itertools.pairwise(chain):
        assert glance.after(kind, "glance") == {(before, "glance")}


def test_every_app_is_linked_by_its_tailnet_name_and_checked_inside_the_cluster(run_program):
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


def test_without_a_tailnet_links_are_short(glance):
    assert monitored(glance)["n8n"]["url"] == "https://n8n/"


def test_chosen_sites_are_shown_in_their_order(run_program):
    chosen = run_program(FOLDER, {"glance:sites": '["grafana", "immich"]'})
    assert list(monitored(chosen)) == ["Grafana", "Immich"]


def test_what_it_links_to_are_services_in_their_own_namespaces(settings_of):
    spec = importlib.util.spec_from_file_location("sites of glance", PROJECT / "sites.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    declared = settings_of(FOLDER).__dataclass_fields__["sites"].default
    assert tuple(site.name for site in module.SITES) == declared
    namespaces = {service.name: service.namespace for service in SERVICES}
    namespaces["grafana"] = namespaces.get("monitoring", "monitoring")
    for site in module.SITES:
        assert site.service.partition(":")[0].split(".")[1] == namespaces.get(site.name, site.name)


def test_a_page_has_at_least_one_full_column_and_the_server_knows_of_its_proxy(glance):
    configuration = page(glance)
    assert configuration["server"] == {"port": 8080, "proxied": True}
    for shown in configuration["pages"]:
        sizes = [column["size"] for column in shown["columns"]]
        assert 1 <= sizes.count("full") <= 2
        assert len(sizes) <= 3


def test_nothing_in_it_is_taken_for_a_variable(run_program):
    """Glance replaces `${…}` before it parses, and ends when there is no such variable."""
    odd = run_program(FOLDER, {"glance:title": "costs ${MONEY}"})
    text = odd["ConfigMap", "glance"]["inputs"]["data"]["glance.yml"]
    assert "${MONEY}" in text
    assert text.count("${") == text.count("\\${")


def test_the_configuration_is_mounted_as_a_folder_and_a_change_rolls_the_pod(run_program, glance):
    template = glance["Deployment", "glance"]["inputs"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["image"].startswith("glanceapp/glance:v")
    assert container["volumeMounts"] == [{"name": "config", "mountPath": "/app/config", "readOnly": True}]
    assert template["spec"]["volumes"] == [{"name": "config", "configMap": {"name": "glance"}}]
    assert container["readinessProbe"] == {"httpGet": {"path": "/api/healthz", "port": "http"}}
    other = run_program(FOLDER, {"glance:title": "Other"})
    checksums = {
        recording["Deployment", "glance"]["inputs"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for recording in (glance, other)
    }
    assert len(checksums) == 2


def test_it_is_on_the_tailnet_in_the_shape_the_operator_takes(glance):
    spec = glance["Ingress", "glance"]["inputs"]["spec"]
    assert spec["ingressClassName"] == "tailscale"
    assert spec["tls"] == [{"hosts": ["glance"]}]
    assert all("host" not in rule for rule in spec["rules"])
    service = glance["Service", "glance"]["inputs"]["spec"]
    assert service["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    selected = glance["Deployment", "glance"]["inputs"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= selected.items()


def test_exports(run_program):
    named = run_program(FOLDER, {"glance:tailnet": "tail1234.ts.net", "glance:hostname": "start"})
    assert {name: export["value"] for name, export in named.exports.items()} == {
        "k8s_namespace": "glance",
        "url": "https://start.tail1234.ts.net/",
    }


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("sites", '["immich", "nowhere"]', "a list of immich, n8n"),
        ("tailnet", "home.lan", "a domain such as tail1234.ts.net"),
        ("image", "glanceapp/glance:latest", "an image with a version"),
        ("timezone", "CET+1 ", "a time zone such as Europe/Berlin"),
        ("theme", "pink", "one of dark, light"),
    ],
)
def test_a_wrong_setting_is_named(run_program, key, value, expected):
    failed = run_program(FOLDER, {f"glance:{key}": value})
    assert failed.resources == ()
    assert f"glance:{key}: found {value!r}" in failed.error
    assert expected in failed.error
