#!/usr/bin/env python3
"""Measure what the toolkit itself needs for many services: its own processor time and memory, without its children.

    scripts/bench_scale.py [--check]

It copies the checkout, deploys Glance on a lab of its own, and makes 1,000 services of it, in a graph 20 deep: copies
of its project folder, of its record, and of its state, which the lab's cloud imports. Then nothing has changed, and
`./inv preview.all` and `./inv status` run for all of them, for 100 and for none. The plan summary is measured with as
many stacks that change, whose previews are handed over as data.

`--check` exits 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench_cli import Figure, NotMeasured, own_lab
from bench_platform import missed, show_progress

from runbooks.core.journal import read_journal, runs_of
from tests.lab.command_line import copy_checkout

LAYERS = 20
MANY, FEW = 1000, 100
MODEL = "glance"
MODEL_FOLDER = f"apps/web/{MODEL}"
TASKS = ("preview.all", "status")
CPU_LIMIT, MEMORY_LIMIT, GROWTH_LIMIT = 5.0, 150.0, 1.2
SERVICES = '''\
"""The services of a benchmark."""

from runbooks.stacks.service import Service, find

COUNT, WIDTH = {count}, {width}


def _service(number: int) -> Service:
    needs = tuple(f"s{{number - back:04}}" for back in (WIDTH, WIDTH + 1) if number >= back)
    name = f"s{{number:04}}"
    return Service(name=name, folder=f"scale/{{name}}", about="One of many", needs=needs, reads_outputs_of=needs[:1])


SERVICES = tuple(map(_service, range(COUNT)))


def find_service(name: str) -> Service:
    return find(SERVICES, name)
'''
"""In place of `runbooks/services.py`."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a process used, without its children."""

    cpu: float
    """Seconds, user and system."""
    peak: float
    """Megabytes of memory."""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A copy of the checkout with services of its own, and the state folder of its lab."""

    root: Path
    state: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPS_", "PULUMI_"))}
        return kept | {"OPS_STATE": str(self.state)}

    def inv(self, *words: str) -> float:
        """Run `./inv`; return its peak memory in megabytes. Raises NotMeasured if it fails."""
        return run([str(self.root / "inv"), *words], self.environment)[1]

    def call(self, function: str) -> Any:
        """What a function of this module returns in a process of the copy."""
        program = f"import json; from scripts import bench_scale; print(json.dumps(bench_scale.{function}))"
        argv = [str(self.root / ".venv" / "bin" / "python"), "-c", program]
        return json.loads(run(argv, self.environment, self.root)[0].splitlines()[-1])

    def write_services(self, count: int) -> None:
        text = SERVICES.format(count=count, width=max(1, count // LAYERS))
        (self.root / "runbooks" / "services.py").write_text(text)


def run(argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> tuple[str, float]:
    """Run a command; return what it printed and its peak memory. Raises NotMeasured with its last lines if it fails."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        peak = 0.0
        while child.poll() is None:
            peak = max(peak, peak_memory(child.pid))
            time.sleep(0.02)
        out.seek(0)
        printed = out.read()
    if child.returncode:
        raise NotMeasured(f"{' '.join(argv)} failed: {' / '.join(printed.splitlines()[-3:])}")
    return printed, peak


def peak_memory(pid: int | str = "self") -> float:
    """The largest resident set that the process had so far, in megabytes; 0 if it has ended.

    Not `ru_maxrss`: that begins with the memory of the process that started it.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def name_of(number: int) -> str:
    return f"s{number:04}"


# What 1,000 services need


def write_projects(root: Path) -> None:
    """Copy the folder of the model for each service, with the service's name in it."""
    model = root / "pulumi" / MODEL_FOLDER
    texts = {path.name: path.read_text("utf-8") for path in model.iterdir() if path.is_file()}
    for number in range(MANY):
        folder = root / "pulumi" / "scale" / name_of(number)
        folder.mkdir(parents=True)
        for name, text in texts.items():
            fitted = text.replace("../../../../.venv", "../../../.venv").replace(MODEL, name_of(number))
            (folder / name).write_text(fitted, "utf-8")


def import_states(copy: Copy) -> None:
    """Make each service's stack in the lab's cloud, and import the state of the model into it."""
    target = json.loads((copy.state / "lab" / "target.json").read_text("utf-8"))
    token = Path(target["token_file"]).read_text("ascii").strip()
    stacks = f"{target['backend']}/api/stacks/{target['organization']}"

    def ask(address: str, body: str | None = None) -> str:
        headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
        data = None if body is None else body.encode()
        request = urllib.request.Request(f"{stacks}/{address}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())

    model = ask(f"{MODEL}/{target['stack']}/export")

    def fill(number: int) -> None:
        name = name_of(number)
        ask(name, json.dumps({"stackName": target["stack"]}))
        ask(f"{name}/{target['stack']}/import", model.replace(MODEL, name))

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(fill, range(MANY)))


@contextlib.contextmanager
def session_of_copy() -> Iterator[Any]:
    from runbooks.run import open_session

    options = SimpleNamespace(target="", json=False, report="")
    with open_session(SimpleNamespace(config=SimpleNamespace(ops=options)), "bench.scale") as session:
        yield session


