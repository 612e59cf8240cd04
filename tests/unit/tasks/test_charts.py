"""charts.*: what a service's charts put in the cluster, what pulumi drops, whether the pins hold; on a fake helm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.toolchain import Found
from runbooks.core.errors import NotFound, ToolFailed, Usage, VerificationFailed
from runbooks.run import open_session
from runbooks.tasks import charts
from runbooks.tasks.charts import with_helm
from tests.unit.house import House
from tests.unit.tools.test_helm_charts import RENDERED

CHART = {
    "release": "cnpg", "chart": "cloudnative-pg", "version": "0.29.0", "repository": "https://cnpg/charts",
    "namespace": "cnpg-system", "values": {"replicas": 1}, "skip_crds": False,
}  # fmt: skip
SCRIPT = """\
import json, pathlib, sys
pathlib.Path({given!r}).write_text(sys.stdin.read())
if {fails!r}:
    sys.exit({fails!r})
print(json.dumps([{chart!r}]))
"""
UNREACHABLE = (1, "", 'Error: Get "https://cnpg/charts/index.yaml": dial tcp: lookup cnpg: no such host\n')


@pytest.fixture
def home(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """cnpg's program asks for one chart; helm renders it."""
    folder = house.root / "pulumi" / "core" / "operators" / "cnpg"
    (folder / "__main__.py").write_text("from lib.charts import chart\n")
    (folder / "Pulumi.mx.yaml").write_text("config:\n  cnpg:namespace: cnpg-system\n  cnpg:map:\n    a: 1\n")
    asks_for(house)
    house.install("helm")
    house.answer("helm", ["template"], RENDERED)
    house.answer("helm", ["show"], "name: cloudnative-pg\n")
    house.answer("kubectl", ["version"], {"clientVersion": {}, "serverVersion": {"gitVersion": "v1.36.3"}})
    monkeypatch.setattr("runbooks.core.reporter._in_use", [])
    return house


def asks_for(house: House, fails: str = "", **chart: Any) -> None:
    folder = house.root / "scripts"
    folder.mkdir(exist_ok=True)
    text = SCRIPT.format(given=str(house.home / "given"), fails=fails, chart=CHART | chart)
    (folder / "chart_inputs.py").write_text(text)


def test_render_shows_objects_and_names_the_hooks_left_out(home: House, capsys: pytest.CaptureFixture[str]) -> None:
    charts.render.body(home.c, "cnpg")
    told = capsys.readouterr().out
    assert ["Deployment", "web", "app", "app/templates/deployment.yaml"] in [line.split() for line in told.splitlines()]
    assert "left out by pulumi: Job init (pre-install, pre-upgrade)" in told
    assert "apiVersion" not in told
    (argv,) = home.argvs("helm")
    assert "--kube-version=v1.36.3" in argv and "--version 0.29.0" in argv
    charts.render.body(home.c, "cnpg", text=True)
    assert "apiVersion: apps/v1" in capsys.readouterr().out


def test_the_program_gets_its_settings_and_no_secret(home: House) -> None:
    folder = home.root / "pulumi" / "core" / "networking" / "tailscale"
    (folder / "__main__.py").write_text("from lib.charts import chart\n")
    (folder / "Pulumi.mx.yaml").write_text(
        "config:\n  tailscale:TS_CLIENT_ID:\n    secure: v1:abc\n  charts:source: x\n"
    )
    charts.render.body(home.c, "tailscale")
    given = json.loads((home.home / "given").read_text())
    assert given["secrets"] == ["tailscale:TS_CLIENT_ID", "tailscale:TS_CLIENT_SECRET"]
    assert given["config"]["charts:source"] == "x" and "v1:abc" not in str(given)


def test_a_service_without_a_chart_is_told(home: House) -> None:
    with pytest.raises(NotFound, match="glance uses no chart"):
        charts.render.body(home.c, "glance")
    with pytest.raises(NotFound):
        charts.render.body(home.c, "cnpgg")


