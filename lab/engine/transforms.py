"""Transforms: functions of the program that may change any registration, called back over gRPC."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import grpc

from lab.engine import protocol
from lab.engine.providers import ProviderError

_OPTIONS = [("grpc.max_send_message_length", 400 << 20), ("grpc.max_receive_message_length", 400 << 20)]


class Transforms:
    """Which transforms apply where: a resource's own, then its parents', then the stack's. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: dict[str, Any] = {}
        self._stubs: dict[str, Any] = {}
        self._stack: list[Any] = []
        self._own: dict[str, tuple[Any, ...]] = {}
        self._parents: dict[str, str] = {}

    def add_for_stack(self, callback: Any) -> None:
        with self._lock:
            self._stack.append(callback)

    def remember(self, urn: str, parent: str, callbacks: Iterable[Any]) -> None:
        """A resource's own transforms, for the resources below it."""
        with self._lock:
            self._own[urn] = tuple(callbacks)
            self._parents[urn] = parent

    def apply_to(self, parent: str, own: Iterable[Any]) -> bool:
        """Whether any transform applies to a resource below ``parent``."""
        return bool(self._chain(parent, own))

    def apply(self, request: Any, own: Iterable[Any]) -> tuple[Any, Any]:
        """``request`` is a ``TransformRequest``; gives the properties and options that come out at the end.

        Raises ``ProviderError`` with the program's own message when a transform fails.
        """
        current = request
        for callback in self._chain(request.parent, own):
            response = self._call(callback, current)
            current = protocol.resource.TransformRequest(
                type=request.type,
                name=request.name,
                custom=request.custom,
                parent=request.parent,
                properties=response.properties,
                options=response.options if response.HasField("options") else current.options,
            )
        return current.properties, current.options

    def _chain(self, parent: str, own: Iterable[Any]) -> list[Any]:
        with self._lock:
            chain = list(own)
            while parent:
                chain += self._own.get(parent, ())
                parent = self._parents.get(parent, "")
            return [*chain, *self._stack]

    def _call(self, callback: Any, request: Any) -> Any:
        message = protocol.callback.CallbackInvokeRequest(token=callback.token, request=request.SerializeToString())
        try:
            response = self._stub(callback.target).Invoke(message)
        except grpc.RpcError as error:
            details = error.details() if isinstance(error, grpc.Call) else str(error)
            raise ProviderError(f"invoking transform on {request.name}: {details}") from error
        return protocol.resource.TransformResponse.FromString(response.response)

    def _stub(self, target: str) -> Any:
        with self._lock:
            if target not in self._stubs:
                self._channels[target] = grpc.insecure_channel(target, options=_OPTIONS)
                self._stubs[target] = protocol.callback_grpc.CallbacksStub(self._channels[target])
            return self._stubs[target]

    def close(self) -> None:
        with self._lock:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()
            self._stubs.clear()
