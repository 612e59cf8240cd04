"""What Pulumi's engine asks of a provider. Previews do not connect to the server, refreshes and updates do."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2, empty_pb2, message_factory

from lab.plugins.postgresql import properties, wire
from lab.plugins.postgresql.objects import DATABASE, EXTENSION, SCHEMA
from lab.plugins.postgresql.privileges import DEFAULT_PRIVILEGES, GRANT, GRANT_ROLE
from lab.plugins.postgresql.properties import Resource
from lab.plugins.postgresql.role import ROLE
from lab.plugins.postgresql.server import PostgresError, Server, Session, check_settings, read_settings
from lab.plugins.postgresql.wire import Values, provider, read, write

VERSION = "3.18.2"
"""The vendor's version whose behaviour this follows."""
RESOURCES = {one.token: one for one in (ROLE, DATABASE, EXTENSION, SCHEMA, GRANT, GRANT_ROLE, DEFAULT_PRIVILEGES)}
OLDER_NAMES = {"defaultPrivileg:DefaultPrivileg": DEFAULT_PRIVILEGES}
GONE = ("3D000", "42704", "3F000")
"""SQLSTATEs of a missing database, role or schema, whose objects are therefore missing too."""


class RequestFailed(Exception):
    """A failed request, with the text for the user. `details` is a serialized `google.rpc.Status`."""

    def __init__(self, text: str, details: bytes = b"") -> None:
        super().__init__(text)
        self.details = details


