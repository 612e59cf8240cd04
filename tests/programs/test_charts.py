"""`pulumi/lib/charts.py`: what `charts.yaml` pins, and where charts come from instead."""

from __future__ import annotations

import pulumi
import pytest
import yaml
from lib.charts import PINS, Location, Pin, locate, read_pin

HTTP = Pin(name="tailscale-operator", version="1.2.3", repository="https://pkgs.example/helmcharts")
OCI = Pin(name="cert-manager", version="v1.2.3", oci="oci://quay.example/charts/cert-manager")


@pytest.mark.parametrize(
    ("pin", "source", "location"),
    [
        (HTTP, None, Location(chart="tailscale-operator", version="1.2.3", repository=HTTP.repository)),
        (HTTP, "", Location(chart="tailscale-operator", version="1.2.3", repository=HTTP.repository)),
        (OCI, None, Location(chart=OCI.oci, version="v1.2.3")),
        (
            HTTP,
            "oci://mirror.home/charts/",
            Location(chart="oci://mirror.home/charts/tailscale-operator", version="1.2.3"),
        ),
        (OCI, "oci://mirror.home/charts", Location(chart="oci://mirror.home/charts/cert-manager", version="v1.2.3")),
        (
            OCI,
            "https://mirror.home",
            Location(chart="cert-manager", version="v1.2.3", repository="https://mirror.home"),
        ),
        (HTTP, "http://127.0.0.1:8/c", Location(chart=HTTP.name, version="1.2.3", repository="http://127.0.0.1:8/c")),
    ],
)
def test_published_place_or_mirror(pin, source, location):
    assert locate(pin, source) == location


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
