"""`lab/engine/protocol.py`: the SDK's messages, as the stand-in uses them."""

from __future__ import annotations

from functools import reduce
from typing import Any

from lab.engine import protocol


def test_objects_as_deep_as_published_crds_pass() -> None:
    """cert-manager's issuers have 38 levels, each of them three of a message."""
    nested: dict[str, Any] = reduce(lambda inner, _: {"properties": inner}, range(100), {})
    request = protocol.resource.RegisterResourceRequest()
    request.object.update(nested)
    assert protocol.resource.RegisterResourceRequest.FromString(request.SerializeToString()) == request
