"""Issuers for Let's Encrypt staging and production, with DNS-01 records at Cloudflare."""

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
"""Staging has generous limits, and browsers do not trust it: try a new certificate there first."""


def token_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Create the token in cert-manager's own namespace, where ClusterIssuers look for Secrets."""
    data = {TOKEN_KEY: settings.cloudflare_api_token}
    return opaque_secret(TOKEN_SECRET, namespace=settings.namespace, component="cert-manager", data=data, after=after)


def cluster_issuers(settings: Settings, *, after: tuple[Secret, Chart]) -> list[CustomResource]:
    """Create an issuer for each server and wait until its account is registered."""
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
    """Configure DNS-01, which issues wildcard certificates and needs no name reachable from the internet."""
    cloudflare = {"apiTokenSecretRef": {"name": TOKEN_SECRET, "key": TOKEN_KEY}}
    zones = {"selector": {"dnsZones": list(settings.dns_zones)}} if settings.dns_zones else {}
    return {
        "email": settings.acme_email,
        "server": server,
        "privateKeySecretRef": {"name": f"{name}-account"},
        "solvers": [{"dns01": {"cloudflare": cloudflare}} | zones],
    }
