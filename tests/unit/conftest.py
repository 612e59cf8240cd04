"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures import Repo


@pytest.fixture(autouse=True)
def no_reporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without a reporter in use, as a process does."""
    monkeypatch.setattr("runbooks.core.reporter._in_use", [])


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Repo:
    """A repository with a real target, on scripted pulumi and kubectl."""
    return Repo(tmp_path, monkeypatch, capsys)
