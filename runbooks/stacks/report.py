"""Writes a run as one page (`--report run.html`) or as a comment for a pull request (`--report run.md`).

Both are made from the run's journal alone, in which secrets are masked. The
page needs no network and no script: styles, the drawing of the graph and the bars are in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape as escape_text
from pathlib import Path
from string import Template
from typing import Any

from runbooks.core.errors import Usage
from runbooks.core.files import write_atomically
from runbooks.core.journal import read_journal
from runbooks.stacks.service import Service, layers
from runbooks.stacks.summary import SIGNS, describe_stack
from runbooks.tools.pulumi import describe_object

KINDS = (".html", ".md")
PAGE = Path(__file__).resolve().parents[1] / "templates" / "report.html"
TIMED = {"preview": "preview", "apply": "apply", "look for drift of": "drift"}
"""Beginning of a command's title → what its time is shown as."""
MOST_LINES = 60
"""Lines of the Markdown: a comment should fit one screen."""
MOST_CHANGES, FEW_CHANGES = 200, 12
"""Of one service on the page: beyond the first the rest is counted, up to the second they are not folded."""
RESULTS = ("failed", "not verified", "drifted", "would change", "applied", "unchanged", "not previewed", "blocked")
"""The results of a service, gravest first. Each is shown as a word beside its colour."""


@dataclass(kw_only=True)
class ServiceReport:
    """The facts that the run recorded about one service."""

    name: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    """Its last plan summary, as `summary_data` has it."""
    verdict: Mapping[str, Any] = field(default_factory=dict)
    drift: Sequence[Mapping[str, Any]] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """`preview`, `apply` or `drift` → seconds of pulumi."""
    state: str = ""
    """`applied`, `failed`, … of the run's summary."""

    @property
    def result(self) -> str:
        if self.state == "failed":
            return "failed"
        if self.verdict and not self.verdict["ok"]:
            return "not verified"
        if self.drift:
            return "drifted"
        if self.state == "applied":
            return "applied"
        if self.plan.get("waits_for"):
            return "blocked"
        if self.plan.get("changes") or self.plan.get("leftovers"):
            return "would change"
        return "not previewed" if self.plan.get("unchanged_since") else "unchanged"

    @property
    def about(self) -> str:
        if self.plan:
            return describe_stack(self.plan)
        if self.drift is not None:
            return f"{len(self.drift)} objects differ" if self.drift else "as applied"
        return str(self.verdict.get("summary", ""))


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """The facts of a run that its journal recorded."""

    task: str
    began: str
    target: Mapping[str, Any]
    exit_code: int | None
    error: str
    reports: tuple[ServiceReport, ...]
    """In the order of the layers, the gravest first within the page's table."""


def refuse_other_kind(path: str) -> None:
    """Raise `Usage` for a report that is neither a page nor Markdown, before the run starts."""
    if path and Path(path).suffix not in KINDS:
        raise Usage(f"--report {path} is neither HTML nor Markdown", expected="a file name that ends in .html or .md")


def write_report(journal: Path, path: Path, services: Sequence[Service], *, error: str = "") -> None:
    """Write the report of the run with that journal. Raises `Unwritable`."""
    run = read_run(read_journal(journal), services, error=error)
    text = page(run, services) if path.suffix == ".html" else markdown(run)
    write_atomically(path, text, what="the report")


def read_run(records: Sequence[Mapping[str, Any]], services: Sequence[Service], *, error: str = "") -> RunReport:
    """Read a run's records; those of unknown kinds are skipped."""
    in_order = layers([service.name for service in services], services)
    reports = {service.name: ServiceReport(name=service.name) for layer in in_order for service in layer}
    seen = {name for record in records for name in _add(reports, record)}
    by_kind = {record["kind"]: record for record in records}
    head = by_kind.get("run", {})
    return RunReport(
        task=str(head.get("task", "")),
        began=str(head.get("time", "")).replace("T", " ")[:19],
        target=by_kind.get("target", {}),
        exit_code=by_kind.get("end", {}).get("exit_code"),
        error=error,
        reports=tuple(report for name, report in reports.items() if name in seen),
    )


def _add(reports: Mapping[str, ServiceReport], record: Mapping[str, Any]) -> Iterator[str]:
    """Add to the reports what a record says of them; yields the names of those that belong to the run."""
    match record:
        case {"kind": "plan", "stacks": stacks}:
            for stack in (stack for stack in stacks if stack["service"] in reports):
                reports[stack["service"]].plan = stack
                yield stack["service"]
        case {"kind": "verdict", "service": name} if name in reports:
            reports[name].verdict = record
            yield name
        case {"kind": "drift", "service": name, "objects": list() as objects} if name in reports:
            reports[name].drift = objects
            yield name
        case {"kind": "summary"}:
            for state in ("unchanged", "applied", "failed", "not_started"):
                for name in record.get(state, ()):
                    reports[name].state = state
        case {"kind": "command", "title": str(title), "seconds": float(seconds)}:
            verb, _, name = title.rpartition(" ")
            if name in reports and verb in TIMED:
                timed = reports[name].seconds
                timed[TIMED[verb]] = timed.get(TIMED[verb], 0.0) + seconds


