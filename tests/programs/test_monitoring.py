"""What `ops/monitoring` asks pulumi for."""

from __future__ import annotations

import json
import re

import pytest

FOLDER = "ops/monitoring"
PASSWORD = {"monitoring:grafana_password": "password-of-the-test"}


@pytest.fixture
def monitoring(run_program):
    return run_program(FOLDER, secrets=PASSWORD)


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


def test_its_objects_come_in_order(monitoring):
    assert monitoring.error is None
    home = ("Namespace", "monitoring")
    at_once = {
        ("Secret", "grafana-admin"),
        ("ConfigMap", "dashboard-homelab-postgres"),
        ("ConfigMap", "dashboard-homelab-tailscale"),
        ("ConfigMap", "dashboard-homelab-apps"),
    }
    assert monitoring.names() == {home, ("Chart", "monitoring"), ("PrometheusRule", "homelab-ops")} | at_once
    assert all(monitoring.after(*key) == {home} for key in at_once)
    assert monitoring.after("Chart", "monitoring") == {("Secret", "grafana-admin")}
    assert monitoring.after("PrometheusRule", "homelab-ops") == {("Chart", "monitoring")}
    labels = monitoring["Namespace", "monitoring"]["inputs"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


def test_nothing_waits_for_the_jobs_that_pulumi_leaves_out(monitoring):
    assert values(monitoring)["prometheusOperator"] == {
        "admissionWebhooks": {"enabled": False},
        "tls": {"enabled": False},
    }
    assert values(monitoring)["grafana"]["testFramework"] == {"enabled": False}


def test_everything_is_awaited_and_the_definitions_outlive_the_stack(monitoring):
    available = {"pulumi.com/waitFor": "condition=Available", "pulumi.com/timeoutSeconds": "600"}
    assert monitoring["Chart", "monitoring"]["children"] == {
        "CustomResourceDefinition": {
            "pulumi.com/waitFor": "condition=Established",
            "pulumi.com/timeoutSeconds": "60",
            "pulumi.com/patchForce": "true",
            "retain": "true",
        },
        "Deployment": {"pulumi.com/timeoutSeconds": "600"},
        "Service": {},
        "Prometheus": available,
        "Alertmanager": available,
    }


def test_objects_of_every_project_are_found(monitoring):
    spec = values(monitoring)["prometheus"]["prometheusSpec"]
    for kind in ("serviceMonitor", "podMonitor", "rule", "probe", "scrapeConfig"):
        assert spec[f"{kind}SelectorNilUsesHelmValues"] is False
    assert spec["retention"] == "15d"
    claim = spec["storageSpec"]["volumeClaimTemplate"]["spec"]
    assert claim == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}


def test_the_chart_is_the_pinned_one_and_its_names_are_short(monitoring):
    from lib.charts import read_pin

    chart = monitoring["Chart", "monitoring"]["inputs"]
    pin = read_pin("kube-prometheus-stack")
    assert (chart["chart"], chart["version"]) == (pin.oci, pin.version)
    assert values(monitoring)["fullnameOverride"] == "monitoring"
    assert values(monitoring)["crds"] == {"enabled": True}


def test_grafanas_admin_is_a_secret_and_never_a_chart_value(monitoring):
    secret = monitoring["Secret", "grafana-admin"]
    assert secret["inputs"]["stringData"] == {"admin-user": "admin", "admin-password": "password-of-the-test"}
    assert secret["secret_inputs"] == ["stringData"]
    named = values(monitoring)["grafana"]["admin"]
    assert named["existingSecret"] == "grafana-admin"
    assert {named["userKey"], named["passwordKey"]} == set(secret["inputs"]["stringData"])
    assert "of-the-test" not in str(monitoring["Chart", "monitoring"])


def test_grafana_is_on_the_tailnet_in_the_shape_the_operator_takes(run_program):
    named = run_program(
        FOLDER, {"monitoring:tailnet": "tail1234.ts.net", "monitoring:grafana_host": "charts"}, PASSWORD
    )
    grafana = values(named)["grafana"]
    assert grafana["ingress"] == {
        "enabled": True,
        "ingressClassName": "tailscale",
        "hosts": [],
        "tls": [{"hosts": ["charts"]}],
    }
    assert grafana["grafana.ini"]["server"]["root_url"] == "https://charts.tail1234.ts.net/"
    assert named.exports["grafana_url"]["value"] == "https://charts.tail1234.ts.net/"


