"""Settings of the Postgres cluster."""

from dataclasses import dataclass

import pulumi
from lib.settings import DNS_LABEL, QUANTITY, between, matching, secret, setting

# The operator refuses `latest` and a bare digest, because it cannot detect an upgrade from them.
IMAGE = matching(
    r"[^\s:@]+(:[0-9]+/[^\s:@]+)?:[0-9][^\s:@]*(@sha256:[0-9a-f]{64})?|",
    "an image whose tag starts with a version",
    "IMAGE:VERSION",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    superuser_password: pulumi.Output[str] = secret("Password of the role postgres", generated=True)
    namespace: str = setting("Namespace of the cluster", default="postgresql", accepts=DNS_LABEL)
    port: int = setting("Port of the tailnet Service, exported to consumers", default=5432, accepts=between(1, 65535))
    ts_hostname: str = setting("Name on the tailnet", default="postgresql", accepts=DNS_LABEL)
    instances: int = setting("Postgres instances; more than one adds replicas", default=1, accepts=between(1, 9))
    storage_size: str = setting("Volume of each instance; it can grow, never shrink", default="20Gi", accepts=QUANTITY)
    storage_class: str = setting("StorageClass; the cluster's default class when empty", default="")
    image: str = setting("Postgres image; the operator's default when empty", default="", accepts=IMAGE)
    parameters: dict[str, str] = setting("Entries of postgresql.conf", default={})
    preload_libraries: tuple[str, ...] = setting(
        "shared_preload_libraries besides the operator's; vchord.so is added for a VectorChord image", default=()
    )
    protect: bool = setting("Whether pulumi refuses to delete the cluster and its namespace", default=True)
    monitoring: bool = setting(
        "Whether Prometheus scrapes the instances; needs the PodMonitor CRD of the monitoring stack", default=False
    )

    @property
    def has_vectorchord(self) -> bool:
        return "vectorchord" in self.image

    @property
    def all_preload_libraries(self) -> tuple[str, ...]:
        """Add VectorChord's library for a VectorChord image: it has to be preloaded."""
        added = ("vchord.so",) if self.has_vectorchord and "vchord.so" not in self.preload_libraries else ()
        return self.preload_libraries + added
