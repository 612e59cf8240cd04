"""Glance's configuration."""

from __future__ import annotations

import json
import re
from typing import Any

from settings import Settings, tailnet_url
from sites import SITES, Site

PORT = 8080
FILE = "glance.yml"
THEMES: dict[str, dict[str, Any]] = {
    "dark": {"light": False, "background-color": "225 14 15"},
    "light": {"light": True, "background-color": "220 23 95"},
}
CHECK_SECONDS = 5
VARIABLE = re.compile(r"\$\{(?=([A-Za-z]+:)?[A-Za-z0-9_-]+\})")
"""Glance expands such variables before it parses the file, and exits if one is not defined."""


def configuration(settings: Settings) -> str:
    """Return the content of `glance.yml`: JSON, which is also YAML."""
    text = json.dumps(document(settings), indent=2, ensure_ascii=False)
    return VARIABLE.sub(r"\\${", text) + "\n"


def document(settings: Settings) -> dict[str, Any]:
    """Build the configuration. Source of the keys: glanceapp/glance, docs/configuration.md.

    A page needs one or two full columns.
    """
    return {
        # Otherwise its links would be wrong behind the proxy.
        "server": {"port": PORT, "proxied": True},
        "branding": {"app-name": settings.title},
        "theme": THEMES[settings.theme],
        "pages": [
            {
                "name": settings.title,
                "slug": "home",
                "columns": [
                    {
                        "size": "small",
                        "widgets": [clock(settings), {"type": "calendar", "first-day-of-week": "monday"}],
                    },
                    {"size": "full", "widgets": [monitor(settings)]},
                ],
            }
        ],
    }


def clock(settings: Settings) -> dict[str, Any]:
    return {"type": "clock", "hour-format": "24h", "timezones": [{"timezone": settings.timezone, "label": "Home"}]}


def monitor(settings: Settings) -> dict[str, Any]:
    """List every chosen app with its state, in the order of the setting `sites`."""
    by_name = {site.name: site for site in SITES}
    return {
        "type": "monitor",
        "title": "Services",
        "cache": "1m",
        "sites": [monitor_site(by_name[name], settings.tailnet) for name in settings.sites],
    }


def monitor_site(site: Site, tailnet: str) -> dict[str, Any]:
    return {
        "title": site.title,
        "url": tailnet_url(site.name, tailnet),
        "check-url": site.check_url,
        "icon": site.icon,
        "timeout": f"{CHECK_SECONDS}s",
    }
