"""Stacks: made, looked at, imported, removed; their secrets; and their outputs as environments see them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lab.cloud import keys
from lab.cloud.evaluator import Unanswerable
from lab.cloud.keys import SECRET, SIGNATURE
from lab.cloud.server import Cloud
from lab.cloud.stack_store import StackStore
from lab.cloud.stacks import Stacks
from tests.unit.cloud.conftest import Caller
from tests.unit.cloud.operation import STACK, Operation, create_stack, deployment


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(ciphertext: str) -> dict[str, str]:
    return {SIGNATURE: SECRET, "ciphertext": ciphertext}


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


def test_an_import_is_an_update_that_has_ended(caller: Caller) -> None:
    create_stack(caller)
    update = caller.post(f"{STACK}/import", deployment({"a": 1.5, "big": 12345678901234567890}))["updateId"]
    results = caller.get(f"{STACK}/update/{update}")
    assert results == {"status": "succeeded", "events": [], "continuationToken": None}
    assert caller.get(f"{STACK}/export") == deployment({"a": 1.5, "big": 12345678901234567890})
    assert caller.get(f"{STACK}/updates")["updates"][0]["kind"] == "import"
    caller.post(f"{STACK}/import", deployment({"a": 2}))
    assert caller.get(f"{STACK}/export/1") == deployment({"a": 1.5, "big": 12345678901234567890})


def test_a_renamed_stack_is_the_same_stack(caller: Caller) -> None:
    create_stack(caller)
    sealed = caller.post(f"{STACK}/encrypt", {"plaintext": b64("hello")})["ciphertext"]
    state = deployment({"pin": secret(sealed), "note": "urn:pulumi:lab::postgresql::of::the-stack"})
    state["deployment"]["secrets_providers"]["state"] = {"project": "postgresql", "stack": "lab"}
    before = caller.post(f"{STACK}/import", state) and caller.get(STACK)
    renamed = {"newName": "home", "newProject": "databases"}
    assert caller.send("POST", f"{STACK}/rename", renamed).status == 204
    assert caller.send("GET", STACK).status == 404
    moved = "/api/stacks/organization/databases/home"
    assert caller.get(moved) == before | {"projectName": "databases", "stackName": "home"}
    found = caller.get(f"{moved}/export")["deployment"]
    assert found["resources"][0]["urn"] == "urn:pulumi:home::databases::pulumi:pulumi:Stack::databases-home"
    assert found["resources"][0]["outputs"]["note"] == "urn:pulumi:home::databases::of::the-stack"
    assert found["secrets_providers"]["state"] == {"project": "databases", "stack": "home"}
    assert caller.post(f"{moved}/decrypt", {"ciphertext": sealed}) == {"plaintext": b64("hello")}
    create_stack(caller)
    assert caller.send("POST", f"{STACK}/decrypt", {"ciphertext": sealed}).status == 400
    assert caller.send("POST", f"{STACK}/rename", renamed).status == 409


def test_secrets_of_an_older_lab_open_after_a_rename(caller: Caller, cloud: Cloud) -> None:
    """They were sealed for the full name of the stack."""
    create_stack(caller)
    file = cloud.folder / "stacks/postgresql/lab/stack.json"
    file.write_text(
        json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "sealed_for"})
    )
    sealed = caller.post(f"{STACK}/encrypt", {"plaintext": b64("hello")})["ciphertext"]
    caller.post(f"{STACK}/rename", {"newName": "home"})
    moved = "/api/stacks/organization/postgresql/home"
    assert caller.post(f"{moved}/decrypt", {"ciphertext": sealed}) == {"plaintext": b64("hello")}


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


def test_secrets_are_sealed_for_their_stack(caller: Caller) -> None:
    create_stack(caller)
    caller.post("/api/stacks/organization/postgresql", {"stackName": "other"})
    sealed = caller.post(f"{STACK}/encrypt", {"plaintext": b64("hello")})["ciphertext"]
    assert sealed != caller.post(f"{STACK}/encrypt", {"plaintext": b64("hello")})["ciphertext"]
    assert b"hello" not in base64.b64decode(sealed)
    assert caller.post(f"{STACK}/decrypt", {"ciphertext": sealed}) == {"plaintext": b64("hello")}
    assert caller.post(f"{STACK}/batch-decrypt", {"ciphertexts": [sealed]}) == {"plaintexts": {sealed: b64("hello")}}
    elsewhere = caller.send("POST", f"{STACK[:-3]}other/decrypt", {"ciphertext": sealed})
    assert elsewhere.status == 400
    assert caller.send("POST", f"{STACK}/decrypt/log-decryption", {}).status == 204


def test_outputs_keep_their_secrets_secret_all_the_way_down(caller: Caller, cloud: Cloud) -> None:
    create_stack(caller)
    sealed = [
        caller.post(f"{STACK}/encrypt", {"plaintext": b64(text)})["ciphertext"]
        for text in ('"a-long-password"', '{"user": {"name": "me"}, "ids": [1]}')
    ]
    outputs = {"host": "db", "port": 5432, "none": None, "password": secret(sealed[0]), "list": [secret(sealed[1])]}
    caller.post(f"{STACK}/import", deployment(outputs))
    stacks = Stacks(StackStore(cloud.folder / "stacks"), keys.ensure(cloud.folder).stacks)
    seen = stacks.outputs("postgresql/lab")["value"]
    assert seen["host"] == {"value": "db"}
    assert seen["port"] == {"value": 5432}
    assert seen["none"] == {}
    assert seen["password"] == {"value": "a-long-password", "secret": True}
    (inner,) = seen["list"]["value"]
    name = inner["value"]["user"]["value"]["name"]
    assert name == {"value": "me", "secret": True}
    assert inner["value"]["ids"] == {"value": [{"value": 1, "secret": True}], "secret": True}


def test_outputs_that_cannot_be_had_say_why(caller: Caller, cloud: Cloud) -> None:
    create_stack(caller)
    stacks = Stacks(StackStore(cloud.folder / "stacks"), keys.ensure(cloud.folder).stacks)
    assert stacks.outputs("postgresql/lab") == {"value": {}}
    for name in ("postgresql/none", "none", "a/b/c", "../x"):
        with pytest.raises(Unanswerable, match="not found"):
            stacks.outputs(name)
    caller.post(f"{STACK}/import", deployment({"password": secret("v1:abc")}, manager="passphrase"))
    with pytest.raises(Unanswerable, match="encrypted by passphrase"):
        stacks.outputs("postgresql/lab")
