"""Settings of the CloudNativePG operator."""

from dataclasses import dataclass

from lib.settings import DNS_LABEL, setting


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    namespace: str = setting(
        "Namespace of the operator; the Barman backup plugin has to share it", default="cnpg-system", accepts=DNS_LABEL
    )
    create_crds: bool = setting(
        "Whether the chart installs and upgrades its CRDs; false only where something else does", default=True
    )
    pod_monitor: bool = setting(
        "Whether Prometheus scrapes the operator; needs the PodMonitor CRD of the monitoring stack", default=False
    )
