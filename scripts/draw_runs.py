"""Draw the README's pictures of runs: what runs on the lab printed, through the reporter of a terminal, as SVG.

usage: python scripts/draw_runs.py             draws docs/runs/*.svg from the recorded events beside them
       python scripts/draw_runs.py --record    runs the commands on a lab that is reset first, and records their events
       python scripts/draw_runs.py --check     exits 1 when a picture is older than the reporter, its record or a check
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runbooks.core.findings import Finding, State  # noqa: E402
from runbooks.core.mask import Masker  # noqa: E402
from runbooks.core.reporter import DONE, IN_PROGRESS, LiveReporter  # noqa: E402

RUNS = ROOT / "docs" / "runs"
COLUMNS = 100


@dataclass(frozen=True)
class Run:
    """A command whose run is shown, and what a shell did before."""

    name: str
    task: str
    before: str
    exit_code: int = 0

    @property
    def record(self) -> Path:
        return RUNS / f"{self.name}.jsonl"

    @property
    def picture(self) -> Path:
        return RUNS / f"{self.name}.svg"


KUBECTL = "PATH=.ops/lab/bin:$PATH KUBECONFIG=.ops/lab/kubeconfig kubectl"
OTHER_NAME = f"{KUBECTL} -n postgresql annotate --overwrite svc/postgresql-cluster-rw-ext tailscale.com/hostname=other"
PICTURES = (
    Run(name="deploy", task="deploy.postgres", before="./inv lab.reset --yes && ./inv lab.up"),
    Run(name="verify", task="verify.postgres", before=OTHER_NAME, exit_code=4),
)


def record(run: Run) -> None:
    """Run the command on the lab and write its events, without what belongs to this machine."""
    shell = f"{{ {run.before}; }} >&2 && exec env -u OPS_TARGET ./inv --json {run.task}"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != run.exit_code:
        sys.exit(f"{run.task} ended with exit {done.returncode} instead of {run.exit_code}:\n{done.stdout}")
    RUNS.mkdir(exist_ok=True)
    run.record.write_text(done.stdout.replace(str(ROOT), "~/homelab-ops"), "utf-8")


def events(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.record.read_text("utf-8").splitlines()]


MOST_CREATES = 3
"""Lines of one service that the picture shows of the plan summary; the rest is counted."""


def shortened(recorded: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events, with the many objects of a first deployment counted, and without kubectl's lists."""
    shown: Counter[str] = Counter()
    for event in recorded:
        created = re.match(r" +\+ +(\S+) ", event.get("text", "")) if event["event"] == "line" else None
        service = created[1] if created else ""
        shown[service] += 1
        if event["event"] == "quote" or (created and shown[service] > MOST_CREATES + 1):
            continue
        if created and shown[service] > MOST_CREATES:
            yield event | {"text": f"    …  {service}"}
        else:
            yield event


class Terminal(io.StringIO):
    """What a terminal is sent."""

    def isatty(self) -> bool:
        return True


def show(reporter: LiveReporter, event: dict[str, Any]) -> None:
    """Hand an event to the method of the reporter that it came from."""
    match event:
        case {"event": "announce", "text": text}:
            reporter.announce(text)
        case {"event": "line", "text": text}:
            reporter.line(text)
        case {"event": "quote", "text": text}:
            reporter.quote(text)
        case {"event": "table", "title": title, "rows": rows}:
            reporter.table(title, list(rows[0]), [list(row.values()) for row in rows])
        case {"event": "finding", **facts}:
            reporter.finding(Finding(**{**facts, "state": State(facts["state"])}))
        case {"event": "error", "summary": summary, "details": details, "exit_code": exit_code}:
            reporter.error([summary, *details], exit_code=exit_code)


def replay(events: list[dict[str, Any]]) -> str:
    """Return what the reporter of a terminal prints for the events, colours included."""
    os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS))
    os.environ.pop("NO_COLOR", None)
    out = Terminal()
    reporter = LiveReporter(Masker(), out, out)
    pending: set[str] = set()
    finished: list[str] = []
    for event in events:
        show(reporter, event)
        if event["event"] == "plan" and "steps" in event:  # the plan summary is an event of the same name
            pending = set(event["steps"])
        if event["event"] == "step" and event["state"] != IN_PROGRESS:
            # The live plan stays as these lines once no step of it is pending.
            pending.discard(event["title"])
            mark = "✓" if event["state"] == DONE else "✗"
            finished.append(f"{mark} {event['title']}: {event['state']} in {event['seconds']:.0f} s")
            if not pending:
                for line in finished:
                    reporter.line(line)
                finished.clear()
    return out.getvalue()


def draw(run: Run) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "dim"), (f"./inv {run.task}", "bold")))
    console.print(Text.from_ansi(replay(list(shortened(events(run))))), end="")
    picture = console.export_svg(title="homelab-ops", theme=MONOKAI, unique_id=run.name)
    # A picture in a page loads nothing from elsewhere.
    return re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL).replace(
        "Fira Code, monospace", "ui-monospace, monospace"
    )


def known_texts() -> list[re.Pattern[str]]:
    """Every text in the checks' modules; what is put into one stands for anything."""
    found = []
    for path in (ROOT / "runbooks" / "checks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.compile(re.escape(node.value)))
            elif isinstance(node, ast.JoinedStr):
                parts = (re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in node.values)
                found.append(re.compile("".join(parts)))
    return [text for text in found if text.pattern.replace(".+", "").strip()]


def problems(run: Run) -> Iterator[str]:
    """Generate why a picture is out of date. A record is, when a check that it shows has another name by now."""
    if not run.record.exists() or not run.picture.exists():
        yield "is missing"
        return
    if run.picture.read_text("utf-8") != draw(run):
        yield "differs from its record: run python scripts/draw_runs.py"
    named = known_texts()
    for event in events(run):
        if event["event"] == "finding" and not any(text.fullmatch(event["check"]) for text in named):
            yield f"shows the check {event['check']!r}, which is gone: run python scripts/draw_runs.py --record"


def main() -> int:
    if "--check" in sys.argv[1:]:
        found = [f"{run.picture.relative_to(ROOT)} {problem}" for run in PICTURES for problem in problems(run)]
        print("\n".join(found))
        return 1 if found else 0
    for run in PICTURES:
        if "--record" in sys.argv[1:]:
            record(run)
        run.picture.write_text(draw(run), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
