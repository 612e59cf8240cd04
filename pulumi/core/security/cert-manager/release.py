"""cert-manager's chart."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.k8s import add_wait_annotation, keep_on_destroy
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

CA_WAS_INJECTED = "jsonpath={.webhooks[0].clientConfig.caBundle}"


def manager_chart(settings: Settings, *, after: pulumi.Resource) -> Chart:
    """Install cert-manager and wait until the API server would accept an issuer.

    Earlier it fails with `failed calling webhook "webhook.cert-manager.io"`, because the webhook does not answer yet
    (the provider waits for the Deployments and for an endpoint of `cert-manager-webhook`), or because the API server
    does not trust it yet (its CA was not injected).
    """
    established = add_wait_annotation("CustomResourceDefinition", wait_for="condition=Established", timeout=60)
    kept = keep_on_destroy("CustomResourceDefinition")
    patient = add_wait_annotation("Deployment", timeout=300)
    trusted = add_wait_annotation("ValidatingWebhookConfiguration", wait_for=CA_WAS_INJECTED, timeout=300)
    return chart(
        "cert-manager",
        release="cert-manager",
        namespace=settings.namespace,
        values=chart_values(settings),
        opts=pulumi.ResourceOptions(depends_on=[after], transforms=[established, kept, patient, trusted]),
    )


def chart_values(settings: Settings) -> dict[str, Any]:
    """The chart installs the CRDs, so that they match the controller.

    It marks them `keep`: they, and therefore all certificates, outlive this stack. The start-up check consists of
    Helm hooks, which pulumi leaves out, so it is off.
    """
    return {
        "crds": {"enabled": settings.create_crds, "keep": True},
        "startupapicheck": {"enabled": False},
        "prometheus": {"servicemonitor": {"enabled": settings.monitoring}},
    }
