"""Objects anywhere in the cluster that only a service's controller can clean up: while they stand, it must stay.

A Service or Ingress on the tailnet keeps a finalizer of the Tailscale operator, a public Ingress one of the tunnel's
controller, a Postgres cluster is nobody's without CloudNativePG: removed in the wrong order, they stay behind for good.
A certificate is not renewed without cert-manager.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from runbooks.checks.cluster import Cluster
from runbooks.checks.tailscale import exposures
from runbooks.checks.tunnel import public_ingresses
from runbooks.tools.kubectl import KubectlFailed, Trouble, items, metadata

CERTIFICATES = ("certificates.cert-manager.io",)
CNPG_KINDS = ("clusters.postgresql.cnpg.io", "databases.postgresql.cnpg.io")


def exposed_objects(cluster: Cluster) -> list[str]:
    return [item.subject for item in exposures(cluster)]


def public_objects(cluster: Cluster) -> list[str]:
    return [item.subject for item in public_ingresses(cluster.everywhere("ingresses.networking.k8s.io"))]


def postgres_clusters(cluster: Cluster) -> list[str]:
    return _all_of(cluster, CNPG_KINDS)


def certificates(cluster: Cluster) -> list[str]:
    return _all_of(cluster, CERTIFICATES)


def _all_of(cluster: Cluster, kinds: Sequence[str]) -> list[str]:
    """Objects of these kinds; none where a kind is not known."""
    found = []
    for kind in kinds:
        try:
            found += ["/".join(metadata(item)) for item in items(cluster.everywhere(kind))]
        except KubectlFailed as error:
            if error.trouble is not Trouble.UNKNOWN_KIND:
                raise
    return found


CONTROLLED: Mapping[str, Callable[[Cluster], list[str]]] = {
    "tailscale": exposed_objects,
    "cf-tunnel": public_objects,
    "cert-manager": certificates,
    "cnpg": postgres_clusters,
}


def controlled_by(service: str, cluster: Cluster) -> list[str]:
    """`namespace/name` of what stands and needs the service's controller. Raises `KubectlFailed`."""
    look = CONTROLLED.get(service)
    return look(cluster) if look else []
