"""JupyterHub's tokens. The chart would make up new ones at every preview, or have them among its values."""

from __future__ import annotations

import hashlib

import pulumi
from lib.k8s import fill_secret
from settings import Settings

CHART_SECRET = "hub"  # noqa: S105 - the name of the chart's own Secret
PROXY_TOKEN = "hub.config.ConfigurableHTTPProxy.auth_token"  # noqa: S105 - a key
ELSEWHERE = "in-the-secret-jupyterhub-database"
"""What the chart's values have in place of a token, so that they are the same every time."""


def own_secrets(settings: Settings) -> dict[str, pulumi.Output[str]]:
    """What the hub looks up in `hub.existingSecret` before its chart's own Secret, by the chart's keys.

    Cookie secret and key have to be 32 bytes in hexadecimal; of any text, its hash is that.
    Source: jupyterhub/zero-to-jupyterhub-k8s, jupyterhub/files/hub/z2jh.py.
    """
    return {
        "hub.config.JupyterHub.cookie_secret": settings.cookie_secret.apply(hexadecimal),
        "hub.config.CryptKeeper.keys": settings.crypt_key.apply(hexadecimal),
        "admin_password": settings.admin_password,
    }


def proxy_token_in_chart(settings: Settings) -> pulumi.ResourceTransform:
    """Hub and proxy take this one from the chart's own Secret and from nowhere else."""
    return fill_secret(CHART_SECRET, {PROXY_TOKEN: settings.proxy_token})


def hexadecimal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
