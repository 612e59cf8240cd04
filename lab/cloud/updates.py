"""Routes of one operation, in the order of its calls: create, start, renew the lease, checkpoint, events, complete."""

from __future__ import annotations

import hmac
import http
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from lab.cloud.keys import Keys
from lab.cloud.stack_store import RUNNING, Stack, StackStore, Update
from lab.cloud.stacks import S, read_deployment
from lab.cloud.wire import DONE, Answer, ApiError, Json, Request, Route

KINDS = ("update", "preview", "refresh", "destroy")
RESULTS = ("succeeded", "failed", "cancelled")
LEASE = 300
"""Seconds that a started update may be silent before another one may start."""
LONGEST = 300
"""Seconds that a client may ask for."""

U = f"{S}/update/{{update}}"


@dataclass(frozen=True)
class Updates:
    """One update of a stack at a time; previews do not count."""

    store: StackStore
    keys: Keys

    def routes(self) -> list[Route]:
        return [
            *(Route("POST", f"{S}/{kind}", self.create) for kind in KINDS),
            Route("POST", U, self.start),
            Route("GET", U, self.results),
            Route("POST", U + "/cancel", self.cancel),
            Route("POST", U + "/renew_lease", self.renew_lease, inside_update=True),
            Route("PATCH", U + "/checkpoint", self.checkpoint, inside_update=True),
            Route("POST", U + "/events/batch", self.events, inside_update=True),
            Route("POST", U + "/complete", self.complete, inside_update=True),
        ]

    def create(self, request: Request) -> Answer:
        """Announce an operation; nothing is locked yet."""
        kind = request.path.rstrip("/").rsplit("/", 1)[-1]
        body = request.json()
        metadata = body.get("metadata") or {}
        is_preview = kind == "preview" or bool((body.get("options") or {}).get("dryRun"))
        update = Update(
            kind="preview" if is_preview else kind,
            created=int(time.time()),
            message=str(metadata.get("message") or ""),
            environment=dict(metadata.get("environment") or {}),
            config=dict(body.get("config") or {}),
        )
        with self._stack(request) as stack:
            self.store.save_update(stack, update)
        nothing: Json = {"requiredPolicies": [], "messages": [], "aiSettings": {"copilotIsEnabled": False}}
        return Answer(content={"updateID": update.id, **nothing})

    def start(self, request: Request) -> Answer:
        """Start an update, which locks the stack unless it is a preview. 409 while another update has a lease."""
        with self._stack(request) as stack:
            update = self.store.update(stack, request.params["update"])
            if update.status != "requested":
                raise ApiError(409, "The update was already started.")
            if not update.is_preview:
                self.store.refuse_while_updating(stack)
                stack.version += 1
                stack.active_update, stack.last_update = update.id, int(time.time())
                update.version = stack.version
            update.status, update.started = RUNNING, int(time.time())
            update.lease_until = time.time() + LEASE
            self.store.save_update(stack, update)
            tags = request.json().get("tags")
            if isinstance(tags, dict):
                stack.tags = {str(name): str(value) for name, value in tags.items()}
            self.store.save(stack)
        return Answer(content={"version": stack.version, **self._lease(update), "journalVersion": 0})

    def renew_lease(self, request: Request) -> Answer:
        with self._lock_running(request) as (stack, update):
            seconds = request.json().get("duration", LEASE)
            if not isinstance(seconds, int) or not 0 < seconds <= LONGEST:
                raise ApiError(400, f"the duration is not between 1 and {LONGEST} seconds")
            update.lease_until = time.time() + min(seconds, LEASE)
            self.store.save_update(stack, update)
            return Answer(content=self._lease(update))

    def _lease(self, update: Update) -> Json:
        return {"token": self.keys.update_token(update.id), "tokenExpiration": int(update.lease_until)}

    def checkpoint(self, request: Request) -> Answer:
        """Store the whole state, which the engine sends before and after each step."""
        body = request.json()
        with self._lock_running(request) as (stack, update):
            if update.is_preview:
                raise ApiError(400, "a preview has no state")
            if not body.get("isInvalid"):
                self.store.write_deployment(stack, read_deployment(body))
        return DONE

    def events(self, request: Request) -> Answer:
        """Keep the summary, which the history shows, and drop all other events."""
        events = request.json().get("events") or ()
        with self._lock_running(request) as (stack, update):
            for event in events:
                if isinstance(event, dict) and "summaryEvent" in event:
                    update.changes = dict(event["summaryEvent"].get("resourceChanges") or {})
                    self.store.save_update(stack, update)
        return Answer()

    def complete(self, request: Request) -> Answer:
        """End the update. The same status twice is accepted: the CLI repeats a call that was not answered."""
        status = request.json().get("status")
        if status not in RESULTS:
            raise ApiError(400, f"the status is not one of {', '.join(RESULTS)}")
        with self._stack(request) as stack:
            try:
                update = self._authorize(request, stack)
            except ApiError as error:
                if error.status != http.HTTPStatus.NOT_FOUND:
                    raise
                # Its token is right, so it was there: an ended preview is forgotten at once.
                return DONE
            if update.status != status:
                _refuse_without_lease(update)
                self.store.end_update(stack, update, status)
        return DONE

    def cancel(self, request: Request) -> Answer:
        """End an update from outside: its lease and its token are refused from now on, and the next one may start."""
        with self._stack(request) as stack:
            update = self.store.update(stack, request.params["update"])
            if update.status not in ("requested", RUNNING):
                raise ApiError(409, "The Update has already completed")
            self.store.end_update(stack, update, "cancelled")
        return DONE

    def results(self, request: Request) -> Answer:
        """The status of an update; the CLI asks after an import until there is no continuation token."""
        stack = self.store.load(request.params["project"], request.params["stack"])
        update = self.store.update(stack, request.params["update"])
        goes_on = update.status in ("requested", RUNNING)
        status = "failed" if update.status == "cancelled" else update.status
        return Answer(content={"status": status, "events": [], "continuationToken": "0" if goes_on else None})

    def _stack(self, request: Request) -> AbstractContextManager[Stack]:
        return self.store.lock(request.params["project"], request.params["stack"])

    @contextmanager
    def _lock_running(self, request: Request) -> Iterator[tuple[Stack, Update]]:
        """The update whose token the request carries, while its lease holds; `ApiError` 401 or 403 otherwise."""
        with self._stack(request) as stack:
            update = self._authorize(request, stack)
            _refuse_without_lease(update)
            yield stack, update

    def _authorize(self, request: Request, stack: Stack) -> Update:
        expected = self.keys.update_token(request.params["update"])
        if not hmac.compare_digest(expected.encode(), request.update_token.encode()):
            raise ApiError(401, "No credentials provided or are invalid.")
        return self.store.update(stack, request.params["update"])


def _refuse_without_lease(update: Update) -> None:
    """Refuse with 403, which ends the CLI's renewal of its lease and, with the next state, the run.

    Source: pulumi pkg/backend/httpstate/state.go. The second text is the service's own (pulumi issue 7094).
    """
    if update.status == "cancelled":
        raise ApiError(403, "The update was cancelled.")
    if not update.has_lease:
        raise ApiError(403, "", message="The provided update token has expired.")
