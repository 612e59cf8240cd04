"""The operator's chart."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.k8s import add_wait_annotation, keep_on_destroy
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

RELEASE = "cnpg"
"""The Deployment is `<release>-cloudnative-pg`."""


def operator_chart(settings: Settings, *, after: pulumi.Resource) -> Chart:
    """Install the operator and wait until its webhook answers: earlier the API server refuses every Cluster.

    The provider waits for the Deployment's rollout (its probe asks the webhook), and for an endpoint of
    `cnpg-webhook-service`.
    """
    established = add_wait_annotation("CustomResourceDefinition", wait_for="condition=Established", timeout=60)
    kept = keep_on_destroy("CustomResourceDefinition")
    patient = add_wait_annotation("Deployment", timeout=300)
    return chart(
        "cloudnative-pg",
        release=RELEASE,
        namespace=settings.namespace,
        values=chart_values(settings),
        opts=pulumi.ResourceOptions(depends_on=[after], transforms=[established, kept, patient]),
    )


def chart_values(settings: Settings) -> dict[str, Any]:
    """The chart installs the CRDs, so that they match the operator.

    It marks them `keep`: they, and therefore all databases, outlive this stack.
    """
    return {
        "crds": {"create": settings.create_crds},
        "monitoring": {"podMonitorEnabled": settings.pod_monitor},
    }
