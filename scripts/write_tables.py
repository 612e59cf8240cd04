"""Write the tables that derive from the code: the services into README.md, the tasks into docs/tasks.md.

usage: python scripts/write_tables.py            writes both
       python scripts/write_tables.py --check    exits 1 and names the file that is older than the code
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tasks  # noqa: E402
from runbooks.collection import rows  # noqa: E402
from runbooks.services import SERVICES, Service  # noqa: E402

README = ROOT / "README.md"
TASKS = ROOT / "docs" / "tasks.md"
BEGIN, END = "<!-- services: written by scripts/write_tables.py -->", "<!-- end of services -->"


def service_rows(services: tuple[Service, ...]) -> Iterator[str]:
    yield "| service | what it is | needs | folder |"
    yield "|---|---|---|---|"
    for service in services:
        needs = ", ".join(service.needs) or "–"
        yield f"| `{service.name}` | {service.about} | {needs} | [pulumi/{service.folder}](pulumi/{service.folder}) |"


def with_services(readme: str, services: tuple[Service, ...]) -> str:
    """The README with the part between the two marks written anew."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return "\n".join([f"{head}{BEGIN}", *service_rows(services), f"{END}{tail}"])


def tasks_page() -> str:
    listed = sorted(rows(tasks.ns), key=lambda row: (*row.members, row.name)[0])
    return "\n".join(
        [
            "# Tasks",
            "",
            "Written by `scripts/write_tables.py` from the tasks themselves; `./inv --help TASK` has their options.",
            "",
            "| task | what it does |",
            "|---|---|",
            *(f"| `{row.name}` | {row.about} |" for row in listed),
            "",
        ]
    )


def main() -> int:
    wanted = {README: with_services(README.read_text("utf-8"), SERVICES), TASKS: tasks_page()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is older than the code: run python scripts/write_tables.py")
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
