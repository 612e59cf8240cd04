"""The ``postgresql`` provider of the lab's ``pulumi``: like pulumi-postgresql 3.18 as far as the lab needs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from lab.engine.failures import NotSupported
from lab.engine.providers import (
    CheckResult,
    ConstructRequest,
    ConstructResult,
    CreateResult,
    DiffResult,
    InvokeResult,
    MonitorHandle,
    ProviderError,
    ProviderHost,
    ReadResult,
    UpdateResult,
)
from lab.engine.providers.postgresql import (
    database,
    default_privileges,
    extension,
    grant,
    membership,
    namespace,
    properties,
    role,
)
from lab.engine.providers.postgresql.connection import PostgresError, Server
from lab.engine.providers.postgresql.properties import Shape
from lab.engine.providers.postgresql.settings import Settings, check_settings, read_settings
from lab.engine.values import UNKNOWN, PropertyMap, Secret, mark_like, secret

VERSION = "3.18.2"
"""The provider version whose behaviour this follows."""

State = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """How a resource type is carried out. States are complete (``properties.complete``) and in clear."""

    shape: Shape
    create: Callable[[Server, State], str]
    read: Callable[[Server, State], State | None]
    update: Callable[[Server, State, State], None]
    delete: Callable[[Server, State], None]
    from_id: tuple[str, ...] = ()
    """Properties that an id, parted at dots, gives to ``Resource.get``."""


_ROLE = Resource(properties.ROLE, role.create, role.read, role.update, role.delete, ("name",))
_DEFAULT_PRIVILEGES = Resource(
    properties.DEFAULT_PRIVILEGES,
    default_privileges.create,
    default_privileges.read,
    default_privileges.update,
    default_privileges.delete,
)
RESOURCES: dict[str, Resource] = {
    "postgresql:index/role:Role": _ROLE,
    "postgresql:index/database:Database": Resource(
        properties.DATABASE, database.create, database.read, database.update, database.delete, ("name",)
    ),
    "postgresql:index/extension:Extension": Resource(
        properties.EXTENSION, extension.create, extension.read, extension.update, extension.delete, ("database", "name")
    ),
    "postgresql:index/schema:Schema": Resource(
        properties.SCHEMA, namespace.create, namespace.read, namespace.update, namespace.delete, ("database", "name")
    ),
    "postgresql:index/grant:Grant": Resource(properties.GRANT, grant.create, grant.read, grant.update, grant.delete),
    "postgresql:index/grantRole:GrantRole": Resource(
        properties.GRANT_ROLE, membership.create, membership.read, membership.update, membership.delete
    ),
    "postgresql:index/defaultPrivileges:DefaultPrivileges": _DEFAULT_PRIVILEGES,
    "postgresql:index/defaultPrivileg:DefaultPrivileg": _DEFAULT_PRIVILEGES,
}


class PostgresqlProvider:
    """Implements ``lab.engine.providers.Provider``. Previews do not talk to the server, refreshes do."""

    def __init__(self, host: ProviderHost, environment: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._environment = os.environ if environment is None else environment
        self._server = Server(Settings())

    # Configuration ---------------------------------------------------------------------------------------------------

    def check_config(self, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        del olds
        inputs = dict(news)
        if "password" in inputs:
            inputs["password"] = secret(inputs["password"])
        return CheckResult(inputs, check_settings(inputs))

    def diff_config(self, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        changed = tuple(sorted(key for key in {*olds, *news} if olds.get(key) != news.get(key)))
        return DiffResult(bool(changed), diffs=changed)

    def configure(self, inputs: PropertyMap) -> None:
        self._server = Server(read_settings(inputs, self._environment))

    def supports(self, type: str) -> bool:
        return type in RESOURCES

    # Resources -------------------------------------------------------------------------------------------------------

    def check(
        self, urn: str, type: str, olds: PropertyMap | None, news: PropertyMap, *, autoname_seed: bytes
    ) -> CheckResult:
        shape = RESOURCES[type].shape
        for key in properties.unsupported(shape, news):
            raise NotSupported(f"property '{key}' of {type}")
        return properties.check(shape, urn, olds, news, autoname_seed)

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
        del urn, id, old_inputs  # the outputs are what the server said
        return properties.diff(RESOURCES[type].shape, old_outputs, new_inputs, tuple(ignore_changes))

    def create(self, urn: str, type: str, inputs: PropertyMap, *, preview: bool, timeout: float) -> CreateResult:
        del timeout
        resource = RESOURCES[type]
        if preview:
            return CreateResult("", mark_like(properties.planned(resource.shape, inputs), inputs))
        wanted = properties.complete(resource.shape, inputs)
        with self._told(urn, ""):
            identity = resource.create(self._server, wanted)
            live = resource.read(self._server, wanted)
            if live is None:
                raise PostgresError(f"{type} {identity} is not there although it was made a moment ago")
        return CreateResult(identity, _outputs(resource.shape, identity, live, inputs))

    def read(self, urn: str, type: str, id: str, inputs: PropertyMap | None, outputs: PropertyMap | None) -> ReadResult:
        resource = RESOURCES[type]
        known = properties.complete(resource.shape, {**(inputs or {}), **(outputs or {})})
        if inputs is None:
            _take_id(resource, id, known)
        if self._server.settings.host is None:
            return ReadResult(id, inputs or {}, outputs or {})
        with self._told(urn, f"refreshing {urn}: "):
            live = resource.read(self._server, known)
        if live is None:
            return ReadResult(None, {}, {})
        found = _outputs(resource.shape, id, live, {**(outputs or {}), **(inputs or {})})
        return ReadResult(id, _followed(resource.shape, inputs or {}, outputs or {}, found), found)

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
        del old_inputs, ignore_changes, timeout
        resource = RESOURCES[type]
        outputs = properties.planned(resource.shape, new_inputs, old_outputs)
        if preview:
            return UpdateResult(mark_like({**outputs, "id": id}, new_inputs))
        old = properties.complete(resource.shape, old_outputs)
        wanted = properties.complete(resource.shape, {**outputs, **new_inputs})
        with self._told(urn, f"updating {urn}: "):
            resource.update(self._server, old, wanted)
            live = resource.read(self._server, wanted)
            if live is None:
                raise PostgresError(f"{type} {id} is not there although it was changed a moment ago")
        return UpdateResult(_outputs(resource.shape, _renamed(resource, id, live), live, new_inputs))

    def delete(
        self, urn: str, type: str, id: str, inputs: PropertyMap, outputs: PropertyMap, *, timeout: float
    ) -> None:
        del id, timeout
        resource = RESOURCES[type]
        with self._told(urn, f"deleting {urn}: "):
            resource.delete(self._server, properties.complete(resource.shape, {**inputs, **outputs}))

    @contextmanager
    def _told(self, urn: str, before: str) -> Iterator[None]:
        """Failures as the bridge tells them: once from its log, once as the step's error."""
        try:
            yield
        except PostgresError as error:
            text = str(error)
            self._host.log(
                "error", urn, f"  sdk-v2/provider2.go:571: sdk.helper_schema: {text}: provider=postgresql@{VERSION}"
            )
            raise ProviderError(f"{before}1 error occurred:\n\t* {text}\n\n") from None

    # Not for this provider -------------------------------------------------------------------------------------------

    def construct(self, request: ConstructRequest, monitor: MonitorHandle) -> ConstructResult:
        del monitor
        _refuse(f"component type '{request.type}'")

    def invoke(self, token: str, args: PropertyMap, *, preview: bool) -> InvokeResult:
        del args, preview
        _refuse(f"function '{token}'")

    def cancel(self) -> None:
        """Statements are short; what runs is let finish, as the engine asks of a cancelled run."""

    def close(self) -> None:
        """Connections are closed after each piece of work."""


