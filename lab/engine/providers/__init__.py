"""What a resource provider is to the engine: Pulumi's provider protocol in plain Python values.

Rules every provider follows, as the real ones do:

* Inputs and outputs are ``values.PropertyMap``; ``values.Secret`` marks secrets at any depth and ``values.UNKNOWN``
  stands for what a preview cannot know. A provider keeps the marks: what was secret in the inputs is secret in the
  outputs (``values.mark_like``). Input maps are the provider's own copies; it may change them.
* The methods are called from several threads at once, one resource a thread.
* A failure is a ``ProviderError`` whose text is what the person reads (the engine adds nothing to it). A resource that
  exists but did not become ready is a ``PartialFailure``: the engine records it and then fails the step.
* Long waits use ``host.cancellation``; on cancellation they end with ``PartialFailure`` or ``Cancelled``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lab.engine.cancellation import CancellationToken, Cancelled
from lab.engine.values import PropertyMap, Value

Severity = Literal["debug", "info", "warning", "error"]
DiffKind = Literal["add", "delete", "update", "add-replace", "delete-replace", "update-replace"]


class ProviderError(Exception):
    """A request failed. The text is shown as it is, below the resource's name."""


class PartialFailure(ProviderError):
    """The resource exists, or was changed, and yet is not as asked (Pulumi's "initialization failed").

    ``id`` and ``outputs`` (and ``inputs``, when the provider has newer ones) are recorded in the state together with
    ``reasons`` as the resource's ``initErrors``; then the step fails. The next run updates the resource again.
    """

    def __init__(
        self,
        id: str,
        outputs: PropertyMap,
        reasons: Sequence[str],
        *,
        message: str = "",
        inputs: PropertyMap | None = None,
    ) -> None:
        super().__init__(message or "; ".join(reasons))
        self.id = id
        self.outputs = outputs
        self.inputs = inputs
        self.reasons = tuple(reasons)


@dataclass(frozen=True)
class CheckFailure:
    """One rejected property: ``property`` is a path or "", ``reason`` a sentence."""

    property: str
    reason: str


@dataclass(frozen=True)
class CheckResult:
    """Inputs as they will be recorded (defaults and generated names filled in), and what is wrong with them."""

    inputs: PropertyMap
    failures: tuple[CheckFailure, ...] = ()


@dataclass(frozen=True)
class PropertyDiff:
    """``input_diff``: the difference is between old and new inputs, not between old outputs and new inputs."""

    kind: DiffKind
    input_diff: bool = True


@dataclass(frozen=True)
class DiffResult:
    """``replaces`` are property paths; not empty means replace. ``detailed_diff`` is keyed by property path."""

    changes: bool
    replaces: tuple[str, ...] = ()
    detailed_diff: Mapping[str, PropertyDiff] = field(default_factory=dict)
    delete_before_replace: bool = False
    diffs: tuple[str, ...] = ()
    """Top-level properties that differ; derived from ``detailed_diff`` by the engine when empty."""


@dataclass(frozen=True)
class CreateResult:
    """In a preview ``id`` may be "" (unknown) and ``outputs`` may hold ``UNKNOWN``."""

    id: str
    outputs: PropertyMap


@dataclass(frozen=True)
class UpdateResult:
    outputs: PropertyMap


@dataclass(frozen=True)
class ReadResult:
    """``id`` is ``None`` when the resource is gone. ``inputs`` are what a program would have to say to get ``outputs``.

    ``reasons``: the resource is there but not ready (its new ``initErrors``).
    """

    id: str | None
    inputs: PropertyMap
    outputs: PropertyMap
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class CustomTimeouts:
    """Seconds; 0 means the provider's default."""

    create: float = 0
    update: float = 0
    delete: float = 0


@dataclass(frozen=True)
class ResourceOptions:
    """Options of a registration. Names are the SDK's. ``transforms`` are opaque handles, passed on unchanged."""

    parent: str = ""
    depends_on: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    provider: str = ""
    """``<urn>::<id>`` of an explicit provider; "" takes the parent's or the default one."""
    providers: Mapping[str, str] = field(default_factory=dict)
    """Package name to provider reference, for the children of a component."""
    protect: bool | None = None
    retain_on_delete: bool | None = None
    ignore_changes: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    delete_before_replace: bool | None = None
    additional_secret_outputs: tuple[str, ...] = ()
    custom_timeouts: CustomTimeouts = CustomTimeouts()
    deleted_with: str = ""
    version: str = ""
    aliases: tuple[object, ...] = ()
    transforms: tuple[object, ...] = ()


@dataclass(frozen=True)
class RegisteredResource:
    """Answer of the engine: ``id`` and ``outputs`` are ``UNKNOWN``-bearing in previews; marks are kept."""

    urn: str
    id: Value
    outputs: PropertyMap


