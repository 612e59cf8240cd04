#!/usr/bin/env python3
"""Measure the command line against its limits: start-up, lab, a run, the masker.

    scripts/bench_cli.py [--quick] [--strict]

The lab runs in a temporary state folder and uses the tools built before. `--quick` leaves the lab out, `--strict` exits
1 if a limit is missed. A measurement that fails prints the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bench_masker

from runbooks.core.journal import read_journal, runs_of

ROOT = Path(__file__).resolve().parent.parent
INV = ROOT / "inv"
PATIENCE = 1200.0
"""Seconds for one command: it may have to build the lab's programs first."""


class NotMeasured(Exception):
    """The reason why there is no figure."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value and its upper limit (for a rate: its lower limit)."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value by limit; above 1 the limit is missed."""
        if self.limit is None:
            return None
        return self.limit / self.value if self.at_least else self.value / self.limit

    def line(self) -> str:
        text = f"{self.name:58} {self.value:9.3f} {self.unit:5}"
        if self.limit is not None and self.ratio is not None:
            bound = f"{'>=' if self.at_least else '<='} {self.limit:g} {self.unit}".rstrip()
            text += f" {self.ratio:6.2f} of the limit ({bound}) {'ok' if self.ratio <= 1 else 'MISSED'}"
        return f"{text}  {self.note}".rstrip()


Measure = Callable[[], list[Figure]]


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The lab of this benchmark."""

    state: Path

    def inv(self, *arguments: str) -> float:
        """Run `./inv`, which must succeed; return wall-clock seconds."""
        return timed([str(INV), *arguments], {"OPS_STATE": str(self.state)})


def timed(argv: list[str], extra: dict[str, str], cwd: Path | None = None, *, codes: tuple[int, ...] = (0,)) -> float:
    """Run a command in this environment and `extra`. See `run_command`."""
    unwanted = ("OPS_TARGET", "OPS_JSON", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    return run_command(argv, environment | extra, cwd, codes=codes)


def run_command(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None, *, codes: tuple[int, ...] = (0,)
) -> float:
    """Run a command; return wall-clock seconds. Raises NotMeasured with its last lines if it fails."""
    begun = time.perf_counter()
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise NotMeasured(str(problem)) from problem
    seconds = time.perf_counter() - begun
    if done.returncode not in codes:
        lines = (done.stderr.strip() or done.stdout.strip()).decode("utf-8", "replace").splitlines()[-3:]
        raise NotMeasured(f"{' '.join(argv)} failed with exit {done.returncode}: {' / '.join(lines)}")
    return seconds


def cpu_of_children() -> float:
    """Return user and system seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start_up(rounds: int = 9) -> list[Figure]:
    """Measure `./inv --list` against an empty Invoke tasks file, alternating, so that both see the same load."""
    invoke = ROOT / ".venv" / "bin" / "inv"
    if not invoke.exists():
        raise NotMeasured(".venv/bin/inv does not exist; ./inv --list creates it")
    ours, empty = [], []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tasks.py").touch()
        timed([str(invoke), "--list"], {}, Path(folder), codes=(0, 1))
        timed([str(INV), "--list"], {})
        before = cpu_of_children()
        for _ in range(rounds):
            # invoke exits 1 if there are no tasks to list.
            empty.append(timed([str(invoke), "--list"], {}, Path(folder), codes=(0, 1)))
            ours.append(timed([str(INV), "--list"], {}))
    found = f"medians of {rounds}: {statistics.median(ours):.3f} s and {statistics.median(empty):.3f} s"
    cpu = f"CPU of both together {(cpu_of_children() - before) / rounds:.3f} s"
    return [
        Figure(
            name="./inv --list, against an empty Invoke tasks file",
            value=statistics.median(ours) / statistics.median(empty),
            unit="x",
            limit=2.0,
            note=found,
        ),
        Figure(name="./inv --list", value=statistics.median(ours), unit="s", limit=0.3, note=cpu),
    ]


def warm_start(lab: Lab) -> list[Figure]:
    first = lab.inv("lab.up")
    lab.inv("lab.down")
    warm = lab.inv("lab.up")
    return [Figure(name="lab, warm start", value=warm, unit="s", limit=8.0, note=f"first start here: {first:.1f} s")]


