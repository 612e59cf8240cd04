#!/usr/bin/env python3
"""Measure `./inv preview.all` against the limit of the processors and against manual previews one by one.

    scripts/bench_platform.py [--rounds N] [--json] [--check]

It uses the lab of OPS_STATE, or a temporary one, deploys the platform there if needed, and uses the same pulumi as the
runbooks. Each round takes three measures, and the best of each counts:

- the wall-clock time of `./inv preview.all --fresh`, which previews every stack;
- the limit: the same previews with the same arguments, one per core at a time; their CPU seconds (user and system, with
  children) divided by the cores;
- the wall-clock time of the handbook's `cd PROJECT && pulumi preview --stack STACK`, one project after the other.

Then it measures what is left to do when little or nothing changed: `preview.all` without a change, with one file of
Glance changed, and with other outputs of Postgres; and `deploy.all` again, with every check of `verify.all`. The two
changed files are put back. Which stacks were asked is counted from the journal.

`--json` prints one object, `--check` exits 1 if a limit is missed. A measurement that fails prints the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench_cli import INV, ROOT, Figure, NotMeasured, cpu_of_children, own_lab, run_command, timed

from runbooks.core.environment import child_environment
from runbooks.core.journal import read_journal, runs_of
from runbooks.core.parallel import processors
from runbooks.core.search_path import cache_folder
from runbooks.services import SERVICES

CORES = processors()
TASK = "preview.all"
FRESH = (TASK, "--fresh")
ROUNDS = 3
UNCHANGED, CHANGES = 0, 7
"""Exit codes of `preview.all --expect-no-changes` on a deployed platform and on another."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The journal of a run of `preview.all`."""

    previews: tuple[tuple[str, ...], ...]
    """The arguments of each preview it started."""
    children: int
    children_cpu: float
    own_cpu: float
    pulumi: str
    """The version, such as `v3.274.1`."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round's measures, in seconds."""

    run: Run
    wall: float
    previews_cpu: float
    by_hand: float
    elsewhere: float = 0.0
    """CPU seconds of other processes during `wall`, including the lab's servers."""


def run_of(records: Sequence[Mapping[str, Any]]) -> Run:
    """Read the records of a complete `preview.all`. Raises NotMeasured for anything else."""
    commands = [record for record in records if record["kind"] == "command"]
    previews = [tuple(record["argv"]) for record in commands if "preview" in record["argv"]]
    end = next((record for record in records if record["kind"] == "end"), None)
    if not records or records[0].get("task") != TASK or end is None or not previews:
        raise NotMeasured(f"the newest journal is not the complete record of a {TASK}")
    if any(record["exit_code"] for record in commands):
        raise NotMeasured(f"a command of {TASK} failed")
    return Run(
        previews=tuple(previews),
        children=len(commands),
        children_cpu=sum(float(record["cpu_seconds"]) for record in commands),
        own_cpu=float(end["own_cpu_seconds"]),
        pulumi=next((str(record["pulumi"]) for record in records if record["kind"] == "target"), ""),
    )


def as_typed(preview: Sequence[str]) -> tuple[Path, list[str]]:
    """Return folder and arguments of the handbook's command for the same stack, config and pulumi."""
    options = dict(itertools.pairwise(preview))
    settings = ["--config-file", options["--config-file"]] if "--config-file" in options else []
    return Path(options["-C"]), [preview[0], "preview", "--stack", options["--stack"], *settings]


def figures_of(rounds: Sequence[Round], cores: int) -> list[Figure]:
    """Compute ratios and the runbooks' own cost from the best of each measure."""
    best = min(rounds, key=lambda each: each.wall)
    run, stacks = best.run, len(best.run.previews)
    cpu, by_hand = min(each.previews_cpu for each in rounds), min(each.by_hand for each in rounds)
    limit = cpu / cores
    return [
        Figure(
            name=f"./inv {' '.join(FRESH)}, against the limit of the processors",
            value=best.wall / limit,
            unit="x",
            limit=1.15,
            note=f"{best.wall:.1f} s and {limit:.1f} s ({cpu:.1f} CPU seconds of {stacks} previews, {cores} cores); "
            f"{best.elsewhere:.1f} CPU seconds of other processes, including the lab's servers",
        ),
        Figure(
            name=f"the handbook's commands, against ./inv {TASK}",
            value=by_hand / best.wall,
            unit="x",
            note=f"{by_hand:.1f} s one after the other",
        ),
        Figure(
            name="its own CPU for each stack, children excluded",
            value=run.own_cpu / stacks,
            unit="s",
            limit=0.15,
            note=f"{run.own_cpu:.2f} s; its children took {run.children_cpu:.1f} s",
        ),
        Figure(name="child processes for each stack", value=run.children / stacks, unit="", note=f"{run.children}"),
    ]


