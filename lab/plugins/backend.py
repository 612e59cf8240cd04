"""The lab's plugins serve the lab only. The same rule is in `lab/toolchain/guard` for those written in Go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

NEXT_STEP = "pulumi plugin install resource {plugin}, in a shell without the exports of ./inv lab.env"


def refusal(plugin: str, environment: Mapping[str, str]) -> str:
    """Why the engine that started this process must not be served; empty in a lab.

    An engine hands its environment on. `lab.env` and the toolkit set PULUMI_BACKEND_URL and OPS_STATE for every command
    on the lab.
    """
    seen = environment.get("PULUMI_BACKEND_URL", "")
    if seen and seen in _backends(environment.get("OPS_STATE", "")):
        return ""
    return (
        f"this {plugin} plugin is the lab's stand-in for the vendor's and serves nothing else\n"
        f"  seen: PULUMI_BACKEND_URL is {seen or 'not set'}\n"
        f"  expected: a backend of the lab at OPS_STATE={environment.get('OPS_STATE', '')}\n"
        f"  next: {NEXT_STEP.format(plugin=plugin)}"
    )


def _backends(state: str) -> list[str]:
    try:
        target = json.loads((Path(state) / "lab" / "target.json").read_text("utf-8"))
        return [target[key] for key in ("backend", "file_backend") if target.get(key)]
    except (OSError, ValueError, AttributeError):
        return []
