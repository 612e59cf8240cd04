"""charts.*: what a service's charts put in the cluster, what pulumi drops, whether the pins hold; on a fake helm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.toolchain import Found
from runbooks.core.errors import NotFound, ToolFailed, Usage, VerificationFailed
from runbooks.run import add_helm, open_session
from runbooks.tasks import charts
from tests.fixtures import Repo

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
RENDERED = """\
---
# Source: app/templates/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: app
---
# Source: app/templates/job.yaml
apiVersion: batch/v1
kind: Job
metadata:
  name: init
  annotations:
    helm.sh/hook: pre-install, pre-upgrade
---
# Source: app/templates/nothing.yaml
"""
UNREACHABLE = (1, "", 'Error: Get "https://cnpg/charts/index.yaml": dial tcp: lookup cnpg: no such host\n')


@pytest.fixture
def repo(repo: Repo) -> Repo:
    """cnpg's program asks for one chart; helm renders it."""
    folder = repo.config_file("cnpg").parent
    (folder / "__main__.py").write_text("from lib.charts import chart\n")
    (folder / "Pulumi.mx.yaml").write_text("config:\n  cnpg:namespace: cnpg-system\n  cnpg:map:\n    a: 1\n")
    asks_for(repo)
    repo.install("helm")
    repo.answer("helm", ["template"], RENDERED)
    repo.answer("helm", ["show"], "name: cloudnative-pg\n")
    repo.answer("kubectl", ["version"], {"clientVersion": {}, "serverVersion": {"gitVersion": "v1.36.3"}})
    return repo


def asks_for(repo: Repo, fails: str = "", **chart: Any) -> None:
    folder = repo.root / "scripts"
    folder.mkdir(exist_ok=True)
    text = SCRIPT.format(given=str(repo.home / "given"), fails=fails, chart=CHART | chart)
    (folder / "chart_inputs.py").write_text(text)


def test_render_shows_objects_and_names_the_hooks_left_out(repo: Repo) -> None:
    charts.render.body(repo.c, "cnpg")
    told = repo.printed()
    assert ["Deployment", "web", "app", "app/templates/deployment.yaml"] in [line.split() for line in told.splitlines()]
    assert "left out by pulumi: Job init (pre-install, pre-upgrade)" in told
    assert "apiVersion" not in told
    (argv,) = repo.argvs("helm")
    assert "--kube-version=v1.36.3" in argv and "--version 0.29.0" in argv
    charts.render.body(repo.c, "cnpg", text=True)
    assert "apiVersion: apps/v1" in repo.printed()


def test_the_program_gets_its_settings_and_no_secret(repo: Repo) -> None:
    folder = repo.config_file("tailscale").parent
    (folder / "__main__.py").write_text("from lib.charts import chart\n")
    (folder / "Pulumi.mx.yaml").write_text(
        "config:\n  tailscale:TS_CLIENT_ID:\n    secure: v1:abc\n  charts:source: x\n"
    )
    charts.render.body(repo.c, "tailscale")
    given = json.loads((repo.home / "given").read_text())
    assert given["secrets"] == ["tailscale:TS_CLIENT_ID", "tailscale:TS_CLIENT_SECRET"]
    assert given["config"]["charts:source"] == "x" and "v1:abc" not in str(given)


def test_a_service_without_a_chart_is_reported(repo: Repo) -> None:
    with pytest.raises(NotFound, match="glance uses no chart"):
        charts.render.body(repo.c, "glance")
    with pytest.raises(NotFound):
        charts.render.body(repo.c, "cnpgg")


def test_what_helm_or_the_program_refuses_is_quoted(repo: Repo) -> None:
    repo.answer("helm", ["template"], (1, "", "Error: execution error at (x.yaml:1): image is required\n"))
    with pytest.raises(ToolFailed, match="image is required"):
        charts.render.body(repo.c, "cnpg")
    asks_for(repo, fails="1 setting is missing or wrong: cnpg:namespace")
    with pytest.raises(Usage, match="cnpg:namespace"):
        charts.render.body(repo.c, "cnpg")


@pytest.mark.parametrize("ephemeral", [True, False])
def test_the_lab_alone_builds_a_helm(repo: Repo, monkeypatch: pytest.MonkeyPatch, ephemeral: bool) -> None:
    """Also where the one on PATH is too old, which is for the tool chain to say."""
    built = Found(name="helm", program=Path("/cache/helm"), version="v4.2.4", origin="built here")
    asked: list[list[str]] = []
    monkeypatch.setattr("lab.toolchain.resolve", lambda _, names: asked.append(names) or {"helm": built})
    with open_session(repo.c, "charts.check") as session:
        target = replace(session.target, ephemeral=ephemeral)
        helm = add_helm(replace(session, target=target)).tools.helm
    assert (helm, asked) == (("/cache/helm", [["helm"]]) if ephemeral else (str(repo.bin / "helm"), []))


def test_without_helm_the_install_command_is_named(repo: Repo) -> None:
    repo.remove("helm")
    with pytest.raises(ToolFailed, match="helm is not on PATH") as missing:
        charts.check.body(repo.c)
    assert missing.value.next_step


# check


def test_check_finds_everything_right(repo: Repo) -> None:
    charts.check.body(repo.c)
    told = repo.printed()
    assert "0.29.0 at https://cnpg/charts" in told and "2 objects" in told
    assert "Job init (pre-install, pre-upgrade)" in told and "3 passed, 0 failed" in told


@pytest.mark.parametrize(
    ("verb", "said", "told"),
    [
        ("show", 'chart "cloudnative-pg" matching 0.29.0 not found in index', "its pin in"),
        (
            "template",
            "chart requires kubeVersion: >=1.40.0-0 which is incompatible with Kubernetes v1.36.3",
            "it requires Kubernetes >=1.40.0-0, the cluster has v1.36.3",
        ),
    ],
)
def test_a_pin_that_does_not_exist_or_does_not_fit_the_cluster_fails(
    repo: Repo, verb: str, said: str, told: str
) -> None:
    repo.answer("helm", [verb], (1, "", f"Error: {said}\n"))
    with pytest.raises(VerificationFailed) as failed:
        charts.check.body(repo.c)
    assert told in repo.printed() + failed.value.summary


def test_without_a_network_nothing_failed(repo: Repo) -> None:
    repo.answer("helm", ["show"], UNREACHABLE)
    charts.check.body(repo.c)
    told = repo.printed()
    assert "cannot be reached from here" in told and "0 passed, 0 failed, 3 not tried" in told
    assert not any(argv.startswith("template") for argv in repo.argvs("helm"))


def test_without_a_network_a_folder_of_charts_will_do(repo: Repo) -> None:
    repo.answer("helm", ["show"], UNREACHABLE)
    copy = repo.root / "mirror" / "cloudnative-pg"
    copy.mkdir(parents=True)
    (copy / "Chart.yaml").write_text("name: cloudnative-pg\n")
    settings = repo.config_file("cnpg")
    settings.write_text("config:\n  charts:source: mirror\n")
    charts.check.body(repo.c)
    assert "2 passed, 0 failed, 1 not tried" in repo.printed()
    assert any(f"template cnpg {copy}" in argv and "--version" not in argv for argv in repo.argvs("helm"))
    assert "charts:source" not in json.loads((repo.home / "given").read_text())["config"]
