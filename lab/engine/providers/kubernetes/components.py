"""The remote components: ``helm.sh/v4:Chart``, ``yaml/v2:ConfigGroup`` and ``yaml/v2:ConfigFile``."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lab.engine.providers import (
    ConstructRequest,
    ConstructResult,
    MonitorHandle,
    ProviderError,
    ProviderHost,
    ResourceOptions,
)
from lab.engine.providers.kubernetes.client import Object
from lab.engine.providers.kubernetes.discovery import Discovery
from lab.engine.providers.kubernetes.helm import Capabilities, ChartRequest, Repository, render
from lab.engine.providers.kubernetes.kubeconfig import ClusterAccess
from lab.engine.providers.kubernetes.manifests import (
    ManifestLoader,
    Registration,
    complete,
    parse_manifests,
    register_all,
    unresolved_warning,
)
from lab.engine.providers.kubernetes.objects import annotation
from lab.engine.values import Archive, Asset, ResourceReference, has_unknowns, strip_secrets

CHART = "kubernetes:helm.sh/v4:Chart"
CONFIG_GROUP = "kubernetes:yaml/v2:ConfigGroup"
CONFIG_FILE = "kubernetes:yaml/v2:ConfigFile"
TYPES = (CHART, CONFIG_GROUP, CONFIG_FILE)

RESOURCE_POLICY = "helm.sh/resource-policy"

_CHART_INPUTS = frozenset(
    {
        "chart",
        "dependencyUpdate",
        "devel",
        "includeHooks",
        "keyring",
        "name",
        "namespace",
        "plainHttp",
        "postRenderer",
        "repositoryOpts",
        "resourcePrefix",
        "skipAwait",
        "skipCrds",
        "valueYamlFiles",
        "values",
        "verify",
        "version",
    }
)


@dataclass
class Components:
    """Builds components for one configured provider."""

    host: ProviderHost
    discovery: Discovery
    access: ClusterAccess
    kube_version: Callable[[], str]
    context: str
    environment: Mapping[str, str]

    def construct(self, request: ConstructRequest, monitor: MonitorHandle) -> ConstructResult:
        """Registers the component, then its objects."""
        component = monitor.register(request.type, request.name, {}, request.options, custom=False)
        inputs: dict[str, Any] = strip_secrets(request.inputs)
        if has_unknowns(inputs):
            self._warn_unknown(request, component.urn)
            children: list[ResourceReference] = []
        else:
            children = self._children(request, inputs, component.urn, monitor)
        # The real components do not record their outputs either: only the program gets them.
        return ConstructResult(component.urn, {"resources": children})

    def _warn_unknown(self, request: ConstructRequest, urn: str) -> None:
        if request.type == CHART:
            self.host.log("warning", urn, "Input properties have unknown values. Preview is incomplete.")
            return
        self.host.log(
            "warning",
            "",
            f"{request.type}:{request.name} -- Required input properties have unknown values. Preview is incomplete.\n",
        )

    def _children(
        self, request: ConstructRequest, inputs: dict[str, Any], urn: str, monitor: MonitorHandle
    ) -> list[ResourceReference]:
        namespace = self.access.namespace
        if request.type == CHART:
            namespace = str(inputs.get("namespace") or "") or namespace
            found = parse_manifests(self._render(request, inputs, urn, namespace))
        else:
            found = self._read(request.type, inputs)
        objects, unresolved = complete(found, namespace, self.discovery)
        if unresolved:
            self.host.log("warning", "", unresolved_warning(unresolved))
        prefix = inputs.get("resourcePrefix")
        how = Registration(
            parent=urn,
            prefix=request.name if prefix is None else str(prefix),
            skip_await=inputs.get("skipAwait") is True,
            options=_child_options(request.options),
            adjust=lambda obj, options: self._apply_policy(obj, options, urn),
        )
        return register_all(objects, how, monitor)

    def _apply_policy(self, obj: Object, options: ResourceOptions, urn: str) -> ResourceOptions:
        policy = annotation(obj, RESOURCE_POLICY)
        if policy == "keep":
            return replace(options, retain_on_delete=True)
        if policy:
            self.host.log("warning", urn, f'Unsupported Helm resource policy "{policy}"')
        return options

    def _read(self, type: str, inputs: Mapping[str, Any]) -> list[Object]:
        found: list[Object] = []
        for pattern in _file_patterns(type, inputs):
            for path in _matching(pattern, self.host.program_folder):
                try:
                    found += parse_manifests(path.read_text(encoding="utf-8"))
                except OSError as error:
                    raise ProviderError(f"reading YAML file from disk: open {path}: {error.strerror}") from error
        found += parse_manifests(str(inputs.get("yaml") or ""))
        return found + [dict(one) for one in inputs.get("objs") or []]

    def _render(self, request: ConstructRequest, inputs: dict[str, Any], urn: str, namespace: str) -> str:
        unsupported = sorted(set(inputs) - _CHART_INPUTS)
        if unsupported:
            raise ProviderError(f"chart argument {unsupported[0]!r} is not supported by the lab's stand-in")
        if inputs.get("includeHooks"):
            self.host.log(
                "warning",
                urn,
                "includeHooks is only supported when the provider is configured with renderYamlToDirectory;"
                " Helm hooks will be ignored.",
            )
        with tempfile.TemporaryDirectory(prefix="chart-") as private:
            chart = self._chart_request(request.name, inputs, namespace, Path(private))
            rendered = render(chart, self._capabilities(Path(private)), self.host.cancellation, self.environment)
        if rendered.is_deprecated:
            self.host.log("warning", urn, f"Using a deprecated Helm chart ({Path(chart.chart).name})")
        if rendered.has_blind_lookup:
            self.host.log(
                "warning",
                urn,
                "the chart looks objects up in the cluster and has kinds that the cluster does not serve yet: helm 4"
                " can only do one of both, so its lookups found nothing",
            )
        return rendered.manifests

    def _capabilities(self, private: Path) -> Capabilities:
        kubeconfig = ""
        if self.access.document:
            file = private / "kubeconfig"
            file.touch(mode=0o600)
            file.write_text(self.access.document, encoding="utf-8")
            kubeconfig = str(file)
        return Capabilities(self.kube_version(), self.discovery.api_versions(), kubeconfig, self.context)

    def _chart_request(self, name: str, inputs: dict[str, Any], namespace: str, private: Path) -> ChartRequest:
        folder = self.host.program_folder
        renderer = inputs.get("postRenderer") or {}
        return ChartRequest(
            release=str(inputs.get("name") or name),
            chart=str(inputs.get("chart") or ""),
            namespace=namespace,
            folder=folder,
            version=str(inputs.get("version") or ""),
            values=merge_values(inputs, folder),
            repository=_repository(inputs.get("repositoryOpts") or {}, folder, private),
            include_definitions=not inputs.get("skipCrds"),
            dependency_update=bool(inputs.get("dependencyUpdate")),
            devel=bool(inputs.get("devel")),
            verify=bool(inputs.get("verify")),
            plain_http=bool(inputs.get("plainHttp")),
            keyring=_as_file(inputs.get("keyring"), folder, private / "keyring"),
            post_renderer=(str(renderer["command"]), *map(str, renderer.get("args") or [])) if renderer else (),
        )


def _child_options(options: ResourceOptions) -> ResourceOptions:
    """What children take over from their component: its provider; the engine adds transforms and protection."""
    return ResourceOptions(provider=options.providers.get("kubernetes", options.provider), version=options.version)


def _file_patterns(type: str, inputs: Mapping[str, Any]) -> list[str]:
    if type == CONFIG_FILE:
        return [str(inputs["file"])] if inputs.get("file") else []
    files = inputs.get("files") or []
    return [files] if isinstance(files, str) else [str(one) for one in files]


def _matching(pattern: str, folder: str) -> list[Path]:
    if "://" in pattern:
        raise ProviderError(f"manifests from the network are not supported by the lab's stand-in: {pattern}")
    path = os.path.join(folder, pattern)  # noqa: PTH118 - keeps an absolute pattern, and glob wants text
    return [Path(one) for one in sorted(glob.glob(path))] if glob.has_magic(pattern) else [Path(path)]  # noqa: PTH207


def merge_values(inputs: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Values files in their order, then ``values``: maps are merged, anything else replaces, nulls stay."""
    merged: dict[str, Any] = {}
    for asset in inputs.get("valueYamlFiles") or []:
        try:
            parsed = yaml.load(read_asset(asset, folder), Loader=ManifestLoader)  # noqa: S506 - built on the safe loader
        except yaml.YAMLError as error:
            raise ProviderError(f"unable to process the chart values: {error}") from error
        merged = _merge(merged, parsed or {})
    return _merge(merged, _with_assets(inputs.get("values") or {}, folder))


