"""The benchmarks: what they read from a run's journal and make, and how measures become figures with bounds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runbooks.stacks.service import layers
from scripts import bench_cli
from scripts.bench_cli import Lab, deploys
from scripts.bench_platform import (
    NotMeasured,
    Round,
    Run,
    as_json,
    as_table,
    as_typed,
    figures_of,
    missed,
    run_of,
    with_uv,
)
from scripts.bench_scale import FEW, LAYERS, MANY, SERVICES, Use, changing_preview, peak_memory
from scripts.bench_scale import figures_of as figures_of_scale

PULUMI = "/opt/bin/pulumi"
VERSION = "v3.274.1"


def preview(project: str, *settings: str) -> list[str]:
    words = ("-C", f"/home/pulumi/{project}", "preview", "--json", "--show-replacement-steps", "--stack", "lab")
    return [PULUMI, *words, *settings, "--non-interactive"]


def command(argv: list[str], cpu: float, exit_code: int = 0) -> dict[str, Any]:
    return {"kind": "command", "argv": argv, "cpu_seconds": cpu, "exit_code": exit_code}


def journal(*commands: dict[str, Any], task: str = "preview.all") -> list[dict[str, Any]]:
    head = [{"kind": "run", "task": task}, {"kind": "target", "pulumi": VERSION}]
    return [*head, *commands, {"kind": "end", "exit_code": 0, "own_cpu_seconds": 0.5}]


def test_of_a_run_the_previews_are_taken_and_all_children_counted() -> None:
    records = journal(command([PULUMI, "version"], 0.25), command(preview("a"), 2.0), command(preview("b"), 1.0))
    run = run_of(records)
    assert run.previews == (tuple(preview("a")), tuple(preview("b")))
    assert (run.children, run.children_cpu, run.own_cpu, run.pulumi) == (3, 3.25, 0.5, VERSION)


@pytest.mark.parametrize(
    "records",
    [
        [],
        journal(command([PULUMI, "version"], 0.25)),
        journal(command(preview("a"), 2.0), task="deploy.all"),
        journal(command(preview("a"), 2.0))[:-1],
        journal(command(preview("a"), 2.0), command([PULUMI, "version"], 0.25, exit_code=1)),
    ],
    ids=["empty", "no preview", "another task", "cut off", "a failure"],
)
def test_anything_but_a_whole_run_is_not_measured(records: list[dict[str, Any]]) -> None:
    with pytest.raises(NotMeasured):
        run_of(records)


@pytest.mark.parametrize("settings", [(), ("--config-file", "/state/Pulumi.lab.yaml")])
def test_as_a_person_types_it(settings: tuple[str, ...]) -> None:
    folder, argv = as_typed(preview("a", *settings))
    assert folder == Path("/home/pulumi/a")
    assert argv == [PULUMI, "preview", "--stack", "lab", *settings]


@pytest.mark.parametrize("is_on_path", [True, False])
def test_uv_is_found_on_path_or_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_on_path: bool) -> None:
    bin_folder = tmp_path / ("path" if is_on_path else "homelab-ops/uv-0.13.9/bin")
    bin_folder.mkdir(parents=True)
    (bin_folder / "uv").touch(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = shutil.which("uv", path=with_uv({"PATH": str(tmp_path / "path")})["PATH"])
    assert found == str(bin_folder / "uv")


def one(wall: float, cpu: float, by_hand: float, *, pulumi: str = VERSION, own: float = 0.2) -> Round:
    run = Run(previews=(("a",), ("b",)), children=6, children_cpu=cpu + 1, own_cpu=own, pulumi=pulumi)
    return Round(run=run, wall=wall, previews_cpu=cpu, by_hand=by_hand)


def test_the_best_of_each_measure_counts() -> None:
    figures = figures_of([one(13.0, 20.0, 33.0), one(11.0, 22.0, 33.0)], cores=2)
    assert [figure.value for figure in figures] == pytest.approx([1.1, 3.0, 0.1, 3.0])
    assert missed(figures) == []


@pytest.mark.parametrize(
    ("measures", "found"),
    [
        ({"wall": 12.6, "cpu": 20.0, "by_hand": 40.0}, "the limit of the processors"),
        ({"wall": 11.0, "cpu": 20.0, "by_hand": 40.0, "own": 0.4}, "its own CPU"),
    ],
)
def test_each_bound_can_be_missed(measures: dict[str, Any], found: str) -> None:
    (name,) = missed(figures_of([one(**measures)], cores=2))
    assert found in name


@pytest.mark.parametrize(("own", "is_missed"), [(0.5, False), (2.0, True)])
def test_own_cpu_is_compared_with_the_children_of_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: float, is_missed: bool
) -> None:
    *records, end = journal(command(preview("a"), 6.0), command([PULUMI, "up"], 4.0), task="deploy.postgres")
    monkeypatch.setattr(Lab, "inv", lambda *_: 1.0)
    monkeypatch.setattr(bench_cli, "runs_of", lambda _: [tmp_path])
    monkeypatch.setattr(bench_cli, "read_journal", lambda _: [*records, end | {"own_cpu_seconds": own}])
    (figure,) = [figure for figure in deploys(Lab(state=tmp_path)) if figure.unit == "x"]
    assert figure.value == pytest.approx(own / 10)
    assert bool(missed([figure])) is is_missed


def test_a_table_for_people_and_an_object_for_programs() -> None:
    rounds = [one(12.0, 20.0, 30.0)]
    figures = figures_of(rounds, cores=2)
    assert len(as_table(rounds, figures).splitlines()) == 1 + len(figures)
    facts = json.loads(as_json(rounds, figures, load=0.5))
    assert facts["rounds"] == [{"wall": 12.0, "previews_cpu": 20.0, "by_hand": 30.0, "elsewhere": 0.0}]
    assert facts["figures"][0]["value"] == pytest.approx(1.2)


def test_a_lab_of_its_own_is_gone_also_after_a_sigterm() -> None:
    program = "from bench_cli import own_lab\nwith own_lab() as lab:\n    print(lab.state, flush=True)\n    input()"
    folder = Path(__file__).parents[2] / "scripts"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], cwd=folder, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        state = Path(child.stdout.readline().strip())
        assert state.is_dir()
        child.terminate()
        assert child.wait(60) == 143
    assert not state.exists()


@pytest.mark.parametrize("count", [0, FEW, MANY])
def test_the_services_are_a_graph_of_twenty_layers(count: int) -> None:
    made: dict[str, Any] = {}
    exec(SERVICES.format(count=count, width=max(1, count // LAYERS)), made)
    found = layers([service.name for service in made["SERVICES"]], made["SERVICES"])
    assert [len(layer) for layer in found] == [count // LAYERS] * (LAYERS if count else 0)


def test_the_figures_are_what_many_services_cost_beyond_none() -> None:
    none, few = Use(cpu=1.0, peak=40.0), Use(cpu=1.2, peak=50.0)
    figures = figures_of_scale("status", none, few, Use(cpu=1.0 + MANY * 0.004, peak=55.0))
    assert [round(figure.value, 3) for figure in figures] == [4.0, 55.0, 1.1] and not missed(figures)
    assert len(missed(figures_of_scale("status", none, few, Use(cpu=1.0 + MANY * 0.006, peak=160.0)))) == len(figures)


def test_the_plan_summary_gets_changes_and_memory_is_measured() -> None:
    assert {step["op"] for step in changing_preview()["steps"]} == {"update"}
    assert peak_memory() > 1 and peak_memory(0) == 0
