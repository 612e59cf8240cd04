"""`wire.<consumer>`: from a producer's outputs to its consumer's preview, one link after the other."""

from __future__ import annotations

from invoke import Context

from runbooks.collection import each_service
from runbooks.services import SERVICES

CONSUMERS = tuple(service for service in SERVICES if service.reference or service.environment)


@each_service(services=CONSUMERS, options={"yes": "Set a missing reference or binding, where there is no terminal."})
def wire(c: Context, names: tuple[str, ...], yes: bool = False) -> None:
    """Follow the wiring of {service} from its producer's outputs to its preview; sets what is missing, after asking.

    Example: ./inv wire.{name} --yes
    """
    from runbooks.run import open_session
    from runbooks.stacks import wiring

    with open_session(c, f"wire.{names[0]}") as session:
        wiring.wire(session, session.service(names[0]), yes=yes)
