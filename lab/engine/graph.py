"""What depends on what among recorded resources."""

from __future__ import annotations

from collections.abc import Sequence

from lab.engine.state import ResourceState


class Graph:
    """Edges by position in ``resources``. A dependency on a component is one on everything below it, too."""

    def __init__(self, resources: Sequence[ResourceState]) -> None:
        self._resources = resources
        self._positions: dict[str, list[int]] = {}
        for position, state in enumerate(resources):
            self._positions.setdefault(state.urn, []).append(position)
        self._children: dict[str, list[str]] = {}
        for state in resources:
            if state.parent:
                self._children.setdefault(state.parent, []).append(state.urn)
        self._is_component = {state.urn: not state.custom for state in resources}
        self.needs = [self._needs(position) for position in range(len(resources))]

    def _needs(self, position: int) -> set[int]:
        state = self._resources[position]
        urns = {urn for urn in state.dependency_urns() if urn}
        for urn in [urn for urn in urns if self._is_component.get(urn) and urn != state.parent]:
            urns.update(self._descendants(urn))
        needed = {index for urn in urns for index in self._positions.get(urn, ())}
        return needed - set(self._positions[state.urn])

    def _descendants(self, urn: str) -> set[str]:
        found: set[str] = set()
        waiting = [urn]
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        return found

    def dependents_of(self, state: ResourceState) -> list[ResourceState]:
        """All that need ``state``, directly or not, in the order of the list."""
        start = next(index for index, item in enumerate(self._resources) if item is state)
        affected = {start}
        changed = True
        while changed:
            more = {index for index, needed in enumerate(self.needs) if needed & affected} - affected
            affected |= more
            changed = bool(more)
        return [self._resources[index] for index in sorted(affected - {start})]
