"""THE list of services: folder, needs, secrets, wiring, exposure, checks. Adding a service is one folder and one entry.

From it derive the tasks, the order, the graph, the rows of `status` and `doctor`, the README table and the tests'
parameters. What an entry can hold is described in `runbooks/stacks/service.py`.
"""

from __future__ import annotations

from runbooks.core.names import known
from runbooks.stacks.service import EnvironmentKey, Reference, SecretSetting, Service

SERVICES: tuple[Service, ...] = (
    Service(
        name="tailscale",
        folder="core/networking/tailscale",
        about="Tailscale operator: puts Services, Ingresses and the API server on the tailnet",
        namespace="tailscale",
        secrets=(
            SecretSetting(key="TS_CLIENT_ID", about="OAuth client of the tailnet, tagged tag:k8s-operator"),
            SecretSetting(key="TS_CLIENT_SECRET", about="secret of that OAuth client"),
        ),
        checks=("tailscale",),
    ),
    Service(
        name="cf-tunnel",
        folder="core/networking/cf-tunnel",
        about="Cloudflare tunnel: puts Ingresses on the public internet",
        namespace="cloudflare-tunnel",
        required=("account_id",),
        secrets=(
            SecretSetting(key="api_token", about="Cloudflare API token: Zone Read, DNS Edit, Cloudflare Tunnel Edit"),
        ),
        checks=("cf_tunnel",),
    ),
    Service(
        name="cert-manager",
        folder="core/security/cert-manager",
        about="cert-manager: gets certificates from Let's Encrypt and keeps them valid",
        namespace="cert-manager",
        required=("acme_email",),
        secrets=(SecretSetting(key="cloudflare_api_token", about="Cloudflare API token: Zone Read and DNS Edit"),),
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
        namespace="postgresql",
        needs=("cnpg", "tailscale"),
        secrets=(SecretSetting(key="superuser_password", about="password of the role postgres", generated=True),),
        stateful=True,
        checks=("postgres",),
        exposed=("svc/postgresql-cluster-rw-ext",),
    ),
    Service(
        name="n8n",
        folder="data/workflow/n8n",
        about="n8n: workflows; editor on the tailnet, webhooks through the Cloudflare tunnel",
        namespace="n8n",
        needs=("postgres", "tailscale", "cf-tunnel"),
        reads_outputs_of=("postgres",),
        reference=Reference(setting="postgres_stack", producer="postgres"),
        required=("webhook_host",),
        secrets=(
            SecretSetting(key="database_password", about="password of n8n's role in Postgres", generated=True),
            SecretSetting(
                key="encryption_key", about="encrypts the credentials n8n stores; never change it", generated=True
            ),
        ),
        stateful=True,
        checks=("n8n",),
        exposed=("ingress/n8n-editor",),
    ),
    Service(
        name="glance",
        folder="apps/web/glance",
        about="Glance: the start page, with links to every app and whether it works",
        namespace="glance",
        needs=("tailscale",),
        checks=("glance",),
        exposed=("ingress/glance",),
    ),
    Service(
        name="immich",
        folder="apps/media/immich",
        about="Immich: photos and videos, on the tailnet",
        namespace="immich",
        needs=("postgres", "tailscale"),
        reads_outputs_of=("postgres",),
        reference=Reference(setting="postgres_stack", producer="postgres"),
        secrets=(
            SecretSetting(key="database_password", about="password of Immich's role in Postgres", generated=True),
        ),
        stateful=True,
        checks=("immich",),
        exposed=("ingress/immich",),
    ),
    Service(
        name="stitch",
        folder="apps/stitch",
        about="Stitch: receives Twitch's webhooks through the Cloudflare tunnel",
        namespace="stitch",
        needs=("postgres", "cf-tunnel"),
        reads_outputs_of=("postgres",),
        environment="stitch/prod",
        environment_keys=(
            EnvironmentKey(key="POSTGRES_HOST"),
            EnvironmentKey(key="k8s_namespace"),
            EnvironmentKey(key="postgresql:host"),
            EnvironmentKey(key="postgresql:port"),
            EnvironmentKey(key="postgresql:username", is_secret=True),
            EnvironmentKey(key="postgresql:password", is_secret=True),
            EnvironmentKey(key="postgresql:sslmode"),
            EnvironmentKey(key="image"),
            EnvironmentKey(key="public_host"),
            EnvironmentKey(key="database_password", is_secret=True),
            EnvironmentKey(key="eventsub_secret", is_secret=True),
            EnvironmentKey(key="twitch_client_id", is_secret=True),
            EnvironmentKey(key="twitch_client_secret", is_secret=True),
        ),
        stateful=True,
        checks=("stitch",),
    ),
    Service(
        name="temporal",
        folder="data/workflow/temporal",
        about="Temporal: durable workflows; web and gRPC on the tailnet",
        namespace="temporal",
        needs=("postgres", "tailscale"),
        reads_outputs_of=("postgres",),
        reference=Reference(setting="postgres_stack", producer="postgres"),
        secrets=(
            SecretSetting(key="database_password", about="password of Temporal's role in Postgres", generated=True),
        ),
        stateful=True,
        checks=("temporal",),
        exposed=("ingress/temporal-web", "svc/temporal-grpc"),
    ),
    Service(
        name="monitoring",
        folder="ops/monitoring",
        about="Prometheus, Alertmanager and Grafana, with dashboards and alerts",
        namespace="monitoring",
        needs=("tailscale",),
        secrets=(SecretSetting(key="grafana_password", about="password of Grafana's user admin", generated=True),),
        checks=("monitoring",),
        exposed=("ingress/monitoring-grafana",),
    ),
    Service(
        name="clickhouse",
        folder="data/analytics/clickhouse",
        about="ClickHouse: a database for analytics, and the operator that runs it",
        namespace="clickhouse",
        secrets=(
            SecretSetting(key="admin_password", about="password of the user default", generated=True),
            SecretSetting(key="user_password", about="password of the user that apps log in as", generated=True),
            SecretSetting(key="operator_password", about="password of the operator's own user", generated=True),
        ),
        stateful=True,
        checks=("clickhouse",),
    ),
    Service(
        name="superset",
        folder="data/analytics/superset",
        about="Superset: charts and dashboards from databases, on the tailnet",
        namespace="superset",
        needs=("postgres", "tailscale"),
        reads_outputs_of=("postgres",),
        reference=Reference(setting="postgres_stack", producer="postgres"),
        secrets=(
            SecretSetting(key="database_password", about="password of Superset's role in Postgres", generated=True),
            SecretSetting(key="secret_key", about="signs sessions and encrypts stored passwords", generated=True),
            SecretSetting(key="admin_password", about="password of Superset's first user", generated=True),
        ),
        stateful=True,
        checks=("superset",),
        exposed=("ingress/superset",),
    ),
    Service(
        name="jupyterhub",
        folder="data/analytics/jupyterhub",
        about="JupyterHub: notebooks that reach Postgres and ClickHouse, on the tailnet",
        namespace="jupyterhub",
        needs=("postgres", "tailscale"),
        reads_outputs_of=("postgres",),
        reference=Reference(setting="postgres_stack", producer="postgres"),
        secrets=(
            SecretSetting(key="database_password", about="password of the hub's role in Postgres", generated=True),
            SecretSetting(key="proxy_token", about="what the hub shows to its proxy", generated=True),
            SecretSetting(key="cookie_secret", about="signs the cookies of sessions", generated=True),
            SecretSetting(key="crypt_key", about="encrypts what the hub stores of logins", generated=True),
            SecretSetting(key="admin_password", about="password of the hub's admins", generated=True),
        ),
        stateful=True,
        checks=("jupyterhub",),
        exposed=("ingress/jupyterhub",),
    ),
)


def find_service(name: str) -> Service:
    """The service called `name`. Raises `NotFound` with the three nearest names."""
    by_name = {service.name: service for service in SERVICES}
    return by_name[known("service", name, by_name)]
