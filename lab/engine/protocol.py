"""The SDK's own message classes and services, without the cost of the SDK (``import pulumi`` takes 0.4 s).

The generated modules live in ``pulumi.runtime.proto`` and import each other only. So while they load, the two packages
above them are stood in for by empty modules that merely know where the files are.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from google._upb import _message  # type: ignore[import-untyped]

# As the SDK does in the program's process: CRDs are nested deeper than protobuf's own limit.
_message.SetAllowOversizeProtos(True)

_MODULES = (
    "alias_pb2",
    "callback_pb2",
    "callback_pb2_grpc",
    "engine_pb2",
    "engine_pb2_grpc",
    "provider_pb2",
    "resource_pb2",
    "resource_pb2_grpc",
)


def _load() -> dict[str, Any]:
    placeholders = [] if "pulumi" in sys.modules else _place()
    try:
        return {name: importlib.import_module(f"pulumi.runtime.proto.{name}") for name in _MODULES}
    finally:
        for name in placeholders:
            sys.modules.pop(name, None)


def _place() -> list[str]:
    spec = importlib.util.find_spec("pulumi")
    if spec is None or spec.origin is None:
        raise ImportError("the Pulumi SDK for Python is not installed in this environment; run `uv sync`")
    folder = Path(spec.origin).parent
    for name, path in (("pulumi", folder), ("pulumi.runtime", folder / "runtime")):
        module = ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module
    return ["pulumi", "pulumi.runtime"]


_loaded = _load()
alias: Any = _loaded["alias_pb2"]
callback: Any = _loaded["callback_pb2"]
callback_grpc: Any = _loaded["callback_pb2_grpc"]
engine: Any = _loaded["engine_pb2"]
engine_grpc: Any = _loaded["engine_pb2_grpc"]
provider: Any = _loaded["provider_pb2"]
resource: Any = _loaded["resource_pb2"]
resource_grpc: Any = _loaded["resource_pb2_grpc"]
