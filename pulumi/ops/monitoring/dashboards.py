"""Grafana's dashboards as JSON, one function each. Prometheus is the only data source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from settings import Settings

SOURCE = {"type": "prometheus", "uid": "prometheus"}
"""The uid is the chart's."""
LAST_BACKUP = '__name__=~"(cnpg_collector|barman_cloud_cloudnative_pg_io)_last_available_backup_timestamp"'
"""Selects the backup metrics of the operator and of the Barman plugin; the newest counts.

The operator's metric always exists and stays 0 if the plugin makes the backups, so `or` would never reach the second.
Source: cloudnative-pg, docs/src/monitoring.md.
"""
COLUMNS = 24
HEIGHT = 8


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel: its series with their legends, and its Grafana unit."""

    title: str
    series: Mapping[str, str]
    """PromQL by legend."""
    unit: str = "short"
    kind: Literal["timeseries", "stat", "gauge", "table"] = "timeseries"
    width: int = 12


def all_dashboards(settings: Settings) -> dict[str, str]:
    """Return the JSON of each dashboard by file name."""
    found = (postgres(settings), tailscale_proxies(settings), apps())
    return {f"{dashboard['uid']}.json": json.dumps(dashboard, indent=1) + "\n" for dashboard in found}


def postgres(settings: Settings) -> dict[str, Any]:
    """Panels of Postgres. Metrics of the instances need `postgresql:monitoring`; readiness and volumes do not."""
    own = f'namespace="{settings.postgres_namespace}"'
    ready = f'sum(kube_pod_status_ready{{{own},pod=~"postgresql-cluster-[0-9]+",condition="true"}})'
    backup = f"max({{{LAST_BACKUP},{own}}})"
    free = f"kubelet_volume_stats_available_bytes{{{own}}} / kubelet_volume_stats_capacity_bytes{{{own}}}"
    panels = [
        Panel(title="Instances ready", series={"ready": ready}, kind="stat", width=6),
        Panel(title="Age of the last backup", series={"age": f"time() - {backup}"}, unit="s", kind="stat", width=6),
        Panel(title="Volume free", series={"{{persistentvolumeclaim}}": free}, unit="percentunit", kind="gauge"),
        Panel(title="Connections", series={"{{datname}}": f"sum by (datname) (cnpg_backends_total{{{own}}})"}),
        Panel(
            title="Transactions",
            series={"{{datname}}": f"sum by (datname) (rate(cnpg_pg_stat_database_xact_commit{{{own}}}[5m]))"},
            unit="ops",
        ),
        Panel(
            title="Size of the databases",
            series={"{{datname}}": f"max by (datname) (cnpg_pg_database_size_bytes{{{own}}})"},
            unit="bytes",
        ),
        Panel(title="Replication lag", series={"{{pod}}": f"cnpg_pg_replication_lag{{{own}}}"}, unit="s"),
    ]
    return dashboard("homelab-postgres", "Postgres", panels)


def tailscale_proxies(settings: Settings) -> dict[str, Any]:
    """Panels of the proxies, each named by what it exposes: `<type> <namespace>/<name>`."""
    own = f'namespace="{settings.tailscale_namespace}"'
    parent = "label_tailscale_com_parent_resource"
    exposed = f"{{{{{parent}_type}}}} {{{{{parent}_ns}}}}/{{{{{parent}}}}}"
    join = f"* on (statefulset) group_left ({parent}, {parent}_ns, {parent}_type) kube_statefulset_labels{{{own}}}"
    pods = f'{own},pod=~"ts-.+|operator-.+"'
    received = f"sum by (pod) (rate(container_network_receive_bytes_total{{{pods}}}[5m]))"
    sent = f"sum by (pod) (rate(container_network_transmit_bytes_total{{{pods}}}[5m]))"
    panels = [
        Panel(
            title="Proxies ready",
            series={exposed: f"sum by (statefulset) (kube_statefulset_status_replicas_ready{{{own}}}) {join}"},
            kind="stat",
            width=24,
        ),
        Panel(title="Traffic", series={"{{pod}} in": received, "{{pod}} out": sent}, unit="Bps"),
        Panel(
            title="Restarts",
            series={"{{pod}}": f"increase(kube_pod_container_status_restarts_total{{{own}}}[1h])"},
        ),
        Panel(
            title="Memory",
            series={"{{pod}}": f'sum by (pod) (container_memory_working_set_bytes{{{pods},container!=""}})'},
            unit="bytes",
        ),
    ]
    return dashboard("homelab-tailscale", "Tailscale proxies", panels)


def apps() -> dict[str, Any]:
    """Panels of the namespaces chosen at the top of the page."""
    chosen = 'namespace=~"$namespace"'
    restarts = f"increase(kube_pod_container_status_restarts_total{{{chosen}}}[1h])"
    processor = f'rate(container_cpu_usage_seconds_total{{{chosen},container!=""}}[5m])'
    used = f"1 - kubelet_volume_stats_available_bytes{{{chosen}}} / kubelet_volume_stats_capacity_bytes{{{chosen}}}"
    panels = [
        Panel(
            title="Pods that are not ready",
            series={"{{namespace}}": f'sum by (namespace) (kube_pod_status_ready{{{chosen},condition="false"}})'},
            kind="stat",
        ),
        Panel(
            title="Restarts in the last hour",
            series={"{{namespace}}": f"sum by (namespace) ({restarts})"},
            kind="stat",
        ),
        Panel(title="Processor", series={"{{namespace}}": f"sum by (namespace) ({processor})"}),
        Panel(
            title="Memory",
            series={
                "{{namespace}}": f'sum by (namespace) (container_memory_working_set_bytes{{{chosen},container!=""}})'
            },
            unit="bytes",
        ),
        Panel(title="Volumes used", series={"{{namespace}}/{{persistentvolumeclaim}}": used}, unit="percentunit"),
    ]
    return dashboard("homelab-apps", "Apps", panels, variables=[namespace_variable()])


def namespace_variable() -> dict[str, Any]:
    return {
        "name": "namespace",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": "label_values(kube_pod_info, namespace)", "refId": "namespace"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard(
    uid: str, title: str, panels: Sequence[Panel], *, variables: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "tags": ["homelab-ops"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": list(variables)},
        "panels": lay_out(panels),
    }


def lay_out(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Place panels from left to right; start a new row if the next one does not fit."""
    placed, x, y = [], 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + HEIGHT
        placed.append(draw(panel, number, {"x": x, "y": y, "w": panel.width, "h": HEIGHT}))
        x += panel.width
    return placed


def draw(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for index, (legend, query) in enumerate(panel.series.items())
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "gridPos": position,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }
