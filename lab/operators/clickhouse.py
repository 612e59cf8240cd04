"""Altinity's operator: ClickHouseInstallations become StatefulSets and Services; no server runs.

Works only while the operator's Deployment is available. Names, labels and states as operator 0.27. Every host is a
StatefulSet of one pod; configuration files are left out, since no server reads them.
Source: Altinity/clickhouse-operator, pkg/model/chi and pkg/controller/chi.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.operators import objects
from lab.operators.api import Api
from lab.operators.objects import Object
from lab.operators.work import Controller, Work

MANAGER = "clickhouse-operator"
OPERATOR = {"app.kubernetes.io/name": "altinity-clickhouse-operator"}
FINALIZER = "finalizer.clickhouseinstallation.altinity.com"
GROUP = "clickhouse.altinity.com"
OF = f"{GROUP}/chi"
"""Label that names the installation which an object belongs to."""
PORTS = {"tcp": 9000, "http": 8123, "interserver": 9009}
IMAGE = "clickhouse/clickhouse-server:latest"
RETRY = 2.0


@dataclass(frozen=True)
class Host:
    """One server of an installation."""

    installation: Object
    cluster: str
    shard: int
    replica: int

    @property
    def name(self) -> str:
        return f"chi-{self.installation['metadata']['name']}-{self.cluster}-{self.shard}-{self.replica}"

    @property
    def labels(self) -> dict[str, str]:
        place = {"cluster": self.cluster, "shard": str(self.shard), "replica": str(self.replica)}
        return labels_of(self.installation) | {f"{GROUP}/{key}": value for key, value in place.items()}


def labels_of(installation: Object) -> dict[str, str]:
    meta = installation["metadata"]
    return {f"{GROUP}/app": "chop", OF: meta["name"], f"{GROUP}/namespace": meta["namespace"]}


def hosts_of(installation: Object) -> Iterator[Host]:
    """Every replica of every shard of every cluster. A count that the layout does not give is one."""
    for cluster in (installation["spec"].get("configuration") or {}).get("clusters") or ():
        layout = cluster.get("layout") or {}
        for shard in range(_count(layout, "shards")):
            for replica in range(_count(layout, "replicas")):
                yield Host(installation, cluster["name"], shard, replica)


def _count(layout: Mapping[str, Any], what: str) -> int:
    return int(layout.get(f"{what}Count") or len(layout.get(what) or ()) or 1)


def controllers(api: Api, work: Work) -> dict[str, Controller]:
    installations = Installations(api.acting_as(MANAGER), work)
    return {"clickhouse": installations.reconcile, "installations": installations.reconcile_all}


@dataclass(frozen=True)
class Installations:
    """The controller of ClickHouseInstallations."""

    api: Api
    work: Work

    def reconcile_all(self, _namespace: str = "", _name: str = "") -> None:
        """Ask for a look at every installation, when the operator starts or stops."""
        self.work.add_each("clickhouse", self.api.list(objects.CLICKHOUSE))

    def reconcile(self, namespace: str, name: str) -> float | None:
        installation = self.api.get(objects.CLICKHOUSE, namespace, name)
        if installation is None or not self.api.runs(OPERATOR):
            return None
        if objects.is_leaving(installation):
            return self._clean_up(installation)
        # Before anything is made: without it a deleted installation would leave its claims.
        installation = self.api.add_finalizer(installation, FINALIZER)
        problems = self._missing_logins(installation)
        hosts = list(hosts_of(installation))
        if problems:
            self.api.update_status(installation, status_of(installation, hosts, ready=0, errors=problems))
            return RETRY
        self.api.apply(service(installation))
        made = [self._make(host) for host in hosts]
        self._remove_others(installation, hosts)
        # A StatefulSet that was changed a moment ago still shows the status of before.
        status = [(found["metadata"]["generation"], found.get("status") or {}) for found in made]
        ready = sum(seen.get("observedGeneration") == now and seen.get("readyReplicas") == 1 for now, seen in status)
        self.api.update_status(installation, status_of(installation, hosts, ready=ready, errors=[]))
        return None if ready == len(hosts) else RETRY

    def _make(self, host: Host) -> Object:
        """Make the host's StatefulSet. For other sizes, resize its claims and replace it: templates cannot change."""
        self.api.apply(host_service(host))
        wanted, meta = stateful_set(host), host.installation["metadata"]
        found = self.api.get(objects.STATEFUL_SET, meta["namespace"], host.name)
        if found is not None and _sizes(found) != _sizes(wanted):
            self._grow(host, _sizes(wanted))
            self.api.delete(objects.STATEFUL_SET, meta["namespace"], host.name)
            return found | {"status": {}}
        return self.api.apply(wanted)

    def _grow(self, host: Host, sizes: Mapping[str, str]) -> None:
        for name, size in sizes.items():
            claim = self.api.get(objects.CLAIM, host.installation["metadata"]["namespace"], f"{name}-{host.name}-0")
            if claim is not None and claim["spec"]["resources"]["requests"]["storage"] != size:
                self.api.patch(claim, {"spec": {"resources": {"requests": {"storage": size}}}})

    def _missing_logins(self, installation: Object) -> list[str]:
        """The missing Secrets of users, without which a real pod would not start."""
        namespace, missing = installation["metadata"]["namespace"], []
        for key, value in ((installation["spec"].get("configuration") or {}).get("users") or {}).items():
            wanted = ((value.get("valueFrom") or {}).get("secretKeyRef") or {}) if isinstance(value, dict) else {}
            secret = self.api.get(objects.SECRET, namespace, wanted["name"]) if wanted else None
            if wanted and wanted.get("key") not in ((secret or {}).get("data") or {}):
                missing.append(f"{key}: no key {wanted.get('key')} in Secret {namespace}/{wanted['name']}")
        return missing

    def _remove_others(self, installation: Object, hosts: list[Host]) -> None:
        """Remove the objects of hosts that the installation no longer has."""
        namespace = installation["metadata"]["namespace"]
        names = {host.name for host in hosts}
        for kind in (objects.STATEFUL_SET, objects.SERVICE):
            for found in self.api.list(kind, namespace, {OF: installation["metadata"]["name"]}):
                name = found["metadata"]["name"]
                if name.startswith("chi-") and name not in names:
                    self.api.delete(kind, namespace, name)

    def _clean_up(self, installation: Object) -> float | None:
        """Delete its objects, then the claims with the reclaim policy Delete, then the finalizer."""
        if not objects.has_finalizer(installation, FINALIZER):
            return None
        meta = installation["metadata"]
        self.api.update_status(installation, {"status": "Terminating"})
        made = (objects.STATEFUL_SET, objects.SERVICE)
        left = [self.api.delete_each(kind, meta["namespace"], {OF: meta["name"]}) for kind in made]
        if any(left):
            return 0.2
        unwanted = {OF: meta["name"], f"{GROUP}/reclaimPolicy": "Delete"}
        self.api.delete_each(objects.CLAIM, meta["namespace"], unwanted)
        now = self.api.get(objects.CLICKHOUSE, *objects.key_of(installation))
        self.api.remove_finalizer(now or installation, FINALIZER)
        return None


