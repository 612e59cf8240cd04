"""Which checks a service has, by the names that `services.py` uses in `checks=`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from runbooks.checks import apps, cert_manager, cf_tunnel, clickhouse, cnpg, generic, postgres, tailscale
from runbooks.checks.cluster import at_home
from runbooks.core.findings import Finding
from runbooks.stacks.service import Service
from runbooks.stacks.session import Session

Checks = Callable[[Session, Service], list[Finding]]

CHECKS: Mapping[str, Checks] = {
    "tailscale": tailscale.verify,
    "cnpg": cnpg.verify,
    "postgres": postgres.verify,
    "cf_tunnel": cf_tunnel.verify,
    "cert_manager": cert_manager.verify,
    "clickhouse": clickhouse.verify,
    "generic": generic.verify,
    **dict.fromkeys(apps.APPS, apps.verify),
}


def checks_of(service: Service) -> list[Checks]:
    """The service's own checks, or the generic ones, each with the namespace that the service really lives in."""
    return [_at_home(CHECKS[name]) for name in service.checks or ("generic",)]


def _at_home(checks: Checks) -> Checks:
    @functools.wraps(checks)
    def at_its_home(session: Session, service: Service) -> list[Finding]:
        return checks(session, at_home(session, service))

    return at_its_home
