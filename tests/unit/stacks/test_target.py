"""targets.yaml and the lab's own target: what is read, and every way it can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.errors import NotFound, Refused, Usage
from runbooks.stacks.target import (
    LAB,
    Target,
    Targets,
    chosen_name,
    lab_target_file,
    load_lab_target,
    load_target,
    load_targets,
    pin,
)
from tests.fixtures import REAL_ROOT, UID, kubeconfig

HOME = """\
# where things go
default: home   # until the lab is enough

targets:
  home:
    stack: mx
    backend: file://~/state
    organization: organization
    kubeconfig: kube/config   # beside this file
    context: admin@home
    passphrase_file: ~/secret/passphrase
"""


def write(root: Path, text: str | bytes) -> Path:
    path = root / "targets.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_reads_a_target_with_paths_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load_targets(tmp_path) == Targets(default=LAB, defined={}), "without the file only the lab exists"
    write(tmp_path, HOME)
    targets = load_targets(tmp_path)
    assert (targets.default, targets.names) == ("home", ["home", "lab"])
    assert targets.defined["home"] == Target(
        name="home", stack="mx", backend="file:///home/me/state", organization="organization", context="admin@home",
        kubeconfig=tmp_path / "kube" / "config", passphrase_file=Path("/home/me/secret/passphrase"),
    )  # fmt: skip
    assert not targets.defined["home"].is_pinned and not targets.defined["home"].ephemeral


def test_the_committed_file_is_valid_and_its_sample_too(tmp_path: Path) -> None:
    committed = (REAL_ROOT / "targets.yaml").read_text()
    assert load_targets(REAL_ROOT).default == LAB
    head, _, sample = committed.partition("targets: {}\n")
    uncommented = "".join(line[2:] + "\n" for line in sample.splitlines()[2:] if not line.startswith("#\n"))
    write(tmp_path, head + uncommented.replace("cluster_uid: …", "cluster_uid: 1-2-3"))
    target = load_targets(tmp_path).defined["home"]
    assert (target.stack, target.cluster_uid) == ("mx", "1-2-3")


def changed(old: str, new: str) -> str:
    assert old in HOME
    return HOME.replace(old, new)


BROKEN = {
    "unknown key": (changed("context:", "contxt:"), 10, "unknown key 'contxt'", "'context'"),
    "unknown top key": ("defualt: lab\n", 1, "unknown key 'defualt'", "'default'"),
    "ephemeral is no key": (HOME + "    ephemeral: true\n", 12, "unknown key 'ephemeral'", "Known:"),
    "missing key": (changed("    stack: mx\n", ""), 6, "no 'stack'", "stack:"),
    "empty text": (changed("context: admin@home", "context: ''"), 10, "'context' of target 'home' is empty", ""),
    "null": (changed("organization: organization", "organization:"), 8, "is empty", ""),
    "number": (changed("stack: mx", "stack: 7"), 6, "is a number", "quotes"),
    "empty uid": (HOME + "    cluster_uid: ''\n", 12, "'cluster_uid' of target 'home' is empty", ""),
    "duplicate key": (HOME + "    stack: my\n", 12, "key", "once"),
    "a tab": (changed("stack: mx", "stack:\tmx"), 6, "tab", "spaces"),
    "not yaml": (HOME + "   oops: [\n", 12, "not YAML", ""),
    "not utf-8": (HOME.encode() + b"# caf\xe9\n", 12, "0xe9 is not UTF-8", "UTF-8"),
    "a list": ("- home\n", 1, "holds a list", "keys and values"),
    "targets is nothing": ("targets:\n", 1, "'targets' holds nothing", "{}"),
    "target is a text": ("targets:\n  home: mx\n", 2, "'home' holds a", "keys and values"),
    "lab defined": ("targets:\n  lab:\n    stack: lab\n", 2, "`lab` cannot be defined", "another name"),
    "dash": ("targets:\n  -x:\n    stack: mx\n", 2, "starts with a dash", ""),
    "stack with dash": (changed("stack: mx", "stack: --all"), 6, "starts with a dash", ""),
    "stack with slash": (changed("stack: mx", "stack: org/mx"), 6, "holds a slash", "alone"),
    "default undefined": (changed("default: home", "default: hoem"), 2, "'hoem' is not defined", "home"),
    "wrong organization": (changed("organization: organization", "organization: acme"), 8, "'acme'", "'organization'"),
    "backend without scheme": (changed("file://~/state", "/state"), 7, "not a valid backend", "https://"),
    "backend without folder": (changed("file://~/state", "file://"), 7, "names no folder", "file:///folder"),
    "backend in plaintext": (changed("file://~/state", "http://pulumi.example"), 7, "not a valid backend", "https://"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_mistake_is_one_error_with_its_line(tmp_path: Path, name: str) -> None:
    text, line, seen, expected = BROKEN[name]
    path = write(tmp_path, text)
    with pytest.raises(Usage) as caught:
        load_targets(tmp_path)
    assert caught.value.summary.startswith(f"{path}:{line}: ")
    assert seen in caught.value.summary
    assert expected in caught.value.expected
    assert caught.value.exit_code == 2


def test_a_duplicate_key_is_named_without_its_values(tmp_path: Path) -> None:
    write(tmp_path, HOME + "    passphrase_file: one-value\n    passphrase_file: other-value\n")
    with pytest.raises(Usage, match="passphrase_file") as caught:
        load_targets(tmp_path)
    assert "-value" not in str(caught.value)


@pytest.mark.parametrize(
    ("backend", "read", "shown"),
    [
        ("file:///srv/state", "file:///srv/state", ""),
        ("file://./state", "file://{root}/state", ""),
        ("file://~/my state", "file:///home/me/my%20state", ""),
        ("https://api.pulumi.com", "https://api.pulumi.com", ""),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", ""),
        ("s3://bucket/folder?region=eu", "s3://bucket/folder?region=eu", "s3://bucket/folder"),
        ("postgres://me:pw@db:5432/state", "postgres://me:pw@db:5432/state", "postgres://db:5432/state"),
    ],
)
def test_backends_are_shown_without_their_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, read: str, shown: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    write(tmp_path, changed("file://~/state", backend))
    target = load_targets(tmp_path).defined["home"]
    assert target.backend == read.format(root=tmp_path)
    assert target.shown_backend == (shown or target.backend)


@pytest.mark.parametrize(
    ("option", "variable", "chosen"),
    [
        (None, None, "home"),
        (None, "lab", "lab"),
        ("lab", "home", "lab"),
        # An empty or unknown choice never becomes the default.
        ("", None, Usage),
        (None, " ", Usage),
        ("-f", None, Usage),
        ("hme", None, NotFound),
        (None, "hme", NotFound),
    ],
)
def test_option_before_variable_before_default(
    tmp_path: Path, option: str | None, variable: str | None, chosen: Any
) -> None:
    write(tmp_path, HOME)
    environ = {} if variable is None else {"OPS_TARGET": variable}
    if isinstance(chosen, str):
        assert chosen_name(option, environ, load_targets(tmp_path)) == chosen
        return
    with pytest.raises(chosen) as caught:
        chosen_name(option, environ, load_targets(tmp_path))
    assert chosen is Usage or "home" in caught.value.expected


# --- pinning ---------------------------------------------------------------------------------------------------------

PINNED = changed("    context:", "    cluster_uid: 'old'  # since spring\n    context:") + "# the end\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (HOME, HOME + "    cluster_uid: 1-2-3\n"),
        (PINNED, PINNED.replace("'old'", "1-2-3")),
    ],
    ids=["not pinned", "pinned"],
)
def test_pin_writes_one_value_and_keeps_the_rest(tmp_path: Path, before: str, after: str) -> None:
    path = write(tmp_path, before)
    path.chmod(0o640)
    pin(tmp_path, "home", "1-2-3")
    assert path.read_text() == after and path.stat().st_mode & 0o777 == 0o640
    assert load_targets(tmp_path).defined["home"].cluster_uid == "1-2-3"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("uid", [UID, "12345678-1234-1234-1234-123456789012", "1234", "0x1f", "true"])
def test_pin_keeps_the_identity_a_text(tmp_path: Path, uid: str) -> None:
    write(tmp_path, HOME)
    pin(tmp_path, "home", uid)
    assert load_targets(tmp_path).defined["home"].cluster_uid == uid


# --- the lab's own target --------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder in which the lab wrote its target."""
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    home = tmp_path / "lab"
    home.mkdir()
    (home / "kubeconfig").write_text(json.dumps(lab_kubeconfig()))
    write_lab(tmp_path, lab_target(home))
    return tmp_path