def _counts(run: RunReport) -> str:
    found = [report.result for report in run.reports]
    results = ", ".join(f"{found.count(result)} {result}" for result in RESULTS if result in found)
    return f"{len(found)} service{'' if len(found) == 1 else 's'} ({results})" if found else "no service"


def _ranked(run: RunReport) -> list[ServiceReport]:
    return sorted(run.reports, key=lambda report: RESULTS.index(report.result))


def _findings(report: ServiceReport, *states: str) -> list[Mapping[str, Any]]:
    return [found for found in report.verdict.get("findings", ()) if found["state"] in states]


# Markdown


def markdown(run: RunReport) -> str:
    """A comment of at most `MOST_LINES` lines: what changed comes first, the rest is counted."""
    lines = [
        f"**`{run.task}`** on {code(run.target.get('target', '?'))}, {run.began} UTC: {_counts(run)}",
        "",
        "| service | result | what |",
        "|---|---|---|",
    ]
    details: list[str] = []
    for report in _ranked(run):
        if report.result in {"unchanged", "not previewed"}:
            continue
        lines.append(f"| {report.name} | {report.result} | {_cell(report.about)} |")
        details += [
            f"- {report.name}: {SIGNS.get(change['verb'], '?')} {code(describe_object(change['urn']))}"
            + (f" ({_cell(change['why'])})" if change["why"] else "")
            for change in report.plan.get("changes", ())
        ]
        details += [
            f"- {report.name}: FAILED {_cell(found['check'])}: {code(found['evidence'])}"
            for found in _findings(report, "failed")
        ]
    quiet = [report.name for report in run.reports if report.result in {"unchanged", "not previewed"}]
    if quiet:
        lines.append(f"| {len(quiet)} more | unchanged | {', '.join(quiet)} |")
    if run.error:
        lines += ["", f"> {code(run.error)}"]
    room = MOST_LINES - len(lines) - 3
    shown, rest = (details, 0) if len(details) <= room else (details[: room - 1], len(details) - room + 1)
    if shown:
        lines += ["", *shown, *([f"- … {rest} more"] if rest else [])]
    return "\n".join(lines) + "\n"


def one_line(text: object) -> str:
    """The text on one line, without the end of a code block."""
    shown = "".join(character if character.isprintable() else " " for character in str(text))
    return shown.replace("```", "'''")


def code(text: object) -> str:
    """Text of tools and clusters, in a line or in a table's cell: as code it makes no link, image or mention."""
    return "`" + one_line(text).replace("`", "'").replace("|", "\\|") + "`"


def _cell(text: object) -> str:
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")


# The page


def page(run: RunReport, services: Sequence[Service]) -> str:
    """The whole page; every text of the run is escaped."""
    body = [*_head(run), *_services(run, services), *_changes(run), *_checks(run), *_timings(run), *_not_previewed(run)]
    title = escape(f"{run.task} on {run.target.get('target', '?')}")
    return Template(PAGE.read_text(encoding="utf-8")).substitute(title=title, body="\n".join(body))


def escape(text: object) -> str:
    return escape_text(str(text))


def _tag(word: str, result: str) -> str:
    return f'<span class="tag {result.replace(" ", "-")}">{escape(word)}</span>'


def _folded(report: ServiceReport, about: str, *, is_open: bool) -> str:
    return f"<details{' open' if is_open else ''}><summary>{escape(report.name)}: {escape(about)}</summary>"


def _head(run: RunReport) -> Iterator[str]:
    facts = {name: run.target.get(name, "") for name in ("stack", "backend", "cluster", "pulumi")}
    ended = "still running" if run.exit_code is None else f"exit {run.exit_code}"
    yield f"<h1>{escape(run.task)} on {escape(run.target.get('target', '?'))}: {escape(_counts(run))}</h1>"
    shown = " · ".join(f"{name} {escape(value)}" for name, value in facts.items() if value)
    yield f'<p class="facts">{escape(run.began)} UTC · {ended} · {shown}</p>'
    if run.error:
        yield f'<pre class="error">{escape(run.error)}</pre>'


def _services(run: RunReport, services: Sequence[Service]) -> Iterator[str]:
    yield f'<h2>Services</h2><div class="scroll">{_drawing(run, services)}</div>'
    yield '<div class="scroll"><table><tr><th>service<th>result<th>what<th>checks</tr>'
    for report in _ranked(run):
        tag, checks = _tag(report.result, report.result), escape(report.verdict.get("summary", ""))
        yield f"<tr><td>{escape(report.name)}<td>{tag}<td>{escape(report.about)}<td>{checks}</tr>"
    yield "</table></div>"


