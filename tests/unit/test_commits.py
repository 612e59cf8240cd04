"""The commit-message check: what passes, what does not, as a hook and for a range."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.check_commits import problems

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "message",
    [
        "feat: one command",
        "fix(lab)!: keep the port",
        "pulumi: raise the chart of cnpg",
        "docs(first-real-cluster): say what pin does\n\nA body.\n\nBREAKING CHANGE: x",
        "\n# a comment of git\nchore: x y\n# more",
        "Merge branch 'main'",
        'Revert "feat: one command"',
    ],
)
def test_conventional(message: str) -> None:
    assert problems(message) == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", "empty"),
        ("# only a comment", "empty"),
        ("Add a thing", "type(scope)"),
        ("feat add a thing", "type(scope)"),
        ("feature: add a thing", "type(scope)"),
        ("feat: add a thing.", "full stop"),
        ("feat(Scope Name): x", "type(scope)"),
        ("feat: " + "x" * 100, "characters"),
        ("feat: x\nno empty line", "second line"),
    ],
)
def test_not_conventional(message: str, said: str) -> None:
    assert said in " ".join(problems(message))


def test_as_a_hook(tmp_path: Path) -> None:
    message = tmp_path / "COMMIT_EDITMSG"
    for text, code in (("feat: x y\n", 0), ("x y\n", 1)):
        message.write_text(text)
        for words in ([str(message)], ["--file", str(message)]):
            ended = subprocess.run(
                [sys.executable, ROOT / "scripts/check_commits.py", *words], capture_output=True, check=False
            )
            assert ended.returncode == code
