"""Stacks: what is refused, what lists and secrets of a stack hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.cloud.server import Cloud
from tests.unit.cloud.conftest import Caller
from tests.unit.cloud.operation import STACK, Operation, b64, create_stack, deployment, seal

IMPORT, FORCED = f"POST {STACK}/import", f"DELETE {STACK}?force=true"
CREATE, RENAME, DECRYPT = "POST /api/stacks/organization/postgresql", f"POST {STACK}/rename", f"POST {STACK}/decrypt"
REFUSED: list[tuple[str, str, Any, int]] = [
    *(
        ("nothing", CREATE, {"stackName": name}, 400)
        for name in ("", "..", ".hidden", "a/b", "a b", "x" * 101, None, 7)
    ),
    # Config of a stack is not dropped silently.
    ("nothing", CREATE, {"stackName": "lab", "config": {"environment": "postgresql/lab"}}, 400),
    # No path leads out.
    ("nothing", "GET /api/stacks/organization/../lab", None, 404),
    ("nothing", "GET /api/stacks/organization/%2e%2e/lab", None, 404),
    ("nothing", "GET /api/stacks/other/p/s", None, 404),
    ("a stack", f"GET {STACK}/updates/latest", None, 404),
    ("a stack", f"GET {STACK}/export/x", None, 400),
    ("a stack", f"PATCH {STACK}/tags", {"a": 1}, 400),
    *(
        ("a stack", DECRYPT, body, 400)
        for body in ({}, {"ciphertext": "%%"}, {"ciphertext": "c2hvcnQ="}, {"ciphertext": 5})
    ),
    ("an update", IMPORT, deployment(), 409),
    ("an update", FORCED, None, 409),
    ("an update", RENAME, {"newName": "home"}, 409),
]


@pytest.mark.parametrize(("existing", "call", "body", "status"), REFUSED)
def test_what_is_refused(caller: Caller, existing: str, call: str, body: Any, status: int) -> None:
    if existing != "nothing":
        create_stack(caller)
    if existing == "an update":
        Operation.started(caller)
    assert caller.send(*call.split(" "), body).status == status
    if existing == "nothing":
        assert caller.send("GET", STACK).status == 404


def test_a_stack_is_made_once(caller: Caller) -> None:
    project = "/api/stacks/organization/postgresql"
    assert caller.send("HEAD", project).status == 404
    create_stack(caller)
    assert caller.send("HEAD", project).status == 200
    again = caller.send("POST", project, {"stackName": "lab"})
    assert (again.status, "already exists" in again.content["message"]) == (409, True)


def test_secrets_of_an_older_lab_open_after_a_rename(caller: Caller, cloud: Cloud) -> None:
    """They were sealed for the full name of the stack."""
    create_stack(caller)
    file = cloud.folder / "stacks/postgresql/lab/stack.json"
    file.write_text(
        json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "sealed_for"})
    )
    sealed = seal(caller, "hello")
    caller.post(f"{STACK}/rename", {"newName": "home"})
    moved = "/api/stacks/organization/postgresql/home"
    assert caller.post(f"{moved}/decrypt", {"ciphertext": sealed}) == {"plaintext": b64("hello")}
    assert caller.send("POST", f"{moved}/decrypt/log-decryption", {}).status == 204


def test_stacks_are_listed_by_project_and_tag(caller: Caller) -> None:
    create_stack(caller)
    caller.post("/api/stacks/organization/stitch", {"stackName": "lab"})
    caller.post(f"{STACK}/import", deployment())

    def listed(query: str) -> list[tuple[str, Any]]:
        stacks = caller.get(f"/api/user/stacks?{query}")["stacks"]
        return [(one["projectName"], one.get("resourceCount")) for one in stacks]

    assert listed("") == [("postgresql", 1), ("stitch", None)]
    assert listed("project=stitch&organization=organization") == [("stitch", None)]
    assert listed("tagName=pulumi:project&tagValue=postgresql") == [("postgresql", 1)]
    assert listed("tagName=pulumi:project&tagValue=other") == []
    assert caller.send("GET", "/api/user/stacks?organization=other").status == 404
