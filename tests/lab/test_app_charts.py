"""The lab's charts of the apps: real names, the same answers to the same values, accepted by a real API server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CHARTS = Path(__file__).resolve().parents[2] / "lab/charts"
DATABASE = {"host": "pg", "passwordSecret": {"name": "n8n-database", "key": "DB_POSTGRESDB_PASSWORD"}}
SQL = {
    "sql": {
        "pluginName": "postgres12", "databaseName": "temporal", "connectAddr": "pg:5432", "user": "temporal",
        "existingSecret": "temporal-database", "manageSchema": True,
    }
}  # fmt: skip
STORES = {"persistence": {"datastores": {"default": SQL, "visibility": SQL}}, "namespaces": {"create": True}}
VALUES: dict[str, dict[str, Any]] = {
    "n8n": {"queueMode": {"enabled": False}, "database": DATABASE, "secretRefs": {"existingSecret": "n8n-core"}},
    "immich": {"immich": {"persistence": {"library": {"existingClaim": "library"}}}, "valkey": {"enabled": True}},
    "temporal": {"server": {"config": STORES}},
    "superset": {"postgresql": {"enabled": False}, "redis": {"enabled": False}},
    "jupyterhub": {"proxy": {"secretToken": "word"}, "hub": {"cookieSecret": "word"}},
    "altinity-clickhouse-operator": {},
}

pytestmark = pytest.mark.lab


class Rendered(dict[tuple[str, str], dict[str, Any]]):
    """A chart's objects by kind and name, hooks apart as pulumi leaves them out."""

    def __init__(self, text: str) -> None:
        self.text = text
        objects = [item for item in yaml.safe_load_all(text) if item]
        self.hooks = {item["metadata"]["name"] for item in objects if "helm.sh/hook" in _annotations(item)}
        super().__init__({(item["kind"], item["metadata"]["name"]): item for item in objects})

    def names(self, kind: str) -> set[str]:
        return {name for found, name in self if found == kind}


def _annotations(item: dict[str, Any]) -> dict[str, str]:
    return item["metadata"].get("annotations") or {}


@pytest.fixture
def render(helm):
    """`helm template` with the lab's helm, and values besides those that the chart cannot do without."""

    def template(chart: str, more: dict[str, Any] | None = None, *, complaint: str = "") -> Rendered:
        values = yaml.safe_dump({**VALUES[chart], **(more or {})})
        argv = [helm, "template", chart, CHARTS / chart, "--include-crds", "--values=-"]
        done = subprocess.run(argv, input=values, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is not bool(complaint), done.stderr
        assert complaint in done.stderr
        return Rendered(done.stdout)

    return template


@pytest.mark.parametrize("chart", VALUES)
def test_a_real_api_server_accepts_every_object(lab, render, chart):
    rendered = render(chart)
    said = lab.kubectl(
        "apply", "--server-side", "--dry-run=server", "--force-conflicts", "--namespace=default", "--filename=-",
        stdin=rendered.text,
    )  # fmt: skip
    assert len(said.splitlines()) == len(rendered)


@pytest.mark.parametrize("chart", [name for name in VALUES if name != "jupyterhub"])
def test_values_it_does_not_know_are_no_error(render, chart):
    assert render(chart, {"surprise": {"value": 1}})


def test_jupyterhub_refuses_values_it_does_not_know_as_the_real_chart_does(render):
    render("jupyterhub", {"surprise": 1}, complaint="additional properties 'surprise' not allowed")


@pytest.mark.parametrize(
    ("chart", "kind", "names"),
    [
        ("n8n", "Deployment", {"n8n-main"}),
        ("n8n", "Service", {"n8n-main"}),
        ("immich", "Deployment", {"immich-server", "immich-machine-learning", "immich-valkey"}),
        ("immich", "Service", {"immich-server", "immich-machine-learning", "immich-valkey"}),
        ("superset", "Deployment", {"superset", "superset-worker"}),
        ("superset", "Service", {"superset"}),
        ("jupyterhub", "Deployment", {"hub", "proxy"}),
        ("jupyterhub", "Service", {"hub", "proxy-api", "proxy-public"}),
        ("jupyterhub", "NetworkPolicy", {"singleuser"}),
        ("altinity-clickhouse-operator", "Deployment", {"altinity-clickhouse-operator"}),
        ("temporal", "Service", {
            "temporal-frontend", "temporal-web", "temporal-frontend-headless", "temporal-history-headless",
            "temporal-matching-headless", "temporal-worker-headless",
        }),
    ],
)  # fmt: skip
def test_it_has_the_real_names(render, chart, kind, names):
    assert render(chart).names(kind) == names


def test_temporals_jobs_are_hooks_unless_told_otherwise(render):
    assert render("temporal").hooks == {"temporal-schema", "temporal-namespace"}
    config = {**STORES, "namespaces": {"create": True, "useHelmHooks": False}}
    plain = render("temporal", {"schema": {"useHelmHooks": False}, "server": {"config": config}})
    assert plain.hooks == set()
    assert plain.names("Job") == {"temporal-schema-0-0-0-lab-1", "temporal-namespace-0-0-0-lab-1"}


def test_supersets_job_is_a_hook_until_its_annotations_are_taken_away(render):
    assert render("superset").hooks == {"superset-init-db"}
    plain = render("superset", {"init": {"jobAnnotations": None}})
    assert plain.hooks == set()
    assert plain.names("Job") == {"superset-init-db"}


def test_the_clickhouse_operators_crds_come_with_it(render):
    assert render("altinity-clickhouse-operator").names("CustomResourceDefinition") == {
        "clickhouseinstallations.clickhouse.altinity.com",
        "clickhouseinstallationtemplates.clickhouse.altinity.com",
        "clickhouseoperatorconfigurations.clickhouse.altinity.com",
        "clickhousekeeperinstallations.clickhouse-keeper.altinity.com",
    }


@pytest.mark.parametrize(
    ("chart", "values", "complaint"),
    [
        ("immich", {"immich": {}}, ".Values.immich.persistence.library.existingClaim is required."),
        ("immich", {"redis": {}}, "The postgresql and redis subcharts have been removed."),
        ("n8n", {"queueMode": {"enabled": True}}, "set queueMode.enabled to false"),
        ("n8n", {"secretRefs": {}}, "secretRefs.existingSecret is required"),
        ("superset", {"redis": {"enabled": True}}, "set postgresql.enabled and redis.enabled to false"),
        ("temporal", {"server": {"config": {}}}, "No valid driver configured for default store"),
    ],
)
def test_what_the_real_chart_refuses_is_refused(render, chart, values, complaint):
    render(chart, values, complaint=complaint)
