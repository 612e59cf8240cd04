"""A run as a page and as a comment: what they show, that they need nothing from outside, and that nothing is cut."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.errors import Usage
from runbooks.core.journal import Journal
from runbooks.core.mask import Masker
from runbooks.services import SERVICES
from runbooks.stacks.report import MOST_LINES, refuse_other_kind, write_report

SECRET = "correct-horse-battery"


def change(service: str, name: str, verb: str = "update", **more: Any) -> dict[str, Any]:
    urn = f"urn:pulumi:lab::{service}::kubernetes:core/v1:ConfigMap::{name}"
    return {"op": verb, "verb": verb, "urn": urn, "rank": "other", "why": "", "properties": [], **more}


def stack(service: str, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    facts = {"state": "unchanged", "waits_for": [], "leftovers": [], "incomplete": [], "unchanged_since": ""}
    return {"service": service, "asked_because": [], "changes": list(changes), **facts, **more}


def finding(check: str, state: str, evidence: str) -> dict[str, Any]:
    return {"check": check, "state": state, "evidence": evidence, "cause": "", "next_step": "", "subject": "ns/x"}


class Read(HTMLParser):
    """Tags, attributes and texts of a page; fails on what does not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def journal_of(folder: Path, task: str, *entries: tuple[str, dict[str, Any]], exit_code: int) -> Path:
    written = Journal.open(folder, task, ["./inv", task], masker=Masker([SECRET]))
    for kind, facts in entries:
        written.write(kind, **facts)
    written.finish(exit_code)
    return written.path


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    target = {"target": "lab", "stack": "lab", "backend": "http://127.0.0.1:1", "cluster": "c1", "pulumi": "v3.274.1"}
    update = change("glance", "page", properties=[f"~ data.title: <b>a</b> => {SECRET}"])
    plans = [
        stack("tailscale", state="unchanged since 14:02 (not previewed again)", unchanged_since="14:02"),
        stack("glance", update, *[change("glance", f"more-{n}", "create") for n in range(100)]),
        stack("postgres", change("postgres", "cluster", "delete", why="holds data")),
        stack("immich", change("immich", "server")),
        stack("n8n", waits_for=["postgres"], state="blocked: waits for postgres"),
    ]
    commands = (("preview glance", 2.5), ("apply glance", 4.0), ("read pulumi's version", 0.1))
    summary = {"unchanged": ["tailscale"], "applied": ["glance"], "failed": ["postgres"], "not_started": ["n8n"]}
    findings = [finding("it answers", "failed", "<script>alert(1)</script>"), finding("it runs", "passed", "1 of 1")]
    verdict = {"service": "glance", "ok": False, "summary": "1 passed, 1 failed", "findings": findings}
    return journal_of(
        tmp_path, "deploy.all", ("target", target), ("plan", {"target": "lab", "stacks": plans}),
        *(("command", {"title": title, "seconds": seconds}) for title, seconds in commands),
        ("summary", summary), ("verdict", verdict),
        ("drift", {"service": "cnpg", "objects": [{"op": "update", "type": "v1:Pod", "name": "p"}]}), exit_code=1,
    )  # fmt: skip


def test_the_page_shows_each_service_and_needs_nothing_from_outside(journal: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    write_report(journal, path, SERVICES, error="postgres failed\nnext: ./inv deploy.all")
    text = path.read_text()
    page = Read(text)
    nodes = [attributes for tag, attributes in page.tags if tag == "g" and attributes.get("class") == "node"]
    assert len(nodes) == 6
    for service, result in {
        "tailscale": "not previewed", "glance": "not verified", "postgres": "failed", "n8n": "blocked",
        "cnpg": "drifted", "immich": "would change",
    }.items():  # fmt: skip
        assert re.search(rf">{service}</text><text[^>]*>{result}<", text), service
        assert re.search(rf"<td>{service}<td><span[^>]*>{result}<", text), service
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "object"})
    outside = [value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert outside == [] and "url(" not in text and "@import" not in text
    assert "<script>alert(1)</script>" in page.text and "<b>a</b>" in page.text, "escaped, so it is text"
    assert SECRET not in text and "holds data" in page.text and "next: ./inv deploy.all" in page.text
    assert "2.5 s" in page.text and "4.0 s" in page.text and "since 14:02" in page.text
    assert len(text) < 100_000


def test_the_comment_is_short_and_counts_the_rest(journal: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.md"
    write_report(journal, path, SERVICES)
    lines = path.read_text().splitlines()
    assert len(lines) <= MOST_LINES and SECRET not in path.read_text()
    assert [line.split(" | ")[0].strip("| ") for line in lines[4:9]] == ["postgres", "glance", "cnpg", "immich", "n8n"]
    assert "6 services" in lines[0], "what is counted is named: a service may have several changes"
    assert any("tailscale" in line and "unchanged" in line for line in lines)
    assert re.fullmatch(r"- … \d+ more", lines[-1])


def test_text_from_a_cluster_is_no_markdown_in_the_comment(tmp_path: Path) -> None:
    hostile = "``![x](https://example.com/x)\n\n@everyone [y](https://example.com)`"
    findings = [finding("it answers", "failed", hostile)]
    verdict = {"service": "glance", "ok": False, "summary": "1 failed", "findings": findings}
    journal = journal_of(tmp_path, "verify.all", ("verdict", verdict), exit_code=4)
    path = tmp_path / "run.md"
    write_report(journal, path, SERVICES, error=hostile)
    outside_of_code = re.sub(r"`[^`\n]*`", "", path.read_text())
    assert "example.com" in path.read_text()
    assert "example.com" not in outside_of_code and "@everyone" not in outside_of_code


def test_a_run_without_stacks_is_a_page_too(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, "doctor", exit_code=0)
    for name in ("run.html", "run.md"):
        write_report(journal, tmp_path / name, SERVICES)
        assert "doctor" in (tmp_path / name).read_text()


@pytest.mark.parametrize("name", ["a.pdf", "x"])
def test_another_kind_of_report_is_refused_before_the_run(name: str) -> None:
    for known in ("", "a.html", "a.md"):
        refuse_other_kind(known)
    with pytest.raises(Usage):
        refuse_other_kind(name)
