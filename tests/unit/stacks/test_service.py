"""Services: what a program requires, read from its source, and the order of their needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.core.errors import NotFound, Usage
from runbooks.services import find_service
from runbooks.stacks.service import Service, closure, consumers, find_setting, layers, required_settings


def written(folder: Path, text: str) -> Path:
    (folder / "settings.py").write_text(text)
    return folder


def test_settings_without_a_default_are_required(tmp_path: Path) -> None:
    text = """
class Settings:
    host: str = setting("Host name")
    size: int = setting("Size", default=3)
    password: object = secret("Password", generated=True)
    port: str = setting("Port of the server", key="postgresql:port")
    class_name: str = "not a setting"
"""
    found = required_settings(written(tmp_path, text))
    assert [(each.key, each.is_secret, each.generated) for each in found] == [
        ("host", False, False),
        ("password", True, True),
        ("postgresql:port", False, False),
    ]


@pytest.mark.parametrize("text", ["", "class Other:\n    host: str = setting('Host')\n"])
def test_a_program_of_another_form_requires_nothing(tmp_path: Path, text: str) -> None:
    assert required_settings(written(tmp_path, text)) == ()


def test_a_program_that_is_not_python_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(Usage, match=r"settings\.py:1"):
        required_settings(written(tmp_path, "class Settings(:\n"))


@pytest.mark.parametrize(
    ("service", "next_step"), [("postgres", "./inv secrets.set postgres superuser_password"), ("cnpg", "./inv doctor")]
)
def test_the_next_step_after_an_unknown_secret_names_one(service: str, next_step: str) -> None:
    with pytest.raises(NotFound) as unknown:
        find_setting(find_service(service), "nosuch")
    assert unknown.value.next_step == next_step


# The order of needs


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
    with pytest.raises(Usage, match=r"cycle: \w → \w → \w → \w"):
        layers(["a", "b", "c"], circle)


def test_unknown_need_names_who_needs_it() -> None:
    with pytest.raises(Usage, match="a needs 'nobody'"):
        closure(["a"], (node("a", ("nobody",)),))
