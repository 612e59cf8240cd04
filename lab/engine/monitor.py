"""The two services a program talks to: ``ResourceMonitor`` and ``Engine``, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf import empty_pb2

from lab.engine import protocol
from lab.engine.deployment import Deployment, Goal, Stopped
from lab.engine.events import Diagnostic
from lab.engine.failures import CommandFailed, NotSupported
from lab.engine.providers import ConstructRequest, ProviderError, RegisteredResource, ResourceOptions
from lab.engine.registration import (
    alias_urns,
    apply_transform_options,
    read_inputs,
    read_options,
    write_transform_options,
)
from lab.engine.serde import read_struct, write_struct
from lab.engine.state import ResourceState
from lab.engine.transforms import Transforms
from lab.engine.urns import is_provider, make_urn, package_of
from lab.engine.values import UNKNOWN, PropertyMap, has_unknowns, output_dependencies, resolve_outputs

_SEVERITIES = ("debug", "info", "warning", "error")
_FEATURES = ("secrets", "resourceReferences", "outputValues", "aliasSpecs", "deletedWith", "transforms")
_MESSAGE_LIMIT = 400 << 20
# Every registration waits in a thread of its own until the engine has dealt with it.
_THREADS = 1024

GET_RESOURCE = "pulumi:pulumi:getResource"
"""The engine's own function behind resource references; no provider has it."""


