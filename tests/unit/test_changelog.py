"""The changelog is written from the commits, and says so when it is not."""

from __future__ import annotations

import pytest

from scripts.write_changelog import MOST_MISSING, UNRELEASED, page, problem, versions

LOG = """\
fix: two\t\t2026-02-02
docs: a page\t\t2026-02-01
feat(lab)!: three\tHEAD -> main, tag: v1.1.0\t2026-01-03
pulumi(immich): raise it\t\t2026-01-02
feat: one\ttag: v1.0.0, origin/main\t2026-01-01"""


def test_entries_stand_below_their_version_and_kind() -> None:
    assert versions(LOG) == {
        UNRELEASED: {"Fixed": ["- two"]},
        "1.1.0 (2026-01-03)": {"Breaking": ["- **lab**: three"], "Services": ["- **immich**: raise it"]},
        "1.0.0 (2026-01-01)": {"New": ["- one"]},
    }


def log(count: int) -> str:
    return page(versions("\n".join(f"fix: {number}\t\t2026-01-01" for number in range(count))))


@pytest.mark.parametrize(
    ("written", "stale"),
    [
        (log(100), False),
        (log(100 - MOST_MISSING), False),
        (log(99 - MOST_MISSING), True),
        (log(100).replace("- 7\n", "- seven\n"), True),
        ("", True),
    ],
)
def test_a_stale_or_edited_changelog_is_noticed(written: str, stale: bool) -> None:
    assert bool(problem(written, log(100))) is stale
