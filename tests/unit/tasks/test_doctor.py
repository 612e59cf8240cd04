"""doctor: a fix for every failing row, and no traceback whatever is broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runbooks.core.errors import VerificationFailed
from runbooks.services import find_service
from runbooks.tasks import doctor
from runbooks.tools.pulumi_home import wanted_plugins
from tests.fixtures import TOKEN, Repo, namespace

VERSIONS = {"clientVersion": {"gitVersion": "v1.36.1"}, "serverVersion": {"gitVersion": "v1.36.3"}}
SETTINGS = "config:\n  {0}:{1}:\n    secure: v1:x\n"


@pytest.fixture
def repo(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """Everything is well."""
    for tool in ("uv", "git"):
        script = repo.bin / tool
        script.write_text(f"#!/bin/sh\necho {tool} 1.2.3\n")
        script.chmod(0o755)
    repo.answer("kubectl", ["version"], VERSIONS)
    repo.answer("pulumi", ["whoami"], {"user": "me", "url": f"file://{repo.backend}"})
    repo.install("helm")
    repo.answer("helm", ["version"], "v4.2.4\n")
    repo.answer("helm", ["list"], '[{"name": "x", "namespace": "y", "status": "deployed"}]')
    repo.has_stacks("tailscale", "cnpg", "postgresql")
    # Only these three, however many services there are.
    monkeypatch.setattr("runbooks.services.SERVICES", tuple(map(find_service, ("tailscale", "cnpg", "postgres"))))
    two = SETTINGS.format("tailscale", "TS_CLIENT_ID") + "  tailscale:TS_CLIENT_SECRET:\n    secure: v1:x\n"
    repo.config_file("tailscale").write_text(two)
    repo.config_file("postgres").write_text(SETTINGS.format("postgresql", "superuser_password"))
    return repo


def rows(repo: Repo) -> tuple[dict[str, str], str]:
    """Each row by its first column, and how the run ended."""
    ended = ""
    try:
        doctor.doctor.body(repo.c)
    except VerificationFailed as error:
        assert error.exit_code == 4
        ended = error.summary
    told = repo.printed()
    assert TOKEN not in told
    return {line.partition("  ")[0]: line for line in told.splitlines()}, ended


def test_all_is_well(repo: Repo) -> None:
    found, ended = rows(repo)
    assert ended == ""
    assert found.keys() >= {
        "uv", "git", "target", "passphrase", "backend", "pinned", "cluster", "kubectl", "pulumi", "login", "helm",
        "helm releases", "plugin kubernetes", "plugin postgresql", "esc", "stack of tailscale", "stack of cnpg",
    }  # fmt: skip
    assert "passed" in found["stack of postgres"]
    assert "v1.36.1, server v1.36.3" in found["kubectl"]


SKEWED = VERSIONS | {"clientVersion": {"gitVersion": "v1.30.0"}}
STUCK = '[{"name": "x", "namespace": "y", "status": "pending-upgrade"}]'
BROKEN: dict[str, tuple[Callable[[Repo], object], str, str, str]] = {
    "no pulumi": (lambda repo: repo.remove("pulumi"), "pulumi", "not on PATH", "get.pulumi.com"),
    "old pulumi": (lambda repo: repo.answer("pulumi", ["version"], "v3.200.0"), "pulumi", "3.227", "get.pulumi.com"),
    "no language host": (lambda repo: (repo.bin / "pulumi-language-python").unlink(), "pulumi",
        "pulumi-language-python", "get.pulumi.com"),
    "broken pulumi": (lambda repo: repo.answer("pulumi", ["version"], (127, "", "x")), "pulumi", "does not p",
        "version"),
    "no uv": (lambda repo: (repo.bin / "uv").unlink(), "uv", "not on PATH", "./inv"),
    "mute git": (lambda repo: (repo.bin / "git").write_text("#!/bin/sh\nexit 1\n"), "git", "its version",
        "install git"),
    "no such target": (lambda repo: setattr(repo.c.config.ops, "target", "homelab"), "target", "homelab",
        "target.show"),
    "unpinned": (lambda repo: repo.set_target(cluster_uid=None), "pinned", "no cluster_uid", "target.pin"),
    "wrong cluster": (lambda repo: repo.answer("kubectl", ["namespace"], namespace(uid="x")), "cluster",
        "not the pinned", "target.show"),
    "unreachable": (lambda repo: repo.answer("kubectl", ["get"], (1, "", "connection refused")), "cluster",
        "does not answer", "doctor"),
    "no context": (lambda repo: repo.set_target(context="absent"), "cluster", "no context", "get-contexts"),
    "no passphrase file": (lambda repo: repo.set_target(passphrase_file="absent"), "passphrase", "cannot be read",
        "0600"),
    "passphrase for all": (lambda repo: (repo.root / "passphrase").chmod(0o644), "passphrase", "read by others",
        "chmod 600"),
    "no backend": (lambda repo: repo.set_target(backend="file:///nowhere/at/all"), "backend", "not a folder",
        "mkdir -p"),
    "kubectl too far": (lambda repo: repo.answer("kubectl", ["version"], SKEWED), "kubectl", "more than one minor",
        "kubectl"),
    "not logged in": (lambda repo: repo.answer("pulumi", ["whoami"], (3, "", "error: no credentials")), "login",
        "no credentials", "login"),
    "stuck release": (lambda repo: repo.answer("helm", ["list"], STUCK), "helm releases", "y/x is pending-upgrade",
        "helm -n y history x"),
    "no stack": (lambda repo: (repo.backend / ".pulumi/stacks/cnpg/mx.json").unlink(), "stack of cnpg",
        "no stack organization/cnpg/mx", "stack.init cnpg"),
    "no secret": (lambda repo: repo.config_file("postgres").unlink(), "stack of postgres", "superuser_password",
        "secrets.set postgres superuser_password"),
    "settings astray": (lambda repo: repo.config_file("cnpg").write_text("config:\n  kubernetes:context: other\n"),
        "stack of cnpg", "kubernetes:context", "remove"),
}  # fmt: skip


def test_a_cloud_that_tells_no_address_is_named_by_the_targets(repo: Repo) -> None:
    """As pulumi 3.260 answers where the cloud is not the vendor's own."""
    repo.answer("pulumi", ["whoami"], {"user": "me", "organizations": ["me"], "url": ""})
    found, _ = rows(repo)
    assert f"me at file://{repo.backend}" in found["login"]


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_thing_is_a_row_with_its_fix(repo: Repo, name: str) -> None:
    break_it, row, seen, fix = BROKEN[name]
    break_it(repo)
    found, ended = rows(repo)
    assert "failed" in found[row], found[row]
    assert seen in found[row]
    assert fix in found[row]
    assert "checks failed" in ended


