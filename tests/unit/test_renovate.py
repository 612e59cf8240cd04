"""renovate.json finds every version that it has to raise: charts, images, and uv."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CONFIG = json.loads((ROOT / "renovate.json").read_text("utf-8"))


def found_in(path: Path) -> list[dict[str, Any]]:
    """What its regular expressions find in a file. A named group is written (?<name>…) there."""
    name = path.relative_to(ROOT).as_posix()
    return [
        {**fixed_facts(manager), **found.groupdict()}
        for manager in CONFIG["customManagers"]
        if any(re.search(pattern.strip("/"), name) for pattern in manager["managerFilePatterns"])
        for expression in manager["matchStrings"]
        for found in re.finditer(expression.replace("(?<", "(?P<"), path.read_text("utf-8"))
    ]


def fixed_facts(manager: dict[str, Any]) -> dict[str, str]:
    return {key.removesuffix("Template"): value for key, value in manager.items() if key.endswith("Template")}


def test_every_chart_is_found_with_its_version_and_where_it_comes_from() -> None:
    found = {each["depName"]: each for each in found_in(ROOT / "charts.yaml")}
    charts = yaml.safe_load((ROOT / "charts.yaml").read_text("utf-8"))
    assert len(found) == len(charts)
    for name, chart in charts.items():
        each = found[chart.get("oci", name).removeprefix("oci://")]
        assert each["currentValue"] == chart["version"]
        assert each["datasource"] == ("docker" if "oci" in chart else "helm")
        assert each.get("registryUrl") == chart.get("repository")


def test_every_image_of_the_programs_is_found() -> None:
    files = [*(ROOT / "pulumi").rglob("*.py"), *(ROOT / "pulumi").rglob("Pulumi.mx.yaml")]
    found = {path.parent.name: each for path in files for each in found_in(path)}
    images = re.compile(
        r"^(?: *image\w*: str = setting\(.*default=|IMAGE = )\"(.*[0-9].*)\"|^  \w+:image: (.*)$", re.MULTILINE
    )
    pinned = {path.parent.name: pin for path in files for pin in images.findall(path.read_text("utf-8"))}
    assert len(pinned) >= 6
    for folder, pin in pinned.items():
        assert "".join(pin).endswith(found[folder]["currentValue"]), folder
        assert "/" in found[folder]["depName"]


def test_uv_is_found() -> None:
    (uv,) = found_in(ROOT / "inv")
    assert uv["depName"] == "uv" and uv["currentValue"][0].isdigit()
