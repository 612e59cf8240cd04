"""Environments without an evaluator: property paths, durations, sessions, and tags page by page."""

from __future__ import annotations

from typing import Any

import pytest

from lab.cloud.environments import Opened, read_duration, value_at
from lab.cloud.wire import ApiError
from tests.unit.cloud.conftest import Caller

OPENED = {"properties": {"a": {"value": {"b:c": {"value": [{"value": 1, "secret": True}]}}}, "text": {"value": "x"}}}


@pytest.mark.parametrize("path", [".a", "a.", "a..b", "a[", "a[x]", 'a["b]', r'a["b\"]', 'a"b"', "a[-1]"])
def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(ApiError, match="invalid property path"):
        value_at(OPENED, path)


def test_a_value_is_found_with_its_mark() -> None:
    assert value_at(OPENED, 'a["b:c"][0]') == {"value": 1, "secret": True}
    assert value_at(OPENED, "") == {"value": OPENED["properties"]}


@pytest.mark.parametrize("path", ["b", 'a["b:c"][1]', "text[0]", "text.length", "a[0]", 'a["b:c"].x'])
def test_a_value_that_is_not_there_is_not_found(path: str) -> None:
    with pytest.raises(ApiError, match="Not Found"):
        value_at(OPENED, path)


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 7200), ("2h0m0s", 7200), ("1h30m", 5400), ("1.5s", 1.5), ("200ms", 0.2)]
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["2", "h", "2x", "-1h", "1h 2m", "1h2"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ApiError, match="invalid duration"):
        read_duration(text)


def test_sessions_end_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened()
    over = opened.add("a/b", {"properties": {}}, 0.0)
    with pytest.raises(ApiError, match="expired"):
        opened.get("a/b", over)
    monkeypatch.setattr("lab.cloud.environments.REMEMBERED", 2)
    sessions = [opened.add("a/b", {"properties": {"n": number}}, 60) for number in range(3)]
    with pytest.raises(ApiError):
        opened.get("a/b", sessions[0])
    assert opened.get("a/b", sessions[2]) == {"properties": {"n": 2}}
    with pytest.raises(ApiError, match="Not Found"):
        opened.get("a/other", sessions[2])
    assert "'n'" not in repr(opened)


ENVIRONMENT = "/api/esc/environments/organization/app/prod"
PAGES = 5
"""More than any list here has: a reader that is still reading by then would never end."""


@pytest.fixture
def caller(caller: Caller) -> Caller:
    """Of a cloud that has one environment."""
    caller.post("/api/esc/environments/organization", {"project": "app", "name": "prod"})
    return caller


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
