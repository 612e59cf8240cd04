#!/usr/bin/env python3
"""Check that commit messages are Conventional Commits: a message file (hook) or a range of commits (CI).

    scripts/check_commits.py --file .git/COMMIT_EDITMSG    # as the hook commit-msg
    scripts/check_commits.py [RANGE]                       # git log RANGE; without one, the last 20 commits

The hook is .githooks/commit-msg; `git config core.hooksPath .githooks` turns it on in a clone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TYPES = ("feat", "fix", "docs", "test", "refactor", "perf", "build", "ci", "chore", "style", "revert", "pulumi")
"""`pulumi` is for changes of the Pulumi programs only."""
SUBJECT = re.compile(rf"^(?:{'|'.join(TYPES)})(?:\([a-z0-9][a-z0-9./_-]*\))?!?: \S.*[^.\s]$")
FREE = re.compile(r"^(?:Merge |Revert \"|fixup! |squash! )")
LONGEST = 100
LAST = 20


def problems(message: str) -> list[str]:
    """Return what is wrong with a commit message; empty if it follows the convention."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        return ["it is empty"]
    subject = lines[0]
    found = []
    if FREE.match(subject):
        return found
    if not SUBJECT.match(subject):
        found.append(f"{subject!r} is not `type(scope): what it does` without a full stop; types: {', '.join(TYPES)}")
    if len(subject) > LONGEST:
        found.append(f"its first line has {len(subject)} characters, at most {LONGEST} are allowed")
    if len(lines) > 1 and lines[1].strip():
        found.append("its second line is not empty")
    return found


def commits(revisions: list[str]) -> list[tuple[str, str]]:
    """Return (short hash, message) of the commits in a range, newest first."""
    log = ["git", "log", "--no-merges", "--format=%h%x00%B%x01", *revisions]
    text = subprocess.run(log, check=True, capture_output=True, text=True).stdout
    entries = [entry.strip("\n") for entry in text.split("\x01")]
    return [(entry.split("\0", 1)[0], entry.split("\0", 1)[1]) for entry in entries if entry]


def read_messages(arguments: list[str]) -> list[tuple[str, str]]:
    if arguments[:1] == ["--file"] and len(arguments) == 2:
        return [("this commit", Path(arguments[1]).read_text())]
    if len(arguments) == 1 and Path(arguments[0]).is_file():
        return [("this commit", Path(arguments[0]).read_text())]
    return commits(arguments or [f"-{LAST}"])


def main(arguments: list[str]) -> int:
    messages = read_messages(arguments)
    wrong = [(name, problem) for name, message in messages for problem in problems(message)]
    for name, problem in wrong:
        print(f"commit message of {name}: {problem}", file=sys.stderr)
    if not wrong:
        print(f"{len(messages)} commit messages follow the convention")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
