"""Run Pulumi programs under mocks and print what each asked for, as JSON.

Each run takes a process of its own: the SDK keeps its configuration, its stack and its callbacks per process, and the
programs have modules of the same names.

standard input, one run a line: {"folder": "of the project", "config": {"key": "text"}, "secrets": ["key", …],
    "stacks": {"organization/project/stack": {…}}} (of each its outputs; one whose value is {"secret": value} is secret)
standard output: for each run a line with what it asked for, and one with its exit code.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pulumi
import yaml
from google.protobuf.json_format import MessageToDict
from pulumi.runtime import mocks, rpc, set_all_config
from pulumi.runtime.stack import run_pulumi_func

SIGNATURE = rpc._special_sig_key


class Recorder(mocks.Mocks):
    """Answers each resource with its own inputs, as a provider does that computes nothing.

    A stack reference is answered with the outputs of the stack in `stacks`.
    """

    def __init__(self, stacks: dict[str, dict[str, Any]]) -> None:
        self.stacks = stacks

    def call(self, args: mocks.MockCallArgs) -> tuple[dict, None]:
        raise NotImplementedError(args.token)

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict]:
        if args.typ == "pulumi:pulumi:StackReference":
            return str(args.resource_id), self._outputs(args.inputs["name"])
        return f"id-{args.name}", {"resources": []} if args.typ.endswith(":Chart") else args.inputs

    def _outputs(self, stack: str) -> dict[str, Any]:
        outputs = self.stacks[stack]
        secret = [name for name, value in outputs.items() if isinstance(value, dict) and set(value) == {"secret"}]
        known = {
            name: {SIGNATURE: rpc._special_secret_sig, "value": value["secret"]} if name in secret else value
            for name, value in outputs.items()
        }
        return {"name": stack, "outputs": known, "secretOutputNames": secret}


class RecordingMonitor(mocks.MockMonitor):
    """The mock monitor, which also records what `Mocks.new_resource` does not get."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.seen: list[dict[str, Any]] = []

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the SDK's name
        response = super().RegisterResource(request)
        if request.type != "pulumi:pulumi:Stack":
            self.seen.append(
                {
                    "type": request.type,
                    "name": request.name,
                    "urn": response.urn,
                    "inputs": plain(rpc.deserialize_properties(request.object)),
                    "secret_inputs": secret_paths(rpc.deserialize_properties(request.object)),
                    "after": [kind_and_name(urn) for urn in request.dependencies],
                    "protect": request.protect,
                    "deleted_with": request.deletedWith.rpartition("::")[2],
                    "provider": request.provider.rpartition("::")[0].rpartition("::")[2],
                    "aliases": [plain(MessageToDict(alias)) for alias in request.aliases],
                    "children": children(mocks._resolve_callbacks(request.transforms)),
                }
            )
        return response


def kind_and_name(urn: str) -> list[str]:
    _, _, type_, name = urn.split("::", 3)
    return [type_.rpartition(":")[2], name]


CHILDREN = (
    ("kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition", "clusters.postgresql.cnpg.io"),
    ("kubernetes:apps/v1:Deployment", "operator"),
    ("kubernetes:core/v1:Service", "webhook"),
)


SOME_CHARTS_CHILDREN = (
    ("kubernetes:batch/v1:Job", "job"),
    ("kubernetes:admissionregistration.k8s.io/v1:ValidatingWebhookConfiguration", "webhook"),
    ("kubernetes:monitoring.coreos.com/v1:Prometheus", "prometheus"),
    ("kubernetes:monitoring.coreos.com/v1:Alertmanager", "alertmanager"),
)
"""Told of only where a chart's transforms change them."""


def children(transforms: list[pulumi.ResourceTransform]) -> dict[str, dict[str, str]]:
    """Annotations that the transforms of a chart give to objects of a few kinds, and the options they set."""
    annotations = {}
    for type_, name in (*CHILDREN, *SOME_CHARTS_CHILDREN):
        args = pulumi.ResourceTransformArgs(True, type_, name, {"metadata": {"name": name}}, pulumi.ResourceOptions())
        for transform in transforms:
            result = transform(args)
            if result is not None:
                args = pulumi.ResourceTransformArgs(True, type_, name, result.props, result.opts)
        options = {"protect": args.opts.protect, "retain": args.opts.retain_on_delete}
        given = dict(args.props["metadata"].get("annotations", {})) | {key: "true" for key, on in options.items() if on}
        if given or (type_, name) in CHILDREN:
            annotations[type_.rpartition(":")[2]] = given
    return annotations


def plain(value: Any) -> Any:
    """The value with the wrappings of secrets and texts taken off, and whole floats as the integers they were."""
    if isinstance(value, pulumi.StringAsset):
        return {"text": value.text}
    if isinstance(value, dict):
        return plain(value["value"]) if SIGNATURE in value else {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def secret_paths(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        if SIGNATURE in value:
            return [path]
        return [found for key, item in value.items() for found in secret_paths(item, f"{path}.{key}".lstrip("."))]
    return []


async def resolved(output: Any) -> dict[str, Any]:
    known = pulumi.Output.from_input(output)
    return {"value": await known.future(), "secret": await known.is_secret()}


async def record(monitor: RecordingMonitor) -> dict[str, Any]:
    exports: dict[str, Any] = {}

    def program() -> None:
        runpy.run_path("__main__.py", run_name="__main__")
        exports.update(pulumi.runtime.settings.get_root_resource().outputs)

    try:
        await run_pulumi_func(program)
    except pulumi.RunError as error:
        return {"resources": monitor.seen, "exports": {}, "error": str(error)}
    known = {name: await resolved(value) for name, value in exports.items()}
    return {"resources": monitor.seen, "exports": known, "error": None}


class Warned(logging.Handler):
    """What the program reports through `pulumi.log`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, entry: logging.LogRecord) -> None:
        self.messages.append(entry.getMessage())


async def answer(given: dict[str, Any], project: str) -> dict[str, Any]:
    warned = Warned()
    logger = logging.getLogger("program")
    logger.addHandler(warned)
    recorder = Recorder(given.get("stacks", {}))
    monitor = RecordingMonitor(recorder)
    mocks.set_mocks(recorder, project=project, stack="test", organization="home", monitor=monitor, logger=logger)
    set_all_config(given["config"], given["secrets"])
    return {**await record(monitor), "warnings": warned.messages}


SDKS = ("core.v1", "apps.v1", "networking.v1", "helm.v4", "apiextensions", "meta.v1")


def run(given: dict[str, Any]) -> None:
    os.chdir(given["folder"])
    sys.path[0] = ""  # the program's folder, as under the real CLI
    project = yaml.safe_load(Path("Pulumi.yaml").read_text(encoding="utf-8"))["name"]
    print(json.dumps(asyncio.run(answer(given, project))), flush=True)
    os._exit(0)  # without the ends of the event loops that the mocks leave in their threads, which are noisy


def main() -> None:
    """Run each program in a fork of this process, which has the SDKs already: importing them takes longest."""
    gc.disable()
    # As the real CLI does: a program that ends early leaves futures behind, and asyncio would report each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    for name in ("pulumi_postgresql", *(f"pulumi_kubernetes.{module}" for module in SDKS)):
        importlib.import_module(name)
    for line in sys.stdin:
        given = json.loads(line)
        if os.fork() == 0:
            run(given)
        _, status = os.wait()
        print(json.dumps({"exit": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
