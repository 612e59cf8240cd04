"""The Kubernetes objects that CNPG's operator makes for a Cluster, as plain dictionaries.

Names, labels and keys as operator 1.30 gives them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lab.operators import objects
from lab.operators.objects import Object

PORT = 5432
"""The port inside the cluster; the lab chooses the server's real port on 127.0.0.1."""
SERVICE_PORT: Mapping[str, Any] = {"name": "postgres", "port": PORT, "targetPort": PORT, "protocol": "TCP"}
DEFAULT_IMAGE = "ghcr.io/cloudnative-pg/postgresql:18.4-system-trixie"
TEMPLATE = "lab.homelab-ops/template"
ADDRESS = "lab.homelab-ops/postgres-address"
"""Annotation of the primary's Pod: the real address of its server, `127.0.0.1:<port>`."""
RESTRICTED: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def metadata(cluster: Object, name: str, labels: Mapping[str, str] | None = None) -> Object:
    """Metadata of an object that the Cluster owns, including `inheritedMetadata`."""
    meta = cluster["metadata"]
    inherited = cluster["spec"].get("inheritedMetadata") or {}
    own = {"cnpg.io/cluster": meta["name"], "app.kubernetes.io/managed-by": "cloudnative-pg"}
    return {
        "name": name,
        "namespace": meta["namespace"],
        "labels": {**(inherited.get("labels") or {}), **own, **(labels or {})},
        "annotations": dict(inherited.get("annotations") or {}),
        "ownerReferences": [objects.owner_reference(cluster)],
    }


def login_secret(cluster: Object, name: str, user: str, password: str, database: str) -> Object:
    """A generated Secret with the eleven keys of CNPG; `database` is `*` for the superuser."""
    meta = cluster["metadata"]
    host = f"{meta['name']}-rw"
    short, full = f"{host}.{meta['namespace']}", f"{host}.{meta['namespace']}.svc.cluster.local"
    values = {
        "username": user,
        "user": user,
        "password": password,
        "dbname": database,
        "host": host,
        "port": str(PORT),
        "pgpass": f"{host}:{PORT}:{database}:{user}:{password}\n",
        "uri": f"postgresql://{user}:{password}@{short}:{PORT}/{database}",
        "jdbc-uri": f"jdbc:postgresql://{short}:{PORT}/{database}?password={password}&user={user}",
        "fqdn-uri": f"postgresql://{user}:{password}@{full}:{PORT}/{database}",
        "fqdn-jdbc-uri": f"jdbc:postgresql://{full}:{PORT}/{database}?password={password}&user={user}",
    }
    labels = {"cnpg.io/reload": "true", "cnpg.io/userType": "superuser" if database == "*" else "app"}
    meta = metadata(cluster, name, labels)
    return objects.SECRET.new(meta, type="kubernetes.io/basic-auth", data=objects.encode(values))


SELECTORS: Mapping[str, Mapping[str, str]] = {
    "rw": {"cnpg.io/instanceRole": "primary"},
    "ro": {"cnpg.io/instanceRole": "replica"},
    "r": {"cnpg.io/podRole": "instance"},
}


def service(cluster: Object, role: str) -> Object:
    name = cluster["metadata"]["name"]
    selector = {"cnpg.io/cluster": name, **SELECTORS[role]}
    spec = {"type": "ClusterIP", "ports": [SERVICE_PORT], "selector": selector}
    return objects.SERVICE.new(metadata(cluster, f"{name}-{role}"), spec=spec)


def additional_service(cluster: Object, entry: Mapping[str, Any]) -> Object:
    """A Service of `managed.services.additional`."""
    template = entry.get("serviceTemplate") or {}
    wanted = template.get("metadata") or {}
    meta = metadata(cluster, wanted["name"], wanted.get("labels"))
    meta["annotations"] |= wanted.get("annotations") or {}
    meta["labels"]["cnpg.io/isManaged"] = "true"
    spec = {"type": "ClusterIP", "ports": [SERVICE_PORT], **(template.get("spec") or {})}
    selector = {"cnpg.io/cluster": cluster["metadata"]["name"], **SELECTORS[entry.get("selectorType", "rw")]}
    return objects.SERVICE.new(meta, spec=spec | {"selector": selector})


