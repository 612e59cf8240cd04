"""One operation on a stack, call by call, as the CLI makes it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from runbooks.tools.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY
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


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def seal(caller: Caller, text: str, stack: str = STACK) -> str:
    """The ciphertext that the cloud makes of a text."""
    return str(caller.post(f"{stack}/encrypt", {"plaintext": b64(text)})["ciphertext"])


def secret(ciphertext: str) -> dict[str, str]:
    """As a state has it."""
    return {SIGNATURE_KEY: SECRET_SIGNATURE, "ciphertext": ciphertext}


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
