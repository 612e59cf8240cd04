"""Settings of Immich."""

from dataclasses import dataclass

from lib.database import DatabaseSettings
from lib.settings import DNS_LABEL, QUANTITY, matching, one_of, setting

VECTOR = {"vectorchord": ("vector", "vchord"), "pgvector": ("vector",)}
"""The extensions of each kind of vector search, in the order of creation."""
USED = ("cube", "earthdistance", "unaccent", "uuid-ossp", "pg_trgm")
"""The other extensions that Immich uses. Source: immich-app/immich, server/src/constants.ts and its migrations."""
EXTENSIONS = matching(r"[a-z][a-z0-9_-]*", "a list of extension names", "cube")


@dataclass(frozen=True, kw_only=True)
class Settings(DatabaseSettings):
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    vector_extension: str = setting(
        "Extension for vector search; the server must have it", default="vectorchord", accepts=one_of(*VECTOR)
    )
    extensions: tuple[str, ...] = setting(
        "Other Postgres extensions, in the order of creation", default=USED, accepts=EXTENSIONS
    )
    namespace: str = setting("Namespace of Immich", default="immich", accepts=DNS_LABEL)
    host: str = setting("Name on the tailnet", default="immich", accepts=DNS_LABEL)
    # renovate: ghcr.io/immich-app/immich-server
    image_tag: str = setting("Version of Immich's server and machine learning", default="v2.6.3")
    library_size: str = setting("Volume of the library; it can grow, never shrink", default="100Gi", accepts=QUANTITY)
    storage_class: str = setting("StorageClass; the cluster's default class when empty", default="")
    machine_learning: bool = setting("Whether faces and objects are recognised, which takes memory", default=True)
    metrics: bool = setting(
        "Whether Prometheus scrapes the server; needs the ServiceMonitor CRD of the monitoring stack", default=False
    )

    @property
    def all_extensions(self) -> tuple[str, ...]:
        """Extensions of vector search first, without duplicates."""
        return tuple(dict.fromkeys((*VECTOR[self.vector_extension], *self.extensions)))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Extensions that Immich uses and the settings leave out."""
        return tuple(name for name in USED if name not in self.all_extensions)
