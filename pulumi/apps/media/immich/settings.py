"""Settings of Immich."""

from dataclasses import dataclass

from lib.database import DatabaseSettings
from lib.settings import DNS_LABEL, QUANTITY, matching, one_of, setting

VECTOR = {"vectorchord": ("vector", "vchord"), "pgvector": ("vector",)}
"""What each kind of vector search needs, in the order in which it can be made."""
USED = ("cube", "earthdistance", "unaccent", "uuid-ossp", "pg_trgm")
"""What Immich uses besides. Source: immich-app/immich, server/src/constants.ts and its migrations."""
EXTENSIONS = matching(r"[a-z][a-z0-9_-]*", "a list of extension names", "cube")


@dataclass(frozen=True, kw_only=True)
class Settings(DatabaseSettings):
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    vector_extension: str = setting(
        "What vector search runs on; the server must have it", default="vectorchord", accepts=one_of(*VECTOR)
    )
    extensions: tuple[str, ...] = setting(
        "Postgres extensions besides that, in the order in which they are made", default=USED, accepts=EXTENSIONS
    )
    namespace: str = setting("Namespace of Immich", default="immich", accepts=DNS_LABEL)
    host: str = setting("Name on the tailnet", default="immich", accepts=DNS_LABEL)
    image_tag: str = setting("Version of Immich, of its server and its machine learning", default="v2.6.3")
    library_size: str = setting("Volume of the library; it can grow, never shrink", default="100Gi", accepts=QUANTITY)
    storage_class: str = setting("StorageClass; the cluster's default class when empty", default="")
    machine_learning: bool = setting("Whether faces and things are recognised, which takes memory", default=True)
    metrics: bool = setting(
        "Whether Prometheus scrapes the server; needs the ServiceMonitor CRD of the monitoring stack", default=False
    )

    @property
    def all_extensions(self) -> tuple[str, ...]:
        """Those of vector search first, and none twice."""
        return tuple(dict.fromkeys((*VECTOR[self.vector_extension], *self.extensions)))

    @property
    def left_out(self) -> tuple[str, ...]:
        """What Immich uses and the settings do not have."""
        return tuple(name for name in USED if name not in self.all_extensions)
