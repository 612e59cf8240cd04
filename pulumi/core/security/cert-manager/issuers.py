"""Where certificates come from: Let's Encrypt, for rehearsals and for real, proven by DNS records at Cloudflare."""

from __future__ import annotations

from typing import Any

import pulumi
from lib.k8s import labels, opaque_secret, wait_annotations
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core.v1 import Secret
from pulumi_kubernetes.helm.v4 import Chart
from settings import Settings

TOKEN_SECRET = "cloudflare-api-token"  # noqa: S105 - a name
TOKEN_KEY = "api-token"  # noqa: S105 - a name
SERVERS = {
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "letsencrypt-production": "https://acme-v02.api.letsencrypt.org/directory",
}
"""Staging has generous limits, and no browser trusts it: try a new certificate there first."""


def token_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """What a ClusterIssuer refers to has to be in cert-manager's own namespace."""
    data = {TOKEN_KEY: settings.cloudflare_api_token}
    return opaque_secret(TOKEN_SECRET, namespace=settings.namespace, component="cert-manager", data=data, after=after)


def cluster_issuers(settings: Settings, *, after: tuple[Secret, Chart]) -> list[CustomResource]:
    """One for each server, awaited until its account is registered there."""
    return [
        CustomResource(
            name,
            api_version="cert-manager.io/v1",
            kind="ClusterIssuer",
            metadata={
                "name": name,
                "labels": labels("cert-manager"),
                "annotations": wait_annotations("condition=Ready", timeout=180),
            },
            spec={"acme": acme(settings, name, server)},
            opts=pulumi.ResourceOptions(depends_on=[*after]),
        )
        for name, server in SERVERS.items()
    ]


def acme(settings: Settings, name: str, server: str) -> dict[str, Any]:
    """DNS-01: the only proof that gives wildcard certificates and needs nothing reachable from the internet."""
    cloudflare = {"apiTokenSecretRef": {"name": TOKEN_SECRET, "key": TOKEN_KEY}}
    zones = {"selector": {"dnsZones": list(settings.dns_zones)}} if settings.dns_zones else {}
    return {
        "email": settings.acme_email,
        "server": server,
        "privateKeySecretRef": {"name": f"{name}-account"},
        "solvers": [{"dns01": {"cloudflare": cloudflare}} | zones],
    }