def test_a_hidden_control_plane_is_not_scraped_unless_asked_for(run_program, monitoring):
    parts = ("kubeControllerManager", "kubeScheduler", "kubeEtcd", "kubeProxy")
    assert all(values(monitoring)[part] == {"enabled": False} for part in parts)
    open_ = run_program(FOLDER, {"monitoring:control_plane": "true"}, PASSWORD)
    assert all(values(open_)[part] == {"enabled": True} for part in parts)


def test_dashboards_are_where_grafana_looks_and_read_its_own_prometheus(monitoring):
    for name in ("homelab-postgres", "homelab-tailscale", "homelab-apps"):
        found = monitoring["ConfigMap", f"dashboard-{name}"]["inputs"]
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert found["metadata"]["namespace"] == "monitoring"
        dashboard = dashboards(monitoring)[f"{name}.json"]
        assert dashboard["uid"] == name
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
    assert state["metricLabelsAllowlist"] == [
        "statefulsets=[tailscale.com/parent-resource,tailscale.com/parent-resource-ns,tailscale.com/parent-resource-type]"
    ]
    assert state["metricAnnotationsAllowList"] == ["services=[tailscale.com/expose]"]
    text = json.dumps([dashboards(monitoring), alerts(monitoring)])
    given = re.findall(r"tailscale\.com/[a-z-]+", json.dumps(state))
    as_labels = {re.sub(r"[./-]", "_", name) for name in given}
    assert set(re.findall(r"(?:label|annotation)_(tailscale_com_[a-z_]+)", text)) == as_labels


def test_every_alert_says_what_it_means_and_where_to_look(monitoring):
    found = alerts(monitoring)
    assert set(found) == {
        "PostgresDown",
        "PostgresNotAnswering",
        "PostgresBackupTooOld",
        "CertificateNearItsEnd",
        "ClaimNearlyFull",
        "TailscaleProxyDown",
        "TailscaleOperatorDown",
        "CloudflareTunnelDown",
        "IngressExposureLost",
        "ServiceExposureLost",
    }
    for rule in found.values():
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


def test_thresholds_and_places_are_settings(run_program):
    chosen = run_program(
        FOLDER,
        {
            "monitoring:backup_hours": "2",
            "monitoring:certificate_days": "3",
            "monitoring:claim_percent": "50",
            "monitoring:postgres_namespace": "db",
            "monitoring:tailscale_namespace": "ts",
            "monitoring:tunnel_namespace": "edge",
        },
        PASSWORD,
    )
    found = alerts(chosen)
    assert "> 7200 or absent(" in found["PostgresBackupTooOld"]["expr"]
    assert found["CertificateNearItsEnd"]["expr"].endswith("< 259200")
    assert found["ClaimNearlyFull"]["expr"].endswith("> 50")
    assert 'namespace="db"' in found["PostgresDown"]["expr"]
    for name in ("TailscaleProxyDown", "IngressExposureLost", "ServiceExposureLost"):
        assert 'namespace="ts"' in found[name]["expr"]
    assert 'namespace="edge"' in found["CloudflareTunnelDown"]["expr"]


def test_the_namespaces_are_the_ones_the_others_have_by_default(settings_of):
    from runbooks.services import find_service

    fields = settings_of(FOLDER).__dataclass_fields__
    for setting, service in [("postgres", "postgres"), ("tailscale", "tailscale"), ("tunnel", "cf-tunnel")]:
        assert fields[f"{setting}_namespace"].default == find_service(service).namespace


def test_all_that_is_wrong_is_said_at_once(run_program):
    wrong = run_program(
        FOLDER, {"monitoring:retention": "a while", "monitoring:claim_percent": "100", "monitoring:tailnet": "home"}
    )
    assert wrong.resources == ()
    assert wrong.error.startswith("4 settings are missing or wrong for stack test of project monitoring:")
    assert "inv secrets.set monitoring grafana_password --generate" in wrong.error
    assert "expected  a time such as 15d" in wrong.error
    assert "a whole number from 1 to 99" in wrong.error
    assert "a domain such as tail1234.ts.net" in wrong.error
