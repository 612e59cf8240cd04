"""Settings of the start page."""

from dataclasses import dataclass

from lib.settings import DNS_LABEL, VERSIONED_IMAGE, matching, one_of, setting

NAMES = ("immich", "n8n", "temporal", "superset", "jupyterhub", "grafana")
"""Names of the apps in `sites.py`."""
SITE_NAMES = matching("|".join(NAMES), f"a list of {', '.join(NAMES)}", NAMES[0])
TAILNET = matching(r"([a-z0-9-]+\.)+ts\.net|", "a domain such as tail1234.ts.net", "tail1234.ts.net")
ZONE = matching(r"[A-Za-z_]+(/[A-Za-z0-9_+-]+)*", "a time zone such as Europe/Berlin", "Europe/Berlin")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Read with `read_settings(Settings)`; the meaning of a field is its `about`."""

    namespace: str = setting("Namespace of the start page", default="glance", accepts=DNS_LABEL)
    hostname: str = setting("Name on the tailnet", default="glance", accepts=DNS_LABEL)
    image: str = setting("Image of Glance", default="glanceapp/glance:v0.8.5", accepts=VERSIONED_IMAGE)
    title: str = setting("Title of the page", default="Home")
    tailnet: str = setting("Domain of the tailnet, for full links; short names when empty", default="", accepts=TAILNET)
    sites: tuple[str, ...] = setting("Apps to link and check", default=NAMES, accepts=SITE_NAMES)
    timezone: str = setting("Time zone of the clock", default="Etc/UTC", accepts=ZONE)
    theme: str = setting("Colours", default="dark", accepts=one_of("dark", "light"))

    @property
    def url(self) -> str:
        return tailnet_url(self.hostname, self.tailnet)


def tailnet_url(name: str, tailnet: str) -> str:
    """Return the URL of the tailnet device `name`."""
    return f"https://{name}.{tailnet}/" if tailnet else f"https://{name}/"
