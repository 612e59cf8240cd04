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
    """Install the operator and its CRDs and wait for them. The release is named like its Secret.

    The CRDs are protected because a destroy skips protected resources and deletes the rest: without its CRD a protected
    installation would be deleted.
    """
    established = add_wait_annotation("CustomResourceDefinition", wait_for="condition=Established", timeout=60)
    patient = add_wait_annotation("Deployment", timeout=300)
    kept = [protect_objects("CustomResourceDefinition")] if settings.protect else []
    return chart(
        "altinity-clickhouse-operator",
        release=OPERATOR_SECRET,
        namespace=settings.namespace,
        values={
            # A Helm hook, which pulumi leaves out; the chart installs the CRDs anyway.
            "crdHook": {"enabled": False},
            "secret": {"create": False},
            "serviceMonitor": {"enabled": settings.monitoring},
        },
        opts=pulumi.ResourceOptions(depends_on=list(after), transforms=[established, patient, *kept]),
    )
