"""Settings of the Tailscale operator."""

from dataclasses import dataclass

import pulumi
from lib.settings import DNS_LABEL, matching, one_of, secret, setting

TAGS = matching(r"tag:[A-Za-z][A-Za-z0-9-]*", "a list of tags like tag:name", "tag:k8s")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    client_id: pulumi.Output[str] = secret("OAuth client of the tailnet, tagged like the operator", key="TS_CLIENT_ID")
    client_secret: pulumi.Output[str] = secret("Secret of that OAuth client", key="TS_CLIENT_SECRET")
    namespace: str = setting("Namespace of the operator and its proxies", default="tailscale", accepts=DNS_LABEL)
    hostname: str = setting("Name of the operator on the tailnet", default="tailscale-operator", accepts=DNS_LABEL)
    api_server_proxy_mode: str = setting(
        "Whether the Kubernetes API is on the tailnet; read the warning below",
        default="true",
        accepts=one_of("true", "false", "noauth"),
    )
    operator_tags: tuple[str, ...] = setting(
        "Tags of the operator: exactly those of the OAuth client", default=("tag:k8s-operator",), accepts=TAGS
    )
    proxy_tags: tuple[str, ...] = setting(
        "Tags of what the operator exposes; the operator's tag must own them", default=("tag:k8s",), accepts=TAGS
    )
