"""The operator's chart."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from lib.charts import chart
from lib.k8s import add_wait_annotation, protect_objects
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings
from users import OPERATOR_SECRET


def operator_chart(settings: Settings, *, after: Sequence[pulumi.Resource]) -> Chart:
    """The operator and its CRDs, awaited. Its name is that of its Secret.

    A destroy passes over what is protected and goes on: with its CRD a protected installation would be deleted.
    """
    established = add_wait_annotation("CustomResourceDefinition", wait_for="condition=Established", timeout=60)
    patient = add_wait_annotation("Deployment", timeout=300)
    kept = [protect_objects("CustomResourceDefinition")] if settings.protect else []
    return chart(
        "altinity-clickhouse-operator",
        release=OPERATOR_SECRET,
        namespace=settings.namespace,
        values={
            # A hook, which would not run here; the CRDs come with the chart anyhow.
            "crdHook": {"enabled": False},
            "secret": {"create": False},
            "serviceMonitor": {"enabled": settings.monitoring},
        },
        opts=pulumi.ResourceOptions(depends_on=list(after), transforms=[established, patient, *kept]),
    )
