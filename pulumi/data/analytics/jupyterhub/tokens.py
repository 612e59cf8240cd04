"""JupyterHub's tokens. The chart would generate new ones at every preview, or read them from its values."""

from __future__ import annotations

import hashlib

import pulumi
from lib.k8s import fill_secret
from settings import Settings

CHART_SECRET = "hub"  # noqa: S105 - the name of the chart's own Secret
PROXY_TOKEN = "hub.config.ConfigurableHTTPProxy.auth_token"  # noqa: S105 - a key
ELSEWHERE = "in-the-secret-jupyterhub-database"
"""Placeholder for a token in the chart's values, so that they do not change."""


def own_secrets(settings: Settings) -> dict[str, pulumi.Output[str]]:
    """Return what the hub reads from `hub.existingSecret` before its chart's own Secret, by the chart's keys.

    Cookie secret and key must be 32 bytes in hexadecimal, so both are the hash of the setting.
    Source: jupyterhub/zero-to-jupyterhub-k8s, jupyterhub/files/hub/z2jh.py.
    """
    return {
        "hub.config.JupyterHub.cookie_secret": settings.cookie_secret.apply(hexadecimal),
        "hub.config.CryptKeeper.keys": settings.crypt_key.apply(hexadecimal),
        "admin_password": settings.admin_password,
    }


def proxy_token_in_chart(settings: Settings) -> pulumi.ResourceTransform:
    """Put the proxy's token into the chart's own Secret, the only place from which hub and proxy read it."""
    return fill_secret(CHART_SECRET, {PROXY_TOKEN: settings.proxy_token})


def hexadecimal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
