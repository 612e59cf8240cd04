"""The process of the controllers."""

from __future__ import annotations

import asyncio

import kopf
import pytest
from kopf._cogs.clients.errors import APINotFoundError

from lab.operators.__main__ import run
from lab.operators.work import Work


def test_it_watches_again_after_a_kind_was_gone_before_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    async def operator(**_: object) -> None:
        begun.append("watches")
        if len(begun) == 1:
            raise APINotFoundError("404 page not found", status=404, headers={})

    monkeypatch.setattr(kopf, "operator", operator)
    asyncio.run(run(Work({"resync": lambda *_: None})))
    assert begun == ["watches", "watches"]
