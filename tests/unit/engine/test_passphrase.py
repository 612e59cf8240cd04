"""Secrets are interchangeable with the real CLI's: the recorded stack's passphrase is ``correct``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.engine.failures import CommandFailed
from lab.engine.passphrase import INCORRECT, PassphraseManager
from lab.engine.project import read_setting
from lab.engine.state import decode_deployment, encode_deployment
from lab.engine.values import Secret

RECORDED = Path(__file__).parents[2] / "contract" / "recorded" / "pulumi"
SALT = "v1:03BvJ/WktTE=:v1:QRYHVTsLow0nMCPg:h9OW7mR/lqEvHjY5Afaap1c9+NdPEg=="
SETTING = "v1:JRhlvfCRumzyPFrZ:nWN4Aul3XwlH2DtHDudXKtdwAUjs+wBBS24+sKiohEVsGVeemw=="


def manager(passphrase: str, salt: str = SALT) -> PassphraseManager:
    return PassphraseManager(salt, {"PULUMI_CONFIG_PASSPHRASE": passphrase})


def test_a_setting_written_by_the_real_cli_is_read() -> None:
    setting = read_setting({"secure": SETTING})

    assert setting.secret
    assert setting.plain(lambda: manager("correct").crypter) == "hunter2-correct-horse"


def test_a_state_written_by_the_real_cli_is_read_and_written_back() -> None:
    steps = json.loads((RECORDED / "04-up-create.json").read_text())["steps"]
    recorded = next(json.loads(step["stdout"]) for step in steps if step.get("argv", [])[1:3] == ["stack", "export"])
    deployment = recorded["deployment"]
    crypter = manager("correct", deployment["secrets_providers"]["state"]["salt"]).crypter

    snapshot = decode_deployment(deployment, crypter.decrypt)
    written = encode_deployment(snapshot, crypter.encrypt)

    assert snapshot.resources[0].outputs["password"] == Secret("hunter2-correct-horse")
    assert decode_deployment(written, crypter.decrypt).resources == snapshot.resources
    assert [list(item) for item in written["resources"]] == [list(item) for item in deployment["resources"]]
    assert written["secrets_providers"] == deployment["secrets_providers"]


def test_a_wrong_passphrase_is_told() -> None:
    with pytest.raises(CommandFailed, match=INCORRECT):
        _ = manager("wrong").crypter


def test_no_passphrase_is_told() -> None:
    with pytest.raises(CommandFailed, match="passphrase must be set with PULUMI_CONFIG_PASSPHRASE or "):
        _ = PassphraseManager(SALT, {}).crypter


def test_a_passphrase_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("correct\n")
    by_file = PassphraseManager(SALT, {"PULUMI_CONFIG_PASSPHRASE_FILE": str(tmp_path / "passphrase")})

    assert by_file.crypter.decrypt(SETTING) == "hunter2-correct-horse"


def test_a_new_salt_opens_with_its_passphrase_and_encrypts_anew_in_each_process() -> None:
    made = PassphraseManager.create({"PULUMI_CONFIG_PASSPHRASE": "p"})
    sealed = made.crypter.encrypt("value")
    again = manager("p", made.salt).crypter

    assert again.decrypt(sealed) == "value"
    assert again.encrypt("value") not in (sealed, "value")
    assert again.encrypt("value") == again.encrypt("value")
    assert again.encrypt("other") != sealed
