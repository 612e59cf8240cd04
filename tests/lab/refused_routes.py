"""After every test on a lab: its cloud had an answer for every request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

REFUSED = ": no such route"
_reported: set[tuple[Path, str]] = set()


@pytest.fixture(autouse=True)
def every_route_of_the_cloud_is_there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the test in which a command asked a lab's cloud for a route that it has not.

    A lab of the whole session is looked at after each test, so that what its setup asked for counts too.
    """
    yield
    found = list(refused_routes(tmp_path_factory.getbasetemp()))
    assert not found, "a lab's cloud refused requests:\n" + "\n".join(found)


def refused_routes(folder: Path) -> Iterator[str]:
    """Lines of the clouds' logs that no earlier test was blamed for."""
    found = (*folder.glob("*/lab/logs/cloud.log"), *folder.glob("*/*/lab/logs/cloud.log"))
    # pytest links the newest folder of a name.
    for log in sorted({log.resolve() for log in found}):
        for line in log.read_text("utf-8", "replace").splitlines():
            if REFUSED in line and (log, line) not in _reported:
                _reported.add((log, line))
                yield f"{log}: {line}"
