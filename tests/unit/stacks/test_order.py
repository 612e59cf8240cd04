"""Order of services: layers, closure, circles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.core.errors import Usage
from runbooks.stacks.service import Service, closure, consumers, layers


def node(name: str, needs: tuple[str, ...] = ()) -> Service:
    return Service(name=name, folder=name, about="", namespace=name, needs=needs)


PLATFORM = (node("tailscale"), node("cnpg"), node("postgres", ("cnpg", "tailscale")), node("immich", ("postgres",)))


def names(found: list[tuple[Service, ...]]) -> list[list[str]]:
    return [[each.name for each in layer] for layer in found]


def test_layers_keep_the_order_of_the_list_inside() -> None:
    assert names(layers(closure(["immich"], PLATFORM), PLATFORM)) == [["tailscale", "cnpg"], ["postgres"], ["immich"]]


def test_only_the_named_ones_count() -> None:
    assert names(layers(["immich", "cnpg"], PLATFORM)) == [["cnpg", "immich"]]


def test_consumers_are_found_through_others() -> None:
    assert [each.name for each in consumers("cnpg", PLATFORM)] == ["postgres", "immich"]
    assert consumers("immich", PLATFORM) == []


def test_circle_names_its_members() -> None:
    circle = (node("a", ("b",)), node("b", ("c",)), node("c", ("a",)))
    with pytest.raises(Usage, match=r"circle: \w → \w → \w → \w"):
        layers(["a", "b", "c"], circle)


def test_unknown_need_names_who_needs_it() -> None:
    with pytest.raises(Usage, match="a needs 'nobody'"):
        closure(["a"], (node("a", ("nobody",)),))


@given(st.integers(1, 12), st.data())
def test_every_need_comes_earlier(size: int, data: st.DataObject) -> None:
    nodes = tuple(
        node(
            str(n),
            tuple(str(need) for need in sorted(data.draw(st.sets(st.integers(0, n - 1)) if n else st.just(set())))),
        )
        for n in range(size)
    )
    place = {each.name: number for number, layer in enumerate(layers([n.name for n in nodes], nodes)) for each in layer}
    assert len(place) == size
    assert all(place[need] < place[each.name] for each in nodes for need in each.needs)
