"""Objects that a stack would create and the cluster has already: asked for in one question, before anybody agrees.

pulumi's own preview says `create` for them. Its update then stops half-way, or takes them over without a word where the
setting `kubernetes:upsertExistingObjects` is on (pulumi-kubernetes provider/pkg/await/await.go, Creation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runbooks.tools.kubectl import Found, Json, Kubectl, Runs, ask_found, dig, text_at
from runbooks.tools.pulumi import Preview, Step

TAKES_OVER = "kubernetes:upsertExistingObjects"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What stands in a preview for a text that is not known before the update (pulumi sdk/go/common/resource/plugin)."""


def existing(preview: Preview, kubectl: Kubectl, runner: Runs) -> dict[str, str]:
    """URN → whose it is (empty when nobody says), of everything to be created that the cluster has already.

    Objects whose names are not known yet are left out. Raises `KubectlFailed`.
    """
    wanted = {step.urn: manifest for step in preview.changes if (manifest := manifest_of(step))}
    if not wanted:
        return {}
    found = ask_found(runner, kubectl.find_all(list(wanted.values())))
    return {urn: owner_of(match) for urn, manifest in wanted.items() if (match := _match(manifest, found))}


def manifest_of(step: Step) -> Json | None:
    """What kubectl needs to find the object of a step that creates one; `None` for every other step.

    Patches are made on what exists, so they are none. A secret or unknown name cannot be asked for.
    """
    inputs = step.new.inputs if step.op == "create" and step.new else {}
    is_object = step.type.startswith("kubernetes:") and not step.type.endswith("Patch")
    facts = [text_at(inputs, "apiVersion"), text_at(inputs, "kind"), text_at(inputs, "metadata", "name")]
    namespace = dig(inputs, "metadata", "namespace")
    if not is_object or not all(facts) or UNKNOWN in (*facts, namespace) or isinstance(namespace, Mapping):
        return None
    metadata = {"name": facts[2]} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": facts[0], "kind": facts[1], "metadata": metadata}


def _match(manifest: Json, found: list[Found]) -> Found | None:
    """A kind without namespaces is found without one; an object without a namespace in the context's own."""
    metadata = manifest["metadata"]
    key = (manifest["apiVersion"], manifest["kind"], metadata["name"])
    return next(
        (
            each
            for each in found
            if (each.api_version, each.kind, each.name) == key
            and (each.namespace == metadata.get("namespace") or not each.namespace or "namespace" not in metadata)
        ),
        None,
    )


def owner_of(found: Found) -> str:
    """`the helm release cnpg in cnpg-system`; empty when the object names no release."""
    if not found.release:
        return ""
    return f"the helm release {found.release}" + (f" in {found.release_namespace}" if found.release_namespace else "")


def takes_over(preview: Preview, settings: Mapping[str, Any]) -> bool:
    """Whether pulumi would take existing objects over instead of failing: by stack config or bound environment."""
    given = preview.settings.get(TAKES_OVER, settings.get(TAKES_OVER))
    return str(given).lower() == "true"
