"""A service that needs ESC on a file backend: left out of everything, refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runbooks.core.errors import Usage
from runbooks.stacks import preview
from tests.unit.stage import TREE, Stage

BOUND = replace(TREE[3], environment="app/prod")
LAYERS = [TREE[:2], (TREE[2],), (BOUND,)]


def staged(tmp_path: Path, settings: str = "environment:\n  - app/prod\n") -> Stage:
    """Its stack file binds the environment."""
    stage = Stage(tmp_path, {})
    path = stage.stack(BOUND).settings_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(settings)
    return stage


def test_left_out_of_everything_and_named(tmp_path: Path) -> None:
    stage = staged(tmp_path)
    kept = preview.without_esc(stage, ("net", "op", "db", "app"), LAYERS)  # type: ignore[arg-type]
    assert kept == [TREE[:2], (TREE[2],)]
    assert "app: left out: file://x does not support Pulumi ESC" in stage.reporter.text


def test_refused_by_name_with_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(Usage) as refused:
        preview.without_esc(staged(tmp_path), ("app",), LAYERS)  # type: ignore[arg-type]
    assert refused.value.exit_code == 2
    assert "pulumi login --cloud" in refused.value.next_step and "esc.unbind app/prod" in refused.value.next_step


def test_the_way_out_is_one(tmp_path: Path) -> None:
    """Unbound, with settings of its own, it is planned like any other service."""
    stage = staged(tmp_path, "config:\n  app:x: y\n")
    assert preview.without_esc(stage, ("app",), LAYERS) == LAYERS  # type: ignore[arg-type]
    assert preview.without_esc(stage, ("db", "app"), LAYERS) == LAYERS  # type: ignore[arg-type]


def test_on_the_cloud_nothing_is_left_out(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {})
    stage.target.has_diy_backend = False
    assert preview.without_esc(stage, ("app",), LAYERS) == LAYERS  # type: ignore[arg-type]
