"""Objects anywhere in the cluster that only a service's controller can clean up: while they stand, it must stay.

A Service or Ingress on the tailnet keeps a finalizer of the Tailscale operator, a Postgres cluster is nobody's without
CloudNativePG: removed in the wrong order, they stay behind for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runbooks.checks.cluster import Cluster
from runbooks.checks.tailscale import exposures
from runbooks.lib.kubectl import KubectlFailed, Trouble, items, metadata

CNPG_KINDS = ("clusters.postgresql.cnpg.io", "databases.postgresql.cnpg.io")


def exposed_objects(cluster: Cluster) -> list[str]:
    return [item.subject for item in exposures(cluster)]


def postgres_clusters(cluster: Cluster) -> list[str]:
    found = []
    for kind in CNPG_KINDS:
        try:
            found += ["/".join(metadata(item)) for item in items(cluster.everywhere(kind))]
        except KubectlFailed as error:
            if error.trouble is not Trouble.UNKNOWN_KIND:
                raise
    return found


CONTROLLED: Mapping[str, Callable[[Cluster], list[str]]] = {
    "tailscale": exposed_objects,
    "cnpg": postgres_clusters,
}


def controlled_by(service: str, cluster: Cluster) -> list[str]:
    """`namespace/name` of what stands and needs the service's controller. Raises `KubectlFailed`."""
    look = CONTROLLED.get(service)
    return look(cluster) if look else []
