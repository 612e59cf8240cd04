"""One operation on a stack, call by call, as the CLI makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.unit.cloud.conftest import Caller, Reply

STACK = "/api/stacks/organization/postgresql/lab"


def create_stack(caller: Caller) -> None:
    caller.post("/api/stacks/organization/postgresql", {"stackName": "lab", "tags": {"pulumi:project": "postgresql"}})


def deployment(outputs: dict[str, Any] | None = None, *, manager: str = "service") -> dict[str, Any]:
    """A state with only the Stack resource, as a checkpoint or an import sends it."""
    resource = {
        "urn": "urn:pulumi:lab::postgresql::pulumi:pulumi:Stack::postgresql-lab",
        "custom": False,
        "type": "pulumi:pulumi:Stack",
        "outputs": outputs or {},
    }
    providers = {"type": manager, "state": {}}
    return {"version": 3, "deployment": {"manifest": {}, "secrets_providers": providers, "resources": [resource]}}


@dataclass
class Operation:
    """`id` and `token` are of the cloud."""

    caller: Caller
    id: str
    token: str = ""

    @classmethod
    def create(cls, caller: Caller, kind: str = "update", **body: Any) -> Operation:
        return cls(caller, caller.post(f"{STACK}/{kind}", body)["updateID"])

    @classmethod
    def started(cls, caller: Caller, kind: str = "update", **body: Any) -> Operation:
        operation = cls.create(caller, kind, **body)
        reply = operation.start()
        assert reply.status == 200, reply.body
        operation.token = reply.content["token"]
        return operation

    @property
    def path(self) -> str:
        return f"{STACK}/update/{self.id}"

    def start(self) -> Reply:
        return self.caller.send("POST", self.path, {"tags": {"pulumi:project": "postgresql"}, "journalVersion": 1})

    def inside(self, method: str, what: str, body: Any) -> Reply:
        return self.caller.send(method, f"{self.path}/{what}", body, Authorization=f"update-token {self.token}")

    def checkpoint(self, state: dict[str, Any]) -> Reply:
        return self.inside("PATCH", "checkpoint", {"isInvalid": False, **state})

    def renew(self, seconds: int = 300) -> Reply:
        return self.inside("POST", "renew_lease", {"duration": seconds})

    def complete(self, status: str = "succeeded") -> Reply:
        return self.inside("POST", "complete", {"status": status})

    def cancel(self) -> Reply:
        return self.caller.send("POST", f"{self.path}/cancel")
