"""Charts: what `charts.yaml` pins, where they come from instead, and which ones a program says it uses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pulumi
import pytest
import yaml
from lib.charts import PINS, Location, Pin, locate, read_pin

from runbooks.services import SERVICES
from runbooks.stacks.chart_rendering import PLACEHOLDER, USES_CHARTS, outputs_for, settings_for
from runbooks.tools.stack_config import StackFile

HTTP = Pin(name="tailscale-operator", version="1.2.3", repository="https://pkgs.example/helmcharts")
OCI = Pin(name="cert-manager", version="v1.2.3", oci="oci://quay.example/charts/cert-manager")


@pytest.mark.parametrize(
    ("pin", "source", "chart", "repository"),
    [
        (HTTP, None, HTTP.name, HTTP.repository),
        (HTTP, "", HTTP.name, HTTP.repository),
        (OCI, None, OCI.oci, None),
        (HTTP, "oci://mirror.home/charts/", "oci://mirror.home/charts/tailscale-operator", None),
        (OCI, "oci://mirror.home/charts", "oci://mirror.home/charts/cert-manager", None),
        (OCI, "https://mirror.home", "cert-manager", "https://mirror.home"),
        (HTTP, "http://127.0.0.1:8/c", HTTP.name, "http://127.0.0.1:8/c"),
    ],
)
def test_published_place_or_mirror(pin, source, chart, repository):
    assert locate(pin, source) == Location(chart=chart, version=pin.version, repository=repository)


def test_a_folder_may_be_absolute_or_relative_to_the_repository(tmp_path):
    chart = tmp_path / "tailscale-operator"
    chart.mkdir()
    (chart / "Chart.yaml").touch()
    assert locate(HTTP, str(tmp_path)) == Location(chart=str(chart))
    in_repository = PINS.parent / "lab/charts/tailscale-operator"
    assert locate(HTTP, "lab/charts") == Location(chart=str(in_repository))


@pytest.mark.parametrize(("pin", "origin"), [(HTTP, f"{HTTP.name} --repo {HTTP.repository}"), (OCI, OCI.oci)])
def test_a_folder_without_the_chart_says_what_it_has_and_how_to_get_it(tmp_path, pin, origin):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/Chart.yaml").touch()
    with pytest.raises(pulumi.RunError) as failure:
        locate(pin, str(tmp_path))
    message = str(failure.value)
    assert f"does not have the chart {pin.name}" in message
    assert "found     other" in message
    assert f"expected  {tmp_path / pin.name / 'Chart.yaml'}" in message
    assert f"helm pull {origin} --version {pin.version} --untar -d {tmp_path}" in message
    assert "pulumi config rm charts:source" in message


def test_a_pin_is_read_by_name(tmp_path):
    path = tmp_path / "charts.yaml"
    path.write_text(yaml.safe_dump({HTTP.name: {"repository": HTTP.repository, "version": HTTP.version}}))
    assert read_pin(HTTP.name, path) == HTTP
    path.write_text(yaml.safe_dump({OCI.name: {"oci": OCI.oci, "version": OCI.version}}))
    assert read_pin(OCI.name, path) == OCI


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other: {repository: https://x, version: '1'}", "charts.yaml has no chart wanted; it has other"),
        ("", "charts.yaml has no chart wanted; it has none"),
        ("wanted: {repository: https://x}", "charts.yaml: wanted has repository; expected version and either"),
        (
            "wanted: {repository: https://x, oci: oci://x, version: '1'}",
            "wanted has oci, repository, version; expected",
        ),
        ("wanted: {repository: https://x, version: 1.10}", "version and either repository or oci"),
        ("wanted: 1.10", "charts.yaml: wanted is not a map; expected version and either"),
    ],
)
def test_a_wrong_entry_is_an_error_that_names_it(tmp_path, text, message):
    path = tmp_path / "charts.yaml"
    path.write_text(text)
    with pytest.raises(pulumi.RunError) as failure:
        read_pin("wanted", path)
    assert message in str(failure.value)


def test_every_pin_is_complete():
    for name in yaml.safe_load(PINS.read_text()):
        pin = read_pin(name)
        assert pin.repository.startswith("https://") or pin.oci.startswith("oci://")


ROOT = Path(__file__).resolve().parents[2]
USING = [
    service
    for service in SERVICES
    if any(USES_CHARTS in path.read_text() for path in (ROOT / "pulumi" / service.folder).glob("*.py"))
]


def charts_of(service, **changed):
    folder = ROOT / "pulumi" / service.folder
    config = settings_for(service, StackFile.read(folder / "Pulumi.lab.yaml")) | changed
    given = {
        "config": config,
        "secrets": [key for key, value in config.items() if value == PLACEHOLDER],
        "outputs": outputs_for(service),
    }
    argv = [sys.executable, ROOT / "scripts" / "chart_inputs.py", folder]
    return subprocess.run(argv, input=json.dumps(given), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("service", USING, ids=lambda service: service.name)
def test_every_program_says_its_charts_and_gives_them_no_secret(service):
    done = charts_of(service)
    assert done.returncode == 0, done.stderr
    charts = json.loads(done.stdout)
    assert charts and all(Path(chart["chart"]).is_relative_to(ROOT / "lab" / "charts") for chart in charts)
    assert PLACEHOLDER not in done.stdout


def test_wrong_settings_are_reported_without_a_traceback():
    (service,) = [service for service in USING if service.name == "cnpg"]
    done = charts_of(service, **{"cnpg:namespace": "Not A Label"})
    assert done.returncode == 2 and "cnpg:namespace" in done.stderr and "Traceback" not in done.stderr


def test_values_taken_away_reach_helm_as_null():
    (service,) = [service for service in USING if service.name == "superset"]
    (chart,) = json.loads(charts_of(service).stdout)
    assert chart["values"]["init"]["jobAnnotations"] is None and chart["values"]["init"]["enabled"] is True
