"""Ingresses in the platform's two shapes: a name on the tailnet, or a public host through the Cloudflare tunnel."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from lib.k8s import labels, wait_annotations
from lib.settings import matching
from pulumi_kubernetes.networking.v1 import Ingress

TAILSCALE = "tailscale"
CLOUDFLARE_TUNNEL = "cloudflare-tunnel"
PUBLIC_HOST = matching(
    r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])", "a full host name", "app.example.com"
)
WAIT = 300
"""Seconds until an endpoint answers and the controller has written the address; pulumi waits for both."""


def tailnet_ingress(
    name: str, *, namespace: str, host: str, service: str, port: int, after: Sequence[pulumi.Resource]
) -> Ingress:
    """`service`, for HTTP, on the tailnet as `host`, with a certificate of the tailnet.

    The name comes from `tls`; a rule with a host other than that is ignored, so the rule has none.
    Source: tailscale/tailscale, cmd/k8s-operator/ingress.go.
    """
    return Ingress(
        name,
        metadata=_metadata(name, namespace),
        spec={
            "ingressClassName": TAILSCALE,
            "rules": [{"http": {"paths": [_path("/", service, port)]}}],
            "tls": [{"hosts": [host]}],
        },
        opts=pulumi.ResourceOptions(depends_on=list(after)),
    )


def tunnel_ingress(
    name: str,
    *,
    namespace: str,
    host: str,
    service: str,
    port: int,
    paths: Sequence[str],
    after: Sequence[pulumi.Resource],
) -> Ingress:
    """Only `paths` of `service`, for everybody, as the public `host`, which is in a zone of the Cloudflare account.

    Encryption ends at Cloudflare's edge, so there is no `tls`. The tunnel takes each path for a regular expression that
    may match anywhere: what holds it further on is let in too.
    Source: STRRL/cloudflare-tunnel-ingress-controller, pkg/controller/transform.go; cloudflared, ingress/rule.go.
    """
    return Ingress(
        name,
        metadata=_metadata(name, namespace),
        spec={
            "ingressClassName": CLOUDFLARE_TUNNEL,
            "rules": [{"host": host, "http": {"paths": [_path(path, service, port) for path in paths]}}],
        },
        opts=pulumi.ResourceOptions(depends_on=list(after)),
    )


def _metadata(name: str, namespace: str) -> dict[str, object]:
    return {
        "name": name,
        "namespace": namespace,
        "labels": labels(namespace),
        "annotations": wait_annotations(timeout=WAIT),
    }


def _path(path: str, service: str, port: int) -> dict[str, object]:
    backend = {"service": {"name": service, "port": {"number": port}}}
    return {"path": path, "pathType": "Prefix", "backend": backend}
