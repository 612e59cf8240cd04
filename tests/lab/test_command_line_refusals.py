"""What is refused through the real command line: exit code, what was seen and expected, and that nothing changed."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from lab.platform import ports
from tests.lab.command_line import BASIC_PROGRAMS, Result, changed
from tests.lab.probe import PASSPHRASE, SETTINGS, ProbeCheckout

pytestmark = pytest.mark.lab

OTHER_UID = "00000000-dead-beef-0000-000000000000"


@pytest.fixture(scope="module")
def made(probe_checkout: ProbeCheckout) -> ProbeCheckout:
    probe_checkout.forget_probe()
    probe_checkout.make_stack_at_home()
    return probe_checkout


@pytest.fixture
def home(made: ProbeCheckout) -> Iterator[ProbeCheckout]:
    """The probe's stack on the real target, whose state, settings and cluster no test changed."""
    settings = made.project / "Pulumi.mx.yaml"
    before = settings.read_bytes(), made.state("probe", "mx")
    yield made
    assert (settings.read_bytes(), made.state("probe", "mx")) == before
    made.assert_nothing_left("probe")
    assert "probe-mx" not in made.kubectl("get", "configmaps", "--output=name")
    made.write_target()


def test_settings_written_by_a_person_keep_their_comments(home: ProbeCheckout) -> None:
    path = home.project / "Pulumi.mx.yaml"
    with changed(path, lambda text: text):
        home.at_home("secrets.set", "probe", "token", stdin="a-token-for-the-probe\n").ends_with(0)
        text = path.read_text()
    assert text.startswith(SETTINGS) and "secure: v1:" in text
    assert "a-token-for-the-probe" not in text


def unreachable(home: ProbeCheckout) -> dict[str, str]:
    """A kubeconfig whose server has gone."""
    here, gone = home.target["kubeconfig"], home.root.with_name("gone.kubeconfig")
    server = home.kubectl("config", "view", "--minify", "--output=jsonpath={.clusters[0].cluster.server}")
    gone.write_text(Path(here).read_text().replace(server, f"https://127.0.0.1:{ports.pick(())}"))
    return {"kubeconfig": str(gone)}


def without_server(home: ProbeCheckout) -> dict[str, str]:
    empty = home.root.with_name("empty.kubeconfig")
    empty.write_text("contexts: [{name: lab, context: {cluster: '', user: ''}}]\n")
    return {"kubeconfig": str(empty)}


def wrong_passphrase(home: ProbeCheckout) -> dict[str, str]:
    other = home.root.with_name("other-passphrase")
    other.write_text("another passphrase\n")
    return {"passphrase_file": str(other)}


