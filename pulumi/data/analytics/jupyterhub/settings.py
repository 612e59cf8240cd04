"""Settings of JupyterHub."""

from dataclasses import dataclass

import pulumi
from lib.database import DatabaseSettings
from lib.settings import DNS_LABEL, QUANTITY, matching, secret, setting

USERS = matching(r"[a-z0-9][a-z0-9._-]*", "a list of login names", "admin")
MEMORY = matching(r"[1-9][0-9]*[MG]", "memory such as 2G", "2G")
IMAGE = matching(
    r"[^\s:@]+(:[0-9]+/[^\s:@]+)?:[^\s:@]+|", "an image with its tag", "quay.io/jupyter/scipy-notebook:TAG"
)
LONG = matching(r".{32,}", "a secret of at least 32 characters", "")


@dataclass(frozen=True, kw_only=True)
class Settings(DatabaseSettings):
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    proxy_token: pulumi.Output[str] = secret("Token of the hub for its proxy", generated=True, accepts=LONG)
    cookie_secret: pulumi.Output[str] = secret(
        "Signs session cookies; a new one logs all users out", generated=True, accepts=LONG
    )
    crypt_key: pulumi.Output[str] = secret("Encrypts the login data that the hub stores", generated=True, accepts=LONG)
    admin_password: pulumi.Output[str] = secret("Password of the admins", generated=True, accepts=LONG)
    admin_users: tuple[str, ...] = setting("Who may log in, with that password", default=("admin",), accepts=USERS)
    namespace: str = setting("Namespace of the hub and of the notebooks", default="jupyterhub", accepts=DNS_LABEL)
    host: str = setting("Name on the tailnet", default="jupyterhub", accepts=DNS_LABEL)
    clickhouse_namespace: str = setting(
        "Namespace of ClickHouse, which notebooks may reach", default="clickhouse", accepts=DNS_LABEL
    )
    notebook_image: str = setting("Image of notebooks; the chart's sample when empty", default="", accepts=IMAGE)
    memory_guarantee: str = setting("Memory reserved for a notebook", default="512M", accepts=MEMORY)
    memory_limit: str = setting("Memory a notebook cannot exceed", default="2G", accepts=MEMORY)
    storage_size: str = setting("Volume of each user's files", default="10Gi", accepts=QUANTITY)
    storage_class: str = setting("StorageClass; the cluster's default class when empty", default="")
