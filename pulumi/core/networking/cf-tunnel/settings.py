"""Settings of the Cloudflare tunnel."""

from dataclasses import dataclass

import pulumi
from lib.settings import DNS_LABEL, between, matching, secret, setting

ACCOUNT = matching(r"[0-9a-f]{32}", "an account id: 32 characters of 0-9 and a-f", "ACCOUNT_ID")
TUNNEL = matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "a name of letters, digits, dots and dashes", "homelab")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    api_token: pulumi.Output[str] = secret("Cloudflare API token: Zone Read, DNS Edit, Cloudflare Tunnel Edit")
    account_id: str = setting("Cloudflare account whose zones the public names are in", accepts=ACCOUNT)
    tunnel_name: str = setting(
        "Tunnel of that account; the controller makes it when it is missing", default="homelab", accepts=TUNNEL
    )
    namespace: str = setting(
        "Namespace of the controller and its connectors", default="cloudflare-tunnel", accepts=DNS_LABEL
    )
    connectors: int = setting("Connections kept open to Cloudflare, as pods", default=1, accepts=between(1, 9))
    monitoring: bool = setting(
        "Whether Prometheus scrapes controller and connectors; needs the ServiceMonitor CRD of the monitoring stack",
        default=False,
    )