def _refuse(what: str) -> NoReturn:
    raise NotSupported(what)


def _take_id(resource: Resource, id: str, known: State) -> None:
    if not resource.from_id:
        raise ProviderError(f"resource '{id}' cannot be looked up by its id")
    parts = id.split(".", len(resource.from_id) - 1)
    if len(parts) != len(resource.from_id):
        raise ProviderError(f"ID {id} has not the expected format '{'.'.join(resource.from_id)}'")
    known.update(zip(resource.from_id, parts, strict=True))


def _renamed(resource: Resource, id: str, live: State) -> str:
    return ".".join(str(live[key]) for key in resource.from_id) if resource.from_id else id


def _outputs(shape: Shape, id: str, live: State, like: PropertyMap) -> PropertyMap:
    """Recorded form: empty texts and collections are null, but for the few the real provider sets to empty."""
    outputs: PropertyMap = {"id": id}
    for key, described in shape.properties.items():
        value = live[key]
        if described.kind in ("set", "list", "string") and not value:
            value = [] if key == "policies" else "" if key == "assumeRole" else None
        outputs[key] = Secret(value) if described.secret and value is not None else value
    marked: PropertyMap = mark_like(outputs, like)
    return marked


def _followed(shape: Shape, inputs: PropertyMap, outputs: PropertyMap, live: PropertyMap) -> PropertyMap:
    """Inputs that say what is there now: those given before, with what has drifted."""
    followed = dict(inputs)
    for key in shape.properties:
        if key in followed and followed[key] is not UNKNOWN and key in outputs and live.get(key) != outputs[key]:
            followed[key] = live[key]
    if not inputs:
        followed = {key: value for key, value in live.items() if key != "id" and value not in (None, [], "")}
    return followed


def create_provider(host: ProviderHost) -> PostgresqlProvider:
    return PostgresqlProvider(host)
