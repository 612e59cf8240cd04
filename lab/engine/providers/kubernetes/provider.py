"""The ``kubernetes`` provider of the lab's ``pulumi``: like pulumi-kubernetes 4.34 as far as the lab needs it."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import NoReturn

from lab.engine.providers import (
    CheckResult,
    ConstructRequest,
    ConstructResult,
    CreateResult,
    DiffResult,
    InvokeResult,
    MonitorHandle,
    PartialFailure,
    ProviderError,
    ProviderHost,
    ReadResult,
    UpdateResult,
)
from lab.engine.providers.kubernetes import tokens
from lab.engine.providers.kubernetes.client import ApiError, ConnectionFailed, Object
from lab.engine.providers.kubernetes.cluster import Cluster, Unreachable, connect
from lab.engine.providers.kubernetes.components import Components
from lab.engine.providers.kubernetes.diffing import detailed_diff, is_ignored
from lab.engine.providers.kubernetes.discovery import NoMatch, namespaced_by_table
from lab.engine.providers.kubernetes.kubeconfig import KubeconfigError, load_access
from lab.engine.providers.kubernetes.normal import (
    READ_ONLY,
    checkpoint,
    mark_secrets,
    normalize,
    prune,
    read_checkpoint,
    to_object,
    with_dropped,
)
from lab.engine.providers.kubernetes.objects import (
    AUTONAMED,
    HELM_HOOK,
    PATCH_FIELD_MANAGER,
    REPLACE_UNREADY,
    annotate,
    annotation,
    api_version_of,
    full_kind,
    has_generated_name,
    is_annotated,
    is_definition,
    is_named,
    kind_of,
    name_of,
    namespace_of,
    pluck,
    qualified_name,
    split_id,
    text,
)
from lab.engine.providers.kubernetes.operations import ALREADY_EXISTS_HELP, Messages, NamespaceMissing
from lab.engine.providers.kubernetes.replacing import replacing_paths
from lab.engine.providers.kubernetes.settings import Settings, check_settings, read_settings
from lab.engine.providers.kubernetes.waiting import StatusLog, WaitFailed
from lab.engine.providers.kubernetes.workloads import job_is_complete
from lab.engine.values import UNKNOWN, PropertyMap, has_unknowns, strip_secrets

NO_CRD = (
    "failed because the Kubernetes API server reported that the apiVersion for this resource does not exist."
    " Verify that any required CRDs have been created"
)
DELETE_HINT = (
    "If the cluster was deleted, you can remove this resource from Pulumi state by rerunning the operation with the"
    ' PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"'
)
HOOKS_IGNORED = (
    "This resource contains Helm hooks that are not currently supported by Pulumi. The resource will be created, but"
    " any hooks will not be executed. Hooks support is tracked at"
    " https://github.com/pulumi/pulumi-kubernetes/issues/555 -- This warning can be disabled by setting the"
    " PULUMI_K8S_SUPPRESS_HELM_HOOK_WARNINGS environment variable"
)


class KubernetesProvider:
    """Implements ``lab.engine.providers.Provider``."""

    def __init__(self, host: ProviderHost, environment: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._environment = os.environ if environment is None else environment
        self._settings = Settings()
        self._cluster: Cluster | Unreachable = Unreachable("the provider is not configured yet")

    # Configuration ---------------------------------------------------------------------------------------------------

    def check_config(self, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        del olds
        return CheckResult(news, check_settings(news, is_default=False))

    def diff_config(self, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        changed = tuple(sorted(key for key in {*olds, *news} if olds.get(key) != news.get(key)))
        identifier = "clusterIdentifier"
        if identifier in news and news.get(identifier) == olds.get(identifier):
            return DiffResult(bool(changed), diffs=changed)
        replaces = [identifier] if identifier in changed and identifier in olds and identifier in news else []
        target = [key for key in ("kubeconfig", "context", "cluster") if key in changed]
        if any(news.get(key) is UNKNOWN for key in target) or _leads_elsewhere(olds, news):
            replaces += target
        return DiffResult(bool(changed), tuple(replaces), diffs=changed)

    def configure(self, inputs: PropertyMap) -> None:
        self._settings = read_settings(inputs, self._environment)
        self._cluster = connect(self._settings, self._environment, self._host.cancellation)

    def supports(self, type: str) -> bool:
        return tokens.is_supported(type)

    # Resources -------------------------------------------------------------------------------------------------------

    def check(
        self, urn: str, type: str, olds: PropertyMap | None, news: PropertyMap, *, autoname_seed: bytes
    ) -> CheckResult:
        if isinstance(self._cluster, Unreachable) and self._settings.skip_update_unreachable and olds is not None:
            self._host.log(
                "warning", urn, "Cluster is unreachable but skipUpdateUnreachable flag is set to true, skipping..."
            )
            return CheckResult(olds)
        if tokens.is_list(type):
            raise ProviderError(
                "list resources exist for compatibility with YAML manifests and Helm charts, and cannot be created"
                " directly. Use the underlying resource type instead"
            )
        inputs = normalize(_identified(to_object(news), type))
        self._warn_of_annotations(urn, inputs)
        _name(inputs, to_object(olds or {}), urn, autoname_seed)
        if has_generated_name(inputs):
            raise ProviderError("the `.metadata.generateName` field is not supported in Server-Side Apply mode")
        self._place(inputs)
        if is_definition(inputs) and isinstance(self._cluster, Cluster):
            self._cluster.discovery.declare(inputs)
        mark_secrets(inputs, news)
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
        del id, old_inputs  # the outputs hold the inputs that made them
        before, live = read_checkpoint(old_outputs)
        before, wanted = normalize(before), normalize(_identified(to_object(new_inputs), type))
        old = prune(live, before)
        self._align(old, wanted, live)
        patterns = replacing_paths(wanted, self._settings.mutability)
        found = detailed_diff(old, wanted, before, patterns)
        found = {path: diff for path, diff in found.items() if not is_ignored(path, ignore_changes)}
        replaces = [path for path, diff in found.items() if diff.kind.endswith("-replace") or path == "metadata"]
        if is_annotated(wanted, REPLACE_UNREADY) and self._is_unready(urn, wanted, live):
            replaces.append('.metadata.annotations["pulumi.com/replaceUnready"]')
        return DiffResult(
            changes=bool(found or replaces),
            replaces=tuple(replaces),
            detailed_diff=found,
            delete_before_replace=bool(replaces) and _keeps_identity(wanted, live),
        )

    def create(self, urn: str, type: str, inputs: PropertyMap, *, preview: bool, timeout: float) -> CreateResult:
        wanted = _identified(to_object(inputs), type)
        if preview and (has_unknowns(wanted) or not self._is_served(wanted)):
            return CreateResult("", inputs)
        cluster = self._reachable()
        manager = annotation(wanted, PATCH_FIELD_MANAGER) or f"pulumi-kubernetes-{secrets.token_hex(4)}"
        messages = self._messages(urn)
        try:
            live = cluster.operations.create(wanted, manager, preview=preview, messages=messages)
        except NamespaceMissing:
            return CreateResult("", inputs)
        except NoMatch as error:
            version, kind = tokens.gvk_of(type)
            raise ProviderError(f'creation of resource "{urn}" with kind {version}/{kind} {NO_CRD}: {error}') from error
        except (ApiError, ConnectionFailed) as error:
            if preview and isinstance(error, ApiError) and _is_tolerated(error):
                return CreateResult("", inputs)
            advice = ALREADY_EXISTS_HELP if isinstance(error, ApiError) and error.is_already_exists else ""
            raise ProviderError(
                f'resource "{urn}" was not successfully created by the Kubernetes API server: {error}{advice}'
            ) from error
        self._clear(urn)
        version = api_version_of(wanted)
        if preview:
            live.pop("status", None)
            return CreateResult("", checkpoint(wanted, live, inputs, version, manager))
        try:
            live = cluster.operations.wait_created(wanted, live, timeout, messages)
        except WaitFailed as failure:
            told = (
                f'resource "{urn}" was successfully created, but the Kubernetes API server reported that it failed to'
                f" fully initialize or become live: {failure}"
            )
            outputs = checkpoint(wanted, failure.live or live, inputs, version, manager)
            _raise_partial(qualified_name(live), outputs, (told, *failure.reasons[1:]), failure)
        self._clear(urn)
        return CreateResult(qualified_name(live), checkpoint(wanted, live, inputs, version, manager))

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
        wanted = normalize(_identified(to_object(new_inputs), type))
        if preview and (has_unknowns(wanted) or not self._is_served(wanted)):
            return UpdateResult(new_inputs)
        cluster = self._reachable()
        manager = annotation(wanted, PATCH_FIELD_MANAGER) or _recorded_manager(old_outputs)
        version = _recorded_version(old_outputs, old_inputs)
        recorded = to_object(wanted)
        messages = self._messages(urn)
        try:
            before, live = cluster.operations.update(wanted, manager, ignore_changes, preview=preview)
            if not preview:
                live = cluster.operations.wait_updated(wanted, live, before, timeout, messages)
                self._clear(urn)
        except NoMatch as error:
            raise ProviderError(f'update of resource "{urn}" {NO_CRD}: {error}') from error
        except ApiError as error:
            if preview and error.is_forbidden:
                return UpdateResult(new_inputs)
            failure = WaitFailed(str(error), self._live_after(urn, wanted, id, error))
            self._raise_not_updated(failure, recorded, new_inputs, version, manager)
        except ConnectionFailed as error:
            raise ProviderError(f'update of resource "{urn}" failed: {error}') from error
        except WaitFailed as failure:
            self._raise_not_updated(failure, recorded, new_inputs, version, manager)
        return UpdateResult(checkpoint(recorded, live, new_inputs, version, manager))

    def read(self, urn: str, type: str, id: str, inputs: PropertyMap | None, outputs: PropertyMap | None) -> ReadResult:
        if isinstance(self._cluster, Unreachable):
            return self._read_unreachable(urn, id, inputs, outputs)
        namespace, name = split_id(id)
        known = normalize(to_object(inputs or {}))
        is_new = not kind_of(known)
        wanted = _identified(known, type)
        if is_new:
            wanted.setdefault("metadata", {}).update({"name": name} | ({"namespace": namespace} if namespace else {}))
        reasons: tuple[str, ...] = ()
        try:
            live = self._cluster.operations.read(wanted, name)
            if not is_new:
                self._cluster.operations.readiness.look(wanted, live, self._messages(urn).status)
                self._clear(urn)
        except NoMatch:
            return ReadResult(None, {}, {})
        except ApiError as error:
            if error.is_not_found:
                return ReadResult(None, {}, {})
            raise ProviderError(str(error)) from error
        except ConnectionFailed as error:
            raise ProviderError(str(error)) from error
        except WaitFailed as failure:
            live, reasons = failure.live, failure.reasons
        live_inputs = _inputs_of(live) if is_new else with_dropped(prune(live, wanted), wanted)
        manager = annotation(wanted, PATCH_FIELD_MANAGER) or _recorded_manager(outputs or {})
        version = _recorded_version(outputs or {}, wanted)
        recorded = checkpoint(live_inputs, live, inputs or {}, version, manager)
        new_inputs = to_object(live_inputs)
        mark_secrets(new_inputs, inputs or {})
        return ReadResult(id or qualified_name(live), new_inputs, recorded, reasons)

    def delete(
        self, urn: str, type: str, id: str, inputs: PropertyMap, outputs: PropertyMap, *, timeout: float
    ) -> None:
        if isinstance(self._cluster, Unreachable):
            self._warn_unreachable(urn)
            if self._settings.delete_unreachable:
                return
            raise ProviderError(f"configured Kubernetes cluster is unreachable. {DELETE_HINT}")
        before, live = read_checkpoint(outputs)
        live = _identified(live or to_object(inputs), type)
        try:
            self._cluster.operations.delete(before, live, split_id(id)[1], timeout, self._messages(urn))
        except NoMatch:
            return
        except (ApiError, ConnectionFailed) as error:
            raise ProviderError(str(error)) from error
        self._clear(urn)

    # Components and the end ------------------------------------------------------------------------------------------

    def construct(self, request: ConstructRequest, monitor: MonitorHandle) -> ConstructResult:
        cluster = self._reachable()
        components = Components(
            self._host,
            cluster.discovery,
            cluster.access,
            cluster.kube_version,
            self._settings.overrides.context,
            self._environment,
        )
        return components.construct(request, monitor)

    def invoke(self, token: str, args: PropertyMap, *, preview: bool) -> InvokeResult:
        del args, preview
        raise ProviderError(f"the function {token} is not supported by the lab's stand-in")

    def cancel(self) -> None:
        """Waits look at the host's cancellation themselves."""

    def close(self) -> None:
        if isinstance(self._cluster, Cluster):
            self._cluster.close()

    # Parts -----------------------------------------------------------------------------------------------------------

    def _reachable(self) -> Cluster:
        if isinstance(self._cluster, Unreachable):
            raise ProviderError(f"configured Kubernetes cluster is unreachable: {self._cluster.reason}")
        return self._cluster

    def _is_served(self, obj: Object) -> bool:
        if isinstance(self._cluster, Unreachable):
            return False
        return self._cluster.discovery.find_or_none(api_version_of(obj), kind_of(obj)) is not None

    def _is_namespaced(self, obj: Object) -> bool:
        """A kind nobody knows (its definition is yet to come) is taken as namespaced."""
        version, kind = api_version_of(obj), kind_of(obj)
        known = namespaced_by_table(version, kind)
        if known is not None or isinstance(self._cluster, Unreachable):
            return known is not False
        declared = self._cluster.discovery.declared_scope(version, kind)
        if declared is not None:
            return declared
        served = self._cluster.discovery.find_or_none(version, kind)
        return served is None or served.namespaced

    def _place(self, inputs: Object) -> None:
        """Fill in the default namespace. Without a usable kubeconfig there is none, as in the real provider."""
        access = self._cluster.access
        metadata = inputs.get("metadata")
        if access is None or not isinstance(metadata, dict) or metadata.get("namespace"):
            return
        if self._is_namespaced(inputs):
            metadata["namespace"] = access.namespace

    def _align(self, old: Object, wanted: Object, live: Object) -> None:
        """Take differences of form out of a comparison: namespaces, and a name that was generated."""
        if wanted.get("metadata") is UNKNOWN:
            return
        old_metadata = old.setdefault("metadata", {})
        new_metadata = wanted.setdefault("metadata", {})
        if self._is_namespaced(wanted):
            for metadata in (old_metadata, new_metadata):
                metadata["namespace"] = metadata.get("namespace") or "default"
        else:
            for metadata in (old_metadata, new_metadata):
                metadata.pop("namespace", None)
        old_metadata.pop("resourceVersion", None)
        old.setdefault("apiVersion", wanted.get("apiVersion"))
        old.setdefault("kind", wanted.get("kind"))
        if name_of(wanted):
            old_metadata["name"] = name_of(live)

    def _is_unready(self, urn: str, wanted: Object, live: Object) -> bool:
        if isinstance(self._cluster, Unreachable):
            self._host.log("warning", urn, "Cluster is unreachable, skipping replaceUnready check")
            return False
        if full_kind(wanted) != "batch/v1/Job":
            self._host.log("warning", urn, "replaceUnready annotation is not supported for this resource")
            return False
        try:
            return not job_is_complete(self._cluster.operations.read(live, name_of(live)))
        except (ApiError, NoMatch, ConnectionFailed):
            return False

    def _live_after(self, urn: str, wanted: Object, id: str, error: Exception) -> Object:
        try:
            return self._reachable().operations.read(wanted, split_id(id)[1])
        except (ApiError, ConnectionFailed) as unread:
            raise ProviderError(
                f'update of resource "{urn}" failed: {error}\nunable to get cluster state: {unread}'
            ) from error

    def _raise_not_updated(
        self, failure: WaitFailed, wanted: Object, marks: PropertyMap, version: str, manager: str
    ) -> NoReturn:
        told = (
            f'the Kubernetes API server reported that "{qualified_name(failure.live)}" failed to fully initialize or'
            f" become live: {failure}"
        )
        outputs = checkpoint(wanted, failure.live, marks, version, manager)
        _raise_partial(qualified_name(failure.live), outputs, (told, *failure.reasons[1:]), failure)

    def _read_unreachable(
        self, urn: str, id: str, inputs: PropertyMap | None, outputs: PropertyMap | None
    ) -> ReadResult:
        self._warn_unreachable(urn)
        if self._settings.delete_unreachable:
            return ReadResult(None, {}, {})
        if self._settings.skip_update_unreachable:
            return ReadResult(id, inputs or {}, outputs or {})
        raise ProviderError(f"failed to read resource state due to unreachable cluster. {DELETE_HINT}")

    def _warn_unreachable(self, urn: str) -> None:
        reason = self._cluster.reason if isinstance(self._cluster, Unreachable) else ""
        self._host.log("warning", urn, f"configured Kubernetes cluster is unreachable: {reason}")

    def _warn_of_annotations(self, urn: str, inputs: Object) -> None:
        annotations = pluck(inputs, "metadata", "annotations")
        for key, value in (annotations if isinstance(annotations, dict) else {}).items():
            if key.startswith(AUTONAMED):
                self._host.log("warning", urn, f'ignoring user-specified value for internal annotation "{key}"')
            is_test = key.startswith(HELM_HOOK) and "test" in str(value)
            if is_test and not self._settings.suppress_helm_hook_warnings:
                self._host.log("warning", urn, HOOKS_IGNORED)

    def _messages(self, urn: str) -> Messages:
        return Messages(
            status=StatusLog(lambda severity, message: self._host.log(severity, urn, message, ephemeral=True)),
            log=StatusLog(lambda severity, message: self._host.log(severity, urn, message)),
        )

    def _clear(self, urn: str) -> None:
        """Take the progress message away."""
        self._host.log("info", urn, "", ephemeral=True)


