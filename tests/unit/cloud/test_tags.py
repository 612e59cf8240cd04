"""Tags of environments and of revisions, page by page as the CLI reads them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cloud.conftest import Caller

ENVIRONMENT = "/api/esc/environments/organization/app/prod"
PAGES = 5
"""More than any list here has: a reader that is still reading by then would never end."""


@pytest.fixture(autouse=True)
def environment(caller: Caller) -> None:
    caller.post("/api/esc/environments/organization", {"project": "app", "name": "prod"})


def revision_tags(caller: Caller, count: int) -> list[str]:
    """As `env version tag ls` reads them: after the last name of a page, until a page is empty."""
    names: list[str] = []
    for _ in range(PAGES):
        after = names[-1] if names else ""
        page = caller.get(f"{ENVIRONMENT}/versions/tags?after={after}&count={count}")["tags"]
        if not page:
            return names
        names += [one["name"] for one in page]
    raise AssertionError(f"no end after {names}")


def environment_tags(caller: Caller) -> dict[str, Any]:
    """As `env tag ls` reads them: until the token of the next page is the text 0."""
    found: dict[str, Any] = {}
    after = ""
    for _ in range(PAGES):
        page = caller.get(f"{ENVIRONMENT}/tags?after={after}&count=500")
        found |= {name: one["value"] for name, one in page["tags"].items()}
        after = page["nextToken"]
        if after == "0":
            return found
    raise AssertionError(f"no end after {found}")


@pytest.mark.parametrize("count", [2, 500])
def test_the_list_of_revision_tags_ends(caller: Caller, count: int) -> None:
    assert revision_tags(caller, count) == ["latest"]
    for name in ("stable", "first"):
        caller.post(f"{ENVIRONMENT}/versions/tags", {"name": name, "revision": 1})
    assert revision_tags(caller, count) == ["first", "latest", "stable"]


def test_the_list_of_tags_ends(caller: Caller) -> None:
    assert environment_tags(caller) == {}
    for name in ("team", "owner"):
        caller.post(f"{ENVIRONMENT}/tags", {"name": name, "value": "me"})
    assert environment_tags(caller) == {"owner": "me", "team": "me"}


def test_a_tag_is_not_renamed_over_another(caller: Caller) -> None:
    for name in ("team", "owner"):
        caller.post(f"{ENVIRONMENT}/tags", {"name": name, "value": name})
    renamed = {"currentTag": {"value": "team"}, "newTag": {"name": "owner", "value": "team"}}
    assert caller.send("PATCH", f"{ENVIRONMENT}/tags/team", renamed).status == 409
    assert environment_tags(caller) == {"owner": "owner", "team": "team"}
    renamed["newTag"]["name"] = "region"
    assert caller.send("PATCH", f"{ENVIRONMENT}/tags/team", renamed).status == 200
    assert environment_tags(caller) == {"owner": "owner", "region": "team"}


def test_revisions_are_read_backwards_until_there_are_none(caller: Caller) -> None:
    """`env version history` begins with 0."""
    assert [one["number"] for one in caller.get(f"{ENVIRONMENT}/versions?before=0&count=500")] == [1]
    assert caller.get(f"{ENVIRONMENT}/versions?before=1&count=500") == []
