"""Write CHANGELOG.md from the commits: what is new, fixed and faster, by version.

usage: python scripts/write_changelog.py            writes CHANGELOG.md
       python scripts/write_changelog.py --check    exits 1 when entries were edited by hand or too many are missing

A tag `v1.2.3` begins a version; commits after the newest tag are not released yet.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHANGELOG = ROOT / "CHANGELOG.md"
HEAD = """# Changelog

Written by `scripts/write_changelog.py` from the commits: what a user notices. `git log` has everything.
"""
UNRELEASED = "Not released yet"
GROUPS = {"!": "Breaking", "feat": "New", "pulumi": "Services", "fix": "Fixed", "perf": "Faster"}
SUBJECT = re.compile(
    r"(?P<kind>feat|pulumi|fix|perf|refactor)(?:\((?P<scope>[^)]+)\))?(?P<breaking>!?): (?P<summary>.+)"
)
MOST_MISSING = 60
"""Commits that may be missing: an entry cannot be in the commit it is about, and not every commit rewrites the file."""


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def versions(log: str) -> dict[str, dict[str, list[str]]]:
    """Return the entries by version and group, newest first, from lines of `<subject>\\t<tags>\\t<date>`."""
    found: dict[str, dict[str, list[str]]] = {}
    version = UNRELEASED
    for line in log.splitlines():
        subject, decoration, date = line.rsplit("\t", 2)
        if tag := re.search(r"tag: v(\d[^,)]*)", decoration):
            version = f"{tag[1]} ({date})"
        read = SUBJECT.fullmatch(subject)
        group = read and GROUPS.get(read["breaking"] or read["kind"])
        if read and group:
            scope = f"**{read['scope']}**: " if read["scope"] else ""
            found.setdefault(version, {}).setdefault(group, []).append(f"- {scope}{read['summary']}")
    return found


def page(entries: dict[str, dict[str, list[str]]]) -> str:
    def lines() -> Iterator[str]:
        yield HEAD
        for version, groups in entries.items():
            yield f"## {version}\n"
            for group in (name for name in GROUPS.values() if name in groups):
                yield f"### {group}\n"
                yield "\n".join(groups[group]) + "\n"

    return "\n".join(lines())


def problem(written: str, wanted: str) -> str:
    """Return why the changelog is out of date, or nothing. Entries of the newest commits may be missing."""
    old, new = (Counter(line for line in text.splitlines() if line.startswith("- ")) for text in (written, wanted))
    if edited := list((old - new).elements()):
        return f"no commit has the entry {edited[0]!r}"
    missing = (new - old).total()
    return f"{missing} entries are missing" if missing > MOST_MISSING else ""


def main() -> int:
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        print("CHANGELOG.md: not looked at, this clone does not have all commits")
        return 0
    wanted = page(versions(git("log", "--no-merges", "--format=%s%x09%D%x09%as")))
    if "--check" not in sys.argv[1:]:
        CHANGELOG.write_text(wanted, "utf-8")
        return 0
    found = problem(CHANGELOG.read_text("utf-8") if CHANGELOG.exists() else "", wanted)
    if found:
        print(f"CHANGELOG.md is out of date: {found}; run python scripts/write_changelog.py")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
