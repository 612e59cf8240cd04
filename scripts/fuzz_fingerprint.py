#!/usr/bin/env python3
"""Compare what `preview.all` skips with what `--fresh` says of the same stacks, after random changes.

    scripts/fuzz_fingerprint.py [--skips N] [--seed N]

It uses the lab of OPS_STATE, or a temporary one, and deploys the platform there if needed. Each round changes one
input of one service, runs `preview.all`, then `preview.all --fresh`, and puts the input back. A stack that was skipped
and that `--fresh` would change is a fault: exit 1.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench_cli import ROOT, NotMeasured
from bench_platform import appended, deploy_if_needed, events_of, show_progress, state_to_use

from runbooks.services import SERVICES

SKIPS = 100
LINES = ("\n# One line more.\n", '\npulumi.export("one_more", 1)\n', "\n\n")


def plan(state: Path, *options: str) -> dict[str, dict[str, Any]]:
    """The plan of `preview.all`, by service. Raises NotMeasured if there is none."""
    _, events = events_of(state, " ".join(("preview.all", *options)))
    plans = [event for event in events if event["event"] == "plan" and "stacks" in event]
    if not plans:
        raise NotMeasured("preview.all showed no plan")
    return {stack["service"]: stack for stack in plans[-1]["stacks"]}


@contextlib.contextmanager
def changed(state: Path, chance: random.Random) -> Iterator[str]:
    """One input changed, described; put back afterwards."""
    service = chance.choice(SERVICES)
    folder = ROOT / "pulumi" / service.folder
    settings = state / "lab" / "stacks" / service.project_name / "Pulumi.lab.yaml"
    programs = [path for path in sorted(folder.glob("*.py")) if path.name != "settings.py"]
    files = [chance.choice(programs), ROOT / "charts.yaml", ROOT / "pulumi" / "lib" / "k8s.py", settings]
    path = chance.choice([file for file in files if file.exists()])
    text = chance.choice(LINES) if path.name == "__main__.py" else LINES[0]
    with appended(path, text):
        yield f"{path.relative_to(state if path == settings else ROOT)} of {service.name}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--skips", type=int, default=SKIPS, help=f"skips to compare, by default {SKIPS}")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the random changes")
    options = parser.parse_args(arguments)
    chance, skips, wrong = random.Random(options.seed), 0, []
    show_progress(f"seed {options.seed}")
    with state_to_use() as state:
        deploy_if_needed(state)
        while skips < options.skips:
            # Every second round changes nothing, so that the records are those of the unchanged files again.
            with changed(state, chance) if chance.random() < 0.5 else contextlib.nullcontext("nothing") as what:
                before = plan(state)
                after = plan(state, "--fresh")
            skipped = [name for name, stack in before.items() if stack["unchanged_since"]]
            wrong += [f"{name} after a change of {what}" for name in skipped if after[name]["changes"]]
            skips += len(skipped)
            show_progress(f"{what} changed: {len(skipped)} skipped, {len(before) - len(skipped)} asked; {skips} so far")
    print(
        f"{skips} skips compared with what --fresh says, {len(wrong)} wrong" + "".join(f"\n  {each}" for each in wrong)
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotMeasured as why:
        sys.exit(f"not measured: {why}")
