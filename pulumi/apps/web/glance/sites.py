"""Apps that the start page links to, and how it checks each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Site:
    """One app. Links open in a browser on the tailnet; checks run in the pod, which does not resolve tailnet names."""

    name: str
    """The name on the tailnet and in the setting `sites`."""
    title: str
    service: str
    """The Service, `<name>.<namespace>:<port>`."""
    health: str
    """A path that answers 200 without a login."""
    icon: str
    """A Simple Icons name; the browser loads the icon."""

    @property
    def check_url(self) -> str:
        address, _, port = self.service.partition(":")
        return f"http://{address}.svc.cluster.local:{port}{self.health}"


SITES = (
    Site(
        name="immich",
        title="Immich",
        service="immich-server.immich:2283",
        health="/api/server/ping",
        icon="si:immich",
    ),
    Site(name="n8n", title="n8n", service="n8n-main.n8n:5678", health="/healthz", icon="si:n8n"),
    Site(
        name="temporal", title="Temporal", service="temporal-web.temporal:8080", health="/healthz", icon="si:temporal"
    ),
    Site(
        name="superset",
        title="Superset",
        service="superset.superset:8088",
        health="/health",
        icon="si:apachesuperset",
    ),
    Site(
        name="jupyterhub",
        title="JupyterHub",
        service="proxy-public.jupyterhub:80",
        health="/hub/health",
        icon="si:jupyter",
    ),
    Site(
        name="grafana",
        title="Grafana",
        service="monitoring-grafana.monitoring:80",
        health="/api/health",
        icon="si:grafana",
    ),
)
