"""Settings of the monitoring stack."""

from dataclasses import dataclass

import pulumi
from lib.settings import DNS_LABEL, QUANTITY, between, matching, secret, setting

RETENTION = matching(r"[1-9][0-9]*[hdwy]", "a time such as 15d", "15d")
TAILNET = matching(r"([a-z0-9-]+\.)+ts\.net|", "a domain such as tail1234.ts.net", "tail1234.ts.net")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    grafana_password: pulumi.Output[str] = secret("Password of Grafana's user admin", generated=True)
    namespace: str = setting("Namespace of the stack", default="monitoring", accepts=DNS_LABEL)
    grafana_host: str = setting("Name of Grafana on the tailnet", default="grafana", accepts=DNS_LABEL)
    tailnet: str = setting("Domain of the tailnet, for full links; short names when empty", default="", accepts=TAILNET)
    retention: str = setting("How long metrics are kept", default="15d", accepts=RETENTION)
    storage_size: str = setting("Volume of Prometheus; it can grow, never shrink", default="20Gi", accepts=QUANTITY)
    storage_class: str = setting("StorageClass; the cluster's default class when empty", default="")
    control_plane: bool = setting(
        "Whether scheduler, controller manager, etcd and kube-proxy are scraped; most small clusters hide them",
        default=False,
    )
    backup_hours: int = setting(
        "Age in hours from which a database backup is too old", default=26, accepts=between(1, 8760)
    )
    certificate_days: int = setting(
        "Days of validity below which a certificate is near its end", default=14, accepts=between(1, 60)
    )
    claim_percent: int = setting(
        "Percentage from which a volume claim is nearly full", default=85, accepts=between(1, 99)
    )
    postgres_namespace: str = setting("Where Postgres runs", default="postgresql", accepts=DNS_LABEL)
    tailscale_namespace: str = setting("Where Tailscale's proxies run", default="tailscale", accepts=DNS_LABEL)
    tunnel_namespace: str = setting(
        "Where the Cloudflare tunnel's connectors run", default="cloudflare-tunnel", accepts=DNS_LABEL
    )

    @property
    def grafana_url(self) -> str:
        return f"https://{self.grafana_host}.{self.tailnet}/" if self.tailnet else f"https://{self.grafana_host}/"
