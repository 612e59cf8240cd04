"""Settings of cert-manager and its issuers."""

from dataclasses import dataclass

import pulumi
from lib.settings import DNS_LABEL, matching, secret, setting

EMAIL = matching(r"[^@\s]+@[^@\s]+\.[^@\s.]+", "an e-mail address", "ADDRESS")
ZONES = matching(r"([a-z0-9-]+\.)+[a-z0-9-]+", "a list of DNS zones such as example.org", "example.org")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    cloudflare_api_token: pulumi.Output[str] = secret("Cloudflare API token: Zone Read and DNS Edit on all zones")
    acme_email: str = setting("Address Let's Encrypt writes to", accepts=EMAIL)
    namespace: str = setting(
        "Namespace of cert-manager and of what its ClusterIssuers refer to", default="cert-manager", accepts=DNS_LABEL
    )
    dns_zones: tuple[str, ...] = setting(
        "Zones the issuers answer for; every zone of the token when empty", default=(), accepts=ZONES
    )
    create_crds: bool = setting(
        "Whether the chart installs and upgrades its CRDs; false only where something else does", default=True
    )
    monitoring: bool = setting(
        "Whether Prometheus scrapes cert-manager; needs the ServiceMonitor CRD of the monitoring stack", default=False
    )
