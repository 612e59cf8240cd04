"""scripts/chart_inputs.py: each program that uses charts says which, with its settings of the lab."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runbooks.services import SERVICES
from runbooks.stacks.chart_rendering import PLACEHOLDER, USES_CHARTS, outputs_for, settings_for
from runbooks.tools.stack_config import StackFile

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