class Provider:
    """The provider. Its methods are named as the protocol's requests; several threads call them at a time."""

    def __init__(self, environment: Mapping[str, str] = os.environ, engine: str = "") -> None:
        self._environment = environment
        self._engine = engine
        self._server = Server(read_settings({}, environment))
        # Postgres fails when two sessions change the privileges of one object at the same time.
        self._writing = threading.Lock()

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC handler. Requests without a method here are answered as unimplemented."""
        service = provider.DESCRIPTOR.services_by_name["ResourceProvider"]
        handlers = {
            request.name: grpc.unary_unary_rpc_method_handler(
                _guard(getattr(self, request.name)),
                message_factory.GetMessageClass(request.input_type).FromString,
                message_factory.GetMessageClass(request.output_type).SerializeToString,
            )
            for request in service.methods
            if hasattr(self, request.name)
        }
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    def Handshake(self, request: Any) -> Any:
        self._engine = request.engine_address or self._engine
        return provider.ProviderHandshakeResponse(accept_secrets=True)

    def Attach(self, request: Any) -> Any:
        self._engine = request.address
        return empty_pb2.Empty()

    def GetPluginInfo(self, _: Any) -> Any:
        return wire.plugin.PluginInfo(version=VERSION)

    def GetSchema(self, _: Any) -> Any:
        resources = {f"postgresql:index/{token}": properties.schema(one) for token, one in RESOURCES.items()}
        schema = {"name": "postgresql", "version": VERSION, "resources": resources}
        return provider.GetSchemaResponse(schema=json.dumps(schema))

    def Cancel(self, _: Any = None) -> Any:
        self._server.cancel()
        return empty_pb2.Empty()

    def CheckConfig(self, request: Any) -> Any:
        inputs, secrets = read(request.news)
        refused = refusal(self._environment)
        return _check_response(inputs, secrets | {"password"}, [refused] if refused else check_settings(inputs))

    def DiffConfig(self, request: Any) -> Any:
        (old, _), (new, _) = read(request.old_inputs), read(request.news)
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        changes = provider.DiffResponse.DIFF_SOME if changed else provider.DiffResponse.DIFF_NONE
        return provider.DiffResponse(changes=changes, diffs=changed)

    def Configure(self, request: Any) -> Any:
        """Read the arguments and check them again: a destroy or a refresh does not call `CheckConfig`."""
        refused = refusal(self._environment)
        if refused:
            raise RequestFailed(refused)
        self._server = Server(read_settings(read(request.args)[0], self._environment))
        return provider.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Check(self, request: Any) -> Any:
        (olds, _), (news, secrets) = read(request.olds), read(request.news)
        name = request.urn.rpartition("::")[2]
        inputs, failures = properties.check(_resource(request), name, olds, news, request.randomSeed)
        return _check_response(inputs, secrets, failures)

    def Diff(self, request: Any) -> Any:
        (olds, _), (news, _) = read(request.olds), read(request.news)
        return properties.diff(_resource(request), olds, news, request.ignoreChanges)

    def Create(self, request: Any) -> Any:
        resource, (inputs, secrets) = _resource(request), read(request.properties)
        secrets |= properties.secrets(resource)
        if request.preview:
            return provider.CreateResponse(properties=write(properties.plan(resource, inputs), secrets))
        wanted = self._complete(resource, inputs)
        identity = properties.identity(resource, wanted)
        is_created = False
        try:
            with self._report_errors(request), self._writing, self._session(resource, wanted) as session:
                resource.create(session, wanted)
                is_created = not resource.is_transactional
                live = _require(resource.read(session, wanted), identity)
        except RequestFailed as error:
            if is_created:
                known = write(properties.record(resource, wanted), secrets)
                raise _initialization_error(str(error), identity, known) from None
            raise
        return provider.CreateResponse(id=identity, properties=write(properties.record(resource, live), secrets))

    def Read(self, request: Any) -> Any:
        """Refresh, or look up by id; then inputs and outputs both are the values that the program gave."""
        resource, live = _resource(request), None
        (inputs, secrets), (outputs, more) = read(request.inputs), read(request.properties)
        secrets |= more | properties.secrets(resource)
        known = self._complete(resource, inputs | outputs | _from_id(resource, request.id, outputs))
        with self._report_errors(request, "refreshing"), self._session(resource, known) as session:
            live = resource.read(session, known)
        if live is None:
            return provider.ReadResponse()
        found = properties.record(resource, live)
        followed = write(properties.follow(resource, inputs, outputs, found), secrets)
        return provider.ReadResponse(id=request.id, properties=write(found, secrets), inputs=followed)

    def Update(self, request: Any) -> Any:
        resource, (olds, _), (inputs, secrets) = _resource(request), read(request.olds), read(request.news)
        outputs = properties.plan(resource, inputs, olds)
        if not request.preview:
            old, wanted = self._complete(resource, olds), self._complete(resource, outputs | inputs)
            with self._report_errors(request, "updating"), self._writing, self._session(resource, wanted) as session:
                resource.update(session, old, wanted)
                outputs = properties.record(resource, _require(resource.read(session, wanted), request.id))
        return provider.UpdateResponse(properties=write(outputs, secrets | properties.secrets(resource)))

    def Delete(self, request: Any) -> Any:
        resource = _resource(request)
        known = self._complete(resource, read(request.properties)[0])
        with self._report_errors(request, "deleting"), self._writing, self._session(resource, known) as session:
            resource.delete(session, known)
        return empty_pb2.Empty()

    def _complete(self, resource: Resource, values: Values) -> Values:
        state = properties.complete(resource, values)
        if "database" in state:
            state["database"] = state["database"] or self._server.settings["database"]
        return state

    def _session(self, resource: Resource, state: Values) -> contextlib.AbstractContextManager[Session]:
        """A session in the resource's database, or in the provider's."""
        return self._server.session(state.get("database", ""), resource.is_transactional)

    @contextlib.contextmanager
    def _report_errors(self, request: Any, doing: str = "") -> Iterator[None]:
        """The vendor's provider reports a failure twice: as a line of its log, and as the error of the request, which
        begins with what it was `doing`."""
        try:
            yield
        except PostgresError as error:
            # A refresh then forgets the resource, and a delete has nothing left to do.
            if doing in ("refreshing", "deleting") and error.code in GONE:
                return
            text = str(error)
            line = f"  sdk-v2/provider2.go:571: sdk.helper_schema: {text}: provider=postgresql@{VERSION}"
            self._log(request.urn, line)
            before = f"{doing} {request.urn}: " if doing else ""
            raise RequestFailed(f"{before}1 error occurred:\n\t* {text}\n\n") from None

    def _log(self, urn: str, text: str) -> None:
        if not self._engine:
            return
        engine = wire.engine
        with grpc.insecure_channel(self._engine) as channel, contextlib.suppress(grpc.RpcError):
            log = channel.unary_unary("/pulumirpc.Engine/Log", engine.LogRequest.SerializeToString, lambda _: None)
            log(engine.LogRequest(severity=engine.ERROR, urn=urn, message=text), timeout=5)


def _guard(method: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(request)
        except RequestFailed as error:
            if error.details:
                context.set_trailing_metadata((("grpc-status-details-bin", error.details),))
            context.abort(grpc.StatusCode.UNKNOWN, str(error))

    return answer


def _resource(request: Any) -> Resource:
    kind = request.urn.split("::")[2].rpartition("$")[2]
    found = (RESOURCES | OLDER_NAMES).get(kind.removeprefix("postgresql:index/"))
    if found is None:
        raise RequestFailed(f"resource type '{kind}' is not supported by the lab's stand-in for postgresql")
    return found


def refusal(environment: Mapping[str, str]) -> str:
    """Why this process must not serve the engine that started it; empty in a lab. Like `lab/toolchain/guard` in Go.

    An engine hands its environment on. `lab.env` and the toolkit set PULUMI_BACKEND_URL and OPS_STATE for every command
    on the lab.
    """
    seen = environment.get("PULUMI_BACKEND_URL", "")
    if seen and seen in _backends(environment.get("OPS_STATE", "")):
        return ""
    return (
        f"this postgresql plugin is the lab's stand-in for the vendor's and serves nothing else\n"
        f"  seen: PULUMI_BACKEND_URL is {seen or 'not set'}\n"
        f"  expected: a backend of the lab at OPS_STATE={environment.get('OPS_STATE', '')}\n"
        "  next: pulumi plugin install resource postgresql, in a shell without the exports of ./inv lab.env"
    )


def _backends(state: str) -> list[str]:
    try:
        target = json.loads((Path(state) / "lab" / "target.json").read_text("utf-8"))
        return [target[key] for key in ("backend", "file_backend") if target.get(key)]
    except (OSError, ValueError, AttributeError):
        return []


def _check_response(inputs: Values, secrets: frozenset[str], failures: list[str]) -> Any:
    found = [provider.CheckFailure(reason=failure) for failure in failures]
    return provider.CheckResponse(inputs=write(inputs, secrets), failures=found)


def _from_id(resource: Resource, identity: str, outputs: Values) -> Values:
    """The values for a look-up. Recorded values win over the id, which the engine keeps when a resource is renamed."""
    if all(outputs.get(key) for key, one in resource.properties.items() if one.is_required):
        return {}
    names = () if callable(resource.identity) else resource.identity
    parts = identity.split(".", max(len(names) - 1, 0))
    if len(parts) != len(names):
        expected = ".".join(names) or "of a look-up, which this type does not have"
        raise RequestFailed(f"ID {identity} has not the expected format '{expected}'")
    return dict(zip(names, parts, strict=True))


def _require(live: Values | None, identity: str) -> Values:
    if live is None:
        raise PostgresError(f"{identity} does not exist although it was changed a moment ago")
    return live


def _initialization_error(text: str, identity: str, outputs: Any) -> RequestFailed:
    """The error of an incompletely created resource: the engine records it and fails; the next run updates it."""
    packed = any_pb2.Any()
    packed.Pack(provider.ErrorResourceInitFailed(id=identity, properties=outputs, reasons=[text]))
    status = wire.status.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=text, details=[packed])
    return RequestFailed(text, status.SerializeToString())