def _merge(one: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _with_assets(value: Any, folder: str) -> Any:
    if isinstance(value, Asset):
        return read_asset(value, folder)
    if isinstance(value, Archive):
        raise ProviderError("Archive values are not supported as a Helm value")
    if isinstance(value, dict):
        return {key: _with_assets(item, folder) for key, item in value.items()}
    return [_with_assets(item, folder) for item in value] if isinstance(value, list) else value


def read_asset(asset: Any, folder: str) -> str:
    """Text of a string or file asset. Raises ``ProviderError``."""
    if not isinstance(asset, Asset):
        raise ProviderError("unrecognized asset type")
    if asset.text is not None:
        return asset.text
    if asset.path is None:
        raise ProviderError(f"assets from the network are not supported by the lab's stand-in: {asset.uri}")
    path = Path(folder) / asset.path
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProviderError(f'failed to read file "{asset.path}": {error.strerror}') from error


def _as_file(asset: Any, folder: str, private: Path) -> str:
    if asset is None:
        return ""
    if isinstance(asset, Asset) and asset.path is not None:
        return str(Path(folder) / asset.path)
    private.touch(mode=0o600)
    private.write_text(read_asset(asset, folder), encoding="utf-8")
    return str(private)


def _repository(options: Mapping[str, Any], folder: str, private: Path) -> Repository:
    return Repository(
        url=str(options.get("repo") or ""),
        username=str(options.get("username") or ""),
        password=str(options.get("password") or ""),
        ca_file=_as_file(options.get("caFile"), folder, private / "ca"),
        cert_file=_as_file(options.get("certFile"), folder, private / "cert"),
        key_file=_as_file(options.get("keyFile"), folder, private / "key"),
    )
