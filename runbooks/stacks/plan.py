"""The plan as data: each change with its rank, the plan of a stack, the plan of a run; and what exists already."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from runbooks.core.errors import OpsError
from runbooks.stacks.preparation import state_of
from runbooks.stacks.session import Session
from runbooks.tools.kubectl import Found, Json, Kubectl, Runs, ask_found, dig, text_at
from runbooks.tools.pulumi import Export, Preview, Step, is_bookkeeping, kind_of
from runbooks.tools.stack import Stack

NO_RECORD = "no earlier preview is on record"


class Rank(IntEnum):
    """How much a change matters; the plan summary shows the gravest first."""

    DESTRUCTIVE = 0
    EXISTING = 1
    REPLACE = 2
    RESTART = 3
    OTHER = 4


REPLACING = frozenset({"replace", "create-replacement", "delete-replaced"})
PRECIOUS_KUBERNETES = frozenset(
    {"PersistentVolumeClaim", "CustomResourceDefinition", "Namespace", "StatefulSet", "Database"}
)
"""Kinds whose deletion or replacement deletes data, or what other objects depend on."""
PRECIOUS_TYPES = re.compile(
    r"kubernetes:postgresql\.cnpg\.io/[^:]+:(Cluster|Database|DatabaseRole)$"
    r"|postgresql:index/(database:Database|role:Role)$"
)
WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod"})
RESTARTING_CLUSTER_PATHS = re.compile(r"^spec\.(imageName|imageCatalogRef|resources|postgresql|env|envFrom)\b")
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""The placeholder of a value that is not known before it is applied (pulumi pkg/resource/stack/deployment.go)."""
INCOMPLETE = re.compile(r"Preview is incomplete|unknown values")
PROTECTION = {
    "unprotect": "pulumi would no longer refuse to delete it",
    "protect": "pulumi would refuse to delete it from then on",
}
IN_THE_WAY = "in the way"
"""The verb of an existing object that pulumi would fail to create."""
BEING_DELETED = "being deleted"
"""In place of the owner of an existing object whose deletion has begun, which nothing can take over any more."""
FORGOTTEN = "only pulumi forgets it; the object stays"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One step that changes something, with its rank and, for the gravest, why it is one."""

    step: Step
    rank: Rank
    why: str = ""
    adopts: bool = False
    """Whether pulumi would take over an existing object instead of failing."""

    @property
    def verb(self) -> str:
        """The change in one word; all steps of a replace are one."""
        if self.rank is Rank.EXISTING:
            return "adopt" if self.adopts else IN_THE_WAY
        if self.step.op == "same":
            return self.step.protection or "same"
        if is_forgotten(self.step):
            return "forget"
        return "replace" if self.step.op in REPLACING else self.step.op


@dataclass(frozen=True, kw_only=True, slots=True)
class StackPlan:
    """What one stack's update would do."""

    stack: Stack
    preview: Preview | None = None
    """`None` while it is blocked."""
    waits_for: tuple[str, ...] = ()
    """Producers that have no outputs yet; a preview with made-up values would mislead."""
    changes: tuple[Change, ...] = ()
    leftovers: tuple[str, ...] = ()
    """URNs of old objects that a failed replace left to be deleted; pulumi's preview does not show them."""
    incomplete: tuple[str, ...] = ()
    """Components whose objects are unknown before they are applied; the approval covers creating those."""
    existing: Mapping[str, str] = field(default_factory=dict)
    """URN of what would be created and is in the cluster already → its owner."""
    adopts: bool = False
    """Pulumi would take over whatever exists already (`kubernetes:upsertExistingObjects`) instead of failing."""
    writes_outputs: bool = False
    """No resource changes, but program or settings have changed since the outputs were last written from here."""
    unchanged_since: str = ""
    """When its inputs were last found to need no change (`14:02`); it was not previewed again."""
    asked_because: tuple[str, ...] = ()
    """Why no record replaced the preview: `NO_RECORD`, the changed parts, or what cannot be recorded."""
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    """What determines the plan, as one hash each (`fingerprint_of`): two equal ones lead to the same plan."""

    @property
    def service(self) -> str:
        return self.stack.service

    @property
    def is_blocked(self) -> bool:
        return bool(self.waits_for)

    @property
    def has_changes(self) -> bool:
        return bool(self.changes or self.leftovers)

    @property
    def is_applied(self) -> bool:
        """Whether there is anything to apply. Outputs alone change without a step in the preview (decision 3)."""
        return self.has_changes or self.writes_outputs

    @property
    def is_destructive(self) -> bool:
        return any(change.rank is Rank.DESTRUCTIVE for change in self.changes)

    @property
    def state(self) -> str:
        if self.is_blocked:
            return f"blocked: waits for {', '.join(self.waits_for)}"
        if self.has_changes:
            return "would change"
        since = f" since {self.unchanged_since} (not previewed again)" if self.unchanged_since else ""
        # A comment in its program is enough: the preview does not tell whether outputs changed.
        written = "; its outputs, which a preview does not compare, are written" if self.writes_outputs else ""
        return f"unchanged{since}{written}"


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """All stacks of a run, in the layers in which they are applied."""

    layers: tuple[tuple[StackPlan, ...], ...]
    target: str = ""
    failures: Mapping[str, OpsError] = field(default_factory=dict)
    """Service → why it could not be previewed; only of a preview that went on after a failure."""

    @property
    def stacks(self) -> tuple[StackPlan, ...]:
        return tuple(plan for layer in self.layers for plan in layer)

    @property
    def has_changes(self) -> bool:
        return any(plan.has_changes for plan in self.stacks)

    @property
    def destructive_services(self) -> tuple[str, ...]:
        return tuple(plan.service for plan in self.stacks if plan.is_destructive)

    @property
    def adopting_services(self) -> tuple[str, ...]:
        """Those that take over objects of others; an incomplete preview does not show which."""
        return tuple(plan.service for plan in self.stacks if plan.adopts and (plan.existing or plan.incomplete))


