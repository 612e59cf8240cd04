"""Routes of stacks: create, show, tag, rename, export, import, history, remove, and their secrets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from lab.cloud.evaluator import Unanswerable
from lab.cloud.keys import Seal, as_esc, from_base64, to_base64
from lab.cloud.stack_store import RUNNING, Stack, StackStore, Update
from lab.cloud.wire import DONE, ORGANIZATION, USER, Answer, ApiError, Json, Request, Route, check_name

P = "/api/stacks/{organization}/{project}"
S = f"{P}/{{stack}}"

SCHEMAS = (3, 4)
"""Versions of the deployment format that the CLI may send."""


@dataclass(frozen=True)
class Stacks:
    """The routes of stacks; there is one organization."""

    store: StackStore
    key: bytes

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/api/user/stacks", self.index),
            Route("HEAD", P, self.project_exists),
            Route("POST", P, self.create),
            Route("GET", S, self.get),
            Route("DELETE", S, self.delete),
            Route("PATCH", S + "/tags", self.tag),
            Route("POST", S + "/rename", self.rename),
            Route("GET", S + "/export", self.export),
            Route("GET", S + "/export/{version}", self.export),
            Route("POST", S + "/import", self.take),
            Route("GET", S + "/updates", self.history),
            Route("GET", S + "/updates/latest", self.latest),
            Route("POST", S + "/encrypt", self.encrypt),
            Route("POST", S + "/decrypt", self.decrypt),
            Route("POST", S + "/batch-decrypt", self.batch_decrypt),
            Route("POST", S + "/decrypt/log-decryption", self.log_decryption),
            Route("POST", S + "/decrypt/log-batch-decryption", self.log_decryption),
        ]

    def find(self, request: Request) -> Stack:
        """Find the stack that the path names; raises `ApiError` 404."""
        return self.store.load(request.params["project"], request.params["stack"])

    def index(self, request: Request) -> Answer:
        found = [stack for stack in self.store.all() if _is_asked_for(stack, request)]
        return Answer(content={"stacks": [_summary(stack, self.store.active(stack)) for stack in found]})

    def project_exists(self, request: Request) -> Answer:
        if not any(stack.project == request.params["project"] for stack in self.store.all()):
            raise ApiError(404, "Project not found")
        return Answer()

    def create(self, request: Request) -> Answer:
        body = request.json()
        if body.get("config"):
            raise ApiError(400, "the lab's cloud keeps no config of stacks; it stays in Pulumi.<stack>.yaml")
        stack = Stack(
            project=check_name("project name", request.params["project"]),
            name=check_name("stack name", body.get("stackName")),
            tags=_tags(body.get("tags") or {}),
        )
        state = body.get("state")
        deployment = None if state is None else read_deployment(state)
        self.store.create(stack)
        if deployment is not None:
            self._import(stack, deployment)
        return Answer(content={})

    def get(self, request: Request) -> Answer:
        stack = self.find(request)
        update = self.store.active(stack)
        content: Json = {
            "id": stack.id,
            "orgName": request.params["organization"],
            "projectName": stack.project,
            "stackName": stack.name,
            "activeUpdate": update.id if update else "",
            "tags": stack.tags,
            "version": stack.version,
        }
        if update:
            content["currentOperation"] = {"kind": update.kind, "author": USER, "started": update.started}
        return Answer(content=content)

    def delete(self, request: Request) -> Answer:
        with self._lock(request) as stack:
            self.store.refuse_while_updating(stack)
            resources = self.store.deployment(stack)["deployment"].get("resources")
            if resources and request.query.get("force") != "true":
                # The CLI compares this text.
                raise ApiError(400, "Stack still contains resources.")
            self.store.remove(stack)
        return DONE

    def tag(self, request: Request) -> Answer:
        """Replace all tags."""
        with self._lock(request) as stack:
            stack.tags = _tags(request.json())
            self.store.save(stack)
        return DONE

    def rename(self, request: Request) -> Answer:
        """Change name, project or both. The CLI expects the service to rewrite the state."""
        body = request.json()
        with self._lock(request) as stack:
            self.store.refuse_while_updating(stack)
            project = check_name("project name", body.get("newProject") or stack.project)
            name = check_name("stack name", body.get("newName") or stack.name)
            self.store.rename(stack, project, name)
        return DONE

    def export(self, request: Request) -> Answer:
        version = request.params.get("version")
        if version is not None and not version.isdecimal():
            raise ApiError(400, "the version is not a number")
        return Answer(content=self.store.deployment(self.find(request), None if version is None else int(version)))

    def take(self, request: Request) -> Answer:
        """Import a deployment: it replaces that of the stack, as an update that has already succeeded."""
        deployment = read_deployment(request.json())
        with self._lock(request) as stack:
            self.store.refuse_while_updating(stack)
            return Answer(content={"updateId": self._import(stack, deployment)})

    def _import(self, stack: Stack, deployment: Json) -> str:
        now = int(time.time())
        stack.version, stack.last_update = stack.version + 1, now
        update = Update(kind="import", status=RUNNING, version=stack.version, created=now, started=now)
        self.store.write_deployment(stack, deployment)
        self.store.end_update(stack, update, "succeeded")
        return update.id

    def history(self, request: Request) -> Answer:
        """List the updates, the newest first, without previews."""
        made = [update for update in self.store.updates(self.find(request)) if update.version]
        size, page = request.number("pageSize"), request.number("page") or 1
        if size is not None:
            made = made[max(0, page - 1) * size :][:size]
        return Answer(content={"updates": [update_info(update) for update in made]})

    def latest(self, request: Request) -> Answer:
        stack = self.find(request)
        made = [update for update in self.store.updates(stack) if update.version]
        if not made:
            raise ApiError(404, "Update not found")
        newest = made[0]
        numbers = {"version": newest.version, "latestVersion": stack.version}
        person = {"name": USER, "githubLogin": USER, "avatarUrl": ""}
        return Answer(content={"info": update_info(newest), "updateID": newest.id, "requestedBy": person, **numbers})

    def encrypt(self, request: Request) -> Answer:
        seal = self.seal(self.find(request))
        return Answer(content={"ciphertext": to_base64(seal.encrypt(from_base64(request.json().get("plaintext"))))})

    def decrypt(self, request: Request) -> Answer:
        seal = self.seal(self.find(request))
        return Answer(content={"plaintext": to_base64(seal.decrypt(from_base64(request.json().get("ciphertext"))))})

    def batch_decrypt(self, request: Request) -> Answer:
        seal, ciphertexts = self.seal(self.find(request)), request.json().get("ciphertexts")
        if not isinstance(ciphertexts, list) or not all(isinstance(text, str) for text in ciphertexts):
            raise ApiError(400, "ciphertexts is not a list of texts")
        plaintexts = {text: to_base64(seal.decrypt(from_base64(text))) for text in ciphertexts}
        return Answer(content={"plaintexts": plaintexts})

    def log_decryption(self, request: Request) -> Answer:
        """The CLI reports secrets that it decrypted itself (with a passphrase); the report is dropped."""
        self.find(request)
        return DONE

    def seal(self, stack: Stack) -> Seal:
        return Seal(self.key, stack.sealed_for or stack.full_name)

    def outputs(self, name: str) -> Json:
        """Answer the provider `pulumi-stacks`: all outputs of a stack, by `project/stack`, as one ESC value.

        Raises `Unanswerable` if the stack does not exist, or this cloud does not have the key of its secrets.
        """
        project, _, stack_name = name.partition("/")
        manager = "service"

        def decrypt(ciphertext: str) -> str:
            if manager != "service":
                raise ApiError(400, f"its secrets are encrypted by {manager}, not by this cloud")
            return self.seal(stack).decrypt(from_base64(ciphertext)).decode()

        try:
            stack = self.store.load(project, stack_name)
            deployment = self.store.deployment(stack)["deployment"]
            manager = (deployment.get("secrets_providers") or {}).get("type", manager)
            resources = [one for one in deployment.get("resources") or () if not one.get("delete")]
            roots = [one for one in resources if one.get("type") == "pulumi:pulumi:Stack"]
            return as_esc(dict(roots[0].get("outputs") or {}) if roots else {}, decrypt)
        except ApiError as error:
            if error.status == 404:
                raise Unanswerable(f'stack "{name}" not found') from error
            raise Unanswerable(f'the secrets of stack "{name}" cannot be decrypted: {error}') from error

    def _lock(self, request: Request) -> Any:
        return self.store.lock(request.params["project"], request.params["stack"])


def read_deployment(body: Json) -> Json:
    """Read `{version, deployment, features?}` of a request; raises `ApiError` 400 for anything else."""
    version, deployment = body.get("version"), body.get("deployment")
    if version not in SCHEMAS:
        raise ApiError(400, f"deployment version {version!r} is not one of {SCHEMAS}")
    if not isinstance(deployment, dict):
        raise ApiError(400, "the deployment is not an object")
    kept = {"version": version, "deployment": deployment}
    if body.get("features"):
        kept["features"] = body["features"]
    return kept


def update_info(update: Update) -> Json:
    """The update in the format of the history."""
    results = {RUNNING: "in-progress", "succeeded": "succeeded"}
    return {
        "kind": update.kind,
        "startTime": update.started,
        "message": update.message,
        "environment": update.environment,
        "config": update.config,
        "result": results.get(update.status, "failed"),
        "endTime": update.ended,
        "version": update.version,
        "resourceChanges": update.changes,
    }


def _is_asked_for(stack: Stack, request: Request) -> bool:
    query = request.query
    if query.get("organization", ORGANIZATION) != ORGANIZATION:
        raise ApiError(404, f"organization '{query['organization']}' not found")
    if query.get("project") and query["project"] != stack.project:
        return False
    if not query.get("tagName"):
        return True
    value = stack.tags.get(query["tagName"])
    return value is not None and query.get("tagValue", value) == value


def _summary(stack: Stack, update: Update | None) -> Json:
    summary: Json = {
        "id": stack.id,
        "orgName": stack.full_name.partition("/")[0],
        "projectName": stack.project,
        "stackName": stack.name,
    }
    if stack.last_update:
        # The CLI reads 0 as "an update is running".
        running = update is not None and update.has_lease
        summary |= {"lastUpdate": 0 if running else stack.last_update, "resourceCount": stack.resources}
    return summary


def _tags(given: object) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ApiError(400, "tags are names with text values")
    return dict(given)
