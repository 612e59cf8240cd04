"""Calls of helm: what is on the command line, what is not, and helm's complaints."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from lab.engine.cancellation import CancellationToken, Cancelled
from lab.engine.providers import ProviderError
from lab.engine.providers.kubernetes.components import merge_values
from lab.engine.providers.kubernetes.helm import Capabilities, ChartRequest, Repository, find_helm, render
from lab.engine.values import Asset

NO_CLUSTER = Capabilities("v1.36.2", ["v1", "apps/v1"])


@pytest.fixture
def helm(tmp_path: Path) -> dict[str, str]:
    """A stand-in for helm that records how it was called; the environment to run it with."""
    script = tmp_path / "helm"
    script.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> {tmp_path}/argv\ncat > {tmp_path}/stdin\n"
        f'for file in "$@"; do case $file in *.json|*.yaml) cp -p "$file" {tmp_path}/;; esac; done\n'
        'printf "%s" "$HELM_ERRORS" >&2\nprintf "kind: A\\n"\nexit "${HELM_EXIT:-0}"\n'
    )
    script.chmod(0o755)
    return {"OPS_LAB_HELM": str(script), "PATH": os.environ["PATH"]}


def request(tmp_path: Path, **changes: Any) -> ChartRequest:
    return ChartRequest(**({"release": "mini", "chart": "./mini", "namespace": "n", "folder": str(tmp_path)} | changes))


def test_values_go_over_standard_input_only(helm: dict[str, str], tmp_path: Path) -> None:
    wanted = request(tmp_path, values={"password": "hunter2"}, version="1.2.3")
    rendered = render(wanted, NO_CLUSTER, CancellationToken(), helm)
    argv = (tmp_path / "argv").read_text().splitlines()
    assert rendered.manifests == "kind: A\n"
    assert argv[:3] == ["template", "mini", "./mini"]
    for expected in ("--no-hooks", "--dry-run=server", "--include-crds", "--kube-version", "v1,apps/v1", "1.2.3"):
        assert expected in argv
    assert "hunter2" not in " ".join(argv)
    assert json.loads((tmp_path / "stdin").read_text()) == {"password": "hunter2"}


def test_definitions_can_be_left_out(helm: dict[str, str], tmp_path: Path) -> None:
    render(request(tmp_path, include_definitions=False), NO_CLUSTER, CancellationToken(), helm)
    argv = (tmp_path / "argv").read_text().splitlines()
    assert "--skip-crds" in argv
    assert "--include-crds" not in argv


@pytest.mark.parametrize(("chart", "file"), [("oci://registry.example/c", "registry.json"), ("c", "repositories.yaml")])
def test_credentials_travel_in_private_files(helm: dict[str, str], tmp_path: Path, chart: str, file: str) -> None:
    repository = Repository(url="https://charts.example", username="user", password="hunter2")
    render(request(tmp_path, chart=chart, repository=repository), NO_CLUSTER, CancellationToken(), helm)
    assert "hunter2" not in (tmp_path / "argv").read_text()
    assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600


def test_the_repository_is_named_without_credentials(helm: dict[str, str], tmp_path: Path) -> None:
    wanted = request(tmp_path, chart="c", repository=Repository(url="https://charts.example"))
    render(wanted, NO_CLUSTER, CancellationToken(), helm)
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[argv.index("--repo") + 1] == "https://charts.example"


@pytest.mark.parametrize(
    ("complaint", "text"),
    [
        ('Error: path "./x" not found\n', 'unable to locate the chart: path "./x" not found'),
        ("Error: Chart.yaml file is missing\n", "unable to load the chart: Chart.yaml file is missing"),
        ("Error: template: mini/a.yaml:1: bad\n", "template: mini/a.yaml:1: bad"),
        ("", "helm gave no reason"),
    ],
)
def test_helms_reason_is_given(helm: dict[str, str], tmp_path: Path, complaint: str, text: str) -> None:
    environment = helm | {"HELM_ERRORS": complaint, "HELM_EXIT": "1"}
    with pytest.raises(ProviderError) as caught:
        render(request(tmp_path), NO_CLUSTER, CancellationToken(), environment)
    assert str(caught.value) == text


def test_a_deprecated_chart_is_noticed(helm: dict[str, str], tmp_path: Path) -> None:
    environment = helm | {"HELM_ERRORS": "WARNING: This chart is deprecated\n"}
    assert render(request(tmp_path), NO_CLUSTER, CancellationToken(), environment).is_deprecated


@pytest.mark.parametrize("changes", [{"chart": "--post-renderer=x"}, {"release": "-x"}])
def test_names_that_would_be_options_are_refused(helm: dict[str, str], tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(ProviderError, match="cannot begin with a dash"):
        render(request(tmp_path, **changes), NO_CLUSTER, CancellationToken(), helm)


def test_a_cancelled_rendering_ends(helm: dict[str, str], tmp_path: Path) -> None:
    Path(helm["OPS_LAB_HELM"]).write_text("#!/bin/sh\nexec sleep 60\n")
    token = CancellationToken()
    timer = threading.Timer(0.3, token.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        render(request(tmp_path), NO_CLUSTER, token, helm)
    timer.join()


def test_a_missing_helm_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="no helm program"):
        find_helm({"PATH": str(tmp_path), "OPS_STATE": str(tmp_path)})


def test_the_labs_helm_comes_before_the_path(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "own-helm").touch()
    (tmp_path / "lab" / "target.json").write_text(json.dumps({"tools": {"helm": str(tmp_path / "own-helm")}}))
    assert find_helm({"OPS_STATE": str(tmp_path), "PATH": ""}) == str(tmp_path / "own-helm")


def test_values_files_are_merged_in_order_and_nulls_stay(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("a: {b: 1, c: 1}\nd: 1\n")
    inputs = {
        "valueYamlFiles": [Asset(path="values.yaml"), Asset(text="a: {c: null}\nd: [1]\n")],
        "values": {"a": {"b": 2}, "file": Asset(text="content")},
    }
    assert merge_values(inputs, str(tmp_path)) == {"a": {"b": 2, "c": None}, "d": [1], "file": "content"}


def test_a_missing_values_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="failed to read file"):
        merge_values({"valueYamlFiles": [Asset(path="absent.yaml")]}, str(tmp_path))