def service_account(cluster: Object) -> Object:
    return objects.SERVICE_ACCOUNT.new(metadata(cluster, cluster["metadata"]["name"]))


def instance_name(cluster: Object, number: int) -> str:
    return f"{cluster['metadata']['name']}-{number}"


def claims(cluster: Object, number: int) -> list[Object]:
    """The claims of one instance: its data, and its write-ahead log if that has its own storage."""
    spec, instance = cluster["spec"], instance_name(cluster, number)
    found = [_claim(cluster, instance, instance, "PG_DATA", number, spec.get("storage") or {})]
    if spec.get("walStorage"):
        found.append(_claim(cluster, f"{instance}-wal", instance, "PG_WAL", number, spec["walStorage"]))
    return found


def _claim(cluster: Object, name: str, instance: str, role: str, number: int, storage: Mapping[str, Any]) -> Object:
    meta = metadata(cluster, name, {"cnpg.io/instanceName": instance, "cnpg.io/pvcRole": role})
    meta["annotations"] |= {"cnpg.io/nodeSerial": str(number), "cnpg.io/pvcStatus": "ready"}
    spec: Object = {"accessModes": ["ReadWriteOnce"], **(storage.get("pvcTemplate") or {})}
    if storage.get("storageClass"):
        spec["storageClassName"] = storage["storageClass"]
    if storage.get("size"):
        spec["resources"] = {"requests": {"storage": storage["size"]}}
    return objects.CLAIM.new(meta, spec=spec)


def pod(cluster: Object, number: int, address: str) -> Object:
    """An instance. Its container never runs; the primary's server is a process of the lab at `address`."""
    name, primary = instance_name(cluster, number), number == 1
    role = "primary" if primary else "replica"
    labels = {
        "cnpg.io/instanceName": name,
        "cnpg.io/instanceRole": role,
        "cnpg.io/podRole": "instance",
        "role": role,
        "app.kubernetes.io/name": "postgresql",
        "app.kubernetes.io/instance": cluster["metadata"]["name"],
        "app.kubernetes.io/component": "database",
    }
    meta = metadata(cluster, name, labels)
    spec = _pod_spec(cluster, name)
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    meta["annotations"] |= {"cnpg.io/nodeSerial": str(number), TEMPLATE: digest[:16]}
    if primary:
        meta["annotations"][ADDRESS] = address
    return objects.POD.new(meta, spec=spec)


def image_of(cluster: Object) -> str:
    return str(cluster["spec"].get("imageName") or DEFAULT_IMAGE)


def _pod_spec(cluster: Object, name: str) -> Object:
    spec = cluster["spec"]
    volumes = [{"name": "pgdata", "persistentVolumeClaim": {"claimName": name}}]
    mounts = [{"name": "pgdata", "mountPath": "/var/lib/postgresql/data"}]
    if spec.get("walStorage"):
        volumes.append({"name": "pg-wal", "persistentVolumeClaim": {"claimName": f"{name}-wal"}})
        mounts.append({"name": "pg-wal", "mountPath": "/var/lib/postgresql/wal"})
    container = {
        "name": "postgres",
        "image": image_of(cluster),
        "command": ["/controller/manager", "instance", "run"],
        "env": [{"name": "PODNAME", "value": name}, {"name": "CLUSTER_NAME", "value": cluster["metadata"]["name"]}],
        "ports": [
            {"name": "postgresql", "containerPort": PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 9187, "protocol": "TCP"},
            {"name": "status", "containerPort": 8000, "protocol": "TCP"},
        ],
        "resources": spec.get("resources") or {},
        "securityContext": dict(RESTRICTED),
        "volumeMounts": mounts,
    }
    affinity = spec.get("affinity") or {}
    return {
        "hostname": name,
        "serviceAccountName": cluster["metadata"]["name"],
        "containers": [container],
        "volumes": volumes,
        "nodeSelector": affinity.get("nodeSelector") or {},
        "tolerations": affinity.get("tolerations") or [],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 26, "runAsGroup": 26, "fsGroup": 26},
        "terminationGracePeriodSeconds": 5,
    }
