"""The operator's chart and the Secret with its login."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.k8s import add_wait_annotation, opaque_secret
from pulumi_kubernetes.core.v1 import Secret
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

OAUTH_SECRET = "operator-oauth"  # noqa: S105 - the name the chart expects, with the keys client_id and client_secret
INGRESS_CLASS = "tailscale"


def oauth_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Create the Secret with the operator's login. In the chart's values it would be plaintext."""
    data = {"client_id": settings.client_id, "client_secret": settings.client_secret}
    return opaque_secret(
        OAUTH_SECRET, namespace=settings.namespace, component="tailscale-operator", data=data, after=after
    )


def operator_chart(settings: Settings, *, after: Secret) -> Chart:
    """Install the operator and wait for its Deployment. Without the Secret its pod would never start."""
    established = add_wait_annotation("CustomResourceDefinition", wait_for="condition=Established", timeout=60)
    patient = add_wait_annotation("Deployment", timeout=300)
    return chart(
        "tailscale-operator",
        release="tailscale-operator",
        namespace=settings.namespace,
        values=chart_values(settings),
        opts=pulumi.ResourceOptions(depends_on=[after], transforms=[established, patient]),
    )


def chart_values(settings: Settings) -> dict[str, Any]:
    """Pass the operator's tags as a list, but the proxies' joined by commas (the chart renders a list wrongly)."""
    return {
        "installCRDs": True,
        "operatorConfig": {"hostname": settings.hostname, "defaultTags": list(settings.operator_tags)},
        "proxyConfig": {"defaultTags": ",".join(settings.proxy_tags)},
        # Strings, not booleans: the chart compares them with "true", "false" and "noauth".
        "apiServerProxyConfig": {"mode": settings.api_server_proxy_mode},
        "ingressClass": {"enabled": True, "name": INGRESS_CLASS},
    }
