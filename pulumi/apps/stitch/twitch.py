"""What Stitch knows of Twitch, and what of Stitch the internet knows."""

from __future__ import annotations

import pulumi
from lib.ingress import tunnel_ingress
from lib.k8s import opaque_secret
from pulumi_kubernetes.core.v1 import Secret, Service
from pulumi_kubernetes.networking.v1 import Ingress
from settings import Settings

NAME = "stitch"


def twitch_secret(settings: Settings, *, after: pulumi.Resource) -> Secret:
    """Environment of the pod. The signing secret stays the same: with another one every subscription would fail."""
    data = {
        "EVENTSUB_CALLBACK": settings.callback,
        "EVENTSUB_SECRET": settings.eventsub_secret,
        "TWITCH_CLIENT_ID": settings.twitch_client_id,
        "TWITCH_CLIENT_SECRET": settings.twitch_client_secret,
    }
    return opaque_secret(NAME, namespace=settings.namespace, component=NAME, data=data, after=after)


def webhook(settings: Settings, *, after: Service) -> Ingress:
    """Through the tunnel: Twitch wants HTTPS on port 443 with a certificate that everybody trusts."""
    return tunnel_ingress(
        NAME,
        namespace=settings.namespace,
        host=settings.public_host,
        service=NAME,
        port=80,
        paths=[settings.webhook_path],
        after=[after],
    )
