"""`python -m lab.operators`: watches the lab's cluster with kopf and passes changed objects to the controllers.

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
from pathlib import Path
from typing import Any

import kopf
from kopf._cogs.clients.errors import APINotFoundError  # kopf does not export it

from lab.operators import certmanager, clickhouse, cnpg, postgres, prometheus, storage, tailscale, tunnel
from lab.operators.api import Api, connect
from lab.operators.objects import Kind
from lab.operators.routes import ROUTES, Route, look_again
from lab.operators.work import Controller, Work

log = logging.getLogger("lab.operators")
RESYNC = 30.0
"""Seconds after which all objects are looked at again, as a watch may have missed some."""


def assemble(api: Api, lab_dir: Path) -> Work:
    """Make all controllers, behind one queue."""
    table: dict[str, Controller] = {}
    work = Work(table)

    def resync(_namespace: str, _name: str) -> float:
        for controller in ("clusters", "exposures", "tunnels", "webhooks"):
            work.add(controller)
        look_again(api, work)
        return RESYNC

    table |= {
        "resync": resync,
        **storage.controllers(api),
        **prometheus.controllers(api),
        **cnpg.controllers(api, work, lab_dir),
        **tailscale.controllers(api, work),
        **tunnel.controllers(api, work),
        **certmanager.controllers(api, work),
        **clickhouse.controllers(api, work),
    }
    return work


def watches(work: Work) -> kopf.OperatorRegistry:
    """Make kopf's registry: the login and one observer for each kind."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
    for kind, route in ROUTES:
        _watch(registry, kind, route, work)
    return registry


def _watch(registry: kopf.OperatorRegistry, kind: Kind, route: Route, work: Work) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)
    async def changed(name: str | None, namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        route(work, namespace or "", name or "", dict(labels))


async def run(work: Work) -> None:
    """Watch until SIGTERM or SIGINT, which kopf handles."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # kopf's own events would show beside those of the operators
    settings.networking.error_backoffs = [0.1, 0.2, 0.5, 1, 1, 2, 2, 5, 5, 5]
    settings.queueing.exit_timeout = 1.0
    port = os.environ.get("LAB_HEALTH_PORT")
    work.start()
    try:
        while True:
            work.add("resync")
            # All of kopf ends when a watch learns that its kind is gone before the definition's own watch does.
            with contextlib.suppress(APINotFoundError):
                return await kopf.operator(
                    registry=watches(work),
                    settings=settings,
                    standalone=True,
                    clusterwide=True,
                    liveness_endpoint=f"http://127.0.0.1:{port}/healthz" if port else None,
                )
    finally:
        await work.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.operators", description="the lab's controllers")
    state = Path(os.environ.get("OPS_STATE") or ".ops")
    parser.add_argument("--lab-dir", type=Path, default=state / "lab", help="the lab's state folder")
    lab_dir: Path = parser.parse_args().lab_dir.absolute()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # kopf reports every definition that is not there (yet) and every retry, both of which are normal here.
    logging.getLogger("kopf").setLevel(logging.ERROR)
    logging.getLogger("kopf._cogs.clients.watching").addFilter(lambda record: "will retry" not in record.getMessage())
    os.umask(0o077)  # Postgres' data and passwords are made by this process
    for name in [name for name in os.environ if name.startswith("PG")]:
        # libpq would take a host or a login of the user's own from these.
        del os.environ[name]
    # kopf reads its login from there.
    os.environ["KUBECONFIG"] = str(lab_dir / "kubeconfig")
    login = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
    assert login is not None
    with connect(login) as http:
        api = Api(http)
        log.info("controllers run for %s", login.server)
        work = assemble(api, lab_dir)
        try:
            asyncio.run(run(work))
        finally:
            stopped = postgres.stop_all(lab_dir)
            log.info("controllers end; stopped PostgreSQL servers: %s", stopped or "none")
    if work.is_running:  # its thread would keep the process, and could start a server that nothing stops
        logging.shutdown()
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
