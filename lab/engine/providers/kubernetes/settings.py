"""The provider's configuration: what is supported, and how its texts are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.engine.providers import CheckFailure
from lab.engine.providers.kubernetes.kubeconfig import Overrides
from lab.engine.providers.kubernetes.replacing import Mutability
from lab.engine.values import strip_secrets

_SUPPORTED = frozenset(
    {
        "cluster",
        "clusterIdentifier",
        "context",
        "deleteUnreachable",
        "enableConfigMapMutable",
        "enablePatchForce",
        "enableSecretMutable",
        "enableServerSideApply",
        "helmReleaseSettings",
        "kubeClientSettings",
        "kubeconfig",
        "namespace",
        "skipUpdateUnreachable",
        "strictMode",
        "suppressDeprecationWarnings",
        "suppressHelmHookWarnings",
        "upsertExistingObjects",
    }
)
_ENGINE_KEYS = frozenset({"version", "pluginDownloadURL", "pluginChecksums", "__internal", "__defaults"})

_VARIABLES = {
    "deleteUnreachable": "PULUMI_K8S_DELETE_UNREACHABLE",
    "enableConfigMapMutable": "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE",
    "enablePatchForce": "PULUMI_K8S_ENABLE_PATCH_FORCE",
    "enableSecretMutable": "PULUMI_K8S_ENABLE_SECRET_MUTABLE",
    "skipUpdateUnreachable": "PULUMI_K8S_SKIP_UPDATE_UNREACHABLE",
    "suppressHelmHookWarnings": "PULUMI_K8S_SUPPRESS_HELM_HOOK_WARNINGS",
    "upsertExistingObjects": "PULUMI_K8S_UPSERT_EXISTING_OBJECTS",
}


@dataclass(frozen=True)
class Settings:
    """Field names are the settings', in Python's spelling."""

    kubeconfig: str = ""
    overrides: Overrides = field(default_factory=Overrides)
    mutability: Mutability = field(default_factory=Mutability)
    delete_unreachable: bool = False
    skip_update_unreachable: bool = False
    enable_patch_force: bool = False
    upsert_existing_objects: bool = False
    suppress_helm_hook_warnings: bool = False


def read_settings(inputs: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """A setting wins over its environment variable, as in the real provider."""
    values = {key: strip_secrets(value) for key, value in inputs.items()}

    def is_on(key: str) -> bool:
        if values.get(key) is not None:
            return values[key] is True or values[key] == "true"
        return environment.get(_VARIABLES[key]) == "true"

    def text(key: str) -> str:
        return values[key] if isinstance(values.get(key), str) else ""

    return Settings(
        kubeconfig=text("kubeconfig"),
        overrides=Overrides(context=text("context"), cluster=text("cluster"), namespace=text("namespace")),
        mutability=Mutability(config_map=is_on("enableConfigMapMutable"), secret=is_on("enableSecretMutable")),
        delete_unreachable=is_on("deleteUnreachable"),
        skip_update_unreachable=is_on("skipUpdateUnreachable"),
        enable_patch_force=is_on("enablePatchForce"),
        upsert_existing_objects=is_on("upsertExistingObjects"),
        suppress_helm_hook_warnings=is_on("suppressHelmHookWarnings"),
    )


def check_settings(news: Mapping[str, Any], *, is_default: bool) -> tuple[CheckFailure, ...]:
    """What is wrong with the configuration: settings the lab's provider does not have, and broken strict mode."""
    unsupported = sorted(set(news) - _SUPPORTED - _ENGINE_KEYS)
    failures = [
        CheckFailure(key, f'"kubernetes:{key}" is not supported by the lab\'s stand-in: use the real pulumi for it')
        for key in unsupported
    ]
    if str(strip_secrets(news.get("enableServerSideApply", "true"))).lower() == "false":
        failures.append(
            CheckFailure(
                "enableServerSideApply",
                "client-side apply is not supported by the lab's stand-in: use the real pulumi for it",
            )
        )
    return (*failures, *_strict_failures(news, is_default=is_default))


def _strict_failures(news: Mapping[str, Any], *, is_default: bool) -> list[CheckFailure]:
    if strip_secrets(news.get("strictMode")) not in ("true", True):
        return []
    failures = [CheckFailure("", "strict mode prohibits default provider")] if is_default else []
    missing = [key for key in ("kubeconfig", "context") if news.get(key) in (None, "")]
    return failures + [CheckFailure(key, f'strict mode requires Provider "{key}" argument') for key in missing]
