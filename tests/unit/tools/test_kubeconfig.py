"""kubeconfigs: the one context of the target, cut down, with every credential known to the masker."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks.core.errors import Refused
from runbooks.tools.kubeconfig import is_loopback, read_context, write_private
from tests.answers import kubeconfig


def written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "config"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_only_the_named_context_is_kept_whatever_is_current(tmp_path: Path) -> None:
    context = read_context(written(tmp_path, kubeconfig()), "home")
    private = write_private(context, tmp_path / "private")

    kept = json.loads(private.read_text())
    assert private.stat().st_mode & 0o777 == 0o600
    assert kept["current-context"] == "home"
    assert [len(kept[part]) for part in ("contexts", "clusters", "users")] == [1, 1, 1]
    assert "office" not in private.read_text()
    assert context.server == "https://10.0.0.2:6443"


def test_an_existing_private_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    context = read_context(written(tmp_path, kubeconfig()), "home")
    (tmp_path / "private").write_text("old")
    assert write_private(context, tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_relative_files_become_absolute(tmp_path: Path) -> None:
    user = {
        "client-certificate": "pki/me.crt",
        "client-key": "/abs/me.key",
        "tokenFile": "token",
        "exec": {"command": "./bin/login", "args": ["x"]},
    }
    path = written(tmp_path, kubeconfig(cluster={"certificate-authority": "../ca.crt"}, user=user))
    document = read_context(path, "home").document()

    assert document["clusters"][0]["cluster"]["certificate-authority"] == str(tmp_path.parent / "ca.crt")
    kept = document["users"][0]["user"]
    assert kept["client-certificate"] == str(tmp_path / "pki" / "me.crt")
    assert kept["client-key"] == "/abs/me.key"
    assert kept["tokenFile"] == str(tmp_path / "token")
    assert kept["exec"]["command"] == str(tmp_path / "bin" / "login")


def test_an_exec_plugin_on_path_stays_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, kubeconfig(user={"exec": {"command": "aws", "args": ["eks"]}}))
    assert read_context(path, "home").user["exec"]["command"] == "aws"


@pytest.mark.parametrize(
    ("document", "name", "seen", "expected"),
    [
        (kubeconfig(), "hoem", "no context 'hoem'", "home"),
        (kubeconfig(), "", "context is empty", "never taken"),
        (kubeconfig(), "  ", "context is empty", "never taken"),
        (kubeconfig() | {"clusters": []}, "home", "has no server", "server"),
        (kubeconfig(server=""), "home", "has no server", "server"),
        (kubeconfig() | {"users": []}, "home", "no credentials", "token"),
        (kubeconfig() | {"contexts": None}, "home", "no context 'home'", "it has none"),
        ("", "home", "empty or no kubeconfig", "contexts"),
        ("just text", "home", "empty or no kubeconfig", "contexts"),
    ],
)
def test_what_is_missing_is_refused_with_both_sides(
    tmp_path: Path, document: Any, name: str, seen: str, expected: str
) -> None:
    with pytest.raises(Refused) as caught:
        read_context(written(tmp_path, document), name)
    assert seen in caught.value.summary
    assert expected in caught.value.expected
    assert caught.value.exit_code == 5


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file"):
        read_context(tmp_path / "absent", "home")


def test_a_broken_file_is_refused_without_quoting_it(tmp_path: Path) -> None:
    path = written(tmp_path, "users:\n- user: {token: sup3r-s3cret\n  oops")
    with pytest.raises(Refused) as caught:
        read_context(path, "home")
    assert "sup3r-s3cret" not in "\n".join(caught.value.lines())
    assert caught.value.__cause__ is None
    assert f"{path}:" in caught.value.summary


def test_every_credential_is_known(tmp_path: Path) -> None:
    key = "-----BEGIN KEY-----\nabc\n-----END KEY-----"
    (tmp_path / "token").write_text("t0ken-in-a-file\n")
    user = {
        "token": "t0ken-inline",
        "password": "pa55word",
        "client-key-data": base64.b64encode(key.encode()).decode(),
        "tokenFile": "token",
        "auth-provider": {"config": {"id-token": "t0ken-of-provider", "client-id": "public"}},
        "exec": {
            "command": "x",
            "env": [{"name": "API_TOKEN", "value": "t0ken-of-plugin"}, {"name": "A", "value": "b"}],
        },
    }
    secrets = set(read_context(written(tmp_path, kubeconfig(user=user)), "home").secrets())
    assert {"t0ken-inline", "pa55word", key, "t0ken-in-a-file", "t0ken-of-provider", "t0ken-of-plugin"} <= secrets
    assert "public" not in secrets
    assert "b" not in secrets


def test_credentials_are_not_in_the_repr(tmp_path: Path) -> None:
    assert "t0ken" not in repr(read_context(written(tmp_path, kubeconfig()), "home"))


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("https://127.0.0.1:6443", True),
        ("https://127.8.8.8", True),
        ("https://[::1]:6443", True),
        ("http://localhost:80", True),
        ("https://localhost.example", False),
        ("https://10.0.0.1", False),
        ("https://127.0.0.1.example", False),
        ("file:///tmp", False),
        ("", False),
    ],
)
def test_loopback(url: str, is_local: bool) -> None:
    assert is_loopback(url) is is_local