def _drawing(run: RunReport, services: Sequence[Service]) -> str:
    """The graph, a column for each layer: what a service needs stands to its left."""
    columns = layers([report.name for report in run.reports], services)
    place = {
        service: (10 + column * 190, 10 + row * 44)
        for column, layer in enumerate(columns)
        for row, service in enumerate(layer)
    }
    by_name = {service.name: at for service, at in place.items()}
    shapes = []
    for service, (x2, y2) in place.items():
        for x1, y1 in (by_name[need] for need in service.needs if need in by_name):
            middle = (x1 + 150 + x2) // 2
            curve = f"M{x1 + 150} {y1 + 17}C{middle} {y1 + 17} {middle} {y2 + 17} {x2} {y2 + 17}"
            shapes.append(f'<path d="{curve}"/>')
    for report in run.reports:
        x, y = by_name[report.name]
        shapes.append(
            f'<g class="node"><rect class="{report.result.replace(" ", "-")}" x="{x}" y="{y}" width="150" height="34" '
            f'rx="5"/><text x="{x + 8}" y="{y + 15}">{escape(report.name)}</text>'
            f'<text class="soft" x="{x + 8}" y="{y + 28}">{report.result}</text></g>'
        )
    width, height = len(columns) * 190, 20 + 44 * max(map(len, columns), default=0)
    label = escape(f"Dependencies: {', '.join(f'{report.name} {report.result}' for report in run.reports)}")
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg role="img" aria-label="{label}" {size}>{"".join(shapes)}</svg>'


def _changes(run: RunReport) -> Iterator[str]:
    changing = [report for report in _ranked(run) if report.plan.get("changes") or report.drift]
    if changing:
        yield "<h2>What changes</h2>"
    for report in changing:
        changes = report.plan.get("changes", ())
        yield _folded(report, report.about, is_open=len(changes) <= FEW_CHANGES)
        for change in changes[:MOST_CHANGES]:
            why = f" {_tag(change['why'], 'failed')}" if change["why"] else ""
            sign = escape(SIGNS.get(change["verb"], "?"))
            yield f"<div><code>{sign}</code> {escape(describe_object(change['urn']))}{why}</div>"
            if change.get("properties"):
                yield f"<pre>{escape(chr(10).join(change['properties']))}</pre>"
        if len(changes) > MOST_CHANGES:
            yield f'<div class="soft">… {len(changes) - MOST_CHANGES} more</div>'
        for each in report.drift or ():
            yield f"<div><code>{escape(each['op'])}</code> {escape(each['type'])} {escape(each['name'])}</div>"
        yield "</details>"


def _checks(run: RunReport) -> Iterator[str]:
    checked = [report for report in _ranked(run) if report.verdict.get("findings")]
    if checked:
        yield "<h2>Checks, with what each saw</h2>"
    for report in checked:
        yield _folded(report, report.verdict["summary"], is_open=bool(_findings(report, "failed"))) + "<table>"
        for found in _findings(report, "failed", "passed", "not tried"):
            tag = _tag(found["state"], {"failed": "failed", "passed": "applied"}.get(found["state"], "unchanged"))
            more = "".join(
                f"<br><small>{escape(found[name])}</small>" for name in ("cause", "next_step") if found[name]
            )
            yield (
                f"<tr><td>{tag}<td>{escape(found['check'])}<br><small>{escape(found['subject'])}</small>"
                f"<td>{escape(found['evidence'])}{more}</tr>"
            )
        yield "</table></details>"


def _timings(run: RunReport) -> Iterator[str]:
    timed = [report for report in run.reports if report.seconds]
    if not timed:
        return
    longest = max(sum(report.seconds.values()) for report in timed)
    yield '<h2>Time that pulumi took</h2><div class="scroll"><table>'
    for report in timed:
        bars = "".join(
            f'<i class="{verb}" style="width:{100 * seconds / longest:.1f}%"></i>'
            for verb, seconds in report.seconds.items()
        )
        words = ", ".join(f"{verb} {seconds:.1f} s" for verb, seconds in report.seconds.items())
        yield f'<tr><td>{escape(report.name)}<td><div class="bar">{bars}</div><td>{words}</tr>'
    yield "</table></div>"


def _not_previewed(run: RunReport) -> Iterator[str]:
    skipped = [report for report in run.reports if report.plan.get("unchanged_since")]
    if not skipped:
        return
    yield "<h2>Not previewed again</h2>"
    yield "<p>Everything that determines their plans is as it was when they last had no change."
    yield "<code>./inv drift.all</code> shows what was changed by hand in the cluster.</p><ul>"
    yield from (f"<li>{escape(report.name)}: since {escape(report.plan['unchanged_since'])}</li>" for report in skipped)
    yield "</ul>"