def status_of(installation: Object, hosts: list[Host], *, ready: int, errors: list[str]) -> dict[str, Any]:
    """The status, `Completed` when every host is ready. A None removes the field."""
    meta = installation["metadata"]
    domain = f"{meta['namespace']}.svc.cluster.local"
    endpoint = f"clickhouse-{meta['name']}.{domain}"
    done = bool(hosts) and ready == len(hosts) and not errors
    return {
        "chop-version": "lab",
        "status": "Completed" if done else "InProgress",
        "clusters": len({host.cluster for host in hosts}),
        "shards": len({(host.cluster, host.shard) for host in hosts}),
        "hosts": len(hosts),
        "hostsCompleted": ready,
        "pods": [f"{host.name}-0" for host in hosts],
        "fqdns": [f"{host.name}.{domain}" for host in hosts],
        "endpoint": endpoint,
        "endpoints": [endpoint],
        "error": errors[0] if errors else None,
        "errors": errors or None,
    }


def _sizes(found: Object) -> dict[str, str]:
    """Name of a StatefulSet's claim template → the storage that it requests."""
    claims = found["spec"].get("volumeClaimTemplates") or ()
    return {claim["metadata"]["name"]: claim["spec"]["resources"]["requests"]["storage"] for claim in claims}


def template(installation: Object, plural: str, name: str) -> Mapping[str, Any]:
    """The template of a kind that `spec.defaults` names; empty if it names none."""
    spec = installation["spec"]
    wanted = ((spec.get("defaults") or {}).get("templates") or {}).get(name)
    found = (spec.get("templates") or {}).get(plural) or ()
    return next((entry for entry in found if entry["name"] == wanted), {})


