"""Programs, charts and ports that go wrong: the cause is reported, nothing is lost, and the next run goes on."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.lab.command_line import Deployed, changed, until
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
    assert "> apply" not in probe.inv("deploy.probe").ends_with(1, *words, "./inv preview.probe").stdout


DESCRIPTION = "apiVersion: v2\nname: cloudnative-pg\nversion: 0.1.0\n"
CHARTS: dict[str, tuple[dict[str, str], int, tuple[str, ...]]] = {
    "a folder without it": ({}, 2, ("charts:source", "cloudnative-pg", "Chart.yaml", "helm pull")),
    "a description that is no YAML": ({"Chart.yaml": "name: [cloudnative-pg\n"}, 1, ("probe", "Chart.yaml")),
    "a template that fails": (
        {"Chart.yaml": DESCRIPTION, "templates/broken.yaml": "{{ .Values.nothing.at.all }}\n"}, 1,
        ("templates/broken.yaml:1", "nil pointer evaluating"),
    ),
}  # fmt: skip
"""The files of a chart, the exit code and what is reported."""


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_that_cannot_be_read(probe: ProbeCheckout, tmp_path: Path, name: str) -> None:
    files, code, words = CHARTS[name]
    (tmp_path / "cloudnative-pg/templates").mkdir(parents=True)
    for file, text in files.items():
        (tmp_path / "cloudnative-pg" / file).write_text(text)
    probe.write_program(CHART)
    with changed(probe.settings_file("probe"), lambda text: text.replace("lab/charts", str(tmp_path))):
        result = probe.inv("deploy.probe")
    assert "> apply" not in result.ends_with(code, *words).stdout


def test_a_kind_that_the_cluster_does_not_know(probe: ProbeCheckout) -> None:
    """pulumi's preview passes; the update fails after a minute of trying, and what was there before still is."""
    probe.write_program(CONFIG_MAP.format(word="first") + UNKNOWN_KIND)
    failed = probe.inv("deploy.probe").ends_with(1, "Absent (absent.example.org/v1)")
    failed.shows("failed: probe", "./inv deploy.probe")
    assert "pending_operations" not in probe.deployment("probe")
    probe.write_program(CONFIG_MAP.format(word="first"))
    probe.inv("deploy.probe").ends_with(0).shows("unchanged: probe")


def test_output_that_nobody_reads_on(made: ProbeCheckout) -> None:
    """`| head -1` ends the display, not the deployment."""
    made.write_program(CONFIG_MAP.format(word="second"))
    piped = made.shell('set -o pipefail; "$ROOT/inv" deploy.probe | head -1')
    assert (piped.code, piped.stderr) == (0, ""), piped.all
    assert piped.stdout.startswith("target lab") and piped.stdout.count("\n") == 1
    assert made.journal()[-1]["exit_code"] == 0
    word = made.kubectl("get", "configmap", "probe-lab", "--output=jsonpath={.data.word}")
    assert word == "second"
    made.assert_nothing_left("probe")


class Stranger:
    """Another program on the port, which keeps what it receives."""

    def __init__(self, port: int) -> None:
        self.heard = b""
        self._server = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                client.settimeout(5)
                with client, contextlib.suppress(OSError):
                    while data := client.recv(4096):
                        self.heard += data

    def leave(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)


def test_the_port_is_taken_before_the_lab_starts(deployed: Deployed) -> None:
    checkout = deployed.checkout
    checkout.inv("lab.down").ends_with(0)
    port = checkout.postgres_port
    stranger = Stranger(port)
    try:
        checkout.inv("deploy.postgres").ends_with(1, f"port {port}", f"process {os.getpid()} (")
    finally:
        stranger.leave()
    assert stranger.heard == b""
    checkout.inv("deploy.postgres").ends_with(0)


def test_the_port_is_taken_while_the_lab_runs(deployed: Deployed) -> None:
    """The server was killed and another program was faster: no password goes to it."""
    checkout = deployed.checkout
    port = checkout.postgres_port
    (server,) = [one.pid for one in psutil.net_connections("tcp4") if one.laddr.port == port and one.status == "LISTEN"]
    psutil.Process(server).kill()
    stranger = until(lambda: Stranger(port), "the port is free for a moment", ignoring=OSError)
    try:
        result = checkout.inv("verify.postgres").ends_with(4, "postgres")
    finally:
        stranger.leave()
    (failed,) = [line for line in result.stdout.splitlines() if line.startswith("  FAIL")]
    assert f"{os.getpid()}" in failed, result.all
    assert b"postgres" not in stranger.heard
    assert len(stranger.heard) <= 8  # a client may ask for TLS, which gives nothing away
    until(lambda: checkout.inv("verify.postgres").code == 0, "the lab's own server is back", seconds=120)
