"""The chart of Prometheus, Alertmanager and Grafana, and the Secret with Grafana's admin login."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.k8s import add_wait_annotation, keep_on_destroy, opaque_secret
from pulumi_kubernetes.core.v1 import Secret
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

RELEASE = "monitoring"
"""Also the prefix of the chart's objects: `monitoring-prometheus`, `monitoring-grafana` and so on."""
ADMIN_SECRET = "grafana-admin"  # noqa: S105 - a name
INGRESS_CLASS = "tailscale"
PROXY_LABELS = (
    "tailscale.com/parent-resource",
    "tailscale.com/parent-resource-ns",
    "tailscale.com/parent-resource-type",
)
"""Labels that name the object a proxy's StatefulSet exposes."""


def admin_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Create the admin's login. Without it the chart would generate a new password at every preview."""
    data = {"admin-user": "admin", "admin-password": settings.grafana_password}
    return opaque_secret(ADMIN_SECRET, namespace=settings.namespace, component="grafana", data=data, after=after)


def monitoring_chart(settings: Settings, *, after: Secret) -> Chart:
    """Install the stack and wait: CRDs served, operator rolled out, Prometheus and Alertmanager available.

    The CRDs stay when the stack is destroyed, because other stacks have such objects.
    """
    transforms = [
        add_wait_annotation("CustomResourceDefinition", wait_for="condition=Established", timeout=60),
        keep_on_destroy("CustomResourceDefinition"),
        add_wait_annotation("Deployment", timeout=600),
        add_wait_annotation("Prometheus", wait_for="condition=Available", timeout=600),
        add_wait_annotation("Alertmanager", wait_for="condition=Available", timeout=600),
    ]
    return chart(
        "kube-prometheus-stack",
        release=RELEASE,
        namespace=settings.namespace,
        values=chart_values(settings),
        opts=pulumi.ResourceOptions(depends_on=[after], transforms=transforms),
    )


def chart_values(settings: Settings) -> dict[str, Any]:
    return {
        "fullnameOverride": RELEASE,
        "crds": {"enabled": True},
        "prometheusOperator": operator_values(),
        "prometheus": {"prometheusSpec": prometheus_spec(settings)},
        "alertmanager": {"alertmanagerSpec": {"storage": claim(settings, "1Gi")}},
        "grafana": grafana_values(settings),
        "kube-state-metrics": state_values(),
        **{part: {"enabled": settings.control_plane} for part in CONTROL_PLANE},
    }


CONTROL_PLANE = ("kubeControllerManager", "kubeScheduler", "kubeEtcd", "kubeProxy")


def operator_values() -> dict[str, Any]:
    """Turn the admission webhook off.

    Its certificate comes from Jobs that are Helm hooks, which pulumi leaves out: the operator's pod would wait for the
    Secret forever. Without it the operator ignores an invalid object and writes an event.
    """
    return {"admissionWebhooks": {"enabled": False}, "tls": {"enabled": False}}


def prometheus_spec(settings: Settings) -> dict[str, Any]:
    """Select monitors and rules of every project, not only those with this release's label."""
    found = ("serviceMonitor", "podMonitor", "rule", "probe", "scrapeConfig")
    return {
        **{f"{kind}SelectorNilUsesHelmValues": False for kind in found},
        "retention": settings.retention,
        "storageSpec": claim(settings, settings.storage_size),
    }


def claim(settings: Settings, size: str) -> dict[str, Any]:
    chosen_class = {"storageClassName": settings.storage_class} if settings.storage_class else {}
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"volumeClaimTemplate": {"spec": wanted | chosen_class}}


def grafana_values(settings: Settings) -> dict[str, Any]:
    """Configure Grafana without a claim: dashboards and data sources are code."""
    return {
        "admin": {"existingSecret": ADMIN_SECRET, "userKey": "admin-user", "passwordKey": "admin-password"},
        "grafana.ini": {"server": {"root_url": settings.grafana_url}},
        "ingress": {
            "enabled": True,
            "ingressClassName": INGRESS_CLASS,
            # No host in the rule: a host that differs from the name in `tls` is ignored.
            "hosts": [],
            "tls": [{"hosts": [settings.grafana_host]}],
        },
        # A Helm hook, which pulumi leaves out.
        "testFramework": {"enabled": False},
    }


def state_values() -> dict[str, Any]:
    """Export the labels that connect a proxy with the object it exposes (`alerts.py`)."""
    return {
        "metricLabelsAllowlist": [f"statefulsets=[{','.join(PROXY_LABELS)}]"],
        "metricAnnotationsAllowList": ["services=[tailscale.com/expose]"],
    }
