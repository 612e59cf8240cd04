"""Settings of Superset."""

from dataclasses import dataclass

import pulumi
from lib.database import DatabaseSettings
from lib.settings import DNS_LABEL, between, matching, secret, setting

USER = matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "a login name", "admin")
EMAIL = matching(r"[^@\s'\"]+@[^@\s'\"]+", "an e-mail address", "admin@example.com")
PACKAGES = matching(r"[A-Za-z0-9][A-Za-z0-9._-]*[=<>!~,.*0-9a-z]*", "a list of Python packages", "clickhouse-connect")


@dataclass(frozen=True, kw_only=True)
class Settings(DatabaseSettings):
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    secret_key: pulumi.Output[str] = secret(
        "Signs sessions and encrypts the passwords of databases that Superset stores", generated=True
    )
    admin_password: pulumi.Output[str] = secret("Password of the first user, an administrator", generated=True)
    admin_username: str = setting("Name of that user", default="admin", accepts=USER)
    admin_email: str = setting("E-mail address of that user", default="admin@localhost", accepts=EMAIL)
    namespace: str = setting("Namespace of Superset", default="superset", accepts=DNS_LABEL)
    host: str = setting("Name on the tailnet", default="superset", accepts=DNS_LABEL)
    drivers: tuple[str, ...] = setting(
        "Python packages installed when a pod starts; Superset's image has no driver for Postgres",
        default=("psycopg2-binary>=2.9,<3", "clickhouse-connect>=0.8,<1"),
        accepts=PACKAGES,
    )
    workers: int = setting("Pods that run long queries in the background", default=1, accepts=between(0, 9))
    image_tag: str = setting("Version of Superset; the chart's own when empty", default="")