def create_provider(host: ProviderHost) -> KubernetesProvider:
    """``ProviderFactory`` of the package ``kubernetes``."""
    return KubernetesProvider(host)


def _identified(obj: Object, type: str) -> Object:
    """The object with version and kind, which the type token knows too."""
    version, kind = tokens.gvk_of(type)
    obj.setdefault("apiVersion", version)
    obj.setdefault("kind", kind)
    return obj


def _name(inputs: Object, olds: Object, urn: str, seed: bytes) -> None:
    """Give a nameless object its old generated name, or a new one: ``<resource name>-<8 hex>``."""
    if is_named(inputs) or has_generated_name(inputs):
        return
    if is_annotated(olds, AUTONAMED):
        name = name_of(olds)
    elif olds:
        return
    else:
        random = hashlib.sha256(seed).hexdigest()[:8] if seed else secrets.token_hex(4)
        name = f"{urn.rpartition('::')[2]}-{random}"
    inputs.setdefault("metadata", {})["name"] = name
    annotate(inputs, AUTONAMED, "true")


def _keeps_identity(wanted: Object, live: Object) -> bool:
    """A name that the program fixed, in the same place: the old object must go before the new one comes."""
    is_same = name_of(wanted) == name_of(live) and namespace_of(wanted) == namespace_of(live)
    return is_named(wanted) and not is_annotated(wanted, AUTONAMED) and is_same


