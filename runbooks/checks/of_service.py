"""By service: its checks, by the names in `checks=` of `services.py`; and the objects only its controller cleans up.

Names, not functions, so that listing the tasks loads no check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runbooks.checks import apps, cert_manager, cf_tunnel, clickhouse, cnpg, inside, postgres, tailscale
from runbooks.checks.cluster import Cluster, in_its_namespace
from runbooks.core.findings import Finding
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import KubectlFailed, Trouble, metadata

CHECKS: Mapping[str, Callable[[Session, Service], list[Finding]]] = {
    "tailscale": tailscale.verify,
    "cnpg": cnpg.verify,
    "postgres": postgres.verify,
    "cf_tunnel": cf_tunnel.verify,
    "cert_manager": cert_manager.verify,
    "clickhouse": clickhouse.verify,
    "generic": apps.verify,
    **dict.fromkeys(apps.APPS, apps.verify),
}
LAB_UNTRIED = (
    tailscale.NEEDS_TAILNET
    | inside.NEEDS_CONTAINERS
    | cf_tunnel.NEEDS_INTERNET
    | frozenset({cert_manager.CERTIFICATES_VALID})
)
"""The checks that stay untried in the lab, all of them.

It has no tailnet, runs no container and is not public; and nothing of the platform asks for a certificate.
"""


def run_checks_of(session: Session, service: Service) -> list[Finding]:
    """Run and report the service's own checks, or the generic ones, in the namespace that its stack exports."""
    there = in_its_namespace(session, service)
    return [finding for name in service.checks or ("generic",) for finding in CHECKS[name](session, there)]


CONTROLLED_KINDS: Mapping[str, tuple[str, ...]] = {
    "cert-manager": ("certificates.cert-manager.io",),
    "cnpg": ("clusters.postgresql.cnpg.io", "databases.postgresql.cnpg.io"),
}


def controlled_by(service: str, cluster: Cluster) -> list[str]:
    """`namespace/name` of what exists anywhere in the cluster and needs the service's controller.

    A Service or Ingress on the tailnet keeps a finalizer of the Tailscale operator, a public Ingress one of the
    tunnel's controller; a Postgres cluster does not run without CloudNativePG, a certificate is not renewed without
    cert-manager. Removed in the wrong order, they stay behind for good. Raises `KubectlFailed`.
    """
    if service == "tailscale":
        return [item.subject for item in tailscale.exposures(cluster)]
    if service == "cf-tunnel":
        return [item.subject for item in cf_tunnel.public_ingresses(cluster)]
    found = []
    for kind in CONTROLLED_KINDS.get(service, ()):
        try:
            found += ["/".join(metadata(item)) for item in cluster.list(kind)]
        except KubectlFailed as error:
            # Where the kind is not known, no object of it exists.
            if error.trouble is not Trouble.UNKNOWN_KIND:
                raise
    return found