# Measuring


def environment_of(state: Path) -> dict[str, str]:
    """Return a child's environment as after `eval "$(./inv lab.env)"`."""
    from lab import platform

    return with_uv(child_environment(os.environ, {**platform.environment(state), "NO_COLOR": "1"}))


def with_uv(env: dict[str, str]) -> dict[str, str]:
    """The environment with uv on its PATH: pulumi starts uv by name. `./inv` adds its own copy in the same way."""
    if shutil.which("uv", path=env["PATH"]):
        return env
    return env | {"PATH": os.pathsep.join([env["PATH"], *map(str, cache_folder().glob("uv-*/bin"))])}


def cpu_together(previews: Sequence[Sequence[str]], env: Mapping[str, str]) -> float:
    """Run the commands, one per core at a time; return their CPU seconds."""
    before = cpu_of_children()
    with ThreadPoolExecutor(max_workers=CORES) as pool:
        list(pool.map(lambda argv: run_command(argv, env), previews))
    return cpu_of_children() - before


def busy_seconds() -> float:
    """Return the CPU seconds of all processes since boot, from /proc/stat; 0 where it does not exist."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def measure(state: Path, number: int) -> Round:
    """Take one round's measures on a deployed platform."""
    busy, ours = busy_seconds(), cpu_of_children()
    wall = timed([str(INV), *FRESH], {"OPS_STATE": str(state)})
    elsewhere = max(0.0, (busy_seconds() - busy) - (cpu_of_children() - ours))
    run, env = run_of(read_journal(runs_of(state)[-1])), environment_of(state)
    show_progress(f"round {number}: {TASK} {wall:.1f} s, and {elsewhere:.1f} CPU seconds of other processes")
    cpu = cpu_together(run.previews, env)
    show_progress(f"round {number}: its previews {cpu:.1f} CPU seconds")
    by_hand = sum(run_command(argv, env, folder) for folder, argv in map(as_typed, run.previews))
    show_progress(f"round {number}: one after the other {by_hand:.1f} s")
    return Round(run=run, wall=wall, previews_cpu=cpu, by_hand=by_hand, elsewhere=elsewhere)


# What is left to do when little changed

GLANCE = ROOT / "pulumi" / "apps" / "web" / "glance" / "page.py"
POSTGRES = ROOT / "pulumi" / "data" / "databases" / "postgres" / "__main__.py"


@contextlib.contextmanager
def appended(path: Path, text: str) -> Iterator[None]:
    """The file with a line more; it is put back byte for byte."""
    before = path.read_bytes()
    path.write_bytes(before + text.encode())
    try:
        yield
    finally:
        path.write_bytes(before)


def asked(state: Path) -> tuple[float, set[str], int]:
    """Run `preview.all`; return its seconds, the projects that pulumi previewed, and the environments opened."""
    seconds = timed([str(INV), TASK], {"OPS_STATE": str(state)})
    commands = [record["argv"] for record in read_journal(runs_of(state)[-1]) if record["kind"] == "command"]
    previewed = {Path(argv[argv.index("-C") + 1]).name for argv in commands if "preview" in argv}
    return seconds, previewed, sum("open" in argv for argv in commands)


def refuse_other(previewed: set[str], expected: set[str], after: str) -> None:
    if previewed != expected:
        raise NotMeasured(f"{after}, {sorted(previewed)} were asked, and {sorted(expected)} had to be")


def events_of(state: Path, task: str) -> tuple[float, list[dict[str, Any]]]:
    """Run the task; return its seconds and what it reports."""
    out = state / "bench-events.jsonl"
    command = f'"{INV}" --json {task} >"{out}"'
    seconds = timed(["/bin/sh", "-c", command], {"OPS_STATE": str(state)})
    events = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    out.unlink()
    return seconds, events


def count_checks(state: Path, task: str) -> tuple[float, int]:
    """Run the task; return its seconds and how many checks it reports."""
    seconds, events = events_of(state, task)
    return seconds, sum(event["event"] == "finding" for event in events)