def test_a_stack_whose_key_is_elsewhere_needs_no_passphrase(repo: Repo) -> None:
    repo.set_target(passphrase_file=None)
    found, ended = rows(repo)
    assert "failed" in found["passphrase"] and ended
    repo.config_file("cnpg").write_text("secretsprovider: hashivault://homelab\n")
    found, ended = rows(repo)
    assert "not tried" in found["passphrase"] and "hashivault" in found["passphrase"]
    assert ended == ""


def test_a_plugin_that_pulumi_would_download_is_reported(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    (plugin,) = (plugin for plugin in wanted_plugins() if plugin.name == "postgresql")
    found, ended = rows(repo)
    assert "not tried" in found["plugin postgresql"] and plugin.install in found["plugin postgresql"]
    assert ended == ""
    monkeypatch.setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
    found, ended = rows(repo)
    assert "failed" in found["plugin postgresql"] and plugin.install in found["plugin postgresql"]
    assert ended
    for wanted in wanted_plugins():
        folder = repo.home / ".pulumi" / "plugins" / f"resource-{wanted.name}-v{wanted.version}"
        folder.mkdir(parents=True)
        (folder / f"pulumi-resource-{wanted.name}").touch()
    found, ended = rows(repo)
    assert "passed" in found["plugin postgresql"] and "passed" in found["plugin kubernetes"]
    assert ended == ""


def test_no_helm_is_no_failure_and_none_is_built(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's folder comes first on PATH, as after `lab.env` of an older lab, which had a helm."""
    repo.remove("helm")
    links = repo.state / "lab" / "bin"
    links.mkdir(parents=True)
    (repo.state / "lab.lock").touch()
    (links / "helm").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{links}:{repo.bin}:/usr/bin:/bin")
    monkeypatch.setattr("lab.toolchain.resolve", lambda *_: pytest.fail("nothing is built"))
    found, ended = rows(repo)
    assert "not tried" in found["helm"] and "charts.* need it" in found["helm"]
    assert "not tried" in found["helm releases"] and "no helm" in found["helm releases"]
    assert ended == ""


@pytest.mark.parametrize("text", ["targets: [\n", "targets:\n  home: {}\n", "default: nope\n"])
def test_a_broken_targets_file_is_a_row(repo: Repo, text: str) -> None:
    (repo.root / "targets.yaml").write_text(text)
    found, ended = rows(repo)
    assert "failed" in found["target"]
    assert "targets.yaml:" in found["target"]
    assert ended


def test_a_lab_that_does_not_run_is_no_failure(repo: Repo) -> None:
    repo.c.config.ops.target = "lab"
    found, ended = rows(repo)
    assert "not tried" in found["target"]
    assert "./inv lab.up" in found["target"]
    assert ended == ""
