"""ConfigMaps with the dashboards, labelled for Grafana's sidecar."""

from __future__ import annotations

import pulumi
from dashboards import all_dashboards
from lib.k8s import labels
from pulumi_kubernetes.core.v1 import ConfigMap
from settings import Settings

FOUND_BY = {"grafana_dashboard": "1"}


def dashboard_config_maps(settings: Settings, *, after: pulumi.Resource) -> list[ConfigMap]:
    return [
        ConfigMap(
            f"dashboard-{file.removesuffix('.json')}",
            metadata={
                "name": f"dashboard-{file.removesuffix('.json')}",
                "namespace": settings.namespace,
                "labels": labels("grafana") | FOUND_BY,
            },
            data={file: content},
            opts=pulumi.ResourceOptions(depends_on=[after]),
        )
        for file, content in all_dashboards(settings).items()
    ]
