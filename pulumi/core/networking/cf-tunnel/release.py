"""The controller's chart and the Secret with its login."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.charts import chart
from lib.k8s import add_wait_annotation, opaque_secret
from pulumi_kubernetes.core.v1 import Secret
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

CHART = "cloudflare-tunnel-ingress-controller"
LOGIN = "cloudflare-api"
INGRESS_CLASS = "cloudflare-tunnel"

TOKEN_KEY = "api-token"  # noqa: S105 - the name of a key
ACCOUNT_KEY = "cloudflare-account-id"
TUNNEL_KEY = "cloudflare-tunnel-name"


def login_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Create the Secret with token, account and tunnel. In the chart's values the token would be plaintext."""
    data = {TOKEN_KEY: settings.api_token, ACCOUNT_KEY: settings.account_id, TUNNEL_KEY: settings.tunnel_name}
    return opaque_secret(LOGIN, namespace=settings.namespace, component=CHART, data=data, after=after)


def controller_chart(settings: Settings, *, after: Secret) -> Chart:
    """Install the controller and wait until it is ready: Cloudflare has accepted its token and knows the tunnel.

    The release has the chart's name, so that the objects have exactly that name.
    """
    patient = add_wait_annotation("Deployment", timeout=300)
    return chart(
        "cloudflare-tunnel-ingress-controller",
        release=CHART,
        namespace=settings.namespace,
        values=chart_values(settings),
        opts=pulumi.ResourceOptions(depends_on=[after], transforms=[patient]),
    )


def chart_values(settings: Settings) -> dict[str, Any]:
    """Name the Secret with all four keys: only then does the chart not create its own."""
    return {
        "cloudflare": {
            "secretRef": {
                "name": LOGIN,
                "apiTokenKey": TOKEN_KEY,
                "accountIDKey": ACCOUNT_KEY,
                "tunnelNameKey": TUNNEL_KEY,
            }
        },
        "ingressClass": {"name": INGRESS_CLASS, "isDefaultClass": False},
        "cloudflared": {"replicaCount": settings.connectors},
        "serviceMonitor": {"create": settings.monitoring},
    }