# From a preview to a plan


def plan_of(
    stack: Stack,
    preview: Preview,
    *,
    export: Export | None = None,
    existing: Mapping[str, str] = MappingProxyType({}),
    adopts: bool = False,
) -> StackPlan:
    """Rank what the preview proposes. The stack itself and default providers do not count as changes."""
    changes: dict[tuple[str, str], Change] = {}
    for step in preview.changes:
        if not is_bookkeeping(step.urn):
            owner = existing.get(step.urn)
            change = rank_step(step) if owner is None else rank_existing(step, owner, adopts=adopts)
            # A replace may come as three steps; the plan summary has one.
            changes.setdefault((change.verb, step.urn), change)
    incomplete = (each.urn for each in preview.diagnostics if each.urn and INCOMPLETE.search(each.message))
    return StackPlan(
        stack=stack,
        preview=preview,
        changes=tuple(sorted(changes.values(), key=lambda change: change.rank)),
        leftovers=tuple(each.urn for each in export.resources if each.pending_delete) if export else (),
        incomplete=tuple(dict.fromkeys(incomplete)),
        existing=existing,
        adopts=adopts,
    )


def rank_existing(step: Step, owner: str, *, adopts: bool) -> Change:
    """Rank a create of an object that the cluster has already; `owner` is empty when the object names none."""
    stays = step.new is not None and step.new.retained
    taken = "taken over; it stays when this stack is destroyed" if stays else "taken over, and deleted with this stack"
    if owner == BEING_DELETED:
        return Change(step=step, rank=Rank.EXISTING, why=f"{owner}; wait until it is gone")
    why = taken if adopts else "pulumi would stop at it"
    return Change(step=step, rank=Rank.EXISTING, why=f"of {owner}; {why}" if owner else why, adopts=adopts)


def rank_step(step: Step) -> Change:
    """Rank one step. A destructive one needs its service's name typed."""
    why = why_destructive(step)
    if why:
        return Change(step=step, rank=Rank.DESTRUCTIVE, why=why)
    if step.op in REPLACING:
        because = f"because of {', '.join(step.replace_reasons)}" if step.replace_reasons else ""
        return Change(step=step, rank=Rank.REPLACE, why=because)
    rank = Rank.RESTART if restarts(step) else Rank.OTHER
    why = FORGOTTEN if is_forgotten(step) else PROTECTION.get(step.protection, "")
    return Change(step=step, rank=rank, why=why)


def why_destructive(step: Step) -> str:
    """Why the step is destructive, or an empty text when it is not."""
    if step.op == "delete" and not is_bookkeeping(step.urn) and not is_forgotten(step):
        return "deleted" if not step.protected else "deleted although it is protected"
    # A replaced ConfigMap or Secret loses nothing: the program has its content.
    if step.op in REPLACING:
        if step.protected:
            return "replaced although it is protected"
        if is_precious(step.type):
            return f"a {kind_of(step.type)} is replaced"
    return ""


