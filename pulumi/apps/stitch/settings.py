"""Settings of Stitch. The ESC environment `stitch/prod` provides all settings without a default."""

from dataclasses import dataclass

import pulumi
from lib.database import SSLMODE
from lib.ingress import PUBLIC_HOST
from lib.settings import DNS_LABEL, between, matching, secret, setting

ENVIRONMENT = "stitch/prod"

IMAGE = matching(
    r"[^\s:@]+(:[0-9]+/[^\s:@]+)?:[^\s:@/]+(@sha256:[0-9a-f]{64})?",
    "an image with a tag",
    "ghcr.io/example/stitch:1.0.0",
)
HOST = matching(r"[^\s:/]+", "a host name", "HOST")
PATH = matching(r"/[A-Za-z0-9._/-]*", "a path that starts with /", "/eventsub")
EVENTSUB_SECRET = matching(r"[!-~]{10,100}", "a secret of 10 to 100 ASCII characters", "SECRET")
REGISTRY_LOGIN = matching(r"\{.*\"auths\".*\}", "the JSON of a .dockerconfigjson", "JSON")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read with `read_settings(Settings, environment=ENVIRONMENT)`; the meaning of a field is its `about`."""

    postgres_host: str = setting("Name of Postgres for the pods", key="POSTGRES_HOST", accepts=HOST)
    postgres_namespace: str = setting("Namespace Postgres runs in", key="k8s_namespace", accepts=DNS_LABEL)
    admin_host: str = setting("Name of Postgres for pulumi, on the tailnet", key="postgresql:host", accepts=HOST)
    admin_port: int = setting("Its port there", key="postgresql:port", accepts=between(1, 65535))
    admin_username: pulumi.Output[str] = secret("Login that may create roles and databases", key="postgresql:username")
    admin_password: pulumi.Output[str] = secret("Password of that login", key="postgresql:password")
    sslmode: str = setting(
        "How pulumi's own connection to Postgres is encrypted", key="postgresql:sslmode", accepts=SSLMODE
    )
    database_password: pulumi.Output[str] = secret("Password of Stitch's own role in Postgres", generated=True)
    eventsub_secret: pulumi.Output[str] = secret(
        "Key with which Twitch signs its messages; never change it", accepts=EVENTSUB_SECRET, generated=True
    )
    twitch_client_id: pulumi.Output[str] = secret("Client id of the application at Twitch")
    twitch_client_secret: pulumi.Output[str] = secret("Secret of that application")
    image: str = setting("Image of Stitch", accepts=IMAGE)
    public_host: str = setting(
        "Public name that Twitch calls, in a zone of the Cloudflare account", accepts=PUBLIC_HOST
    )
    registry_login: pulumi.Output[str] | None = secret(
        "Login of a private image registry", accepts=REGISTRY_LOGIN, optional=True
    )
    namespace: str = setting("Namespace of Stitch", default="stitch", accepts=DNS_LABEL)
    webhook_path: str = setting("The only path that the internet reaches", default="/eventsub", accepts=PATH)
    health_path: str = setting("Path that answers 200 when it is ready", default="/healthz", accepts=PATH)
    port: int = setting("Port it listens on", default=8080, accepts=between(1024, 65535))
    protect: bool = setting("Whether pulumi refuses to delete what holds data", default=True)

    @property
    def callback(self) -> str:
        """The URL that Twitch calls. Twitch requires HTTPS on port 443."""
        return f"https://{self.public_host}{self.webhook_path}"
