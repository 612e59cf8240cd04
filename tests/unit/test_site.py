"""The pages that the site is built from: all are in its navigation, short, and their links lead somewhere.

`scripts/build_site.py` also checks anchors, with packages that are not installed here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("*.md", "docs/**/*.md", "pulumi/**/*.md", "modal/**/*.md", "lab/**/*.md")
PAGES = sorted(path for place in PLACES for path in ROOT.glob(place))
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
GENERATED = {"CHANGELOG.md", "docs/tasks.md"}
LONGEST = 150


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def listed(nav: Any) -> Iterator[str]:
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            yield from (
                page for value in entry.values() for page in listed([value] if isinstance(value, str) else value)
            )


def test_the_navigation_has_every_page_once() -> None:
    nav = list(listed(tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]))
    assert len(nav) == len(set(nav))
    assert [page for page in nav if not (ROOT / page).is_file()] == []
    # A decision is found through the list of decisions, the README of a project through the list of services.
    elsewhere = ("docs/decisions/0", "pulumi/", "modal/", "lab/")
    assert [name(page) for page in PAGES if name(page) not in nav and not name(page).startswith(elsewhere)] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_is_short_and_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    assert name(page) in GENERATED or len(text.splitlines()) <= LONGEST
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
