"""The providers of a run: made when first needed, one instance for each provider resource."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping

from lab.engine.cancellation import CancellationToken
from lab.engine.events import Diagnostic, Emit
from lab.engine.failures import NotSupported
from lab.engine.providers import FACTORIES, Provider, ProviderFactory, Severity
from lab.engine.urns import provider_urn
from lab.engine.values import PropertyMap


class Host:
    """What providers may ask of the engine (``providers.ProviderHost``)."""

    def __init__(
        self, *, project: str, stack: str, program_folder: str, cancellation: CancellationToken, emit: Emit
    ) -> None:
        self.project = project
        self.stack = stack
        self.program_folder = program_folder
        self.cancellation = cancellation
        self._emit = emit

    def log(self, severity: Severity, urn: str, message: str, *, ephemeral: bool = False) -> None:
        prefix = "" if severity == "info" else f"{severity}: "
        self._emit(Diagnostic(urn, f"{message}\n", severity, prefix, ephemeral))


def load_factory(package: str) -> ProviderFactory:
    """Raises ``NotSupported`` for a package without an entry in ``FACTORIES``."""
    place = FACTORIES.get(package)
    if place is None:
        raise NotSupported(f"provider '{package}'")
    module, _, name = place.partition(":")
    factory: ProviderFactory = getattr(importlib.import_module(module), name)
    return factory


class ProviderRegistry:
    """Configured providers by the URN of their resource."""

    def __init__(self, host: Host, load: Callable[[str], ProviderFactory] = load_factory) -> None:
        self._host = host
        self._load = load
        self._lock = threading.RLock()
        self._providers: dict[str, Provider] = {}
        self._all: list[Provider] = []
        host.cancellation.on_cancel(self._cancel)

    def make(self, package: str) -> Provider:
        """A new one, not configured."""
        provider = self._load(package)(self._host)
        with self._lock:
            self._all.append(provider)
        return provider

    def put(self, urn: str, provider: Provider) -> None:
        with self._lock:
            self._providers[urn] = provider

    def get(self, reference: str) -> Provider | None:
        with self._lock:
            return self._providers.get(provider_urn(reference))

    def recall(self, reference: str, package: str, inputs: Mapping[str, object]) -> Provider:
        """The provider of a recorded resource, configured as recorded when this run has not registered it."""
        with self._lock:
            provider = self.get(reference)
            if provider is None:
                provider = self.make(package)
                configuration: PropertyMap = {key: value for key, value in inputs.items() if key != "__internal"}
                provider.configure(configuration)
                self.put(provider_urn(reference), provider)
            return provider

    def _cancel(self) -> None:
        with self._lock:
            providers = list(self._all)
        for provider in providers:
            provider.cancel()

    def close(self) -> None:
        with self._lock:
            providers, self._all = self._all, []
        for provider in providers:
            provider.close()
