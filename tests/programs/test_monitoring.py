"""Dashboards and alerts: their queries, and what they need of kube-state-metrics."""

from __future__ import annotations

import json
import re

import pytest

FOLDER = "ops/monitoring"


@pytest.fixture
def monitoring(run_service):
    return run_service("monitoring")


def values(recording) -> dict:
    return recording["Chart", "monitoring"]["inputs"]["values"]


def dashboards(recording) -> dict[str, dict]:
    return {
        file: json.loads(content)
        for resource in recording.resources
        if resource["type"].endswith(":ConfigMap")
        for file, content in resource["inputs"]["data"].items()
    }


def alerts(recording) -> dict[str, dict]:
    (group,) = recording["PrometheusRule", "homelab-ops"]["inputs"]["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_dashboards_read_grafanas_own_prometheus(monitoring):
    assert set(dashboards(monitoring)) == {f"homelab-{name}.json" for name in ("postgres", "tailscale", "apps")}
    for file, dashboard in dashboards(monitoring).items():
        assert dashboard["uid"] == file.removesuffix(".json")
        for panel in dashboard["panels"]:
            assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
            assert [target["refId"] for target in panel["targets"]] == list("ABCDEFG")[: len(panel["targets"])]


def test_panels_do_not_overlap_and_fit_the_page(monitoring):
    for dashboard in dashboards(monitoring).values():
        taken = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
            assert not cells & taken
            taken |= cells
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_what_the_dashboards_and_alerts_need_of_kube_state_metrics_is_asked_for(monitoring):
    state = values(monitoring)["kube-state-metrics"]
    text = json.dumps([dashboards(monitoring), alerts(monitoring)])
    given = re.findall(r"tailscale\.com/[a-z-]+", json.dumps(state))
    as_labels = {re.sub(r"[./-]", "_", name) for name in given}
    assert set(re.findall(r"(?:label|annotation)_(tailscale_com_[a-z_]+)", text)) == as_labels


def test_every_alert_says_what_it_means_and_where_to_look(monitoring):
    for rule in alerts(monitoring).values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["description"].startswith(("Look: inv ", "Look: kubectl "))
        assert re.fullmatch(r"[0-9]+[mh]", rule["for"])


def test_the_newest_backup_counts_whoever_made_it(monitoring):
    """The operator's own metric stays 0 where the Barman plugin makes them, so `or` would never get to the plugin's."""
    panels = dashboards(monitoring)["homelab-postgres.json"]["panels"]
    (age,) = [panel for panel in panels if panel["title"] == "Age of the last backup"]
    for query in (alerts(monitoring)["PostgresBackupTooOld"]["expr"], age["targets"][0]["expr"]):
        newest = re.search(r'max\(\{__name__=~"([^"]+)"', query)
        assert newest, query
        for maker in ("cnpg_collector", "barman_cloud_cloudnative_pg_io"):
            assert re.fullmatch(newest[1], f"{maker}_last_available_backup_timestamp")


def test_every_query_is_balanced(monitoring):
    queries = [rule["expr"] for rule in alerts(monitoring).values()]
    for dashboard in dashboards(monitoring).values():
        queries += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for query in queries:
        bare = re.sub(r'"[^"]*"', "", query)
        for opening, closing in ("()", "{}", "[]"):
            assert bare.count(opening) == bare.count(closing), query
        assert query.count('"') % 2 == 0, query
        assert "{{" not in query, query


def test_thresholds_and_places_are_settings(run_service):
    given = {"backup_hours": "2", "certificate_days": "3", "claim_percent": "50"}
    given |= {"postgres_namespace": "db", "tailscale_namespace": "ts", "tunnel_namespace": "edge"}
    found = alerts(run_service("monitoring", {f"monitoring:{key}": value for key, value in given.items()}))
    assert "> 7200 or absent(" in found["PostgresBackupTooOld"]["expr"]
    assert found["CertificateNearItsEnd"]["expr"].endswith("< 259200")
    assert found["ClaimNearlyFull"]["expr"].endswith("> 50")
    places = {
        "db": ("PostgresDown",),
        "ts": ("TailscaleProxyDown", "TailscaleOperatorDown", "IngressExposureLost", "ServiceExposureLost"),
        "edge": ("CloudflareTunnelDown",),
    }
    assert "PostgresNotAnswering" in found
    for place, names in places.items():
        assert [name for name in names if f'namespace="{place}"' not in found[name]["expr"]] == []


def test_the_namespaces_are_the_ones_the_others_have_by_default(settings_of):
    from runbooks.services import find_service

    fields = settings_of(FOLDER).__dataclass_fields__
    for setting, service in [("postgres", "postgres"), ("tailscale", "tailscale"), ("tunnel", "cf-tunnel")]:
        assert fields[f"{setting}_namespace"].default == find_service(service).namespace
