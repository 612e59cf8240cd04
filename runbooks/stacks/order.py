"""The order of services: what needs what, in layers whose members are independent of each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from runbooks.core.errors import Usage
from runbooks.stacks.service import Service


def closure(names: Iterable[str], services: Iterable[Service]) -> set[str]:
    """The named services and everything they need, directly or not. Raises `Usage` for a need that is not a service."""
    known = {service.name: service for service in services}
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in known:
            needing = next((service.name for service in known.values() if name in service.needs), "the command")
            raise Usage(
                f"{needing} needs {name!r}, which is not a service",
                expected=f"one of {', '.join(sorted(known))}",
                next_step="correct `needs` in runbooks/services.py",
            )
        found.add(name)
        waiting.extend(known[name].needs)
    return found


def layers(names: Iterable[str], services: Sequence[Service]) -> list[tuple[Service, ...]]:
    """The named services in order: each layer needs only earlier ones, and keeps the order of `services`.

    A need that is not among `names` does not count: it is taken to be there. Raises `Usage` for a circle.
    """
    wanted = set(names)
    known = {service.name: service for service in services}
    sorter = TopologicalSorter({name: [need for need in known[name].needs if need in wanted] for name in wanted})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise Usage(
            f"these services need each other in a circle: {circle}",
            expected="an order in which each can be deployed after what it needs",
            next_step="take one of them out of `needs` in runbooks/services.py, or split the shared part off",
        ) from error
    place = {name: number for number, name in enumerate(known)}
    found: list[tuple[Service, ...]] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        found.append(tuple(known[name] for name in ready))
        sorter.done(*ready)
    return found


def consumers(name: str, services: Iterable[Service]) -> list[Service]:
    """Everything that needs the service, directly or not, in the order of `services`."""
    known = list(services)
    return [service for service in known if service.name != name and name in closure([service.name], known)]
