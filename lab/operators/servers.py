"""The way from an object that names a Cluster to that Cluster's running server."""

from __future__ import annotations

from lab.operators import postgres
from lab.operators.api import CLUSTER, DEPLOYMENT, Api, Object, runs
from lab.operators.settings import Settings

MANAGER = "cloudnative-pg"
OPERATOR = {"app.kubernetes.io/name": "cloudnative-pg"}
"""Labels of the operator's Deployment, whatever its release is called."""


class Servers:
    """Finds servers; knows whether the operator is there at all."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._settings = settings

    def operator_is_available(self) -> bool:
        return any(runs(found) for found in self._api.list(DEPLOYMENT, labels=OPERATOR))

    def place(self, namespace: str, cluster: str) -> postgres.Place | None:
        """The server of a Cluster that is bootstrapped and runs, or None: look again later."""
        found = self._api.get(CLUSTER, namespace, cluster)
        folder = postgres.folder_of(self._settings.lab_dir, namespace, cluster)
        record = postgres.read_record(folder)
        if found is None or record.get("uid") != found["metadata"]["uid"] or not record.get("bootstrapped"):
            return None
        place = postgres.Place(folder, record["port"])
        running = postgres.find(place)
        return place if running and running.ready and self.operator_is_available() else None


def report_applied(api: Api, thing: Object, message: str, **more: object) -> None:
    """Status of a Database or DatabaseRole: applied when there is no message. Written only where it differs."""
    before = thing.get("status") or {}
    after = {"applied": not message, "message": message, **more}
    if not message:
        after["observedGeneration"] = thing["metadata"]["generation"]
    if any(before.get(key) != value for key, value in after.items()):
        api.patch(thing, {"status": after}, MANAGER, status=True)
