"""docs/tutorial.md is what a run prints: each command of its `console` blocks, in order, in one shell on a lab.

`python -m tests.lab.test_tutorial` writes the answers into the page. A line `…` in an answer stands for any lines: type
a command, let this write its whole answer, replace what nobody needs by `…`. Nothing else of an answer is typed.
"""

from __future__ import annotations

import difflib
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from lab import platform
from tests.lab.command_line import ROOT, Checkout, commit_everything, finished, git_status, make_state

PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
ANY_LINES = "…"
END_OF_ANSWER = "\x1e"
FAILING = [
    ("./inv verify.postgres", 4),
    ("./inv drift.postgres", 7),
    ("./inv verify.postgres", 4),
    ("./inv esc.bind stitch/prod", 2),
    ("./inv destroy.postgres", 5),
]
"""What fails on the page, with its exit code; everything else succeeds."""
PROGRESS = re.compile(r"  … .*, \d+(\.\d+)? (s|min)\b")
"""How the reporter shows a step that lasts; how often depends on the machine."""
WAITED = re.compile(r" \(after \d+ s\)$")
"""At the end of a finding that is repeated until it passes or its time is over."""
VARYING = {
    "duration": r"\b\d+(\.\d+)? (s|min)\b",
    "address": r"\b(localhost|\d+\.\d+\.\d+\.\d+)(:\d+)?",
    "server": r"PostgreSQL \d.*",
    "version": r"\bv\d+\.\d+\.\d+",
    "id": r"\b[0-9a-f]{7,40}\b",
    "pid": r"\bpid \d+",
    "time": r"\b\d\d:\d\d\b",
}
"""What differs from run to run, or from machine to machine."""


def start_checkout(folder: Path) -> Checkout:
    """A clone at its first commit, as after `git clone`. Its lab keeps its state where a person's does: in `.ops`."""
    root = folder / "homelab-ops"
    make_state(root / ".ops")
    checkout = Checkout(root, root / ".ops")
    commit_everything(root)
    return checkout


def read_commands(page: str) -> list[str]:
    return [line[2:] for block in BLOCK.findall(page) for line in block.splitlines() if line.startswith("$ ")]


def run_page(checkout: Checkout, page: str) -> list[list[str]]:
    """Run all commands of the page in one bash; return the lines that each printed."""
    commands = read_commands(page)
    end = f"\ncode=$?; printf '{END_OF_ANSWER}%s{END_OF_ANSWER}' $code; (exit $code)\n"
    script = end.join([*commands, ""])
    shell = checkout.launch(["bash", "-c", script], checkout.root, stderr=subprocess.STDOUT)
    printed = finished(shell).stdout.replace(str(checkout.root), "~/homelab-ops")
    print(printed)  # what the page cuts is worth a look when the test fails
    *answers, _ = printed.split(END_OF_ANSWER)
    codes = zip(commands, map(int, answers[1::2]), strict=True)
    assert [(command, code) for command, code in codes if code] == FAILING
    return [[line for line in answer.splitlines() if not PROGRESS.match(line)] for answer in answers[::2]]


def normalise(line: str) -> str:
    """The line with a name in place of each text that varies."""
    line = WAITED.sub("", line)
    for name, pattern in VARYING.items():
        line = re.sub(pattern, f"<{name}>", line)
    return line


def rewrite_answer(shown: list[str], printed: list[str]) -> list[str]:
    """The printed lines, cut where the page cuts them. Where a text at a cut is no longer printed, the cut grows."""
    same = difflib.SequenceMatcher(None, [*map(normalise, shown)], [*map(normalise, printed)], autojunk=False)
    lines: list[str] = []
    for kind, start, end, first, last in same.get_opcodes():
        is_cut = kind != "equal" and ANY_LINES in shown[start:end]
        lines += [ANY_LINES] if is_cut else printed[first:last]
    return lines


def rewrite_page(page: str, answers: list[list[str]]) -> str:
    """The page with these answers to its commands."""
    remaining = iter(answers)

    def rewrite_block(block: re.Match[str]) -> str:
        lines: list[str] = []
        for part in re.split(r"^(?=\$ )", block[0], flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            lines += [command, *rewrite_answer(shown, next(remaining))]
        return "\n".join([*lines, ""])

    return BLOCK.sub(rewrite_block, page)


@pytest.mark.parametrize(
    ("shown", "printed", "written"),
    [
        ("", "a b", "a b"),
        ("a … d", "a b c d", "a … d"),
        ("a … d", "a d", "a … d"),
        ("a … d", "a b e", "a …"),
        ("a d", "a b d", "a b d"),
        ("a b …", "a c", "a …"),
        ("v1.2.3 … d", "v1.2.4 x d", "v1.2.4 … d"),
    ],
)
def test_an_answer_is_cut_where_the_page_cuts_it(shown: str, printed: str, written: str) -> None:
    assert rewrite_answer(shown.split(), printed.split()) == written.split()


def write_page(folder: Path, page: str) -> str:
    """The page with the answers of a run in the folder, which leaves the checkout as it was."""
    checkout = start_checkout(folder)
    try:
        written = rewrite_page(page, run_page(checkout, page))
    finally:
        platform.reset(checkout.state_dir, print)
    assert git_status(checkout.root) == ""
    return written


@pytest.mark.lab
def test_the_page_is_what_a_run_prints(tmp_path: Path) -> None:
    page = PAGE.read_text("utf-8")
    written = write_page(tmp_path, page)
    expected, found = ([normalise(line) for line in text.splitlines()] for text in (page, written))
    assert found == expected, "docs/tutorial.md is out of date: .venv/bin/python -m tests.lab.test_tutorial writes it"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(write_page(Path(folder), PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
