"""`python -m lab.operators`: watch the lab's cluster with kopf, hand what changes to the controllers.

kopf only watches (it also follows definitions that come and go); it writes nothing, so that no annotation or
finalizer of its own shows in a stack's state.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import kopf

from lab.operators import postgres
from lab.operators.api import Access, Api, Kind
from lab.operators.certmanager import Certificates, Issuers, Manager, Webhooks
from lab.operators.claims import Claims
from lab.operators.clickhouse import Installations
from lab.operators.cnpg import Clusters
from lab.operators.database import Databases
from lab.operators.loadbalancer import LoadBalancers
from lab.operators.prometheus import PROGRAMS, Monitoring
from lab.operators.roles import DatabaseRoles
from lab.operators.routes import ROUTES, Route, look_again
from lab.operators.servers import Servers
from lab.operators.settings import Settings
from lab.operators.tailscale import Exposures, Ingresses, Proxies, Services
from lab.operators.tunnel import Tunnels
from lab.operators.work import Controller, Work

log = logging.getLogger("lab.operators")
PATIENCE = 60.0
"""Seconds to wait for the lab's API server at the start; the supervisor tries again after that."""
RESYNC = 30.0
"""Seconds between two looks at what a watch may have missed."""


def controllers(api: Api, settings: Settings) -> Work:
    """All controllers behind one queue."""
    table: dict[str, Controller] = {}
    work = Work(table)
    servers, proxies = Servers(api, settings), Proxies(api)
    clusters, claims = Clusters(api, settings, servers, work), Claims(api)
    exposures = Exposures(api, work)

    def resync(_namespace: str, _name: str) -> float:
        for controller in ("clusters", "exposures", "tunnels", "webhooks"):
            work.add(controller, "", "")
        look_again(api, work)
        return RESYNC

    table |= {
        "resync": resync,
        "cluster": clusters.reconcile,
        "pulse": clusters.pulse,
        "clusters": clusters.reconcile_all,
        "secret": clusters.secret_changed,
        "database": Databases(api, servers).reconcile,
        "role": DatabaseRoles(api, servers).reconcile,
        "service": Services(api, proxies).reconcile,
        "ingress": Ingresses(api, proxies).reconcile,
        "exposures": exposures.reconcile_all,
        "backend": exposures.backend_changed,
        "loadbalancer": LoadBalancers(api).reconcile,
        "claim": claims.reconcile,
        "volume": claims.reconcile_volume,
        **{program.name: Monitoring(api, program).reconcile for program in PROGRAMS},
        **_tunnel(api, work),
        **_cert_manager(api, work),
        **_clickhouse(api, work),
    }
    return work


def _tunnel(api: Api, work: Work) -> dict[str, Controller]:
    tunnels = Tunnels(api, work)
    return {
        "tunnel": tunnels.reconcile,
        "tunnels": tunnels.reconcile_all,
        "connectors": tunnels.reconcile_connectors,
        "tunnel-secret": tunnels.secret_changed,
    }


def _cert_manager(api: Api, work: Work) -> dict[str, Controller]:
    manager = Manager(api)
    issuers, kept = Issuers(api, manager, work), Certificates(api, manager, work)
    return {
        "issuer": issuers.reconcile,
        "cluster-issuer": issuers.reconcile_cluster,
        "issuers": issuers.reconcile_all,
        "certificate": kept.reconcile,
        "certificate-secret": kept.secret_changed,
        "webhooks": Webhooks(api, manager).reconcile,
    }


def _clickhouse(api: Api, work: Work) -> dict[str, Controller]:
    installations = Installations(api, work)
    return {"clickhouse": installations.reconcile, "installations": installations.reconcile_all}


def watches(access: Access, work: Work) -> kopf.OperatorRegistry:
    """kopf's registry: the login and one observer for each kind."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=access.server, token=access.token, ca_data=access.ca_data)

    for kind, route in ROUTES:
        _watch(registry, kind, route, work)
    return registry


def _watch(registry: kopf.OperatorRegistry, kind: Kind, route: Route, work: Work) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)
    async def changed(body: kopf.Body, name: str | None, namespace: str | None, **_: Any) -> None:
        route(work, namespace or "", name or "", {"metadata": dict(body["metadata"])})


def kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.networking.error_backoffs = [0.1, 0.2, 0.5, 1, 1, 2, 2, 5, 5, 5]
    settings.queueing.exit_timeout = 1.0
    return settings


def wait_for_server(access: Access) -> None:
    """Wait until the API server is ready to serve; ends the process with 1 when it does not come."""
    deadline = time.monotonic() + PATIENCE
    api = Api(access)
    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if api.is_ready():
                    return
            time.sleep(0.1)
    finally:
        api.close()
    log.critical("the API server %s is not ready after %.0f s", access.server, PATIENCE)
    sys.exit(1)


async def run(access: Access, work: Work) -> None:
    """Watch until SIGTERM or SIGINT, which kopf takes."""
    port = os.environ.get("LAB_HEALTH_PORT")
    await kopf.operator(
        registry=watches(access, work),
        settings=kopf_settings(),
        standalone=True,
        clusterwide=True,
        liveness_endpoint=f"http://127.0.0.1:{port}/healthz" if port else None,
    )


def lab_dir_of(arguments: argparse.Namespace) -> Path:
    if arguments.lab_dir is not None:
        return Path(arguments.lab_dir).absolute()
    state = os.environ.get("OPS_STATE")
    return (Path(state) if state else Path.cwd() / ".ops").absolute() / "lab"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.operators", description="the lab's controllers")
    parser.add_argument("--lab-dir", help="the lab's state folder; $OPS_STATE/lab when not given")
    settings = Settings(lab_dir_of(parser.parse_args()))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # kopf tells of every definition that is not there (yet) and of every try, which is everyday life here.
    logging.getLogger("kopf").setLevel(logging.ERROR)
    logging.getLogger("kopf._cogs.clients.watching").addFilter(lambda record: "will retry" not in record.getMessage())
    os.umask(0o077)
    for name in [name for name in os.environ if name.startswith("PG")]:
        # libpq would take a host or a login of the user's own from these.
        del os.environ[name]
    access = Access.read(settings.kubeconfig)
    wait_for_server(access)
    api = Api(access)
    work = controllers(api, settings)
    work.add("resync", "", "")
    work.start()
    log.info("controllers run for %s", access.server)
    try:
        asyncio.run(run(access, work))
    finally:
        work.stop()
        stopped = postgres.stop_all(settings.lab_dir)
        log.info("controllers end; stopped PostgreSQL servers: %s", stopped or "none")
        api.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