def _is_tolerated(error: ApiError) -> bool:
    """Failures of a dry run that say nothing about the real create."""
    return error.is_forbidden or error.is_already_exists or error.is_without_dry_run


def _recorded_manager(outputs: PropertyMap) -> str:
    return text(strip_secrets(outputs.get("__fieldManager"))) or f"pulumi-kubernetes-{secrets.token_hex(4)}"


def _recorded_version(outputs: PropertyMap, inputs: PropertyMap) -> str:
    recorded = text(strip_secrets(outputs.get("__initialApiVersion")))
    return recorded or text(strip_secrets(inputs.get("apiVersion")))


def _inputs_of(live: Object) -> Object:
    """What a program would say to get this object: everything but the status and what the server fills in."""
    inputs = to_object({key: value for key, value in live.items() if key != "status"})
    metadata = inputs.get("metadata", {})
    for key in READ_ONLY:
        metadata.pop(key, None)
    annotations = metadata.get("annotations", {})
    for key in ("deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration"):
        annotations.pop(key, None)
    return inputs


def _raise_partial(id: str, outputs: PropertyMap, reasons: Sequence[str], cause: Exception) -> NoReturn:
    """The engine's form of several errors: a count and a list."""
    count = "1 error" if len(reasons) == 1 else f"{len(reasons)} errors"
    message = f"{count} occurred:\n" + "\n".join(f"\t* {reason}" for reason in reasons)
    raise PartialFailure(id, outputs, reasons, message=message) from cause


def _leads_elsewhere(olds: PropertyMap, news: PropertyMap) -> bool:
    """Whether two explicit configurations have another server or CA. Ambient ones are never compared."""
    found = []
    for inputs in (olds, news):
        settings = read_settings(inputs, {})
        if not settings.kubeconfig:
            return False
        try:
            access = load_access(settings.kubeconfig, settings.overrides, {})
        except KubeconfigError:
            return False
        found.append((access.server, access.ca))
    return found[0] != found[1]
