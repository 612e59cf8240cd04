"""A stand-in for the kubernetes provider: objects in one JSON file, no cluster.

Behaves like the real one where the engine can tell: generated names, server-side defaults (uid), replace rules for
ConfigMaps and names, secrets kept, ``Chart`` as a remote component, slow and failing creates on demand.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.engine.cancellation import Cancelled
from lab.engine.providers import (
    CheckFailure,
    CheckResult,
    ConstructRequest,
    ConstructResult,
    CreateResult,
    DiffResult,
    InvokeResult,
    MonitorHandle,
    PartialFailure,
    PropertyDiff,
    ProviderError,
    ProviderHost,
    ReadResult,
    ResourceOptions,
    UpdateResult,
)
from lab.engine.values import UNKNOWN, PropertyMap, Secret, mark_like, strip_secrets

SERVER_SIDE = ("uid", "resourceVersion")


class FakeKubernetes:
    def __init__(self, host: ProviderHost) -> None:
        self.host = host
        self.file = Path(os.environ["FAKE_CLUSTER"])

    @contextmanager
    def cluster(self) -> Iterator[dict[str, Any]]:
        with self.file.open("a+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            handle.seek(0)
            objects = json.loads(handle.read() or "{}")
            yield objects
            handle.truncate(0)
            handle.write(json.dumps(objects))

    def check_config(self, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        return CheckResult(news)

    def diff_config(self, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        return DiffResult(olds != news)

    def configure(self, inputs: PropertyMap) -> None:
        self.settings = inputs

    def supports(self, type: str) -> bool:
        return "Unsupported" not in type

    def check(
        self, urn: str, type: str, olds: PropertyMap | None, news: PropertyMap, *, autoname_seed: bytes
    ) -> CheckResult:
        inputs = dict(news)
        metadata = dict(strip_secrets(inputs.get("metadata") or {}))
        if "name" not in metadata:
            old_name = ((olds or {}).get("metadata") or {}).get("name")
            metadata["name"] = old_name or f"{urn.rsplit('::', 1)[-1]}-{autoname_seed.hex()[:8]}"
        inputs["metadata"] = metadata
        if type.endswith(":Secret"):
            texts = strip_secrets(inputs.pop("stringData", None) or {})
            encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
            inputs["data"] = Secret({**strip_secrets(inputs.get("data") or {}), **encoded})
        if metadata["name"] == "refused":
            return CheckResult(inputs, (CheckFailure("metadata.name", "no"),))
        return CheckResult(inputs)

    def diff(
        self,
        urn: str,
        type: str,
        id: str,
        old_inputs: PropertyMap,
        old_outputs: PropertyMap,
        new_inputs: PropertyMap,
        ignore_changes: Sequence[str],
    ) -> DiffResult:
        old, new = strip_secrets(old_inputs), strip_secrets(new_inputs)
        detailed: dict[str, PropertyDiff] = {}
        replaces = []
        for path, kind in _differences(old, new, ""):
            replace = path == "metadata.name" or (type.endswith(":ConfigMap") and path.split(".")[0] == "data")
            if replace:
                replaces.append(path)
            detailed[path] = PropertyDiff(f"{kind}-replace" if replace else kind, kind == "delete")  # type: ignore[arg-type]
        name_same = (old.get("metadata") or {}).get("name") == (new.get("metadata") or {}).get("name")
        return DiffResult(bool(detailed), tuple(replaces), detailed, bool(replaces) and name_same)

    def create(self, urn: str, type: str, inputs: PropertyMap, *, preview: bool, timeout: float) -> CreateResult:
        plain = strip_secrets(inputs)
        metadata = plain["metadata"]
        key = _key(plain)
        if preview:
            outputs = mark_like({**plain, "metadata": {**metadata, "uid": str(uuid.uuid4())}}, inputs)
            return CreateResult("", outputs)
        self.host.log("info", urn, "", ephemeral=True)
        with self.cluster() as objects:
            if key in objects:
                raise ProviderError(
                    f'resource "{urn}" was not successfully created by the Kubernetes API server: '
                    f'configmaps "{metadata["name"]}" already exists'
                )
            live = {**plain, "metadata": {**metadata, "uid": str(uuid.uuid4()), "resourceVersion": "1"}}
            objects[key] = live
        outputs = mark_like({**live, "__inputs": plain}, {**inputs, "__inputs": inputs})
        if metadata["name"].startswith("slow"):
            self.host.log(
                "info", urn, "Waiting for app ReplicaSet to be available (0/1 Pods available)", ephemeral=True
            )
            if metadata["name"] == "slow-deaf":
                threading.Event().wait(30)
            if self.host.cancellation.wait(30):
                reasons = [
                    f'resource "{urn}" was successfully created, but the Kubernetes API server reported that it failed '
                    f'to fully initialize or become live: Resource operation was cancelled for "{metadata["name"]}"',
                    "Minimum number of live Pods was not attained",
                ]
                message = f"{len(reasons)} errors occurred:\n" + "".join(f"\t* {reason}\n" for reason in reasons)
                raise PartialFailure(key, outputs, reasons, message=message)
        return CreateResult(key, outputs)

    def read(self, urn: str, type: str, id: str, inputs: PropertyMap | None, outputs: PropertyMap | None) -> ReadResult:
        with self.cluster() as objects:
            live = objects.get(id)
        if live is None:
            return ReadResult(None, {}, {})
        pattern = inputs or {}
        clean = {**live, "metadata": {k: v for k, v in live["metadata"].items() if k not in SERVER_SIDE}}
        return ReadResult(
            id, mark_like(clean, pattern), mark_like({**live, "__inputs": clean}, {**pattern, "__inputs": pattern})
        )

    def update(
        self,
        urn: str,
        type: str,
        id: str,
        old_inputs: PropertyMap,
        old_outputs: PropertyMap,
        new_inputs: PropertyMap,
        *,
        ignore_changes: Sequence[str],
        preview: bool,
        timeout: float,
    ) -> UpdateResult:
        plain = strip_secrets(new_inputs)
        old_metadata = strip_secrets(old_outputs)["metadata"]
        live = {**plain, "metadata": {**plain["metadata"], **{k: old_metadata[k] for k in SERVER_SIDE}}}
        if not preview:
            live["metadata"]["resourceVersion"] = str(int(old_metadata["resourceVersion"]) + 1)
            with self.cluster() as objects:
                objects[id] = live
        return UpdateResult(mark_like({**live, "__inputs": plain}, {**new_inputs, "__inputs": new_inputs}))

    def delete(
        self, urn: str, type: str, id: str, inputs: PropertyMap, outputs: PropertyMap, *, timeout: float
    ) -> None:
        if strip_secrets(inputs)["metadata"]["name"] == "stuck":
            raise ProviderError("it does not go away")
        with self.cluster() as objects:
            objects.pop(id, None)

    def construct(self, request: ConstructRequest, monitor: MonitorHandle) -> ConstructResult:
        namespace = strip_secrets(request.inputs.get("namespace") or "default")
        component = monitor.register(request.type, request.name, {}, request.options, custom=False)
        child = monitor.register(
            "kubernetes:core/v1:ConfigMap",
            f"{request.name}:{namespace}/{request.name}-cm",
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"{request.name}-cm", "namespace": namespace},
                "data": {"colour": strip_secrets(request.inputs.get("values") or {}).get("colour", "none")},
            },
            ResourceOptions(),
        )
        if not request.preview and child.id is UNKNOWN:
            raise ProviderError("a child without id")
        return ConstructResult(component.urn, {"resources": []})

    def invoke(self, token: str, args: PropertyMap, *, preview: bool) -> InvokeResult:
        return InvokeResult({"answer": args})

    def cancel(self) -> None:
        if not self.host.cancellation.is_cancelled:
            raise Cancelled

    def close(self) -> None:
        pass


def _key(plain: PropertyMap) -> str:
    metadata = plain["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else metadata["name"]


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            inner = f"{path}.{key}" if path else key
            if key not in new:
                yield inner, "delete"
            elif key not in old:
                yield inner, "add"
            else:
                yield from _differences(old[key], new[key], inner)
    elif old != new:
        yield path, "update"


def create_provider(host: ProviderHost) -> FakeKubernetes:
    return FakeKubernetes(host)