def _metadata(installation: Object, name: str, labels: Mapping[str, str]) -> Object:
    namespace = installation["metadata"]["namespace"]
    owner = objects.owner_reference(installation)
    return {"name": name, "namespace": namespace, "labels": dict(labels), "ownerReferences": [owner]}


def service(installation: Object) -> Object:
    """The Service of the whole installation. Without a template it is headless, as with the real operator."""
    chosen = template(installation, "serviceTemplates", "serviceTemplate")
    extra = chosen.get("metadata") or {}
    labels = labels_of(installation) | {f"{GROUP}/Service": "chi"}
    meta = _metadata(installation, f"clickhouse-{installation['metadata']['name']}", extra.get("labels", {}) | labels)
    meta["annotations"] = extra.get("annotations") or {}
    default = {"type": "ClusterIP", "clusterIP": "None", "ports": _ports("http", "tcp")}
    spec: Object = dict(chosen.get("spec") or default)
    selector = labels_of(installation) | {f"{GROUP}/ready": "yes"}
    spec["selector"] = dict(spec.get("selector") or {}) | selector
    return objects.SERVICE.new(meta, spec=spec)


def host_service(host: Host) -> Object:
    meta = _metadata(host.installation, host.name, host.labels | {f"{GROUP}/Service": "host"})
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": host.labels, "ports": _ports(*PORTS)}
    return objects.SERVICE.new(meta, spec=spec)


def _ports(*names: str) -> list[Object]:
    return [{"name": name, "port": PORTS[name], "targetPort": PORTS[name], "protocol": "TCP"} for name in names]


def stateful_set(host: Host) -> Object:
    chosen = template(host.installation, "podTemplates", "podTemplate")
    extra = chosen.get("metadata") or {}
    container = {"name": "clickhouse", "image": IMAGE}
    pod_spec: Object = dict(chosen.get("spec") or {"containers": [container]})
    marks = {
        "labels": (extra.get("labels") or {}) | host.labels | {f"{GROUP}/ready": "yes"},
        "annotations": extra.get("annotations") or {},
    }
    spec = {
        "replicas": 1,
        "serviceName": host.name,
        "selector": {"matchLabels": host.labels},
        "template": {"metadata": marks, "spec": {"terminationGracePeriodSeconds": 1} | pod_spec},
        "volumeClaimTemplates": list(claim_templates(host)),
    }
    return objects.STATEFUL_SET.new(_metadata(host.installation, host.name, host.labels), spec=spec)


def claim_templates(host: Host) -> Iterator[Object]:
    """The claims for data and logs for which templates are named. They may outlive the installation."""
    for name in ("dataVolumeClaimTemplate", "logVolumeClaimTemplate"):
        chosen = template(host.installation, "volumeClaimTemplates", name)
        if chosen:
            labels = host.labels | {f"{GROUP}/reclaimPolicy": chosen.get("reclaimPolicy") or "Delete"}
            yield objects.CLAIM.new({"name": chosen["name"], "labels": labels}, spec=chosen["spec"])
