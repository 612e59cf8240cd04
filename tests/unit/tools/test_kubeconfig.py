"""kubeconfigs: the one context of the target, cut down, with every credential known to the masker."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from runbooks.core.errors import Refused
from runbooks.tools.kubeconfig import ended_credential, is_loopback, read_context, write_private
from tests.fixtures import kubeconfig


def written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "config"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_only_the_named_context_is_kept_whatever_is_current(tmp_path: Path) -> None:
    context = read_context(written(tmp_path, kubeconfig()), "home")
    (tmp_path / "private").write_text("old, with another mode")
    private = write_private(context, tmp_path / "private")

    kept = json.loads(private.read_text())
    assert private.stat().st_mode & 0o777 == 0o600
    assert kept["current-context"] == "home"
    assert [len(kept[part]) for part in ("contexts", "clusters", "users")] == [1, 1, 1]
    assert "office" not in private.read_text()
    assert context.server == "https://10.0.0.2:6443"


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
    on_path = written(tmp_path, kubeconfig(user={"exec": {"command": "aws", "args": ["eks"]}}))
    assert read_context(on_path, "home").user["exec"]["command"] == "aws", "it stays a name"


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
        (kubeconfig() | {"contexts": 5}, "home", "no context 'home'", "it has none"),
        ("", "home", "empty or not a kubeconfig", "contexts"),
        ("just text", "home", "empty or not a kubeconfig", "contexts"),
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
    assert not {"public", "b"} & secrets
    assert "t0ken" not in repr(read_context(tmp_path / "config", "home"))


def test_loopback() -> None:
    local = ("https://127.0.0.1:6443", "https://127.8.8.8", "https://[::1]:6443", "http://localhost:80")
    assert all(map(is_loopback, local))
    others = ("https://localhost.example", "https://10.0.0.1", "https://127.0.0.1.example", "file:///tmp", "")
    assert not any(map(is_loopback, others))


def test_several_files_are_merged_as_kubectl_does(tmp_path: Path) -> None:
    """The context in one file, cluster and user in another; the first of a name counts, a missing file is left out."""
    one, two = tmp_path / "one" / "a.yaml", tmp_path / "two" / "b.yaml"
    for path in (one, two):
        path.parent.mkdir()
    whole = kubeconfig(cluster={"certificate-authority": "ca.crt"}, user={"token": "of-two"})
    one.write_text(yaml.safe_dump({"contexts": whole["contexts"]}))
    two.write_text(yaml.safe_dump({**whole, "contexts": []}))
    context = read_context(Path(f"{one}:{tmp_path / 'gone'}:{two}"), "home")
    assert context.user["token"] == "of-two"
    assert context.cluster["certificate-authority"] == str(two.parent / "ca.crt")


def test_no_file_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file"):
        read_context(tmp_path / "absent", "home")
    with pytest.raises(Refused, match="none of"):
        read_context(Path(f"{tmp_path / 'a'}:{tmp_path / 'b'}"), "home")


def token(ends: datetime) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": ends.timestamp()}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.c2ln"


def certificate(ends: datetime) -> str:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, ends - timedelta(days=1), ends)
    return base64.b64encode(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)).decode()


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("kind", ["token", "client-certificate-data"])
def test_credentials_that_ended_are_named(tmp_path: Path, kind: str, ended: bool) -> None:
    now = datetime.now(UTC)
    ends = now + timedelta(days=-2 if ended else 2)
    user = {kind: token(ends) if kind == "token" else certificate(ends)}
    context = read_context(written(tmp_path, kubeconfig(user=user)), "home")
    assert (f"{ends:%Y-%m-%d}" in ended_credential(context, now)) is ended


@pytest.mark.parametrize("user", [{"token": "opaque"}, {"token": "a.b.c"}, {"client-certificate-data": "bm8="}])
def test_credentials_of_another_form_are_left_alone(tmp_path: Path, user: dict[str, str]) -> None:
    context = read_context(written(tmp_path, kubeconfig(user=user)), "home")
    assert ended_credential(context, datetime.now(UTC)) == ""
