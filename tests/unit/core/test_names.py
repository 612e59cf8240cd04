"""Names people type."""

from __future__ import annotations

import pytest

from runbooks.core.errors import Usage
from runbooks.core.names import check_name, nearest

SERVICES = ("tailscale", "cnpg", "postgres", "immich", "n8n")


@pytest.mark.parametrize(
    ("name", "first"), [("postgers", "postgres"), ("Postgres", "postgres"), ("imich", "immich"), ("n8", "n8n")]
)
def test_the_nearest_name_comes_first(name: str, first: str) -> None:
    near = nearest(name, SERVICES)
    assert near[0] == first
    assert len(near) == 3
    assert nearest(name, ("a", "a")) == ["a"] and nearest(name, ()) == []
    assert check_name("service", first, SERVICES) == first


@pytest.mark.parametrize("name", ["", "-f", "--all", "a b", "a\tb", "a\n", "a\x00", "\x1b[31m"])
def test_what_no_name_can_be(name: str) -> None:
    with pytest.raises(Usage):
        check_name("service", name, SERVICES)
