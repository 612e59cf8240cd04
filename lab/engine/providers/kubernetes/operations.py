"""Create, update, read and delete one object on the server, with the retries and the waiting that belong to it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.engine.cancellation import CancellationToken, Cancelled
from lab.engine.providers import ProviderError
from lab.engine.providers.kubernetes.client import ApiClient, ApiError, Object
from lab.engine.providers.kubernetes.conditions import read_expectations
from lab.engine.providers.kubernetes.deleting import DeleteWait
from lab.engine.providers.kubernetes.discovery import Discovery, NoMatch
from lab.engine.providers.kubernetes.objects import (
    DELETE_WITHOUT_WAIT,
    SKIP_AWAIT,
    api_version_of,
    full_kind,
    is_annotated,
    is_definition,
    kind_of,
    name_of,
    namespace_of,
    pluck,
    propagation_of,
    timeout_of,
)
from lab.engine.providers.kubernetes.ownership import CREATOR, forces_conflicts, keep_ignored, takeover_patch
from lab.engine.providers.kubernetes.readiness import DEFAULT_SECONDS, Readiness
from lab.engine.providers.kubernetes.waiting import StatusLog, Waiter, WaitFailed
from lab.engine.providers.kubernetes.watching import WatchHub

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Pauses after a create that found no namespace or no kind: others may be about to make them."""
LOOK_AGAIN_SECONDS = 0.25
"""Within a pause, how often the missing kind is looked for."""

NEW_KIND_TRIES = 20
"""How often a listed kind's path is tried that does not answer yet."""

ALREADY_EXISTS_HELP = """

The resource already exists in the cluster. This can happen when:

  - Renaming a Pulumi resource: use an alias to preserve the identity,
    or use deleteBeforeReplace if the resource needs replacement.
  - Managing an existing resource: use a Patch resource (e.g. NamespacePatch)
    to manage specific fields without owning the resource lifecycle.
  - Adopting a resource into Pulumi: use `pulumi import`. Note that
    protected resources (e.g. kube-system) cannot be deleted on destroy.
  - Intentional upsert: set upsertExistingObjects on the provider to allow
    server-side apply to update existing objects on create."""

CONFLICT_HELP = (
    "server-side apply field conflict detected, see"
    " https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/"
    "managing-resources-with-server-side-apply/#handle-field-conflicts-on-existing-resources"
    " for troubleshooting help"
)


class NamespaceMissing(Exception):
    """A preview's dry run needs a namespace that is not there yet."""


@dataclass(frozen=True)
class Messages:
    """Where one operation reports: progress (``status``, shown once each) and what is kept (``log``)."""

    status: StatusLog
    log: StatusLog

    def retry(self, number: int, error: Exception) -> None:
        self.status("info", f"Retry #{number}; creation failed: {error}")


