"""What a service requires, read from the source of its program."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.core.errors import Usage
from runbooks.stacks.service import required_settings


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
