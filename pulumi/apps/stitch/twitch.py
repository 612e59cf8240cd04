"""Stitch's credentials for Twitch, and its webhook on the internet."""

from __future__ import annotations

import pulumi
from lib.ingress import tunnel_ingress
from lib.k8s import opaque_secret
from pulumi_kubernetes.core.v1 import Secret, Service
from pulumi_kubernetes.networking.v1 import Ingress
from settings import Settings

NAME = "stitch"


def twitch_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Create the pod's environment. Keep the signing secret: with a new one every subscription would fail."""
    data = {
        "EVENTSUB_CALLBACK": settings.callback,
        "EVENTSUB_SECRET": settings.eventsub_secret,
        "TWITCH_CLIENT_ID": settings.twitch_client_id,
        "TWITCH_CLIENT_SECRET": settings.twitch_client_secret,
    }
    return opaque_secret(NAME, namespace=settings.namespace, component=NAME, data=data, after=after)


def webhook(settings: Settings, *, after: Service) -> Ingress:
    """Expose the webhook through the tunnel: Twitch requires HTTPS on port 443 and a trusted certificate."""
    return tunnel_ingress(
        NAME,
        namespace=settings.namespace,
        host=settings.public_host,
        service=NAME,
        port=80,
        paths=[settings.webhook_path],
        after=[after],
    )
