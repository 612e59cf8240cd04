"""The platform's two kinds of Ingress: a name on the tailnet, or a public host through the Cloudflare tunnel."""

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
"""Seconds. Pulumi waits for a ready endpoint and for the address that the controller writes."""


def tailnet_ingress(
    name: str, *, namespace: str, host: str, service: str, port: int, after: Sequence[pulumi.Resource]
) -> Ingress:
    """Expose `service` over HTTPS on the tailnet as `host`, with a certificate of the tailnet.

    The name comes from `tls`; the operator ignores a rule with another host, so the rule has none.
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
    """Expose only `paths` of `service` to the internet as `host`, which is in a zone of the Cloudflare account.

    TLS terminates at Cloudflare's edge, so there is no `tls`. The tunnel uses each path as a regular expression that
    may match anywhere in a request's path: it also admits paths that contain it further on.
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