Change = Callable[[ProbeCheckout], dict[str, str]]
TARGETS: dict[str, tuple[Change, int, tuple[str, ...]]] = {
    "wrong cluster": (
        lambda _: {"cluster_uid": OTHER_UID}, 5, ("'lab'", "https://127.0.0.1:", OTHER_UID, "target.show")
    ),
    "cluster never pinned": (
        lambda _: {"cluster_uid": "absent"}, 5, ("cluster_uid", "next: ./inv --target home target.pin")
    ),
    "context that is not there": (lambda _: {"context": "nowhere"}, 5, ("'nowhere'", "lab", "config get-contexts")),
    "context that leads nowhere": (without_server, 5, ("server",)),
    "unreachable server": (unreachable, 5, ("UID", "next: ./inv --target home doctor")),
    "missing stack": (
        lambda _: {"stack": "mz"}, 6, ("organization/probe/mz", "file://", "next: ./inv --target home stack.init probe")
    ),
    "wrong passphrase": (wrong_passphrase, 2, ("passphrase", "probe")),
    "missing passphrase file": (
        lambda _: {"passphrase_file": "/nowhere/passphrase"}, 2,
        ("/nowhere/passphrase", "next: ./inv --target home target.show"),
    ),
    "no passphrase": (lambda _: {"passphrase_file": "absent"}, 2, ("probe", "PULUMI_CONFIG_PASSPHRASE")),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_that_is_not_right(home: ProbeCheckout, name: str) -> None:
    change, code, words = TARGETS[name]
    home.write_target(**change(home))
    result = home.at_home("deploy.probe", "--yes").ends_with(code, *words)
    assert "> apply" not in result.stdout
    assert PASSPHRASE not in result.all


TARGETS_FILE, STACK_FILE = "targets.yaml", "pulumi/probe/Pulumi.mx.yaml"
# What else can be wrong in them is seen by the unit tests of those who read them.
FILES: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "targets.yaml that is no YAML": (TARGETS_FILE, b"default: lab\ntargets: {home: [\n", ("targets.yaml:3:",)),
    "stack file that is not UTF-8": (STACK_FILE, b"config:\n  a: \xff\n", ("Pulumi.mx.yaml:2:", "0xff", "UTF-8")),
    "stack file with a key twice": (
        STACK_FILE, b"config:\n  probe:word: a\n  probe:word: b\n", ("Pulumi.mx.yaml:3:",)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read(home: ProbeCheckout, name: str) -> None:
    file, content, words = FILES[name]
    path = home.root / file
    with changed(path, lambda text: text):
        path.write_bytes(content)
        home.at_home("deploy.probe", "--yes").ends_with(2, *words)
        assert path.read_bytes() == content


NAMES: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "service that begins with a dash": (("deploy.-x",), 6, ("'deploy.-x'",)),
    "service as an option": (("stack.init", "-x"), 2, ("'-x'",)),
    "service after a double dash": (("stack.init", "--", "-x"), 2, ("stack.init",)),
    "service given as an option's value": (("stack.init", "--service=-x"), 2, ("'-x'",)),
    "unknown service": (("stack.init", "postgers"), 6, ("'postgers'", "postgres,", "next: ./inv --list")),
    "unknown task": (("deplay.postgres",), 6, ("'deplay.postgres'", "deploy.postgres,")),
    "unknown key of a secret": (("secrets.set", "probe", "tokn"), 6, ("'tokn'", "token")),
    "unknown target": (("--target", "hme", "preview.probe"), 6, ("'hme'", "home")),
    "target that begins with a dash": (("--target", "-x", "preview.probe"), 2, ("'-x'",)),
    "empty OPS_TARGET": (("preview.probe",), 2, ("OPS_TARGET", "home")),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_right(home: ProbeCheckout, name: str) -> None:
    words, code, reported = NAMES[name]
    env = {"OPS_TARGET": ""} if name == "empty OPS_TARGET" else {}
    assert home.inv(*words, env=env).ends_with(code, *reported).stdout == ""


def poor_path(home: ProbeCheckout) -> str:
    """PATH with nothing of ours on it: no pulumi, no kubectl, no helm, no uv, no Python."""
    folder = home.root.with_name("poor-bin")
    if not folder.exists():
        folder.mkdir()
        for name in BASIC_PROGRAMS:
            (folder / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    return str(folder)


def test_a_real_target_without_pulumi(home: ProbeCheckout) -> None:
    result = home.inv("--target", "home", "deploy.probe", "--yes", env={"PATH": poor_path(home)})
    result.ends_with(1, "pulumi", "'home'")


TOOLS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "nothing": ("", 0, ()),
    "the lab's kubectl, in whose place the environment's serves": ("kubectl", 0, ()),
    "pulumi": ("pulumi", 1, ("pulumi", "'lab'")),
}


@pytest.mark.parametrize("missing", TOOLS)
def test_the_lab_with_nothing_on_path(home: ProbeCheckout, missing: str) -> None:
    """The lab brings its own tools; when one of them is gone and nothing serves in its place, that is reported."""
    tool, code, words = TOOLS[missing]
    program = home.target["tools"].get(tool, "no such tool")
    with changed(home.lab_dir / "target.json", lambda text: text.replace(program, f"/nowhere/{tool}")):
        home.inv("preview.probe", env={"PATH": poor_path(home)}).ends_with(code, *words)


def limited(home: ProbeCheckout, size: int) -> Result:
    """A deployment in which no file can become larger than `size` bytes, as on a full disk."""

    env = home.with_pulumi | {"PYTHONDONTWRITEBYTECODE": "1"}  # Python itself would leave torn byte code behind
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    return home.inv("--target", "home", "deploy.probe", "--yes", env=env, preexec_fn=limit)


@pytest.mark.parametrize("size", [0, 200, 2000])
def test_a_disk_that_is_full_from_the_start(home: ProbeCheckout, size: int) -> None:
    assert "> apply" not in limited(home, size).ends_with(1, "File too large", "OPS_STATE").stdout


def test_a_disk_that_fills_before_the_update(home: ProbeCheckout) -> None:
    """The journal can take the preview and not the record that goes before an update: so there is none."""
    talkative = "import pulumi\nif pulumi.runtime.is_dry_run():\n    print('x' * 20000)\n"
    with changed(home.project / "__main__.py", lambda text: talkative + text):
        home.at_home("preview.probe").ends_with(0)
        journal = home.runs / max(folder.name for folder in home.runs.iterdir()) / "journal.jsonl"
        result = limited(home, journal.stat().st_size + 200)
    result.ends_with(1, "File too large").shows("+  probe      ConfigMap probe")
    assert "not started: probe" in result.stdout or "failed: probe" in result.stdout