@dataclass
class Operations:
    """One server's objects. Methods raise ``ApiError``, ``NoMatch`` or ``ConnectionFailed`` unless said otherwise."""

    client: ApiClient
    discovery: Discovery
    hub: WatchHub
    cancellation: CancellationToken
    always_force: bool = False
    upsert: bool = False
    retry_seconds: Sequence[float] = RETRY_SECONDS
    readiness: Readiness = field(init=False)

    def __post_init__(self) -> None:
        self.readiness = Readiness(self.client, self.discovery, Waiter(self.hub, self.cancellation))

    def path(self, obj: Object, name: str | None = None) -> str:
        """The object's path; ``name`` "" gives its collection."""
        kind = self.discovery.find(api_version_of(obj), kind_of(obj))
        return kind.path(namespace_of(obj) or "default", name_of(obj) if name is None else name)

    def create(self, inputs: Object, manager: str, *, preview: bool, messages: Messages) -> Object:
        """The created object (a dry run's in previews); waiting comes after (``wait_created``).

        Raises ``NamespaceMissing`` in previews.
        """
        read_expectations(inputs)
        for number, pause in enumerate((*self.retry_seconds, 0.0)):
            try:
                return self._create_once(inputs, manager, preview=preview)
            except (ApiError, NoMatch) as error:
                if preview and isinstance(error, ApiError) and error.is_missing_namespace:
                    raise NamespaceMissing from error
                if number < len(self.retry_seconds):
                    messages.retry(number, error)
                is_worth_another = isinstance(error, NoMatch) or error.is_not_found
                if not is_worth_another or pause == 0.0:
                    raise
                self._pause(pause, inputs if isinstance(error, NoMatch) else None)
        raise AssertionError("the last round returns or raises")

    def wait_created(self, inputs: Object, live: Object, timeout: float, messages: Messages) -> Object:
        """Raises ``WaitFailed``."""
        return self.readiness.until_ready(inputs, live, None, timeout, messages.status)

    def update(self, inputs: Object, manager: str, ignored: Sequence[str], *, preview: bool) -> tuple[Object, Object]:
        """The object before and after."""
        before = self.client.get(self.path(inputs))
        if is_definition(inputs):
            replaced = self._replace(inputs, before, manager, preview=preview)
            self.discovery.forget()
            return before, replaced
        if not preview:
            takeover = takeover_patch(before, manager)
            if takeover:
                before = self.client.request("PATCH", self.path(inputs), body=takeover, content_type=JSON_PATCH)
        keep_ignored(inputs, before, ignored, manager)
        force = forces_conflicts(inputs, before, always=self.always_force, preview=preview)
        try:
            return before, self._apply(inputs, manager, force=force, preview=preview)
        except ApiError as error:
            if not (preview and error.is_invalid and takeover_patch(before, manager)):
                raise
            # The real update first takes the fields of the create over, so that removed list entries go. A dry run
            # cannot do both: it keeps them, and two Service ports where one was changed are refused. Ask otherwise.
            return before, self._replace(_overlaid(before, inputs), before, manager, preview=True)

    def wait_updated(self, inputs: Object, live: Object, before: Object, timeout: float, messages: Messages) -> Object:
        """Raises ``WaitFailed``."""
        return self.readiness.until_ready(inputs, live, before, timeout, messages.status)

    def read(self, obj: Object, name: str) -> Object:
        return self.client.get(self.path(obj, name))

    def delete(self, inputs: Object, live: Object, name: str, timeout: float, messages: Messages) -> None:
        """Returns when the object is gone. Raises ``ProviderError`` when it is still there in the end."""
        path = self.path(live, name)
        try:
            self.client.request(
                "DELETE",
                path,
                body={"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation_of(inputs)},
            )
        except ApiError as error:
            if error.is_not_found:
                return
            raise
        if is_definition(live):
            self.discovery.forget()
        if is_annotated(inputs, SKIP_AWAIT) and full_kind(inputs) in DELETE_WITHOUT_WAIT:
            return
        self._wait_deleted(live, path, timeout_of(inputs, timeout, DEFAULT_SECONDS), messages)

    def _create_once(self, inputs: Object, manager: str, *, preview: bool) -> Object:
        if self.upsert:
            return self._upsert(inputs, manager, preview=preview)
        query = {"fieldManager": CREATOR} | _dry_run(preview)
        created = self._post(inputs, query)
        if is_definition(inputs) and not preview:
            self.discovery.forget()
        return created

    def _post(self, inputs: Object, query: dict[str, str]) -> Object:
        """A kind whose definition is new can be listed a moment before its path answers: then the post is repeated."""
        for number in range(NEW_KIND_TRIES):
            try:
                return self.client.request("POST", self.path(inputs, ""), query=query, body=inputs)
            except ApiError as error:
                is_unserved = error.is_not_found and not error.details.get("kind")
                if not is_unserved or number == NEW_KIND_TRIES - 1:
                    raise
                if self.cancellation.wait(LOOK_AGAIN_SECONDS):
                    raise Cancelled from error
        raise AssertionError("the last try returns or raises")

    def _upsert(self, inputs: Object, manager: str, *, preview: bool) -> Object:
        force = forces_conflicts(inputs, None, always=self.always_force, preview=preview)
        try:
            return self._apply(inputs, manager, force=force, preview=preview)
        except ApiError as error:
            if not (preview and error.is_invalid and "field is immutable" in str(error)):
                raise
            # The old object is still there; in the update it will have been deleted. Under another name it is not in
            # the way of the dry run.
            metadata = {**inputs["metadata"], "name": f"{name_of(inputs)[:57]}-{secrets.token_hex(2)}"}
            return self._apply({**inputs, "metadata": metadata}, manager, force=True, preview=True)

    def _pause(self, seconds: float, missing: Object | None) -> None:
        """Wait, though not longer than until the missing kind is served. Raises ``Cancelled``."""
        left = seconds
        while left > 0:
            step = min(left, LOOK_AGAIN_SECONDS if missing is not None else left)
            if self.cancellation.wait(step):
                raise Cancelled
            left -= step
            if missing is not None and self.discovery.find_or_none(api_version_of(missing), kind_of(missing)):
                return

    def _apply(self, inputs: Object, manager: str, *, force: bool, preview: bool) -> Object:
        query = {"fieldManager": manager, "force": "true" if force else "false"} | _dry_run(preview)
        try:
            return self.client.request("PATCH", self.path(inputs), query=query, body=inputs, content_type=APPLY)
        except ApiError as error:
            if not error.is_conflict:
                raise
            text = f'{CONFLICT_HELP}\nThe resource managed by field manager "{manager}" had an apply conflict: {error}'
            raise ApiError(error.code, error.reason, text, error.details) from error

    def _replace(self, inputs: Object, before: Object, manager: str, *, preview: bool) -> Object:
        """Put the whole object. For definitions always: a merge would leave versions and columns behind."""
        metadata = {**inputs["metadata"], "resourceVersion": pluck(before, "metadata", "resourceVersion")}
        query = {"fieldManager": manager} | _dry_run(preview)
        return self.client.request("PUT", self.path(inputs), query=query, body={**inputs, "metadata": metadata})

    def _wait_deleted(self, live: Object, path: str, seconds: float, messages: Messages) -> None:
        uid = pluck(live, "metadata", "uid")
        wait = DeleteWait(live, self.path(live, ""), lambda: self._remaining(path, uid, messages.status))
        try:
            Waiter(self.hub, self.cancellation).run(wait, seconds)
        except WaitFailed as failure:
            finalizers = ", ".join(pluck(failure.live, "metadata", "finalizers") or [])
            messages.log("warning", f"finalizers might be preventing deletion ({finalizers})")
            raise ProviderError(str(failure)) from failure

    def _remaining(self, path: str, uid: object, status: StatusLog) -> Object | None:
        try:
            found = self.client.get(path)
        except ApiError as error:
            if error.is_not_found:
                return None
            status("warning", f"unexpected error while checking cluster state: {error}")
            return {}
        if uid and pluck(found, "metadata", "uid") != uid:
            return None
        if pluck(found, "metadata", "deletionTimestamp"):
            status("info", "Resource scheduled for deletion")
        return found


def _overlaid(live: Object, inputs: Object) -> Object:
    """The live object with everything of ``inputs``; lists are replaced as a whole."""
    merged = dict(live)
    for key, value in inputs.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _overlaid(merged[key], value) if both else value
    return merged


def _dry_run(preview: bool) -> dict[str, str]:
    return {"dryRun": "All"} if preview else {}
