"""A service that needs ESC on a file back end: left out of everything, refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runbooks import planning
from runbooks.lib.errors import Usage
from tests.unit.stage import TREE, Stage

BOUND = replace(TREE[3], environment="app/prod")
LAYERS = [TREE[:2], (TREE[2],), (BOUND,)]


def test_left_out_of_everything_and_named(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {})
    kept = planning.without_esc(stage, ("net", "op", "db", "app"), LAYERS)  # type: ignore[arg-type]
    assert kept == [TREE[:2], (TREE[2],)]
    assert "app: left out: file://x does not support Pulumi ESC" in stage.reporter.text


def test_refused_by_name_with_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(Usage) as refused:
        planning.without_esc(Stage(tmp_path, {}), ("app",), LAYERS)  # type: ignore[arg-type]
    assert refused.value.exit_code == 2
    assert "pulumi login --cloud" in refused.value.next_step and "esc.unbind app/prod" in refused.value.next_step


def test_on_the_cloud_nothing_is_left_out(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {})
    stage.target.has_diy_backend = False
    assert planning.without_esc(stage, ("app",), LAYERS) == LAYERS  # type: ignore[arg-type]