def measure_unchanged(state: Path) -> list[Figure]:
    """Take the measures of a platform on which little or nothing changed."""
    runs = [asked(state) for _ in range(ROUNDS)]
    seconds, previewed, opened = min(runs, key=lambda run: run[0])
    refuse_other(previewed, set(), "without a change")
    show_progress(f"{TASK} without a change: {seconds:.1f} s")
    with appended(GLANCE, "\n# One line more.\n"):
        for_glance, previewed, _ = asked(state)
        refuse_other(previewed, {"glance"}, "with one file of Glance changed")
    show_progress(f"{TASK} with one file of Glance changed: {for_glance:.1f} s")
    asked(state)  # the file is as it was again, which is a change as well
    readers = {service.folder.rpartition("/")[2] for service in SERVICES if "postgres" in service.reads_outputs_of}
    try:
        with appended(POSTGRES, '\npulumi.export("one_more", 1)\n'):
            timed([str(INV), "deploy.postgres", "--only"], {"OPS_STATE": str(state)})
            for_readers, previewed, _ = asked(state)
            refuse_other(previewed, readers, "after other outputs of Postgres")
    finally:
        timed([str(INV), "deploy.all"], {"OPS_STATE": str(state)})
    show_progress(f"{TASK} after other outputs of Postgres: {for_readers:.1f} s")
    again, checks = count_checks(state, "deploy.all")
    alone, all_checks = count_checks(state, "verify.all")
    if checks != all_checks:
        raise NotMeasured(f"deploy.all ran {checks} checks, and verify.all {all_checks}")
    return [
        Figure(
            name=f"./inv {TASK}, nothing changed",
            value=seconds,
            unit="s",
            limit=3.0,
            note=f"no preview started, {opened} environments opened",
        ),
        Figure(name=f"./inv {TASK}, one file of Glance changed", value=for_glance, unit="s", note="only Glance asked"),
        Figure(
            name=f"./inv {TASK}, other outputs of Postgres",
            value=for_readers,
            unit="s",
            note=f"its {len(readers)} readers asked",
        ),
        Figure(
            name="./inv deploy.all again",
            value=again,
            unit="s",
            limit=20.0,
            note=f"{checks} checks, of which verify.all alone takes {alone:.1f} s",
        ),
    ]


def deploy_if_needed(state: Path) -> None:
    """Deploy everything, so that each measured preview shows no changes."""
    if _has_no_changes(state):
        return
    show_progress("deploying the platform first")
    timed([str(INV), "deploy.all"], {"OPS_STATE": str(state)})
    if not _has_no_changes(state):
        raise NotMeasured("the platform was deployed, but a preview still shows changes")


def _has_no_changes(state: Path) -> bool:
    timed([str(INV), TASK, "--expect-no-changes"], {"OPS_STATE": str(state)}, codes=(UNCHANGED, CHANGES))
    ends = [record for record in read_journal(runs_of(state)[-1]) if record["kind"] == "end"]
    return bool(ends) and ends[-1]["exit_code"] == UNCHANGED


@contextlib.contextmanager
def state_to_use() -> Iterator[Path]:
    """Use the state folder of OPS_STATE, which stays, or a temporary one."""
    if os.environ.get("OPS_STATE"):
        yield Path(os.environ["OPS_STATE"]).absolute()
    else:
        with own_lab() as lab:
            yield lab.state


# Output


def show_progress(text: str) -> None:
    """Print to standard error; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


def as_table(rounds: Sequence[Round], figures: Sequence[Figure]) -> str:
    head = f"{CORES} cores, pulumi {rounds[0].run.pulumi}, the best of {len(rounds)} rounds"
    return "\n".join([head, *(figure.line() for figure in figures)])


def as_json(rounds: Sequence[Round], figures: Sequence[Figure], load: float) -> str:
    names = ("wall", "previews_cpu", "by_hand", "elsewhere")
    measures = [{name: getattr(each, name) for name in names} for each in rounds]
    facts = {"cores": CORES, "load_before": load, "pulumi": rounds[0].run.pulumi, "rounds": measures}
    return json.dumps({**facts, "figures": [dataclasses.asdict(figure) for figure in figures]}, indent=1)


def missed(figures: Sequence[Figure]) -> list[str]:
    return [figure.name for figure in figures if figure.ratio is not None and figure.ratio > 1]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"number of rounds, by default {ROUNDS}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is missed")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    load = os.getloadavg()[0]
    if load > CORES / 2:
        show_progress(f"load {load:.1f} on {CORES} cores: busy, so the times are too long")
    try:
        with tempfile.TemporaryDirectory(prefix="ops-bench-") as bytecode, state_to_use() as state:
            os.environ["PYTHONPYCACHEPREFIX"] = bytecode
            deploy_if_needed(state)
            rounds = [measure(state, number) for number in range(1, options.rounds + 1)]
            unchanged = measure_unchanged(state)
    except NotMeasured as why:
        show_progress(f"not measured: {why}")
        return 1
    figures = [*figures_of(rounds, CORES), *unchanged]
    print(as_json(rounds, figures, load) if options.json else as_table(rounds, figures))
    if missed(figures):
        show_progress("missed: " + "; ".join(missed(figures)))
    return 1 if options.check and missed(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
