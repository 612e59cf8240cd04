"""THE list of services: folder, needs, wiring, exposure, checks. Adding a service is one folder and one entry.

From it derive the tasks, the order, the graph, the rows of `status` and `doctor`, the README table and the tests'
parameters. What an entry can hold is described in `runbooks/stacks/service.py`; which secrets and settings a service
requires is read from its program's `settings.py`.
"""

from __future__ import annotations

from runbooks.stacks.service import Reference, Service, find

POSTGRES = Reference(setting="postgres_stack", producer="postgres")

SERVICES: tuple[Service, ...] = (
    Service(
        name="tailscale",
        folder="core/networking/tailscale",
        about="Tailscale operator: puts Services, Ingresses and the API server on the tailnet",
        checks=("tailscale",),
    ),
    Service(
        name="cf-tunnel",
        folder="core/networking/cf-tunnel",
        about="Cloudflare tunnel: puts Ingresses on the public internet",
        namespace="cloudflare-tunnel",
        checks=("cf_tunnel",),
    ),
    Service(
        name="cert-manager",
        folder="core/security/cert-manager",
        about="cert-manager: gets certificates from Let's Encrypt and keeps them valid",
        checks=("cert_manager",),
    ),
    Service(
        name="cnpg",
        folder="core/operators/cnpg",
        about="CloudNativePG operator: runs Postgres clusters",
        namespace="cnpg-system",
        checks=("cnpg",),
    ),
    Service(
        name="postgres",
        folder="data/databases/postgres",
        project="postgresql",
        about="the Postgres cluster every app shares, with superuser access and a tailnet name",
        needs=("cnpg", "tailscale"),
        stateful=True,
        checks=("postgres",),
        exposed={"svc/postgresql-cluster-rw-ext": "ts_hostname"},
    ),
    Service(
        name="n8n",
        folder="data/workflow/n8n",
        about="n8n: workflows; editor on the tailnet, webhooks through the Cloudflare tunnel",
        needs=("postgres", "tailscale", "cf-tunnel"),
        reference=POSTGRES,
        stateful=True,
        checks=("n8n",),
        exposed={"ingress/n8n-editor": "editor_url"},
    ),
    Service(
        name="glance",
        folder="apps/web/glance",
        about="Glance: the start page, with links to every app and whether it works",
        needs=("tailscale",),
        checks=("glance",),
        exposed={"ingress/glance": "url"},
    ),
    Service(
        name="immich",
        folder="apps/media/immich",
        about="Immich: photos and videos, on the tailnet",
        needs=("postgres", "tailscale"),
        reference=POSTGRES,
        stateful=True,
        checks=("immich",),
        exposed={"ingress/immich": "url"},
    ),
    Service(
        name="stitch",
        folder="apps/stitch",
        about="Stitch: receives Twitch's webhooks through the Cloudflare tunnel",
        needs=("postgres", "cf-tunnel"),
        reads_outputs_of=("postgres",),
        environment="stitch/prod",
        stateful=True,
        checks=("stitch",),
    ),
    Service(
        name="temporal",
        folder="data/workflow/temporal",
        about="Temporal: durable workflows; web and gRPC on the tailnet",
        needs=("postgres", "tailscale"),
        reference=POSTGRES,
        stateful=True,
        checks=("temporal",),
        exposed={"ingress/temporal-web": "url", "svc/temporal-grpc": "grpc_address"},
    ),
    Service(
        name="monitoring",
        folder="ops/monitoring",
        about="Prometheus, Alertmanager and Grafana, with dashboards and alerts",
        needs=("tailscale",),
        checks=("monitoring",),
        exposed={"ingress/monitoring-grafana": "grafana_url"},
    ),
    Service(
        name="clickhouse",
        folder="data/analytics/clickhouse",
        about="ClickHouse: a database for analytics, and the operator that runs it",
        stateful=True,
        checks=("clickhouse",),
    ),
    Service(
        name="superset",
        folder="data/analytics/superset",
        about="Superset: charts and dashboards from databases, on the tailnet",
        needs=("postgres", "tailscale"),
        reference=POSTGRES,
        stateful=True,
        checks=("superset",),
        exposed={"ingress/superset": "url"},
    ),
    Service(
        name="jupyterhub",
        folder="data/analytics/jupyterhub",
        about="JupyterHub: notebooks that reach Postgres and ClickHouse, on the tailnet",
        needs=("postgres", "tailscale"),
        reference=POSTGRES,
        stateful=True,
        checks=("jupyterhub",),
        exposed={"ingress/jupyterhub": "url"},
    ),
)


def find_service(name: str) -> Service:
    """The service called `name`. Raises `NotFound` with the three nearest names."""
    return find(SERVICES, name)
