"""Settings of n8n."""

from dataclasses import dataclass

import pulumi
from lib.database import DatabaseSettings
from lib.ingress import PUBLIC_HOST
from lib.settings import DNS_LABEL, QUANTITY, matching, secret, setting

URL = matching(r"https://[^\s/]+/?|", "an https URL without a path", "https://n8n.tail1234.ts.net")


@dataclass(frozen=True, kw_only=True)
class Settings(DatabaseSettings):
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    encryption_key: pulumi.Output[str] = secret(
        "Encrypts the credentials that n8n stores; never change it", generated=True
    )
    webhook_host: str = setting("Public host of the webhooks, in a zone of the Cloudflare account", accepts=PUBLIC_HOST)
    namespace: str = setting("Namespace of n8n", default="n8n", accepts=DNS_LABEL)
    host: str = setting("Name of the editor on the tailnet", default="n8n", accepts=DNS_LABEL)
    editor_url: str = setting(
        "Address of the editor in links from n8n, with the tailnet's domain; https://<host> when empty",
        default="",
        accepts=URL,
    )
    timezone: str = setting("Time zone of schedules", default="UTC")
    # renovate: docker.io/n8nio/n8n
    image_tag: str = setting("Version of n8n; the chart's default tag is not fixed", default="2.35.7")
    storage_size: str = setting(
        "Volume of files and binary data; it can grow, never shrink", default="5Gi", accepts=QUANTITY
    )
    storage_class: str = setting("StorageClass; the cluster's default class when empty", default="")

    @property
    def chosen_editor_url(self) -> str:
        return self.editor_url or f"https://{self.host}"
