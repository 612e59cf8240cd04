"""Prometheus, Alertmanager and Grafana, with the platform's dashboards and alerts."""

import sys
from pathlib import Path

import pulumi

sys.path.append(str(Path(__file__).resolve().parents[2]))  # pulumi/, for lib

from alerts import alert_rules
from grafana import dashboard_config_maps
from lib.k8s import namespace
from lib.settings import read_settings
from release import admin_secret, monitoring_chart
from settings import Settings

settings = read_settings(Settings)

# The node exporter uses host namespaces.
home = namespace(settings.namespace, pod_security="privileged")
admin = admin_secret(settings, after=home)
stack = monitoring_chart(settings, after=admin)
dashboard_config_maps(settings, after=home)
alert_rules(settings, after=stack)

pulumi.export("k8s_namespace", settings.namespace)
pulumi.export("grafana_url", settings.grafana_url)
pulumi.export("prometheus", f"monitoring-prometheus.{settings.namespace}.svc.cluster.local:9090")
