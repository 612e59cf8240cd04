"""Which server a kubeconfig leads to, and what is said when it leads nowhere."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from lab.engine.providers.kubernetes.kubeconfig import KubeconfigError, Overrides, load_access


def document(*, server: str = "https://127.0.0.1:6443", namespace: str = "", ca: str = "", **user: str) -> str:
    context = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{"name": "lab", "context": context}],
            "clusters": [
                {
                    "name": "c",
                    "cluster": {"server": server, "certificate-authority-data": base64.b64encode(ca.encode()).decode()},
                }
            ],
            "users": [{"name": "u", "user": user or {"token": "secret-token"}}],
        }
    )


def test_the_ambient_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(document(namespace="team", ca="PEM"))
    access = load_access("", Overrides(), {"KUBECONFIG": str(tmp_path / "config")})
    assert (access.server, access.token, access.ca, access.namespace) == (
        "https://127.0.0.1:6443",
        "secret-token",
        "PEM",
        "team",
    )
    assert "secret-token" not in repr(access)
    assert access.document == ""


def test_the_setting_is_a_path_or_the_text_itself(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(document())
    for setting in (str(tmp_path / "config"), document()):
        assert load_access(setting, Overrides(), {}).server == "https://127.0.0.1:6443"


def test_files_of_the_variable_are_merged(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("current-context: lab\n")
    (tmp_path / "two").write_text(document())
    access = load_access(
        "", Overrides(), {"KUBECONFIG": f"{tmp_path / 'one'}:{tmp_path / 'absent'}:{tmp_path / 'two'}"}
    )
    assert access.context == "lab"


def test_the_namespace_setting_wins() -> None:
    assert load_access(document(namespace="team"), Overrides(namespace="other"), {}).namespace == "other"
    assert load_access(document(), Overrides(), {}).namespace == "default"


@pytest.mark.parametrize(
    ("setting", "overrides", "complaint"),
    [
        (document(), Overrides(context="absent"), 'context "absent" does not exist'),
        (document(), Overrides(cluster="absent"), 'cluster "absent" does not exist'),
        ("", Overrides(), "invalid configuration: no configuration has been provided"),
        ("{[", Overrides(), "couldn't get version/kind"),
        ("text", Overrides(), "couldn't get version/kind"),
        (document(exec="x"), Overrides(), "'exec'"),
    ],
)
def test_what_is_wrong_is_said_like_client_go(
    setting: str, overrides: Overrides, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(KubeconfigError) as caught:
        load_access(setting, overrides, {"HOME": str(tmp_path)})
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("https://127.0.0.1:6443", True),
        ("https://localhost:6443", True),
        ("https://[::1]:6443", True),
        ("https://10.0.0.1:6443", False),
        ("https://127.0.0.1.example.org", False),
    ],
)
def test_only_loopback_counts_as_the_lab(server: str, expected: bool) -> None:
    assert load_access(document(server=server), Overrides(), {}).is_loopback is expected
