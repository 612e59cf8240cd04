"""Settings of Temporal."""

from dataclasses import dataclass

from lib.database import DatabaseSettings
from lib.settings import DNS_LABEL, matching, setting

NAMES = matching(r"[a-z0-9][a-z0-9-]*", "a list of names of a-z, 0-9 and -", "default")
RETENTION = matching(r"[1-9][0-9]*(h|d)", "hours or days such as 3d", "3d")


@dataclass(frozen=True, kw_only=True)
class Settings(DatabaseSettings):
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    namespace: str = setting("Kubernetes namespace of Temporal", default="temporal", accepts=DNS_LABEL)
    host: str = setting("Name of the web interface on the tailnet", default="temporal", accepts=DNS_LABEL)
    grpc_host: str = setting(
        "Name of the gRPC frontend on the tailnet, for workers and the temporal CLI",
        default="temporal-grpc",
        accepts=DNS_LABEL,
    )
    namespaces: tuple[str, ...] = setting("Temporal's own namespaces", default=("default",), accepts=NAMES)
    retention: str = setting("How long finished workflows are kept", default="3d", accepts=RETENTION)
    monitoring: bool = setting(
        "Whether Prometheus scrapes the servers; needs the ServiceMonitor CRD of the monitoring stack", default=False
    )