class MonitorHandle(Protocol):
    """The resource monitor as a provider's ``construct`` uses it: in process, and transforms run as for the program."""

    def register(
        self, type: str, name: str, inputs: PropertyMap, options: ResourceOptions, *, custom: bool = True
    ) -> RegisteredResource:
        """Register a resource and wait until the engine has dealt with it.

        Runs the transforms of the resource, of its parents and of the stack. Raises ``ProviderError`` or ``Cancelled``
        when the resource failed or the run was stopped: let both pass through. May be called from several threads.
        Without ``options.parent`` the parent is the component being constructed once it is registered, else its parent.
        """
        ...

    def register_outputs(self, urn: str, outputs: PropertyMap) -> None:
        """Record a component's outputs; last call of a ``construct``."""
        ...


class ProviderHost(Protocol):
    """What the engine offers a provider."""

    @property
    def cancellation(self) -> CancellationToken: ...

    @property
    def project(self) -> str: ...

    @property
    def stack(self) -> str: ...

    @property
    def program_folder(self) -> str:
        """Absolute path of the program; relative chart folders and files start here."""
        ...

    def log(self, severity: Severity, urn: str, message: str, *, ephemeral: bool = False) -> None:
        """Show a message below the resource ``urn``. ``ephemeral``: progress of an await, not kept in diagnostics."""
        ...


@dataclass(frozen=True)
class ConstructRequest:
    """A remote component. ``preview``: nothing may be changed in the cluster."""

    type: str
    name: str
    inputs: PropertyMap
    options: ResourceOptions
    preview: bool
    input_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ConstructResult:
    """The component's own URN and outputs (children as ``values.ResourceReference``)."""

    urn: str
    outputs: PropertyMap
    output_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class InvokeResult:
    outputs: PropertyMap
    failures: tuple[CheckFailure, ...] = ()


class Provider(Protocol):
    """One configured provider (a default one or an explicit ``pulumi:providers:<package>``)."""

    def check_config(self, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        """Configuration as given by stack settings (default provider) or arguments. Values are strings, as on the wire:
        JSON text where the setting is not a string. Failures name an unsupported setting."""
        ...

    def diff_config(self, olds: PropertyMap, news: PropertyMap) -> DiffResult: ...

    def configure(self, inputs: PropertyMap) -> None:
        """Called once before anything else but the two above. Not reaching the cluster is no failure here: like the
        real provider, remember it and fail where it matters."""
        ...

    def supports(self, type: str) -> bool:
        """Whether the resource type, component type or function token is implemented; others are refused by name."""
        ...

    def check(
        self, urn: str, type: str, olds: PropertyMap | None, news: PropertyMap, *, autoname_seed: bytes
    ) -> CheckResult:
        """``olds`` are the recorded inputs, ``None`` before the first create and at replacement."""
        ...

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
        """``new_inputs`` are checked and have ``ignore_changes`` applied by the engine already."""
        ...

    def create(self, urn: str, type: str, inputs: PropertyMap, *, preview: bool, timeout: float) -> CreateResult:
        """``timeout`` in seconds, 0 is the default. A preview may ask the cluster (dry run) and changes nothing."""
        ...

    def read(self, urn: str, type: str, id: str, inputs: PropertyMap | None, outputs: PropertyMap | None) -> ReadResult:
        """Live state. ``inputs`` and ``outputs`` are the recorded ones at a refresh, ``None`` for ``Resource.get``."""
        ...

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
    ) -> UpdateResult: ...

    def delete(
        self, urn: str, type: str, id: str, inputs: PropertyMap, outputs: PropertyMap, *, timeout: float
    ) -> None:
        """Gone already is a success. Returns when the object is really gone."""
        ...

    def construct(self, request: ConstructRequest, monitor: MonitorHandle) -> ConstructResult:
        """A remote component: registers itself (``custom=False``), then its children, with ``monitor``."""
        ...

    def invoke(self, token: str, args: PropertyMap, *, preview: bool) -> InvokeResult: ...

    def cancel(self) -> None:
        """Stop waiting; from another thread, after ``host.cancellation`` was set."""
        ...

    def close(self) -> None:
        """End of the run."""
        ...


ProviderFactory = Callable[[ProviderHost], Provider]

FACTORIES: dict[str, str] = {
    "kubernetes": "lab.engine.providers.kubernetes:create_provider",
    "postgresql": "lab.engine.providers.postgresql:create_provider",
}
"""Package name to ``module:function`` of its ``ProviderFactory``. A new provider is one module and one line."""


__all__ = [
    "FACTORIES",
    "Cancelled",
    "CheckFailure",
    "CheckResult",
    "ConstructRequest",
    "ConstructResult",
    "CreateResult",
    "CustomTimeouts",
    "DiffKind",
    "DiffResult",
    "InvokeResult",
    "MonitorHandle",
    "PartialFailure",
    "PropertyDiff",
    "Provider",
    "ProviderError",
    "ProviderFactory",
    "ProviderHost",
    "ReadResult",
    "RegisteredResource",
    "ResourceOptions",
    "Severity",
    "UpdateResult",
]
