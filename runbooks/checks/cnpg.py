"""Is the CloudNativePG operator ready to take a cluster?"""

from __future__ import annotations

from runbooks.checks.cluster import Cluster, cluster_of, home_of, patience, shown, workloads
from runbooks.checks.workloads import deployment_is_available, has_endpoints, kinds_are_served, seen
from runbooks.core.findings import Check, Finding, run_checks
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session

OPERATOR_LABELS = "app.kubernetes.io/name=cloudnative-pg"
API_GROUP = "/apis/postgresql.cnpg.io/v1"
KINDS = ("clusters", "databases", "backups", "scheduledbackups", "poolers")
WEBHOOK_SERVICE = "cnpg-webhook-service"

OPERATOR_READY = "the CloudNativePG operator is ready"
KINDS_SERVED = "the operator's CRDs are served"
WEBHOOK_ANSWERS = "the operator's webhook has an endpoint"
NOT_APPLIED = "CRDs not found: ensure that the CNPG operator was applied"
NOT_READY = "its Pod does not start or does not get ready: look at its events"


def verify(session: Session, service: Service) -> list[Finding]:
    """Deployment, kinds, webhook, and whatever else the namespace holds."""
    cluster = cluster_of(session)
    operator = [operator_is_ready(session, cluster), kinds_served(session, cluster), webhook(service, cluster)]
    return shown(session, run_checks([*operator, workloads(session, service)]))


def operator_is_ready(session: Session, cluster: Cluster) -> Check:
    def look() -> Finding:
        home = home_of(session, "cnpg")
        step = f"kubectl -n {home} get deploy,pods"
        return seen(
            OPERATOR_READY,
            lambda: deployment_is_available(
                OPERATOR_READY,
                cluster.one_labelled("deployments.apps", home, OPERATOR_LABELS),
                cause=NOT_READY,
                next_step=step,
                deploy="./inv deploy.cnpg",
            ),
            next_step=step,
        )

    return Check(name=OPERATOR_READY, look=look, patience=patience(session, 60.0))


def kinds_served(session: Session, cluster: Cluster) -> Check:
    def look() -> Finding:
        return seen(
            KINDS_SERVED,
            lambda: kinds_are_served(
                KINDS_SERVED,
                cluster.api_group(API_GROUP),
                KINDS,
                cause=NOT_APPLIED,
                next_step="./inv preview.cnpg --diff shows pending CRDs",
            ),
            next_step="./inv deploy.cnpg",
        )

    return Check(name=KINDS_SERVED, look=look, patience=patience(session, 30.0))


def webhook(service: Service, cluster: Cluster) -> Check:
    """A Cluster applied before the webhook answers is refused by the API server."""

    def look() -> Finding:
        step = f"kubectl -n {service.namespace} get endpointslices"
        return seen(
            WEBHOOK_ANSWERS,
            lambda: has_endpoints(
                WEBHOOK_ANSWERS,
                cluster.endpoint_slices(service.namespace, WEBHOOK_SERVICE),
                service=WEBHOOK_SERVICE,
                next_step=step,
            ),
            next_step=step,
        )

    return Check(name=WEBHOOK_ANSWERS, look=look)