def lab_kubeconfig(server: str = "https://127.0.0.1:6443", **cluster: Any) -> dict[str, Any]:
    return kubeconfig(
        context="lab", server=server, cluster={"certificate-authority-data": "Q0E=", **cluster}, others=False
    )


def lab_target(home: Path) -> dict[str, Any]:
    return {
        "name": "lab",
        "stack": "lab",
        "backend": "http://127.0.0.1:20001",
        "file_backend": f"file://{home}/backend",
        "file_settings_dir": f"{home}/file-stacks",
        "passphrase_file": f"{home}/passphrase",
        "organization": "organization",
        "kubeconfig": f"{home}/kubeconfig",
        "context": "lab",
        "cluster_uid": "1-2-3",
        "token_file": f"{home}/cloud/token",
        "ephemeral": True,
        "settings_dir": f"{home}/stacks",
        "credentials_dir": f"{home}/pulumi",
        "tools": {"kubectl": "/bin/kubectl", "pulumi": "/cache/pulumi"},
        "settings": {"postgresql": {"postgresql:port": "5432"}},
    }


def write_lab(state: Path, content: Any) -> None:
    path = lab_target_file(state)
    path.unlink(missing_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)


@pytest.mark.parametrize("named", ["", "http://127.0.0.1:20001", "https://api.pulumi.com", "file:///srv/state"])
def test_the_labs_stacks_are_in_its_cloud(lab: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", named)
    target = load_target("lab", root=lab, state_dir=lab)
    assert target.ephemeral and target.is_pinned
    assert target.backend == "http://127.0.0.1:20001"
    assert target.token_file == lab / "lab" / "cloud" / "token"
    assert target.settings_dir == lab / "lab" / "stacks"
    assert target.passphrase_file is None
    assert target.tools["kubectl"] == Path("/bin/kubectl")
    assert target.settings["postgresql"] == {"postgresql:port": "5432"}


def test_or_in_its_files_where_the_environment_names_them(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = lab / "lab"
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{home}/backend")
    target = load_target("lab", root=lab, state_dir=lab)
    assert target.file_backend == home / "backend"
    assert (target.token_file, target.passphrase_file) == (None, home / "passphrase")
    assert target.settings_dir == home / "file-stacks"
    write_lab(lab, lab_target(home) | {"file_backend": "file:///srv/state"})
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///srv/state")
    with pytest.raises(Refused, match="neither in the lab's folder nor on loopback"):
        load_lab_target(lab)


def test_a_lab_that_never_ran_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        load_lab_target(tmp_path)
    assert caught.value.next_step == "./inv lab.up"


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"backend": "https://api.pulumi.com"}, "neither in the lab's folder nor on loopback"),
        ({"backend": "file:///srv/state"}, "neither in the lab's folder nor on loopback"),
        ({"kubeconfig": "/etc/kubernetes/admin.conf"}, "outside the lab's folder"),
        ({"kubeconfig": "{lab}/../elsewhere"}, "outside the lab's folder"),
        ({"settings_dir": "/srv/stacks"}, "outside the lab's folder"),
        ({"token_file": "/root/token"}, "outside the lab's folder"),
        ({"cluster_uid": ""}, "records no cluster UID"),
        ({"context": ""}, "cannot be read"),
        ({"settings": None}, "cannot be read"),
    ],
)
def test_a_target_that_the_lab_cannot_have_written_is_refused(lab: Path, change: dict[str, Any], seen: str) -> None:
    home = lab / "lab"
    filled = {key: value.format(lab=home) if isinstance(value, str) else value for key, value in change.items()}
    write_lab(lab, lab_target(home) | filled)
    with pytest.raises(Refused, match=seen) as caught:
        load_lab_target(lab)
    assert (caught.value.exit_code, caught.value.next_step) == (5, "./inv lab.up")


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        (lab_kubeconfig(server="https://10.0.0.2:6443"), "not on loopback"),
        (lab_kubeconfig(server="https://localhost.example:6443"), "not on loopback"),
        (lab_kubeconfig(**{"insecure-skip-tls-verify": True}), "certificate authority"),
        (lab_kubeconfig(**{"proxy-url": "http://10.0.0.2"}), "certificate authority"),
        (lab_kubeconfig(**{"certificate-authority-data": ""}), "certificate authority"),
    ],
)
def test_only_a_loopback_cluster_with_its_own_authority_is_the_lab(
    lab: Path, config: dict[str, Any], seen: str
) -> None:
    (lab / "lab" / "kubeconfig").write_text(json.dumps(config))
    with pytest.raises(Refused, match=seen):
        load_lab_target(lab)


def as_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere.json"))
    path.symlink_to("elsewhere.json")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.chmod(0o644),
        as_link,
        *(lambda path, text=text: path.write_text(text) for text in ("", "{", "[]", "null", "{}")),
    ],
)
def test_a_file_that_others_may_write_or_that_is_torn_is_refused(lab: Path, spoil: Callable[[Path], Any]) -> None:
    spoil(lab_target_file(lab))
    with pytest.raises(Refused):
        load_lab_target(lab)


def test_a_kubeconfig_of_several_files_with_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("KUBE_HOME", str(tmp_path / "kube"))
    write(tmp_path, HOME.replace("kube/config ", "~/a.yaml:$KUBE_HOME/b.yaml:c.yaml "))
    found = load_targets(tmp_path).defined["home"].kubeconfig
    assert str(found) == f"{tmp_path}/me/a.yaml:{tmp_path}/kube/b.yaml:{tmp_path}/c.yaml"
    write(tmp_path, HOME.replace("kube/config ", "${NOT_SET_HERE}/config "))
    with pytest.raises(Usage, match="NOT_SET_HERE"):
        load_target("home", root=tmp_path, state_dir=tmp_path)
    assert load_targets(tmp_path).default == "home", "runs on other targets go on"
