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


FAKE = """#!/bin/sh
printf '%s\\n' "$@" >> FOLDER/argv
cat > FOLDER/stdin
for file in "$@"; do
  case $file in *.json|*.yaml) cp -p "$file" FOLDER/ ;; esac
done
if [ "$1" = pull ]; then
  while [ "$1" != --destination ]; do shift; done
  tar -czf "$2/mini.tgz" -C FOLDER mini
fi
printf '%s' "$HELM_ERRORS" >&2
printf 'kind: A\\n'
exit "${HELM_EXIT:-0}"
"""


@pytest.fixture
def helm(tmp_path: Path) -> dict[str, str]:
    """A program in helm's place that records how it was called, and a chart; the environment to run it with."""
    (tmp_path / "mini" / "templates").mkdir(parents=True)
    (tmp_path / "mini" / "templates" / "a.yaml").write_text("kind: A\n")
    script = tmp_path / "helm"
    script.write_text(FAKE.replace("FOLDER", str(tmp_path)))
    script.chmod(0o755)
    return {"OPS_LAB_HELM": str(script), "PATH": os.environ["PATH"]}


def request(tmp_path: Path, **changes: Any) -> ChartRequest:
    return ChartRequest(**({"release": "mini", "chart": "./mini", "namespace": "n", "folder": str(tmp_path)} | changes))


def test_values_go_over_standard_input_only(helm: dict[str, str], tmp_path: Path) -> None:
    wanted = request(tmp_path, values={"password": "hunter2"})
    rendered = render(wanted, NO_CLUSTER, CancellationToken(), helm)
    argv = (tmp_path / "argv").read_text().splitlines()
    assert rendered.manifests == "kind: A\n"
    assert argv[:3] == ["template", "mini", str(tmp_path / "mini")]
    for expected in ("--no-hooks", "--dry-run=client", "--include-crds", "--kube-version", "v1,apps/v1"):
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


def test_a_chart_that_looks_objects_up_sees_the_cluster(helm: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mini" / "templates" / "b.yaml").write_text('{{ lookup "v1" "Secret" "n" "s" }}')
    reachable = Capabilities("v1.36.2", ["v1"], kubeconfig="/k", context="lab")
    assert not render(request(tmp_path), reachable, CancellationToken(), helm).has_blind_lookup
    argv = (tmp_path / "argv").read_text().splitlines()
    for expected in ("--dry-run=server", "--take-ownership", "--kubeconfig", "/k", "--kube-context", "lab"):
        assert expected in argv


def test_lookups_are_blind_where_the_cluster_lacks_a_kind(helm: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mini" / "templates" / "b.yaml").write_text('{{ lookup "v1" "Secret" "n" "s" }}')
    script = Path(helm["OPS_LAB_HELM"])
    complaint = 'case " $* " in *=server*) echo "Error: no matches for kind \\"Thing\\"" >&2; exit 1;; esac'
    script.write_text(script.read_text().replace("printf '%s' \"$HELM_ERRORS\" >&2", complaint))
    assert render(request(tmp_path), NO_CLUSTER, CancellationToken(), helm).has_blind_lookup


def test_the_repository_is_named_without_credentials(helm: dict[str, str], tmp_path: Path) -> None:
    wanted = request(tmp_path, chart="c", version="1.2.3", repository=Repository(url="https://charts.example"))
    render(wanted, NO_CLUSTER, CancellationToken(), helm)
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[argv.index("--repo") + 1] == "https://charts.example"
    assert argv[argv.index("--version") + 1] == "1.2.3"
    assert argv[argv.index("template") + 2].endswith("/pulled/mini.tgz")


@pytest.mark.parametrize(
    ("complaint", "text"),
    [
        ('Error: looks like "x" is not\n', 'unable to locate the chart: looks like "x" is not'),
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


def test_a_folder_that_is_not_there_is_named(helm: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ProviderError) as caught:
        render(request(tmp_path, chart="./absent"), NO_CLUSTER, CancellationToken(), helm)
    assert str(caught.value) == 'unable to locate the chart: path "./absent" not found'


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
