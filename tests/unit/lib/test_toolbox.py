"""Which tools a run takes, and which variables hold secrets."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest

from runbooks.lib.errors import ToolFailed
from runbooks.lib.target import Target
from runbooks.lib.toolbox import find_kubectl, find_pulumi, secret_variables


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def target(tmp_path: Path, *, ephemeral: bool = False, **tools: Path) -> Target:
    return Target(
        name="lab" if ephemeral else "home",
        stack="mx",
        backend="file:///s",
        organization="organization",
        kubeconfig=tmp_path / "k",
        context="c",
        ephemeral=ephemeral,
        tools=MappingProxyType(tools),
    )


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_the_real_pulumi_on_path_serves_every_target(tmp_path: Path, path: Path) -> None:
    real = program(path / "pulumi")
    stand_in = program(tmp_path / "lab" / "bin" / "pulumi")
    assert find_pulumi(target(tmp_path), tmp_path) == (str(real), False)
    assert find_pulumi(target(tmp_path, ephemeral=True, pulumi=stand_in), tmp_path) == (str(real), False)


def test_the_stand_in_serves_the_lab_alone(tmp_path: Path, path: Path) -> None:
    stand_in = program(tmp_path / "lab" / "bin" / "pulumi")
    assert find_pulumi(target(tmp_path, ephemeral=True, pulumi=stand_in), tmp_path) == (str(stand_in), True)
    assert find_pulumi(target(tmp_path, ephemeral=True), tmp_path) == (str(stand_in), True)
    with pytest.raises(ToolFailed, match="not on PATH"):
        find_pulumi(target(tmp_path, pulumi=stand_in), tmp_path)


def test_another_checkouts_stand_in_is_one_too(tmp_path: Path, path: Path) -> None:
    """As in a shell that has that one's `lab.env`."""
    elsewhere = program(tmp_path / "other" / "lab" / "bin" / "pulumi")
    (tmp_path / "other" / "lab" / "engine").mkdir()
    (path / "pulumi").symlink_to(elsewhere)
    with pytest.raises(ToolFailed, match="not on PATH"):
        find_pulumi(target(tmp_path), tmp_path)


def test_the_stand_in_on_path_by_a_link_is_still_the_stand_in(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = program(tmp_path / "lab" / "bin" / "pulumi")
    (path / "pulumi").symlink_to(stand_in)
    assert find_pulumi(target(tmp_path, ephemeral=True, pulumi=stand_in), tmp_path)[1]
    with pytest.raises(ToolFailed):
        find_pulumi(target(tmp_path), tmp_path)

    real = program(tmp_path / "later" / "pulumi")
    monkeypatch.setenv("PATH", f"{path}:{real.parent}")
    assert find_pulumi(target(tmp_path), tmp_path) == (str(real), False)


def test_no_pulumi_anywhere(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ToolFailed) as caught:
        find_pulumi(target(tmp_path, ephemeral=True), tmp_path)
    assert "get.pulumi.com" in caught.value.next_step


def test_the_labs_own_kubectl_before_the_one_on_path(tmp_path: Path, path: Path) -> None:
    on_path = program(path / "kubectl")
    own = program(tmp_path / "own" / "kubectl")
    assert find_kubectl(target(tmp_path, ephemeral=True, kubectl=own)) == str(own)
    assert find_kubectl(target(tmp_path)) == str(on_path)


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("PULUMI_ACCESS_TOKEN", True),
        ("PULUMI_CONFIG_PASSPHRASE", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("PGPASSWORD", True),
        ("TS_CLIENT_SECRET", True),
        ("OPENAI_API_KEY", True),
        ("PULUMI_CONFIG_PASSPHRASE_FILE", False),
        ("PULUMI_CREDENTIALS_PATH", False),
        ("AWS_ACCESS_KEY_ID", False),
        ("PULUMI_CREDENTIAL_STORE", False),
        ("PATH", False),
        ("HOME", False),
    ],
)
def test_variables_that_hold_secrets_by_their_names(name: str, is_secret: bool) -> None:
    assert list(secret_variables({name: "value-of-it"})) == (["value-of-it"] if is_secret else [])
    assert list(secret_variables({name: ""})) == []