def is_forgotten(step: Step) -> bool:
    """Whether the delete only changes pulumi's state (`retainOnDelete`): the object stays in the cluster."""
    return step.op == "delete" and step.old is not None and step.old.retained


def is_precious(type_token: str) -> bool:
    """Whether losing it loses data, or what other objects depend on. An RBAC `Role` is not a role of a database."""
    if PRECIOUS_TYPES.match(type_token):
        return True
    return type_token.startswith("kubernetes:") and kind_of(type_token).removesuffix("Patch") in PRECIOUS_KUBERNETES


def restarts(step: Step) -> bool:
    """Whether an update in place rolls pods: a changed pod template, or a Postgres setting that restarts instances."""
    if step.op != "update":
        return False
    paths = [change.path for change in step.changes] or list(step.reasons)
    kind = kind_of(step.type)
    if kind in WORKLOADS:
        return any(path.startswith(("spec.template", "spec.containers")) or path == "spec" for path in paths)
    if step.type.startswith("kubernetes:postgresql.cnpg.io/") and kind == "Cluster":
        return any(RESTARTING_CLUSTER_PATHS.match(path) or path == "spec" for path in paths)
    return False


# What the cluster has already

TAKES_OVER = "kubernetes:upsertExistingObjects"


def existing_of(session: Session, stack: Stack, preview: Preview) -> dict[str, str]:
    """URN → owner of each object that the preview would create and that the cluster has already."""
    found = find_existing(preview, session.kubectl, session.runner)
    if found:
        begun = {urn for kind, urn in state_of(session, stack).pending if kind == "creating"}
        found |= dict.fromkeys(begun & found.keys(), f"an interrupted update of {stack.service}")
    return found


def find_existing(preview: Preview, kubectl: Kubectl, runner: Runs) -> dict[str, str]:
    """URN → owner (empty when the object names none) of everything to be created that the cluster has already.

    One call of kubectl finds all objects whose names are known. Raises `KubectlFailed`.

    pulumi's own preview says `create` for them. Its update then stops half-way, or takes them over silently where
    `kubernetes:upsertExistingObjects` is on (pulumi-kubernetes provider/pkg/await/await.go, Creation).
    """
    wanted = {step.urn: manifest for step in preview.changes if (manifest := manifest_of(step))}
    found = find_objects(wanted, kubectl, runner)
    return {urn: _describe_owner(each) for urn, each in found.items()}


def _describe_owner(found: Found) -> str:
    if found.deleted_at:
        return BEING_DELETED
    if not found.release:  # a namespace alone names no release
        return ""
    return f"the helm release {found.release}" + (f" in {found.release_namespace}" if found.release_namespace else "")


def find_objects(manifests: Mapping[str, Json], kubectl: Kubectl, runner: Runs) -> dict[str, Found]:
    """URN → object, of those that the cluster has."""
    found = ask_found(runner, kubectl.find_all(list(manifests.values()))) if manifests else []
    return {urn: each for urn, manifest in manifests.items() for each in found if _is_object(each, manifest)}


def manifest_of(step: Step) -> Json | None:
    """What kubectl needs to find the object of a step that creates one; `None` for every other step.

    A patch is left out, as it changes an existing object; so is an object whose name is secret or unknown.
    """
    inputs = step.new.inputs if step.op == "create" and step.new else {}
    is_object = step.type.startswith("kubernetes:") and not step.type.endswith("Patch")
    facts = [text_at(inputs, "apiVersion"), text_at(inputs, "kind"), text_at(inputs, "metadata", "name")]
    namespace = dig(inputs, "metadata", "namespace")
    if not is_object or not all(facts) or UNKNOWN in (*facts, namespace) or isinstance(namespace, Mapping):
        return None
    metadata = {"name": facts[2]} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": facts[0], "kind": facts[1], "metadata": metadata}


def _is_object(found: Found, manifest: Json) -> bool:
    """Whether the found object is this one. A kind may have no namespaces; the default is the context's namespace."""
    kind, metadata = (manifest["apiVersion"], manifest["kind"]), manifest["metadata"]
    if (found.api_version, found.kind) != kind or found.name != metadata["name"]:
        return False
    return not found.namespace or found.namespace == metadata.get("namespace", found.namespace)


def takes_over(preview: Preview, settings: Mapping[str, Any]) -> bool:
    """Whether pulumi would take existing objects over instead of failing: by stack config or bound environment."""
    value = preview.settings.get(TAKES_OVER, settings.get(TAKES_OVER))
    return str(value).lower() == "true"
