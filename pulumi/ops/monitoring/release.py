"""The chart of Prometheus, Alertmanager and Grafana, and the Secret Grafana's admin logs in with."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.k8s import add_wait_annotation, keep_on_destroy, opaque_secret
from pulumi_kubernetes.core.v1 import Secret
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

RELEASE = "monitoring"
"""Also the full name: the chart's objects are `monitoring-prometheus`, `monitoring-grafana` and so on."""
ADMIN_SECRET = "grafana-admin"  # noqa: S105 - a name
INGRESS_CLASS = "tailscale"
PROXY_LABELS = (
    "tailscale.com/parent-resource",
    "tailscale.com/parent-resource-ns",
    "tailscale.com/parent-resource-type",
)
"""What says whose proxy a StatefulSet of Tailscale's operator is."""


def admin_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Without it the chart would make up a password, another one at every preview."""
    data = {"admin-user": "admin", "admin-password": settings.grafana_password}
    return opaque_secret(ADMIN_SECRET, namespace=settings.namespace, component="grafana", data=data, after=after)


def monitoring_chart(settings: Settings, *, after: Secret) -> Chart:
    """Everything of it, awaited: CRDs served, operator rolled out, Prometheus and Alertmanager available.

    The CRDs stay when the stack is destroyed: other stacks have objects of theirs.
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
    """Without the admission webhook.

    Its certificate comes from Jobs that are Helm hooks, which pulumi leaves out: the operator's pod would wait for the
    Secret for ever. What the webhook refuses, the operator ignores and tells of in an event.
    """
    return {"admissionWebhooks": {"enabled": False}, "tls": {"enabled": False}}


def prometheus_spec(settings: Settings) -> dict[str, Any]:
    """Monitors and rules of every project are taken, not just those that carry this release's label."""
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
    """Dashboards and data sources are code, so it keeps nothing and has no claim."""
    return {
        "admin": {"existingSecret": ADMIN_SECRET, "userKey": "admin-user", "passwordKey": "admin-password"},
        "grafana.ini": {"server": {"root_url": settings.grafana_url}},
        "ingress": {
            "enabled": True,
            "ingressClassName": INGRESS_CLASS,
            # No host in the rule: one that differs from the name in `tls` is ignored.
            "hosts": [],
            "tls": [{"hosts": [settings.grafana_host]}],
        },
        # Its pod is a Helm hook, which pulumi leaves out.
        "testFramework": {"enabled": False},
    }


def state_values() -> dict[str, Any]:
    """Without these, kube-state-metrics could not tell which exposure a proxy belongs to (`alerts.py`)."""
    return {
        "metricLabelsAllowlist": [f"statefulsets=[{','.join(PROXY_LABELS)}]"],
        "metricAnnotationsAllowList": ["services=[tailscale.com/expose]"],
    }
