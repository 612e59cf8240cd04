"""Can cert-manager issue, and is every certificate of the cluster valid for long enough?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from runbooks.checks import cluster
from runbooks.core.findings import Finding, failed, not_tried, passed
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import Json, condition, is_current, metadata, text_at

API_GROUP = "/apis/cert-manager.io/v1"
KINDS = ("certificates", "certificaterequests", "issuers", "clusterissuers")
WEBHOOK_SERVICE = "cert-manager-webhook"
VALID_FOR = timedelta(days=14)
"""A certificate is due for renewal a month before its end: with less than this left, renewal has failed for weeks."""

KINDS_SERVED = "cert-manager's CRDs are served"
WEBHOOK_ANSWERS = "its webhook has an endpoint"
ISSUERS_READY = "the issuers are Ready"
CERTIFICATES_VALID = "every certificate is valid for two weeks or more"

CAUSES = {
    "InvalidSolver": "the Cloudflare token's Secret is not in cert-manager's own namespace, or lacks the key",
    "ErrRegisterACMEAccount": "Let's Encrypt does not take the account: check acme_email, and the way to the internet",
    "ErrVerifyACMEAccount": "the account's private key is damaged: delete its Secret, and it registers again",
    "InvalidConfig": "the issuer's server is not one that Let's Encrypt still runs",
    "DoesNotExist": "it is being issued: a DNS-01 challenge takes minutes; longer than that, look at its Challenge",
    "RateLimited": "Let's Encrypt's rate limit: cert-manager retries by itself, at the earliest in an hour; do not "
    "delete the Certificate or its Secret, which counts as one more",
    "Expired": "it was not renewed in time: look at its CertificateRequest, Order and Challenge",
}
NOT_READY = "cert-manager has not finished it, or cannot continue: its conditions and events say why"


def verify(session: Session, service: Service) -> list[Finding]:
    """Check workloads, kinds, webhook, issuers and certificates."""
    no_crds = "CRDs not found: create_crds is off, and nothing else brought them"

    def issuers() -> Finding:
        return issuers_are_ready(cluster.list_objects(session, "clusterissuers.cert-manager.io"))

    def certificates() -> Finding:
        return certificates_are_valid(cluster.list_objects(session, "certificates.cert-manager.io"), datetime.now(UTC))

    checks = [
        cluster.stack_is_deployed(session, service),
        cluster.workloads_check(session, service, required=True),
        cluster.kinds_check(session, KINDS_SERVED, service, API_GROUP, KINDS, cause=no_crds),
        # An issuer or certificate applied before the webhook answers is refused by the API server.
        cluster.endpoint_check(session, WEBHOOK_ANSWERS, service.namespace, WEBHOOK_SERVICE),
        cluster.make_check(session, ISSUERS_READY, issuers, wait=120.0, continue_on_failure=True),
        cluster.make_check(session, CERTIFICATES_VALID, certificates, wait=60.0),
    ]
    return cluster.run_and_report(session, checks)


def issuers_are_ready(found: Sequence[Json]) -> Finding:
    """Every ClusterIssuer is Ready: its account is registered, and the Secrets of its solvers are there."""
    step = "kubectl describe clusterissuers"
    if not found:
        cause = "the stack's deployment did not finish, or they were deleted by hand"
        return failed(ISSUERS_READY, "there is no ClusterIssuer", cause=cause, next_step=step, final=True)
    for issuer in found:
        evidence, cause = _not_ready(issuer)
        if evidence:
            return failed(ISSUERS_READY, evidence, cause=cause, next_step=step)
    return passed(ISSUERS_READY, ", ".join(metadata(issuer)[1] for issuer in found))


def _not_ready(obj: Json) -> tuple[str, str]:
    """The condition of an issuer or certificate, and the likely cause; empty when it is ready."""
    ready, name = condition(obj, "Ready"), metadata(obj)[1]
    if ready is not None and ready.is_true and is_current(obj):
        return "", ""
    evidence = f"{name}: {ready}" if ready else f"{name} has no condition Ready yet"
    last = condition(obj, "Issuing")
    if last is not None and not last.is_true and last.message:
        # `Issuing` says why the last attempt failed; `Ready` only says that there is no certificate yet.
        evidence += f"; {last}"
        reason = "RateLimited" if "rateLimited" in last.message else last.reason
        return evidence, CAUSES.get(reason, NOT_READY)
    return evidence, CAUSES.get(ready.reason, NOT_READY) if ready else NOT_READY


def certificates_are_valid(found: Sequence[Json], now: datetime) -> Finding:
    """Every Certificate is Ready and has at least `VALID_FOR` left. Without any Certificate the check is not tried."""
    if not found:
        return not_tried(CERTIFICATES_VALID, "nothing in the cluster asks for a certificate", deciding=False)
    ends = []
    for certificate in found:
        namespace, name = metadata(certificate)
        step = (
            f"kubectl -n {namespace} describe certificate {name}; kubectl get certificaterequests,orders,challenges -A"
        )
        evidence, cause = _not_ready(certificate)
        if evidence:
            return failed(CERTIFICATES_VALID, f"{namespace}/{evidence}", cause=cause, next_step=step)
        try:
            left = datetime.fromisoformat(text_at(certificate, "status", "notAfter")) - now
        except ValueError:
            left = None
        if left is None or left < VALID_FOR:
            end = "has no expiry date in its status" if left is None else f"ends in {left.days} days"
            return failed(CERTIFICATES_VALID, f"{namespace}/{name} {end}", cause=CAUSES["Expired"], next_step=step)
        ends.append((left, f"{namespace}/{name}"))
    left, first = min(ends)
    return passed(CERTIFICATES_VALID, f"{len(ends)}; the first to expire is {first}, in {left.days} days")