class Monitor:
    """Serves one deployment. ``finished`` is set when the program has registered everything."""

    def __init__(self, deployment: Deployment, *, organization: str) -> None:
        self.deployment = deployment
        self.organization = organization
        self.transforms = Transforms()
        self.finished = threading.Event()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._active = 0
        self._providers_of: dict[str, dict[str, str]] = {}
        self._packages: dict[str, tuple[str, str]] = {}
        self._server: Any = None

    def serve(self) -> str:
        """Start; gives the address."""
        limits = [("grpc.max_send_message_length", _MESSAGE_LIMIT), ("grpc.max_receive_message_length", _MESSAGE_LIMIT)]
        self._server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="monitor"), options=limits)
        protocol.resource_grpc.add_ResourceMonitorServicer_to_server(_MonitorService(self), self._server)
        protocol.engine_grpc.add_EngineServicer_to_server(_EngineService(self), self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return f"127.0.0.1:{port}"

    def wait_idle(self) -> None:
        """Until no registration is being carried out."""
        with self._idle:
            self._idle.wait_for(lambda: self._active == 0)

    def close(self) -> None:
        if self._server is not None:
            self._server.stop(0)
        self.transforms.close()

    def answer(self, context: Any, work: Callable[[], Any]) -> Any:
        """Run one request; a failure is told by the deployment and ends the program's call."""
        with self._lock:
            self._active += 1
        try:
            return work()
        except Stopped:
            context.abort(grpc.StatusCode.UNAVAILABLE, "resource monitor shut down")
        except (CommandFailed, ProviderError) as error:
            self.deployment.fail(None, "", error)
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except Exception as error:  # noqa: BLE001 - the edge of a thread: told as the run's failure, with its kind
            self.deployment.fail(None, "", f"internal error of the stand-in: {type(error).__name__}: {error}")
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            with self._idle:
                self._active -= 1
                self._idle.notify_all()

    # -- registrations -------------------------------------------------------------------------------------------

    def register(self, request: Any) -> Any:
        values, options = self.transformed(
            request.type, request.name, request.custom, read_struct(request.object), read_options(request)
        )
        if request.packageRef:
            options = _with_version(options, self._packages.get(request.packageRef, ("", ""))[1])
        if request.remote:
            return self._construct(request, values, options)
        state = self.register_resource(request.type, request.name, request.custom, values, options)
        return protocol.resource.RegisterResourceResponse(
            urn=state.urn,
            id=_wire_id(state, self.deployment.preview),
            object=write_struct(state.outputs if state.custom else state.inputs, secrets=request.acceptSecrets),
        )

    def transformed(
        self, type: str, name: str, custom: bool, values: PropertyMap, options: ResourceOptions
    ) -> tuple[PropertyMap, ResourceOptions]:
        """Inputs and options after all transforms that apply."""
        if not self.transforms.apply_to(options.parent, options.transforms):
            return values, options
        request = protocol.resource.TransformRequest(
            type=type,
            name=name,
            custom=custom,
            parent=options.parent,
            properties=write_struct(values),
            options=write_transform_options(options),
        )
        properties, changed = self.transforms.apply(request, options.transforms)
        return read_struct(properties), apply_transform_options(options, changed)

    def register_resource(
        self, type: str, name: str, custom: bool, values: PropertyMap, options: ResourceOptions
    ) -> ResourceState:
        """Transforms have been applied."""
        deployment = self.deployment
        inputs = read_inputs(values, options)
        if is_provider(type) and options.version:
            inputs.values["version"] = options.version
        urn = make_urn(deployment.stack, deployment.project, options.parent, type, name)
        self.transforms.remember(urn, options.parent, options.transforms)
        with self._lock:
            self._providers_of[urn] = {**self._providers_of.get(options.parent, {}), **options.providers}
        return deployment.register(
            Goal(
                type,
                name,
                custom,
                inputs.values,
                options.parent,
                options.protect,
                options.retain_on_delete,
                inputs.dependencies,
                inputs.property_dependencies if custom else {},
                self.provider_reference(type, options) if custom and not is_provider(type) else "",
                options.delete_before_replace,
                options.ignore_changes,
                options.replace_on_changes,
                options.additional_secret_outputs,
                alias_urns(options, stack=deployment.stack, project=deployment.project, type=type, name=name),
                options.custom_timeouts,
                options.deleted_with,
            )
        )

    def provider_reference(self, type: str, options: ResourceOptions) -> str:
        """The explicit provider, the nearest ancestor's for the package, or the default one."""
        package = package_of(type)
        if options.provider:
            return options.provider
        with self._lock:
            inherited = {**self._providers_of.get(options.parent, {}), **options.providers}.get(package)
        return inherited or self.deployment.default_provider(package, options.version)

    def _construct(self, request: Any, values: PropertyMap, options: ResourceOptions) -> Any:
        package = package_of(request.type)
        reference = self.provider_reference(request.type, options)
        provider = self.deployment.registry.get(reference)
        if provider is None or not provider.supports(request.type):
            raise NotSupported(f"component type '{request.type}'")
        options = _with_provider(options, package, reference)
        handle = ConstructHandle(self, request.type, request.name, options)
        inputs = read_inputs(values, options)
        result = provider.construct(
            ConstructRequest(
                request.type,
                request.name,
                inputs.values,
                options,
                self.deployment.preview,
                {key: tuple(urns) for key, urns in inputs.property_dependencies.items()},
            ),
            handle,
        )
        response = protocol.resource.RegisterResourceResponse(
            urn=result.urn, object=write_struct(result.outputs, secrets=request.acceptSecrets)
        )
        for key, urns in result.output_dependencies.items():
            response.propertyDependencies[key].urns.extend(urns)
        return response

    def read(self, request: Any) -> Any:
        values = read_struct(request.properties)
        options = ResourceOptions(parent=request.parent, provider=request.provider, version=request.version)
        state = self.deployment.read(
            Goal(
                request.type,
                request.name,
                True,
                resolve_outputs(values),
                request.parent,
                dependencies=tuple(dict.fromkeys([*request.dependencies, *output_dependencies(values)])),
                provider=self.provider_reference(request.type, options),
                additional_secret_outputs=tuple(request.additionalSecretOutputs),
            ),
            request.id,
        )
        return protocol.resource.ReadResourceResponse(
            urn=state.urn, id=state.id, properties=write_struct(state.outputs, secrets=request.acceptSecrets)
        )

    def invoke(self, request: Any) -> Any:
        args = resolve_outputs(read_struct(request.args))
        package = package_of(request.tok)
        if request.tok == GET_RESOURCE:
            return self._registered(str(args.get("urn", "")))
        if package == "pulumi":
            raise NotSupported(f"function '{request.tok}'")
        reference = self.provider_reference(
            request.tok, ResourceOptions(provider=request.provider, version=request.version)
        )
        provider = self.deployment.registry.get(reference)
        if provider is None or not provider.supports(request.tok):
            raise NotSupported(f"function '{request.tok}'")
        response = protocol.resource.ResourceInvokeResponse()
        if self.deployment.preview and has_unknowns(args):
            response.unknown = True
            return response
        with self.deployment.slot():
            result = provider.invoke(request.tok, args, preview=self.deployment.preview)
        getattr(response, "return").CopyFrom(write_struct(result.outputs))
        for failure in result.failures:
            response.failures.add(property=failure.property, reason=failure.reason)
        return response

    def _registered(self, urn: str) -> Any:
        """What the SDK asks to turn a reference to a resource (a chart's ``resources``) back into that resource."""
        state = self.deployment.registered(urn)
        if state is None:
            raise CommandFailed(f"unknown resource {urn}")
        response = protocol.resource.ResourceInvokeResponse()
        found = {"urn": state.urn, "id": state.id, "state": state.outputs}
        getattr(response, "return").CopyFrom(write_struct(found))
        return response

    def register_package(self, request: Any) -> Any:
        if request.HasField("parameterization") or request.HasField("extension"):
            raise NotSupported(f"the parameterized provider '{request.name}'")
        reference = f"{request.name}@{request.version}"
        with self._lock:
            self._packages[reference] = (request.name, request.version)
        return protocol.resource.RegisterPackageResponse(ref=reference)


class ConstructHandle:
    """What a provider's ``construct`` registers with (``providers.MonitorHandle``)."""

    def __init__(self, monitor: Monitor, type: str, name: str, options: ResourceOptions) -> None:
        self._monitor = monitor
        self._type = type
        self._name = name
        self._options = options
        self._component = ""

    def register(
        self, type: str, name: str, inputs: PropertyMap, options: ResourceOptions, *, custom: bool = True
    ) -> RegisteredResource:
        itself = not custom and (type, name) == (self._type, self._name) and not self._component
        options = self._completed(options, itself)
        values = inputs
        if not itself:
            # The component's own transforms ran when the program asked for it.
            values, options = self._monitor.transformed(type, name, custom, inputs, options)
        state = self._monitor.register_resource(type, name, custom, values, options)
        if itself:
            self._component = state.urn
        identity = state.id if state.id or not custom else UNKNOWN
        return RegisteredResource(state.urn, identity, state.outputs)

    def _completed(self, options: ResourceOptions, itself: bool) -> ResourceOptions:
        if itself:
            return replace(
                options,
                parent=self._options.parent,
                transforms=self._options.transforms,
                providers=self._options.providers,
            )
        return replace(
            options,
            parent=options.parent or self._component or self._options.parent,
            version=options.version or self._options.version,
        )

    def register_outputs(self, urn: str, outputs: PropertyMap) -> None:
        self._monitor.deployment.register_outputs(urn, resolve_outputs(outputs))


def _with_version(options: ResourceOptions, version: str) -> ResourceOptions:
    return replace(options, version=options.version or version)


def _with_provider(options: ResourceOptions, package: str, reference: str) -> ResourceOptions:
    return replace(options, providers={**options.providers, package: reference})


def _wire_id(state: ResourceState, preview: bool) -> str:
    """A provider that a preview would create has no id yet."""
    if is_provider(state.type) and preview and not state.created:
        return ""
    return state.id


class _MonitorService:
    """Method names are the protocol's."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def GetDeploymentInfo(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        deployment = self._monitor.deployment
        names = protocol.resource.ResourceMonitorFeature
        features = [names.Value(f"RESOURCE_MONITOR_FEATURE_{_upper(feature)}") for feature in _FEATURES]
        return protocol.resource.DeploymentInfo(
            project=deployment.project,
            stack=deployment.stack,
            organization=self._monitor.organization,
            dryRun=deployment.preview,
            supportedFeatures=features,
        )

    def SupportsFeature(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return protocol.resource.SupportsFeatureResponse(hasSupport=request.id in _FEATURES)

    def RegisterResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: self._monitor.register(request))

    def RegisterResourceOutputs(self, request: Any, context: Any) -> Any:  # noqa: N802
        def work() -> Any:
            outputs = resolve_outputs(read_struct(request.outputs))
            self._monitor.deployment.register_outputs(request.urn, outputs)
            return empty_pb2.Empty()

        return self._monitor.answer(context, work)

    def ReadResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: self._monitor.read(request))

    def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: self._monitor.invoke(request))

    def Call(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: _refuse(f"method '{request.tok}'"))

    def ExistsResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: _refuse(f"asking whether '{request.type}' exists"))

    def RegisterStackTransform(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self._monitor.transforms.add_for_stack(request)
        return empty_pb2.Empty()

    def RegisterStackInvokeTransform(self, _request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: _refuse("register_invoke_transform"))

    def RegisterResourceHook(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: _refuse(f"resource hook '{request.name}'"))

    def RegisterErrorHook(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: _refuse(f"error hook '{request.name}'"))

    def RegisterPackage(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: self._monitor.register_package(request))

    def SignalAndWaitForShutdown(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        self._monitor.finished.set()
        return empty_pb2.Empty()


class _EngineService:
    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._root = ""

    def Log(self, request: Any, _context: Any) -> Any:  # noqa: N802
        deployment = self._monitor.deployment
        if not (deployment.failed or deployment.cancellation.is_cancelled):
            severity = _SEVERITIES[request.severity]
            prefix = "" if severity == "info" else f"{severity}: "
            text = request.message if request.message.endswith("\n") else f"{request.message}\n"
            deployment.emit(Diagnostic(request.urn, text, severity, prefix, request.ephemeral))
        return empty_pb2.Empty()

    def GetRootResource(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return protocol.engine.GetRootResourceResponse(urn=self._root)

    def SetRootResource(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self._root = request.urn
        return protocol.engine.SetRootResourceResponse()

    def RequirePulumiVersion(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return protocol.engine.RequirePulumiVersionResponse()

    def StartDebugging(self, _request: Any, context: Any) -> Any:  # noqa: N802
        return self._monitor.answer(context, lambda: _refuse("debugging"))


def _refuse(what: str) -> Any:
    raise NotSupported(what)


def _upper(name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name).upper()
