"""PersistentVolumeClaims get a volume at once, as from a provisioner of node folders; nothing is stored in it.

The volume names its claim, and Kubernetes' own binder binds the two. Released volumes are deleted where their class
says so, again as an external provisioner does it.
"""

from __future__ import annotations

from lab.operators.api import CLAIM, STORAGE_CLASS, VOLUME, Api, Object

MANAGER = "lab-claims"
PROVISIONER = "lab.homelab-ops/local"


class Claims:
    """The controller of claims and of the volumes it made for them."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def reconcile(self, namespace: str, name: str) -> None:
        claim = self._api.get(CLAIM, namespace, name)
        if claim is None or claim["metadata"].get("deletionTimestamp"):
            return
        if claim["spec"].get("volumeName"):
            self._grow(claim)
        elif not claim["spec"].get("selector"):
            self._api.create(self._volume(claim), MANAGER)

    def reconcile_volume(self, _namespace: str, name: str) -> None:
        """Delete a volume of ours whose claim is gone."""
        volume = self._api.get(VOLUME, "", name)
        if volume is None or not _is_ours(volume) or volume["metadata"].get("deletionTimestamp"):
            return
        released = (volume.get("status") or {}).get("phase") == "Released"
        if released and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            self._api.delete(VOLUME, "", name)

    def _volume(self, claim: Object) -> Object:
        meta, spec = claim["metadata"], claim["spec"]
        storage_class = spec.get("storageClassName") or ""
        chosen = self._api.get(STORAGE_CLASS, "", storage_class) if storage_class else None
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": f"pvc-{meta['uid']}",
                "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
            },
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "volumeMode": spec.get("volumeMode") or "Filesystem",
                "storageClassName": storage_class,
                "persistentVolumeReclaimPolicy": (chosen or {}).get("reclaimPolicy") or "Delete",
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": meta["namespace"],
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
                "hostPath": {"path": f"/var/lib/lab/{meta['namespace']}/{meta['name']}", "type": "DirectoryOrCreate"},
            },
        }

    def _grow(self, claim: Object) -> None:
        """Give a claim the size it asks for, where the API server let it ask."""
        wanted = claim["spec"]["resources"]["requests"]["storage"]
        status = claim.get("status") or {}
        volume = self._api.get(VOLUME, "", claim["spec"]["volumeName"])
        if status.get("phase") != "Bound" or volume is None or not _is_ours(volume):
            return
        if (status.get("capacity") or {}).get("storage") == wanted:
            return
        self._api.patch(volume, {"spec": {"capacity": {"storage": wanted}}}, MANAGER)
        self._api.patch(claim, {"status": {"capacity": {"storage": wanted}}}, MANAGER, status=True)


def _is_ours(volume: Object) -> bool:
    annotations = volume["metadata"].get("annotations") or {}
    return annotations.get("pv.kubernetes.io/provisioned-by") == PROVISIONER
