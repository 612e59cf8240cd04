"""Is the CloudNativePG operator ready to take a cluster?"""

from __future__ import annotations

from runbooks.checks import cluster
from runbooks.core.findings import Check, Finding
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
    """Check Deployment, kinds, webhook, and all other workloads of the namespace."""
    checks = [
        operator_is_ready(session, service),
        cluster.kinds_check(session, KINDS_SERVED, service, API_GROUP, KINDS, cause=NOT_APPLIED),
        # A Cluster applied before the webhook answers is refused by the API server.
        cluster.endpoint_check(session, WEBHOOK_ANSWERS, service.namespace, WEBHOOK_SERVICE),
        cluster.workloads_check(session, service),
    ]
    return cluster.run_and_report(session, checks)


def operator_is_ready(session: Session, service: Service, *, deploy: str = "") -> Check:
    return cluster.deployment_check(
        session, OPERATOR_READY, service, labels=OPERATOR_LABELS, cause=NOT_READY, deploy=deploy
    )