def write_records(model: Mapping[str, Any]) -> int:
    """Write the record of each service, with what the model's program read."""
    from runbooks.stacks.fingerprint import Reads, fingerprint_of, write_record
    from runbooks.stacks.preparation import prepare

    with session_of_copy() as session:
        for service in session.services:
            files = (path.replace(MODEL_FOLDER, service.folder) for path in model["files"])
            variables = (name.replace(MODEL.upper(), service.name.upper()) for name in model["variables"])
            reads = Reads(files=tuple(files), variables=tuple(variables), complete=True)
            stack = prepare(session, service)
            write_record(session, stack, fingerprint_of(session, service), reads, applied=True)
        return len(session.services)


# Measuring


def use_of(copy: Copy, task: str, count: int) -> Use:
    """Run a task for so many services. Raises NotMeasured if it started a process for one of them."""
    copy.inv(task)  # compiles modules
    peak = copy.inv(task)
    records = read_journal(runs_of(copy.state)[-1])
    commands = [record["argv"] for record in records if record["kind"] == "command"]
    if any("preview" in argv or "export" in argv for argv in commands):
        raise NotMeasured(f"{task} of {count} unchanged services started {len(commands)} processes")
    end = next(record for record in records if record["kind"] == "end")
    show_progress(f"{task} of {count} services: {end['own_cpu_seconds']:.2f} s of CPU, {peak:.0f} MB")
    return Use(cpu=float(end["own_cpu_seconds"]), peak=peak)


def summarise() -> dict[str, float]:
    """Show the plan summary of all services, each with changes; return what that used in this process."""
    from runbooks.stacks.plan import RunPlan, plan_of
    from runbooks.stacks.summary import show_plan
    from runbooks.tools.pulumi import Export, read_preview

    preview, nothing = read_preview(json.dumps(changing_preview())), Export(resources=())
    with session_of_copy() as session:
        plans = tuple(plan_of(session.stack(service), preview, export=nothing) for service in session.services)
        began = time.process_time()
        show_plan(session, RunPlan(layers=(plans,), target=session.target.name))
        return asdict(Use(cpu=time.process_time() - began, peak=peak_memory()))


def changing_preview() -> dict[str, Any]:
    """The answer of `preview --json` about a ConfigMap with another value, and the Deployment that mounts it."""

    def step(op: str, kind: str, old: Mapping[str, Any], new: Mapping[str, Any], *paths: str) -> dict[str, Any]:
        urn = f"urn:pulumi:lab::{MODEL}::kubernetes:{kind}::{MODEL}"
        sides = {"oldState": {"urn": urn, "inputs": old}, "newState": {"urn": urn, "inputs": new}}
        detail = {path: {"kind": op, "inputDiff": True} for path in paths}
        return {"op": op, "urn": urn, **sides, "detailedDiff": detail}

    page = {"data": {"glance.yml": "title: Home\n" * 20}}
    other = {"data": {"glance.yml": "title: House\n" * 20}}
    image = {"spec": {"template": {"spec": {"containers": [{"name": MODEL, "image": "glance:v0.8.4"}]}}}}
    newer = {"spec": {"template": {"spec": {"containers": [{"name": MODEL, "image": "glance:v0.8.5"}]}}}}
    steps = [
        step("update", "core/v1:ConfigMap", page, other, 'data["glance.yml"]'),
        step("update", "apps/v1:Deployment", image, newer, "spec.template.spec.containers[0].image"),
    ]
    return {"steps": steps, "changeSummary": {"update": 2, "same": 5}}


def figures_of(name: str, none: Use, few: Use, many: Use) -> list[Figure]:
    return [
        Figure(
            name=f"{name}: its own CPU for each of {MANY} services",
            value=(many.cpu - none.cpu) / MANY * 1000,
            unit="ms",
            limit=CPU_LIMIT,
            note=f"{many.cpu:.2f} s, and {none.cpu:.2f} s with none",
        ),
        Figure(name=f"{name}: peak memory at {MANY}", value=many.peak, unit="MB", limit=MEMORY_LIMIT),
        Figure(
            name=f"{name}: peak memory at {MANY}, against {FEW}",
            value=many.peak / few.peak,
            unit="x",
            limit=GROWTH_LIMIT,
            note=f"{few.peak:.0f} MB",
        ),
    ]


def measure(copy: Copy) -> list[Figure]:
    show_progress(f"deploying {MODEL} on a lab of its own")
    copy.inv(f"deploy.{MODEL}", "--yes")
    reads = json.loads((copy.state / "applied" / "lab" / f"{MODEL}.json").read_text("utf-8"))["reads"]
    show_progress(f"making {MANY} services of it")
    write_projects(copy.root)
    import_states(copy)
    uses: dict[str, list[Use]] = {}
    for count in (0, FEW, MANY):
        copy.write_services(count)
        copy.call(f"write_records({reads!r})")
        for task in TASKS:
            uses.setdefault(task, []).append(use_of(copy, task, count))
        uses.setdefault("plan summary", []).append(Use(**copy.call("summarise()")))
    return [figure for name, measured in uses.items() for figure in figures_of(name, *measured)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is missed")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ops-scale-") as folder, own_lab() as lab:
        root = Path(folder) / "checkout"
        root.mkdir()
        copy_checkout(root)
        try:
            figures = measure(Copy(root=root, state=lab.state))
        except NotMeasured as why:
            show_progress(f"not measured: {why}")
            return 1
    for figure in figures:
        print(figure.line())
    if missed(figures):
        show_progress("missed: " + "; ".join(missed(figures)))
    return 1 if options.check and missed(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
