"""Draw the platform from the list of services, as the picture in the README.

usage: python scripts/draw_platform.py            writes docs/platform.svg
       python scripts/draw_platform.py --check    exits 1 when the picture is older than the list
"""

from __future__ import annotations

import sys
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runbooks.services import SERVICES  # noqa: E402
from runbooks.stacks.service import Service, closure, layers  # noqa: E402

PICTURE = ROOT / "docs" / "platform.svg"
BOX_WIDTH, BOX_HEIGHT = 270, 104
GAP_X, GAP_Y = 70, 26
TOP, LEFT = 168, 40

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1c2733 }
  .name { font-weight: 600; font-size: 15px }
  .small { font-size: 11.5px; fill: #51606f }
  .box { fill: #ffffff; stroke: #51606f }
  .kept { stroke: #9a5b00; stroke-width: 2 }
  .frame { fill: #f3f6f9; stroke: #b9c4ce }
  .run { fill: #e6f1ea; stroke: #3c7a52 }
  .edge { fill: none; stroke: #51606f; stroke-width: 1.5; marker-end: url(#tip) }
  .tip { fill: #51606f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e3e9ef } .small { fill: #a9b6c2 } .box { fill: #1d2731; stroke: #8b99a6 } .kept { stroke: #e0a03c }
    .frame { fill: #141b22; stroke: #43505c } .run { fill: #16291e; stroke: #5aa377 }
    .edge { stroke: #a9b6c2 } .tip { fill: #a9b6c2 }
  }
"""


def places(columns: list[tuple[Service, ...]]) -> dict[str, tuple[int, int]]:
    """Return the top left corner of each service's box; shorter columns are centred."""
    tallest = max(map(len, columns))
    corners = {}
    for number, column in enumerate(columns):
        start = TOP + (tallest - len(column)) * (BOX_HEIGHT + GAP_Y) // 2
        for row, service in enumerate(column):
            corners[service.name] = (LEFT + number * (BOX_WIDTH + GAP_X), start + row * (BOX_HEIGHT + GAP_Y))
    return corners


def direct_needs(service: Service, services: tuple[Service, ...]) -> list[str]:
    """Return the direct needs that no other need of the service implies."""
    implied = set().union(*(closure([need], services) - {need} for need in service.needs))
    return [need for need in service.needs if need not in implied]


def box(service: Service, corner: tuple[int, int]) -> str:
    x, y = corner
    kept = " kept" if service.stateful else ""
    lines = [f'<rect class="box{kept}" x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>']
    lines.append(f'<text class="name" x="{x + 12}" y="{y + 23}">{escape(service.name)}</text>')
    lines += [
        f'<text class="small" x="{x + 12}" y="{y + 42 + 15 * row}">{escape(text)}</text>'
        for row, text in enumerate(wrap(service.about, 40)[:3])
    ]
    lines.append(
        f'<text class="small" x="{x + 12}" y="{y + BOX_HEIGHT - 10}">namespace {escape(service.namespace)}</text>'
    )
    return "\n".join(lines)


def edge(start: tuple[int, int], end: tuple[int, int], above: int) -> str:
    """Draw an arrow; one that passes other columns goes `above` their boxes, so that it hides behind none."""
    x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT // 2
    x2, y2 = end[0] - 4, end[1] + BOX_HEIGHT // 2
    bends = [(x1, y1), (x2, y2)]
    if end[0] - start[0] > BOX_WIDTH + GAP_X:
        bends[1:1] = [(x1 + GAP_X, above), (end[0] - GAP_X, above)]
    path = f"M{x1} {y1}"
    for (x, y), (to_x, to_y) in pairwise(bends):
        middle = (x + to_x) // 2
        path += f" C{middle} {y} {middle} {to_y} {to_x} {to_y}"
    return f'<path class="edge" d="{path}"/>'


def run_bar(width: int) -> str:
    """Draw the steps of a run, above the cluster."""
    steps = ("check the cluster", "preview", "one plan summary", "approval", "up, layer by layer", "verify")
    each = (width - 2 * LEFT) // len(steps)
    parts = ['<text class="name" x="40" y="34">./inv deploy.&lt;service&gt;</text>']
    for position, step in enumerate(steps):
        x = LEFT + position * each
        parts.append(f'<rect class="run" x="{x}" y="48" width="{each - 8}" height="34" rx="17"/>')
        parts.append(f'<text x="{x + (each - 8) // 2}" y="70" text-anchor="middle">{step}</text>')
    return "\n".join(parts)


def picture(services: tuple[Service, ...]) -> str:
    """Return the drawing as SVG."""
    columns = layers([service.name for service in services], services)
    corners = places(columns)
    width = max(2 * LEFT + len(columns) * (BOX_WIDTH + GAP_X) - GAP_X, 960)
    height = TOP + max(map(len, columns)) * (BOX_HEIGHT + GAP_Y) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="The platform\'s services and what each one needs">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>',
        run_bar(width),
        f'<rect class="frame" x="16" y="104" width="{width - 32}" height="{height - 120}" rx="10"/>',
        '<text class="small" x="40" y="130">one Kubernetes cluster: the lab, or yours; '
        "arrows lead from what is needed to what needs it; a heavy border keeps data</text>",
    ]
    above = min((corners[service.name][1] for column in columns[1:-1] for service in column), default=TOP) - GAP_Y
    parts += [
        edge(corners[need], corners[service.name], above)
        for service in services
        for need in direct_needs(service, services)
    ]
    parts += [box(service, corners[service.name]) for service in services]
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    drawn = picture(SERVICES)
    if "--check" in sys.argv[1:]:
        is_current = PICTURE.exists() and PICTURE.read_text("utf-8") == drawn
        if not is_current:
            print("docs/platform.svg is out of date: run python scripts/draw_platform.py")
        return 0 if is_current else 1
    PICTURE.write_text(drawn, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
