"""The controller's chart and the Secret it logs in with."""

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
    """Token, account and tunnel. The chart could write it from its values, where a secret would not stay one."""
    data = {TOKEN_KEY: settings.api_token, ACCOUNT_KEY: settings.account_id, TUNNEL_KEY: settings.tunnel_name}
    return opaque_secret(LOGIN, namespace=settings.namespace, component=CHART, data=data, after=after)


def controller_chart(settings: Settings, *, after: Secret) -> Chart:
    """The controller, awaited: it is not ready until Cloudflare took its token and knows the tunnel.

    The release has the chart's name, so that the objects are called just that.
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
    """The Secret is named with all four keys: the chart then makes none of its own."""
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
