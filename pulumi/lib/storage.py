"""Volume claims that outlive the pods that use them."""

from __future__ import annotations

import pulumi
from lib.k8s import labels
from pulumi_kubernetes.core.v1 import PersistentVolumeClaim


def claim(
    name: str, *, namespace: str, size: str, storage_class: str, protect: bool, after: pulumi.Resource
) -> PersistentVolumeClaim:
    """Claim a volume for one pod at a time, of the cluster's default class if `storage_class` is empty.

    The claim does not belong to the chart, so that `protect` keeps it whatever happens to the chart.
    """
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return PersistentVolumeClaim(
        name,
        metadata={"name": name, "namespace": namespace, "labels": labels(namespace)},
        spec=spec | ({"storageClassName": storage_class} if storage_class else {}),
        opts=pulumi.ResourceOptions(depends_on=[after], protect=protect),
    )