def deploys(lab: Lab) -> list[Figure]:
    """Measure a second `./inv deploy.postgres`, which changes nothing."""
    first = lab.inv("deploy.postgres")
    second = lab.inv("deploy.postgres")
    journal = runs_of(lab.state)[-1]
    records = read_journal(journal)
    commands = [record for record in records if record["kind"] == "command"]
    ends = [record for record in records if record["kind"] == "end"]
    if not ends or records[0].get("task") != "deploy.postgres":
        raise NotMeasured(f"{journal} is not the complete record of a deploy.postgres")
    stacks = sum("preview" in record["argv"] for record in commands)
    if not stacks:
        raise NotMeasured(f"{journal} has no preview")
    own = float(ends[-1]["own_cpu_seconds"])
    theirs = sum(float(record["cpu_seconds"]) for record in commands)
    return [
        Figure(name="second deploy.postgres", value=second, unit="s", limit=15.0, note=f"the first: {first:.1f} s"),
        Figure(
            name="its own CPU, against its children's",
            value=own / theirs,
            unit="x",
            limit=0.15,
            note=f"{own:.2f} s and {theirs:.1f} s, for {stacks} stacks",
        ),
        Figure(
            name="child processes", value=len(commands), unit="", note=f"{len(commands) / stacks:.1f} for each stack"
        ),
    ]


def memory(lab: Lab) -> list[Figure]:
    from lab.platform import status

    components = {component.name: component.memory or 0 for component in status(lab.state)}
    if not any(components.values()):
        raise NotMeasured("no component of the lab reports its memory")
    largest = max(components, key=lambda name: components[name])
    return [
        Figure(
            name="memory of the lab with Postgres running",
            value=sum(components.values()) / 1e9,
            unit="GB",
            limit=1.0,
            note=f"largest: {largest}, {components[largest] / sum(components.values()):.2f} of it",
        )
    ]


def masker() -> list[Figure]:
    found = bench_masker.measure()
    return [
        Figure(
            name=f"masker, {bench_masker.SECRETS} secrets, reads of {bench_masker.READ_SIZE} bytes",
            value=found["reads"],
            unit="MB/s",
            limit=150.0,
            at_least=True,
            note=f"{found['reads'] / found['naive']:.1f}x of a naive masker; CPU time",
        )
    ]


@contextlib.contextmanager
def own_lab() -> Iterator[Lab]:
    """Use a temporary state folder; stop the lab and remove the folder afterwards, also after a SIGTERM."""
    former = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    state = Path(tempfile.mkdtemp(prefix="ops-bench-"))
    lab = Lab(state=state)
    try:
        yield lab
    finally:
        with contextlib.suppress(NotMeasured):
            lab.inv("lab.down")
        shutil.rmtree(state, ignore_errors=True)
        signal.signal(signal.SIGTERM, former)


def report(name: str, measure: Measure) -> list[Figure]:
    """Measure and print; a failed measurement prints its reason and does not stop the others."""
    try:
        figures = measure()
    except NotMeasured as why:
        print(f"{name:58} not measured: {why}", flush=True)
        return []
    except (ImportError, KeyError, ValueError, OSError) as why:
        print(f"{name:58} not measured: {type(why).__name__}: {why}", flush=True)
        return []
    for figure in figures:
        print(figure.line(), flush=True)
    return figures


def measure_all(*, with_lab: bool) -> list[Figure]:
    figures = [*report("start-up", start_up), *report("masker", masker)]
    if with_lab:
        with own_lab() as lab:
            figures += report("lab, warm start", lambda: warm_start(lab))
            figures += report("second deploy.postgres", lambda: deploys(lab))
            figures += report("memory of the lab", lambda: memory(lab))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave the lab out")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a limit is missed")
    options = parser.parse_args()
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    print(f"{cores} cores, load {load:.1f}" + (": busy, so times are too long" if load > cores else ""))
    # With compiled modules, as in every later run of a user, but not in this repository.
    with tempfile.TemporaryDirectory(prefix="ops-bench-") as bytecode:
        os.environ["PYTHONPYCACHEPREFIX"] = bytecode
        figures = measure_all(with_lab=not options.quick)
    missed = [figure.name for figure in figures if figure.ratio is not None and figure.ratio > 1]
    if missed:
        print("missed: " + "; ".join(missed))
    return 1 if missed and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())