def test_a_program_that_refuses_its_settings_is_quoted(home: House) -> None:
    asks_for(home, fails="1 setting is missing or wrong: cnpg:namespace")
    with pytest.raises(Usage, match="cnpg:namespace"):
        charts.render.body(home.c, "cnpg")


def test_what_helm_cannot_render_is_quoted(home: House) -> None:
    home.answer("helm", ["template"], (1, "", "Error: execution error at (x.yaml:1): image is required\n"))
    with pytest.raises(ToolFailed, match="image is required"):
        charts.render.body(home.c, "cnpg")


@pytest.mark.parametrize("ephemeral", [True, False])
def test_the_lab_alone_builds_a_helm(home: House, monkeypatch: pytest.MonkeyPatch, ephemeral: bool) -> None:
    """Also where the one on PATH is too old, which is for the tool chain to say."""
    built = Found(name="helm", program=Path("/cache/helm"), version="v4.2.4", origin="built here")
    asked: list[list[str]] = []
    monkeypatch.setattr("lab.toolchain.resolve", lambda _, names: asked.append(names) or {"helm": built})
    with open_session(home.c, "charts.check") as session:
        target = replace(session.target, ephemeral=ephemeral)
        helm = with_helm(replace(session, target=target)).tools.helm
    assert (helm, asked) == (("/cache/helm", [["helm"]]) if ephemeral else (str(home.bin / "helm"), []))


def test_without_helm_the_install_command_is_told(home: House) -> None:
    home.remove("helm")
    with pytest.raises(ToolFailed, match="helm is not on PATH") as missing:
        charts.check.body(home.c)
    assert missing.value.next_step


# check


def test_check_finds_everything_right(home: House, capsys: pytest.CaptureFixture[str]) -> None:
    charts.check.body(home.c)
    told = capsys.readouterr().out
    assert "0.29.0 at https://cnpg/charts" in told and "2 objects" in told
    assert "Job init (pre-install, pre-upgrade)" in told and "3 passed, 0 failed" in told


def test_a_pin_that_does_not_exist_fails(home: House) -> None:
    home.answer("helm", ["show"], (1, "", 'Error: chart "cloudnative-pg" matching 0.29.0 not found in index\n'))
    with pytest.raises(VerificationFailed, match="its pin in"):
        charts.check.body(home.c)


def test_a_chart_that_does_not_fit_the_cluster_fails(home: House, capsys: pytest.CaptureFixture[str]) -> None:
    said = "Error: chart requires kubeVersion: >=1.40.0-0 which is incompatible with Kubernetes v1.36.3\n"
    home.answer("helm", ["template"], (1, "", said))
    with pytest.raises(VerificationFailed):
        charts.check.body(home.c)
    assert "it requires Kubernetes >=1.40.0-0, the cluster has v1.36.3" in capsys.readouterr().out


def test_without_a_network_nothing_failed(home: House, capsys: pytest.CaptureFixture[str]) -> None:
    home.answer("helm", ["show"], UNREACHABLE)
    charts.check.body(home.c)
    told = capsys.readouterr().out
    assert "cannot be reached from here" in told and "0 passed, 0 failed, 3 not tried" in told
    assert not any(argv.startswith("template") for argv in home.argvs("helm"))


def test_without_a_network_a_folder_of_charts_will_do(home: House, capsys: pytest.CaptureFixture[str]) -> None:
    home.answer("helm", ["show"], UNREACHABLE)
    copy = home.root / "mirror" / "cloudnative-pg"
    copy.mkdir(parents=True)
    (copy / "Chart.yaml").write_text("name: cloudnative-pg\n")
    settings = home.root / "pulumi" / "core" / "operators" / "cnpg" / "Pulumi.mx.yaml"
    settings.write_text("config:\n  charts:source: mirror\n")
    charts.check.body(home.c)
    assert "2 passed, 0 failed, 1 not tried" in capsys.readouterr().out
    assert any(f"template cnpg {copy}" in argv and "--version" not in argv for argv in home.argvs("helm"))
    assert "charts:source" not in json.loads((home.home / "given").read_text())["config"]
