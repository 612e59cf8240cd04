"""Every ladder by the name that `services.py` uses in `checks=`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from runbooks.checks import apps, cert_manager, cf_tunnel, clickhouse, cnpg, generic, postgres, tailscale
from runbooks.checks.cluster import at_home
from runbooks.lib.checks import Finding
from runbooks.services import Service
from runbooks.session import Session

Ladder = Callable[[Session, Service], list[Finding]]

LADDERS: Mapping[str, Ladder] = {
    "tailscale": tailscale.ladder,
    "cnpg": cnpg.ladder,
    "postgres": postgres.ladder,
    "cf_tunnel": cf_tunnel.ladder,
    "cert_manager": cert_manager.ladder,
    "clickhouse": clickhouse.ladder,
    "generic": generic.ladder,
    **dict.fromkeys(apps.APPS, apps.ladder),
}


def ladders_of(service: Service) -> list[Ladder]:
    """The service's own ladders, or the generic one, each told where the service really lives."""
    return [_at_home(LADDERS[name]) for name in service.checks or ("generic",)]


def _at_home(ladder: Ladder) -> Ladder:
    @functools.wraps(ladder)
    def climbed(session: Session, service: Service) -> list[Finding]:
        return ladder(session, at_home(session, service))

    return climbed
