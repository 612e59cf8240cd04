"""Can cert-manager issue, and is every certificate of the cluster valid for long enough?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from runbooks.checks import generic
from runbooks.checks.cluster import CERTIFICATES_VALID, Cluster, cluster_of, endpoint, looked_at, shown, workloads
from runbooks.checks.workloads import kinds_are_served
from runbooks.core.findings import Check, Finding, failed, not_tried, passed, run_checks
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import Json, condition, is_current, items, metadata, text_at

API_GROUP = "/apis/cert-manager.io/v1"
KINDS = ("certificates", "certificaterequests", "issuers", "clusterissuers")
WEBHOOK_SERVICE = "cert-manager-webhook"
VALID_FOR = timedelta(days=14)
"""Renewal is due a month before the end; what has less than this left was not renewed for weeks."""

KINDS_SERVED = "cert-manager's CRDs are served"
WEBHOOK_ANSWERS = "its webhook has an endpoint"
ISSUERS_READY = "the issuers are Ready"

CAUSES = {
    "InvalidSolver": "the Cloudflare token's Secret is not in cert-manager's own namespace, or lacks the key",
    "ErrRegisterACMEAccount": "Let's Encrypt does not take the account: check acme_email, and the way to the internet",
    "ErrVerifyACMEAccount": "the account's private key is damaged: delete its Secret, and it registers anew",
    "InvalidConfig": "the issuer's server is not one that Let's Encrypt still runs",
    "DoesNotExist": "it is being issued: a DNS-01 challenge takes minutes; longer than that, look at its Challenge",
    "Expired": "it was not renewed in time: look at its CertificateRequest, Order and Challenge",
}
NOT_READY = "cert-manager is not done with it, or cannot go on: its conditions and events say why"


def verify(session: Session, service: Service) -> list[Finding]:
    """Workloads, kinds, webhook, issuers, certificates."""
    cluster = cluster_of(session)
    checks = [
        generic.stack_is_deployed(session, service),
        workloads(session, service, required=True),
        kinds_served(session, cluster),
        # An issuer or certificate applied before it answers is refused by the API server.
        endpoint(session, cluster, WEBHOOK_ANSWERS, service.namespace, WEBHOOK_SERVICE),
        issuers(session, cluster),
        certificates(session, cluster),
    ]
    return shown(session, run_checks(checks))


def kinds_served(session: Session, cluster: Cluster) -> Check:
    def judge() -> Finding:
        cause = "CRDs not found: create_crds is off, and nothing else brought them"
        step = "./inv preview.cert-manager --diff shows pending CRDs"
        return kinds_are_served(KINDS_SERVED, cluster.api_group(API_GROUP), KINDS, cause=cause, next_step=step)

    return looked_at(session, KINDS_SERVED, judge, next_step="./inv deploy.cert-manager", wait=30.0)


def issuers(session: Session, cluster: Cluster) -> Check:
    def judge() -> Finding:
        return issuers_are_ready(items(cluster.within("", "clusterissuers.cert-manager.io")))

    return looked_at(session, ISSUERS_READY, judge, wait=120.0, goes_on=True)


def issuers_are_ready(found: Sequence[Json]) -> Finding:
    """Every ClusterIssuer is Ready: its account is registered, and the Secrets of its solvers are there."""
    step = "kubectl describe clusterissuers"
    if not found:
        cause = "the stack was not deployed to its end, or they were deleted by hand"
        return failed(ISSUERS_READY, "there is no ClusterIssuer", cause=cause, next_step=step, final=True)
    for issuer in found:
        told, cause = _not_ready(issuer)
        if told:
            return failed(ISSUERS_READY, told, cause=cause, next_step=step)
    return passed(ISSUERS_READY, ", ".join(metadata(issuer)[1] for issuer in found))


def _not_ready(obj: Json) -> tuple[str, str]:
    """What an issuer or certificate says of itself, and the likely cause; empty when it is ready."""
    ready, name = condition(obj, "Ready"), metadata(obj)[1]
    if ready is not None and ready.is_true and is_current(obj):
        return "", ""
    told = f"{name}: {ready}" if ready else f"{name} has no condition Ready yet"
    return told, CAUSES.get(ready.reason, NOT_READY) if ready else NOT_READY


def certificates(session: Session, cluster: Cluster) -> Check:
    def judge() -> Finding:
        return certificates_are_valid(items(cluster.within("", "certificates.cert-manager.io")), datetime.now(UTC))

    return looked_at(session, CERTIFICATES_VALID, judge, wait=60.0)


def certificates_are_valid(found: Sequence[Json], now: datetime) -> Finding:
    """Every Certificate is Ready and has at least `VALID_FOR` left. None at all is nothing to prove it by."""
    if not found:
        return not_tried(CERTIFICATES_VALID, "nothing in the cluster asks for a certificate", deciding=False)
    ends = []
    for certificate in found:
        namespace, name = metadata(certificate)
        step = (
            f"kubectl -n {namespace} describe certificate {name}; kubectl get certificaterequests,orders,challenges -A"
        )
        told, cause = _not_ready(certificate)
        if told:
            return failed(CERTIFICATES_VALID, f"{namespace}/{told}", cause=cause, next_step=step)
        left = _left(certificate, now)
        if left is None or left < VALID_FOR:
            said = "says no end" if left is None else f"ends in {left.days} days"
            return failed(CERTIFICATES_VALID, f"{namespace}/{name} {said}", cause=CAUSES["Expired"], next_step=step)
        ends.append((left, f"{namespace}/{name}"))
    left, first = min(ends)
    return passed(CERTIFICATES_VALID, f"{len(ends)}; the first to end is {first}, in {left.days} days")


def _left(certificate: Json, now: datetime) -> timedelta | None:
    try:
        return datetime.fromisoformat(text_at(certificate, "status", "notAfter")) - now
    except ValueError:
        return None
