"""Settings of ClickHouse."""

from dataclasses import dataclass

import pulumi
from lib.settings import DNS_LABEL, QUANTITY, matching, secret, setting

NETWORKS = matching(r"[0-9a-f.:]+/[0-9]{1,3}", "a list of networks such as 10.0.0.0/8", "10.0.0.0/8")
VERSION = matching(r"[0-9][^\s:@]*", "a version with its suffix", "25.3.6.10034.altinitystable")
USER = matching(r"(?!default$)[a-z][a-z0-9_]*", "a name of a-z, 0-9 and _ that is not default", "analytics")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    admin_password: pulumi.Output[str] = secret(
        "Password of the user default, the administrator, who can log in from the pod only", generated=True
    )
    user_password: pulumi.Output[str] = secret("Password of the user that apps log in as", generated=True)
    operator_password: pulumi.Output[str] = secret("Password of the operator's own user", generated=True)
    namespace: str = setting("Namespace of operator and server", default="clickhouse", accepts=DNS_LABEL)
    user: str = setting("User that apps log in as, over the network", default="analytics", accepts=USER)
    networks: tuple[str, ...] = setting(
        "Networks that user may connect from; ClickHouse refuses all others",
        default=("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
        accepts=NETWORKS,
    )
    # renovate: altinity/clickhouse-server
    image_tag: str = setting("Version of the server", default="25.3.6.10034.altinitystable", accepts=VERSION)
    storage_size: str = setting("Volume of the server; it can grow, never shrink", default="20Gi", accepts=QUANTITY)
    storage_class: str = setting("StorageClass; the cluster's default class when empty", default="")
    protect: bool = setting(
        "Whether pulumi refuses to delete the installation, its CRD and its namespace", default=True
    )
    monitoring: bool = setting(
        "Whether Prometheus scrapes the operator; needs the ServiceMonitor CRD of the monitoring stack", default=False
    )
