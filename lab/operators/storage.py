"""Volumes for claims and addresses for LoadBalancers, which a home network and its nodes provide.

A claim gets a volume at once, as from a provisioner of node folders; nothing is stored in it. The volume names its
claim, and Kubernetes' own binder binds the two. Released volumes are deleted where their class says so, again as an
external provisioner does it. Services of type LoadBalancer without a class get an address; a class is another
controller's.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.operators import objects
from lab.operators.api import Api
from lab.operators.objects import Object
from lab.operators.work import Controller

PROVISIONER = "lab.homelab-ops/local"
ADDRESS = "127.0.0.1"


def controllers(api: Api) -> dict[str, Controller]:
    storage = Storage(api.acting_as("lab-claims"))
    return {
        "claim": storage.reconcile,
        "volume": storage.reconcile_volume,
        "loadbalancer": lambda namespace, name: give_address(api.acting_as("lab-loadbalancer"), namespace, name),
    }


def give_address(api: Api, namespace: str, name: str) -> None:
    service = api.get(objects.SERVICE, namespace, name)
    if service is None or objects.is_leaving(service):
        return
    if service["spec"].get("type") == "LoadBalancer" and not service["spec"].get("loadBalancerClass"):
        api.update_status(service, {"loadBalancer": {"ingress": [{"ip": ADDRESS, "ipMode": "VIP"}]}})


@dataclass(frozen=True)
class Storage:
    """The controller of claims and of the volumes it made for them."""

    api: Api

    def reconcile(self, namespace: str, name: str) -> None:
        claim = self.api.get(objects.CLAIM, namespace, name)
        if claim is None or objects.is_leaving(claim):
            return
        if claim["spec"].get("volumeName"):
            self._grow(claim)
        elif not claim["spec"].get("selector"):  # a selector asks for a volume that was made by hand
            self.api.create(self._volume(claim))

    def reconcile_volume(self, _namespace: str, name: str) -> None:
        """Delete a released volume that this controller made."""
        volume = self.api.get(objects.VOLUME, "", name)
        if volume is None or not _is_ours(volume) or objects.is_leaving(volume):
            return
        released = (volume.get("status") or {}).get("phase") == "Released"
        if released and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            self.api.delete(objects.VOLUME, "", name)

    def _volume(self, claim: Object) -> Object:
        meta, spec = claim["metadata"], claim["spec"]
        storage_class = spec.get("storageClassName") or ""
        chosen = self.api.get(objects.STORAGE_CLASS, "", storage_class) if storage_class else None
        wanted = {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "volumeMode": spec.get("volumeMode") or "Filesystem",
            "storageClassName": storage_class,
            "persistentVolumeReclaimPolicy": (chosen or {}).get("reclaimPolicy") or "Delete",
            "claimRef": {key: claim[key] for key in ("apiVersion", "kind")}
            | {key: meta[key] for key in ("namespace", "name", "uid")},
            "hostPath": {"path": f"/var/lib/lab/{meta['namespace']}/{meta['name']}", "type": "DirectoryOrCreate"},
        }
        marks = {"pv.kubernetes.io/provisioned-by": PROVISIONER}
        return objects.VOLUME.new({"name": f"pvc-{meta['uid']}", "annotations": marks}, spec=wanted)

    def _grow(self, claim: Object) -> None:
        """Give a claim the size that it requests; the API server has already checked the request."""
        storage = {"storage": claim["spec"]["resources"]["requests"]["storage"]}
        volume = self.api.get(objects.VOLUME, "", claim["spec"]["volumeName"])
        status = claim.get("status") or {}
        if status.get("phase") != "Bound" or volume is None or not _is_ours(volume):
            return
        if (status.get("capacity") or {}).get("storage") != storage["storage"]:
            self.api.patch(volume, {"spec": {"capacity": storage}})
            self.api.update_status(claim, {"capacity": storage})


def _is_ours(volume: Object) -> bool:
    return objects.annotation(volume, "pv.kubernetes.io/provisioned-by") == PROVISIONER
