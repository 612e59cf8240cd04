"""Two Ingresses: the editor on the tailnet, the webhooks on the internet."""

from __future__ import annotations

import pulumi
from lib.ingress import tailnet_ingress, tunnel_ingress
from pulumi_kubernetes.networking.v1 import Ingress
from release import PORT, SERVICE
from settings import Settings

WEBHOOK_PATHS = ("/webhook", "/webhook-test", "/webhook-waiting", "/form", "/form-test", "/form-waiting")
"""Paths that external services call. Editor and API stay on the tailnet."""


def editor(settings: Settings, *, after: pulumi.Resource) -> Ingress:
    return tailnet_ingress(
        "n8n-editor", namespace=settings.namespace, host=settings.host, service=SERVICE, port=PORT, after=[after]
    )


def webhooks(settings: Settings, *, after: pulumi.Resource) -> Ingress:
    return tunnel_ingress(
        "n8n-webhooks",
        namespace=settings.namespace,
        host=settings.webhook_host,
        service=SERVICE,
        port=PORT,
        paths=WEBHOOK_PATHS,
        after=[after],
    )
