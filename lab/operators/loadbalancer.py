"""Services of type LoadBalancer without a class get an address, as from a load balancer of the home network."""

from __future__ import annotations

from lab.operators.api import SERVICE, Api

MANAGER = "lab-loadbalancer"
ADDRESS = "127.0.0.1"


class LoadBalancers:
    """The controller of load balancers; those with a class are somebody else's."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def reconcile(self, namespace: str, name: str) -> None:
        service = self._api.get(SERVICE, namespace, name)
        if service is None or service["metadata"].get("deletionTimestamp"):
            return
        spec, status = service["spec"], service.get("status") or {}
        if spec.get("type") != "LoadBalancer" or spec.get("loadBalancerClass"):
            return
        wanted = [{"ip": ADDRESS, "ipMode": "VIP"}]
        if (status.get("loadBalancer") or {}).get("ingress") != wanted:
            self._api.patch(service, {"status": {"loadBalancer": {"ingress": wanted}}}, MANAGER, status=True)
