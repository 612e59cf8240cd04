"""Run one Pulumi program under the SDK's mocks and print its charts as JSON. Nothing is deployed.

pulumi's preview shows a chart's objects, but not the values that helm needs to render it.

usage: python scripts/chart_inputs.py PROJECT_FOLDER
standard input: {"config": {"namespace:key": "text"}, "secrets": ["namespace:key", …], "outputs": ["name", …]}
    `outputs` are the outputs of every stack reference; each has its name as value
standard output: [{"release": …, "chart": …, "version": …, "repository": …, "namespace": …, "values": {…}}, …]
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.runtime import mocks, set_all_config
from pulumi.runtime.stack import run_pulumi_func

CHART = "kubernetes:helm.sh/v4:Chart"


class Charts(mocks.Mocks):
    """Answer each resource with its own inputs, and record those of charts."""

    def __init__(self, outputs: list[str]) -> None:
        self.outputs = {name: 5432 if name == "port" else name for name in outputs}
        self.charts: list[dict[str, Any]] = []

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], None]:  # noqa: ARG002 - the SDK's signature
        return {}, None

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if args.typ == "pulumi:pulumi:StackReference":
            return str(args.resource_id), {"name": args.inputs["name"], "outputs": self.outputs}
        if args.typ == CHART:
            self.charts.append(chart_of(args.name, args.inputs))
            return f"id-{args.name}", {"resources": []}
        return f"id-{args.name}", args.inputs


def chart_of(release: str, inputs: dict[str, Any]) -> dict[str, Any]:
    files = inputs.get("valueYamlFiles") or []
    return {
        "release": inputs.get("name") or release,
        "chart": inputs["chart"],
        "version": inputs.get("version") or "",
        "repository": (inputs.get("repositoryOpts") or {}).get("repo") or "",
        "namespace": inputs.get("namespace") or "default",
        "values": merge([*(yaml.safe_load(file.text) for file in files), inputs.get("values") or {}]),
        "skip_crds": bool(inputs.get("skipCrds")),
    }


def merge(layers: list[Any]) -> Any:
    """Merge the layers as the provider does: later ones win, key by key; None removes the chart's own value."""
    result: Any = {}
    for layer in layers:
        if not isinstance(layer, dict) or not isinstance(result, dict):
            result = layer
            continue
        result = result | {key: merge([result[key], value]) if key in result else value for key, value in layer.items()}
    return result


async def charts_of(given: dict[str, Any], project: str) -> list[dict[str, Any]]:
    recorder = Charts(given["outputs"])
    mocks.set_mocks(recorder, project=project, stack="charts")
    set_all_config(given["config"], given["secrets"])
    await run_pulumi_func(lambda: runpy.run_path("__main__.py", run_name="__main__") and None)
    return recorder.charts


def main() -> None:
    gc.disable()
    # After an error in a program asyncio would report each unfinished future.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    os.chdir(sys.argv[1])
    sys.path[0] = ""  # the program's folder, as under the real CLI
    project = yaml.safe_load(Path("Pulumi.yaml").read_text(encoding="utf-8"))["name"]
    code = 0
    try:
        print(json.dumps(asyncio.run(charts_of(json.load(sys.stdin), project))), flush=True)
    except pulumi.RunError as error:
        print(error, file=sys.stderr, flush=True)
        code = 2
    os._exit(code)  # skips the clean-up of event loops that the mocks leave in their threads


if __name__ == "__main__":
    main()
