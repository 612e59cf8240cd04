"""Programs, charts and ports that go wrong: the cause is reported, nothing is lost, and the next run goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.lab.command_line import Checkout, Deployed, changed, until
from tests.lab.probe import CONFIG_MAP, ProbeCheckout

pytestmark = pytest.mark.lab

RAISES = """\
import pulumi


def settings():
    raise ValueError("no such word: 'xyzzy'")


settings()
"""
MISTYPED = "import pulumi\n\npulumi.export('a', 1\n"
LEAVES = "import sys\n\nsys.exit('I go')\n"
UNKNOWN_KIND = """\
from pulumi_kubernetes.apiextensions import CustomResource

CustomResource(
    "absent",
    api_version="absent.example.org/v1",
    kind="Absent",
    metadata={"name": "probe", "namespace": "default"},
)
"""
CHART = """\
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from lib.charts import chart

chart("cloudnative-pg", release="probe", namespace="default", values={})
"""


@pytest.fixture(scope="module")
def made(probe_checkout: ProbeCheckout) -> ProbeCheckout:
    probe_checkout.forget_probe()
    probe_checkout.write_program(CONFIG_MAP.format(word="first"))
    probe_checkout.inv("deploy.probe").ends_with(0)
    return probe_checkout


@pytest.fixture
def probe(made: ProbeCheckout) -> Iterator[ProbeCheckout]:
    """A deployed probe whose state and settings no failing run changes."""
    settings, resources = made.settings_file("probe").read_bytes(), made.deployment("probe")["resources"]
    yield made
    assert made.settings_file("probe").read_bytes() == settings
    assert made.deployment("probe")["resources"] == resources
    made.assert_nothing_left("probe")


PROGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "one that raises": (RAISES, ("ValueError: no such word: 'xyzzy'", "pulumi/probe/__main__.py, line 5")),
    "one with a mistake in it": (MISTYPED, ("SyntaxError: ", "pulumi/probe/__main__.py, line 3")),
    "one that imports what is not there": ("import not_there\n", ("ModuleNotFoundError", "'not_there'")),
    "one that leaves": (LEAVES, ("I go",)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_fails(probe: ProbeCheckout, name: str) -> None:
    text, words = PROGRAMS[name]
    probe.write_program(text)
    result = probe.inv("deploy.probe")
    result.ends_with(1, *words, "./inv preview.probe")
    assert "> apply" not in result.stdout


def no_chart(folder: Path) -> None:
    folder.mkdir()


def broken_description(folder: Path) -> None:
    folder.mkdir()
    (folder / "Chart.yaml").write_text("name: [cloudnative-pg\n")


def broken_template(folder: Path) -> None:
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: cloudnative-pg\nversion: 0.1.0\n")
    (folder / "templates" / "broken.yaml").write_text("{{ .Values.nothing.at.all }}\n")


CHARTS: dict[str, tuple[Callable[[Path], None], int, tuple[str, ...]]] = {
    "a folder without it": (no_chart, 2, ("charts:source", "cloudnative-pg", "Chart.yaml", "helm pull")),
    "a description that is no YAML": (broken_description, 1, ("probe", "Chart.yaml")),
    "a template that fails": (broken_template, 1, ("templates/broken.yaml:1", "nil pointer evaluating")),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_that_cannot_be_read(probe: ProbeCheckout, tmp_path: Path, name: str) -> None:
    break_it, code, words = CHARTS[name]
    break_it(tmp_path / "cloudnative-pg")
    probe.write_program(CHART)
    with changed(probe.settings_file("probe"), lambda text: text.replace("lab/charts", str(tmp_path))):
        result = probe.inv("deploy.probe")
    result.ends_with(code, *words)
    assert "> apply" not in result.stdout


def test_a_kind_that_the_cluster_does_not_know(probe: ProbeCheckout) -> None:
    """pulumi's preview passes; the update fails after a minute of trying, and what was there before still is."""
    probe.write_program(CONFIG_MAP.format(word="first") + UNKNOWN_KIND)
    probe.inv("deploy.probe").ends_with(1, "Absent (absent.example.org/v1)").shows(
        "failed: probe", "./inv deploy.probe"
    )
    assert "pending_operations" not in probe.deployment("probe")


def test_the_next_run_goes_on(probe: ProbeCheckout) -> None:
    probe.write_program(CONFIG_MAP.format(word="first"))
    probe.inv("deploy.probe").ends_with(0).shows("unchanged: probe")


def test_output_that_nobody_reads_on(made: ProbeCheckout) -> None:
    """`| head -1` ends the display, not the deployment."""
    made.write_program(CONFIG_MAP.format(word="second"))
    script = 'set -o pipefail; "$0" deploy.probe | head -1'
    piped = subprocess.run(
        ["bash", "-c", script, made.root / "inv"],
        env=made.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert piped.stdout.startswith("target lab"), piped
    assert piped.stdout.count("\n") == 1
    assert piped.stderr == ""
    assert piped.returncode == 0
    assert made.journal()[-1]["exit_code"] == 0
    word = made.kubectl("get", "configmap", "probe-lab", "--output=jsonpath={.data.word}")
    assert word == "second"
    made.assert_nothing_left("probe")


# --- another program on the database's port ---


class Stranger:
    """Another program on the port, which keeps what it receives."""

    def __init__(self, port: int) -> None:
        self.heard = b""
        self._server = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client:
                client.settimeout(5)
                try:
                    while data := client.recv(4096):
                        self.heard += data
                except OSError:
                    continue

    def leave(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)


@pytest.fixture
def stopped(deployed: Deployed) -> Iterator[Checkout]:
    """The lab with all its processes ended, brought up again afterwards."""
    checkout = deployed.checkout
    checkout.inv("lab.down").ends_with(0)
    yield checkout
    checkout.inv("lab.up").ends_with(0)


def test_the_port_is_taken_before_the_lab_starts(stopped: Checkout) -> None:
    port = stopped.postgres_port
    stranger = Stranger(port)
    try:
        result = stopped.inv("deploy.postgres")
    finally:
        stranger.leave()
    result.ends_with(1, f"port {port}", f"process {os.getpid()} (")
    assert stranger.heard == b""
    stopped.inv("deploy.postgres").ends_with(0)


def test_the_port_is_taken_while_the_lab_runs(deployed: Deployed) -> None:
    """The server was killed and another program was faster: no password goes to it."""
    checkout = deployed.checkout
    port = checkout.postgres_port
    (server,) = [one.pid for one in psutil.net_connections("tcp4") if one.laddr.port == port and one.status == "LISTEN"]
    psutil.Process(server).kill()
    stranger = until(lambda: try_to_take(port), "the port is free for a moment")
    try:
        result = checkout.inv("verify.postgres")
    finally:
        stranger.leave()
    result.ends_with(4, "postgres")
    (failed,) = [line for line in result.stdout.splitlines() if line.startswith("  FAIL")]
    assert f"{os.getpid()}" in failed, result.all
    assert b"postgres" not in stranger.heard
    assert len(stranger.heard) <= 8  # a client may ask for TLS, which gives nothing away
    until(lambda: checkout.inv("verify.postgres").code == 0, "the lab's own server is back", seconds=120)


def try_to_take(port: int) -> Stranger | None:
    try:
        return Stranger(port)
    except OSError:
        return None
