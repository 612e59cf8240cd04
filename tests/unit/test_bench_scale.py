"""What the benchmark of many services makes, and how it computes its figures."""

from __future__ import annotations

from typing import Any

import pytest

from runbooks.stacks.service import layers
from scripts.bench_platform import missed
from scripts.bench_scale import FEW, LAYERS, MANY, SERVICES, Use, changing_preview, figures_of, peak_memory


@pytest.mark.parametrize("count", [0, FEW, MANY])
def test_the_services_are_a_graph_of_twenty_layers(count: int) -> None:
    made: dict[str, Any] = {}
    exec(SERVICES.format(count=count, width=max(1, count // LAYERS)), made)
    found = layers([service.name for service in made["SERVICES"]], made["SERVICES"])
    assert [len(layer) for layer in found] == [count // LAYERS] * (LAYERS if count else 0)


def test_the_figures_are_what_many_services_cost_beyond_none() -> None:
    none, few = Use(cpu=1.0, peak=40.0), Use(cpu=1.2, peak=50.0)
    figures = figures_of("status", none, few, Use(cpu=1.0 + MANY * 0.004, peak=55.0))
    assert [round(figure.value, 3) for figure in figures] == [4.0, 55.0, 1.1] and not missed(figures)
    assert len(missed(figures_of("status", none, few, Use(cpu=1.0 + MANY * 0.006, peak=160.0)))) == len(figures)


def test_the_plan_summary_gets_changes_and_memory_is_measured() -> None:
    assert {step["op"] for step in changing_preview()["steps"]} == {"update"}
    assert peak_memory() > 1 and peak_memory(0) == 0
