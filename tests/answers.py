"""Stand-ins for processes and clusters: answers by question, objects as kubectl prints them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from runbooks.core.command import Command, Outcome

Reply = Outcome | str | tuple[int, str, str] | Mapping[str, Any]


def outcome(command: Command, reply: Any) -> Outcome:
    """An `Outcome` from an object (printed as JSON), a text, or (exit, stdout, stderr)."""
    if isinstance(reply, Outcome):
        return reply
    code, stdout, stderr = reply if isinstance(reply, tuple) else (0, reply, "")
    if not isinstance(stdout, str):
        stdout = json.dumps(stdout)
    return Outcome(
        command=command,
        exit_code=code,
        seconds=0.0,
        stdout=stdout,
        stderr=stderr,
        shown_stdout=stdout,
        shown_stderr=stderr,
    )


class Answers:
    """A runner that never starts anything: the first word list all of whose words are in the argv answers.

    A list of replies is used up one by one, its last one for ever; a callable gets the command.
    """

    def __init__(self, *known: tuple[tuple[str, ...], Any]) -> None:
        self.known = list(known)
        self.asked: list[Command] = []

    def run(self, command: Command, **_: Any) -> Outcome:
        self.asked.append(command)
        for words, reply in self.known:
            if all(any(word in part for part in command.argv) for word in words):
                return outcome(command, self._next(reply, command))
        return outcome(command, (1, "", f"Error from server (NotFound): nothing known of {' '.join(command.argv)}"))

    def check(self, command: Command, **_: Any) -> Outcome:
        done = self.run(command)
        assert done.ok, done
        return done

    @staticmethod
    def _next(reply: Any, command: Command) -> Any:
        if isinstance(reply, list):
            return reply.pop(0) if len(reply) > 1 else reply[0]
        if isinstance(reply, Callable):  # type: ignore[arg-type]
            return reply(command)
        return reply

    @property
    def argvs(self) -> list[str]:
        return [" ".join(command.argv) for command in self.asked]


def namespace(name: str = "kube-system", uid: str = "81e3d180-3df5-4d42-8e34-904e6d4b002a") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": uid}}


def listing(*objects: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def deployment(name: str, where: str, *, ready: int = 1, wanted: int = 1, available: str = "True") -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": where, "generation": 2},
        "spec": {"replicas": wanted},
        "status": {
            "observedGeneration": 2,
            "readyReplicas": ready,
            "updatedReplicas": wanted,
            "conditions": [{"type": "Available", "status": available, "reason": "MinimumReplicasAvailable"}],
        },
    }


def secret(name: str, where: str, values: Mapping[str, str], labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {
        "kind": "Secret",
        "metadata": {"name": name, "namespace": where, "labels": dict(labels or {})},
        "data": data,
    }


def slices(*addresses: str, ready: bool | None = True, port: int = 5432) -> dict[str, Any]:
    conditions = {} if ready is None else {"ready": ready}
    endpoints = [{"addresses": [address], "conditions": conditions} for address in addresses]
    return listing({"kind": "EndpointSlice", "endpoints": endpoints, "ports": [{"port": port}]})


def kubeconfig(
    *,
    context: str = "home",
    server: str = "https://10.0.0.2:6443",
    cluster: Mapping[str, Any] | None = None,
    user: Mapping[str, Any] | None = None,
    others: bool = True,
) -> dict[str, Any]:
    """A kubeconfig with the context, and another one that is current."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "other" if others else context,
        "contexts": [{"name": context, "context": {"cluster": "house", "user": "me"}}],
        "clusters": [{"name": "house", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "me", "user": dict(user if user is not None else {"token": "t0ken-of-the-house"})}],
    }
    if others:
        document["contexts"].append({"name": "other", "context": {"cluster": "office", "user": "boss"}})
        document["clusters"].append({"name": "office", "cluster": {"server": "https://10.9.9.9:6443"}})
        document["users"].append({"name": "boss", "user": {"token": "t0ken-of-the-office"}})
    return document
