"""Environments without an evaluator: property paths, durations, sessions and tags."""

from __future__ import annotations

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


def test_a_tag_is_not_renamed_over_another(caller: Caller) -> None:
    caller.post("/api/esc/environments/organization", {"project": "app", "name": "prod"})
    for name in ("team", "owner"):
        caller.post(f"{ENVIRONMENT}/tags", {"name": name, "value": name})
    renamed = {"currentTag": {"value": "team"}, "newTag": {"name": "owner", "value": "team"}}
    assert caller.send("PATCH", f"{ENVIRONMENT}/tags/team", renamed).status == 409
    assert sorted(caller.get(f"{ENVIRONMENT}/tags")["tags"]) == ["owner", "team"]
    outdated = renamed | {"currentTag": {"value": "another"}}
    assert caller.send("PATCH", f"{ENVIRONMENT}/tags/team", outdated).status == 409
    renamed["newTag"]["name"] = "region"
    assert caller.send("PATCH", f"{ENVIRONMENT}/tags/team", renamed).status == 200
    tags = caller.get(f"{ENVIRONMENT}/tags")["tags"]
    assert {name: one["value"] for name, one in tags.items()} == {"owner": "owner", "region": "team"}
