"""Keys, kubeconfigs and the target: what leads into the lab, and for whom."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from lab import platform
from lab.platform import start, target
from lab.platform.control_plane import PORTS, ControlPlane
from lab.platform.paths import LabPaths
from lab.toolchain import Found
from lab.toolchain.resolve import BUILT, INSTALLED, ON_PATH
from runbooks.core.errors import OpsError, Usage
from tests.fixtures import executable


@pytest.fixture
def plane(tmp_path: Path) -> ControlPlane:
    paths = LabPaths(tmp_path)
    paths.prepare()
    ports = {name: 20000 + number for number, name in enumerate((*PORTS, "postgres"))}
    return ControlPlane(paths=paths, pki=start.ensure_pki(paths.pki), ports=ports, tools={})


def certificate(plane: ControlPlane, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(plane.pki.certificate(name).read_bytes())


def test_only_linux_can_run_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(Usage, match="darwin"):
        platform.up(tmp_path, print)
    assert list(tmp_path.iterdir()) == []


def test_keys_are_made_once_and_private_and_the_authoritys_is_not_kept(plane: ControlPlane) -> None:
    for name in ("server", *start.CLIENTS):
        certificate(plane, name).verify_directly_issued_by(certificate(plane, "ca"))
    assert not plane.pki.key("ca").exists()
    before = {path.name: path.read_bytes() for path in plane.pki.folder.iterdir()}
    start.ensure_pki(plane.pki.folder)
    assert {path.name: path.read_bytes() for path in plane.pki.folder.iterdir()} == before
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in plane.pki.folder.iterdir())


def test_half_made_keys_are_made_again(tmp_path: Path) -> None:
    unfinished = tmp_path / ".pki.unfinished"
    unfinished.mkdir()
    (unfinished / "ca.crt").write_text("half")
    assert start.ensure_pki(tmp_path / "pki").admin_token()
    assert not unfinished.exists()


def test_only_kwok_and_the_scheduler_have_less_than_everything(plane: ControlPlane) -> None:
    groups = {
        name: [one.value for one in certificate(plane, name).subject if one.oid == x509.NameOID.ORGANIZATION_NAME]
        for name in start.CLIENTS
    }
    assert groups["kwok"] == groups["scheduler"] == groups["apiserver-etcd"] == []


def test_the_kubeconfig_holds_one_context_with_authority_and_token(plane: ControlPlane) -> None:
    start.write_kubeconfigs(plane)
    content = yaml.safe_load(plane.paths.kubeconfig.read_text())
    assert content["current-context"] == "lab"
    (only,) = content["clusters"]
    assert only["cluster"]["server"] == f"https://127.0.0.1:{plane.ports['kube-apiserver']}"
    assert only["cluster"]["certificate-authority-data"]
    assert content["users"][0]["user"]["token"] == plane.pki.admin_token()
    assert stat.S_IMODE(plane.paths.kubeconfig.stat().st_mode) == 0o600


OURS = '{"accessTokens": {"http://127.0.0.1:20001": "ours"}, "accounts": {"more": {}}}'


@pytest.mark.parametrize(
    "written", [OURS, OURS.replace("ours", "older"), OURS.replace("1:2", "2:2"), "", "[]", "{", "null"]
)
def test_a_login_that_fits_stays_and_another_is_replaced(plane: ControlPlane, written: str) -> None:
    plane.paths.cloud.mkdir()
    plane.paths.token.write_text("ours")
    plane.paths.login.write_text(written)
    url = target.cloud_url(20001)
    target.ensure_login(plane.paths, url)
    if written == OURS:
        assert plane.paths.login.read_text() == OURS
    else:
        kept = json.loads(plane.paths.login.read_text())
        assert (kept["current"], kept["accessTokens"]) == (url, {url: "ours"})
        assert kept["accounts"][url]["accessToken"] == "ours"
        assert stat.S_IMODE(plane.paths.login.stat().st_mode) == 0o600


def test_target_and_environment_lead_to_the_lab_alone(plane: ControlPlane) -> None:
    found = [tool(name, Path("/c") / name) for name in ("kubectl", "pulumi", "pulumi-language-python", "esc", "etcd")]
    written = set()
    for _ in range(2):
        target.write(plane.paths, "uid", target.cloud_url(20001), 5433, found)
        written.add(plane.paths.target.stat().st_mtime_ns)
    assert len(written) == 1, "nothing is written when nothing changed"
    content, lab = json.loads(plane.paths.target.read_text()), str(plane.paths.lab)
    assert (content["name"], content["cluster_uid"], content["backend"]) == ("lab", "uid", "http://127.0.0.1:20001")
    assert content["ephemeral"] is True
    assert content["tools"] == {name: f"/c/{name}" for name in ("kubectl", "pulumi", "esc")}
    assert content["settings"] == {"postgresql": {"postgresql:port": "5433", "postgresql:ts_hostname": "localhost"}}
    assert all(lab in content[key] for key in ("kubeconfig", "passphrase_file", "settings_dir", "credentials_dir"))
    assert stat.S_IMODE(plane.paths.target.stat().st_mode) == 0o600
    exports = platform.environment(plane.paths.state_dir)
    assert exports["KUBECONFIG"] == f"{lab}/kubeconfig" and exports["PATH"].startswith(f"{lab}/bin:")


def tool(name: str, program: Path, origin: str = BUILT) -> Found:
    return Found(name=name, program=program, version="v1.2.3", origin=origin)


def fake(folder: Path, name: str, answer: str = "") -> Path:
    return executable(folder / name, f"cat <<'END'\n{answer}\nEND")


def kubectl_answer(version: str) -> str:
    return json.dumps({"clientVersion": {"gitVersion": version}})


@pytest.mark.parametrize("version", ["v1.35.0", "v1.36.9", "v1.37.1"])
def test_a_near_kubectl_of_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = fake(tmp_path, "kubectl", kubectl_answer(version))
    assert target.kubectl() == Found(name="kubectl", program=program, version=version, origin=ON_PATH)


@pytest.mark.parametrize("answer", [kubectl_answer("v1.32.4"), kubectl_answer("v2.36.0"), "not JSON", "[]"])
def test_another_kubectl_of_path_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    fake(tmp_path, "kubectl", answer)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert target.kubectl().origin == target.ENVIRONMENT
    monkeypatch.setattr(target.sys, "executable", str(tmp_path / "empty" / "python"))
    with pytest.raises(OpsError, match="no kubectl for the lab"):
        target.kubectl()


def links(paths: LabPaths) -> dict[str, Path]:
    return {entry.name: entry.readlink() for entry in paths.bin.iterdir() if entry.is_symlink()}


def test_links_follow_the_tools(plane: ControlPlane, tmp_path: Path) -> None:
    one, other = fake(tmp_path, "one"), fake(tmp_path, "other")
    target.link_tools(plane.paths, [tool("esc", one), tool("kubectl", one, target.ENVIRONMENT)])
    (plane.paths.bin / "helm").symlink_to(one)  # of an older lab
    (plane.paths.bin / ".pulumi.123").touch()  # of a run that was killed
    target.link_tools(plane.paths, [tool("esc", other), tool("etcd", one), tool("pulumi", one)])
    assert links(plane.paths) == {"esc": other}
    assert [entry.name for entry in plane.paths.bin.iterdir()] == ["esc"]


@pytest.mark.parametrize(
    ("origin", "linked"),
    [(ON_PATH, False), (INSTALLED, False), (BUILT, True), (target.ENVIRONMENT, True), (target.REPOSITORY, True)],
)
def test_tools_of_the_user_are_not_linked(plane: ControlPlane, tmp_path: Path, origin: str, linked: bool) -> None:
    target.link_tools(plane.paths, [tool("esc", tmp_path / "esc", origin)])
    assert links(plane.paths) == ({"esc": tmp_path / "esc"} if linked else {})


def test_tools_are_kept_for_lab_status(plane: ControlPlane, tmp_path: Path) -> None:
    found = [tool("etcd", tmp_path / "etcd"), tool("kubectl", tmp_path / "kubectl", ON_PATH)]
    assert target.read_tools(plane.paths) == []
    target.link_tools(plane.paths, found)
    assert target.read_tools(plane.paths) == found


def test_the_launcher_stays_and_starts_the_pulumi_of_the_lab(plane: ControlPlane, tmp_path: Path) -> None:
    pulumi = fake(tmp_path, "pulumi", "the real one")
    target.write_launcher(plane.paths, pulumi, "http://127.0.0.1:1")
    target.link_tools(plane.paths, [tool("pulumi", pulumi)])
    launcher = plane.paths.bin / "pulumi"
    assert stat.S_IMODE(launcher.stat().st_mode) == 0o700
    printed = subprocess.run([launcher, "version"], capture_output=True, text=True, check=True)
    assert printed.stdout == "the real one\n"
