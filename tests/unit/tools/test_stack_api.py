"""A stack's state and settings in plaintext, from the lab's cloud: the same that pulumi prints, or nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cloud import server
from runbooks.tools import pulumi, stack_api
from runbooks.tools.cloud import Cloud, CloudError
from runbooks.tools.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY, secrets_in_export, unwrapped
from runbooks.tools.stack_api import NotTold, StackApi
from tests.unit.cloud.conftest import Caller
from tests.unit.cloud.operation import STACK, Operation, create_stack, deployment
from tests.unit.tools import test_esc_api

REFERENCE = STACK.removeprefix("/api/stacks/")


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    cloud = server.serving(tmp_path / "cloud")
    caller = Caller(cloud.url, cloud.token)
    create_stack(caller)
    yield caller
    cloud.stop()


@pytest.fixture
def api(caller: Caller) -> StackApi:
    return StackApi(cloud=Cloud(url=caller.url, token=caller.token))


def sealed(caller: Caller, text: str, stack: str = STACK) -> str:
    plaintext = base64.b64encode(text.encode()).decode()
    return str(caller.post(f"{stack}/encrypt", {"plaintext": plaintext})["ciphertext"])


def secret(ciphertext: str) -> dict[str, str]:
    return {SIGNATURE_KEY: SECRET_SIGNATURE, "ciphertext": ciphertext}


def imported(caller: Caller, outputs: dict[str, Any], **key: str) -> None:
    document = deployment(outputs)
    of_stack = {"url": caller.url, **dict(zip(("owner", "project", "stack"), REFERENCE.split("/"), strict=True))}
    document["deployment"]["secrets_providers"]["state"] = of_stack | key
    caller.post(f"{STACK}/import", document)


def test_the_stacks_there_are(caller: Caller, api: StackApi) -> None:
    caller.post("/api/stacks/organization/stitch", {"stackName": "lab"})
    imported(caller, {"host": "db"})
    found = api.stacks("organization")
    assert found.keys() == {REFERENCE, "organization/stitch/lab"}
    assert (found[REFERENCE].resource_count, found[REFERENCE].updating) == (1, False)
    Operation.started(caller)
    assert api.stacks("organization")[REFERENCE].updating
    with pytest.raises(CloudError):
        api.stacks("somebody-else")


def test_a_long_list_comes_in_pages_and_a_page_of_something_else_is_no_list() -> None:
    one, two = ({"orgName": "acme", "projectName": "p", "stackName": name} for name in ("one", "two"))
    route = "/api/user/stacks?organization=acme"
    server = test_esc_api.Cloud()
    server.answers["GET", route] = (200, {}, {"stacks": [one], "continuationToken": "more"})
    server.answers["GET", f"{route}&continuationToken=more"] = (200, {}, {"stacks": [two]})
    server.answers["GET", "/api/user/stacks?organization=other"] = (200, {}, "<html>log in first</html>")
    api = StackApi(cloud=Cloud(url=server.url, token="x"))
    assert api.stacks("acme").keys() == {"acme/p/one", "acme/p/two"}
    with pytest.raises(NotTold):
        api.stacks("other")
    server.stop()


def test_every_secret_of_a_state_is_in_clear(caller: Caller, api: StackApi) -> None:
    outputs = {"host": "db", "password": secret(sealed(caller, '"hunter2"')), "ports": [secret(sealed(caller, "5432"))]}
    imported(caller, outputs)
    text = api.clear_export(REFERENCE)
    assert unwrapped(pulumi.read_export(text).outputs) == {"host": "db", "password": "hunter2", "ports": [5432]}
    assert sorted(secrets_in_export(text)) == ["5432", "hunter2"]
    assert "ciphertext" not in text
    assert api.clear_export(REFERENCE) == text, "as long as the state is the same"


def test_an_encryption_anew_is_the_same_text(caller: Caller, api: StackApi) -> None:
    imported(caller, {"password": secret(sealed(caller, '"hunter2"'))})
    before = api.clear_export(REFERENCE)
    imported(caller, {"password": secret(sealed(caller, '"hunter2"'))})
    assert api.clear_export(REFERENCE) == before


def test_a_state_without_secrets_needs_no_key(caller: Caller, api: StackApi) -> None:
    assert pulumi.read_export(api.clear_export(REFERENCE)).resources == ()
    caller.post(f"{STACK}/import", deployment({"host": "db"}, manager="passphrase"))
    assert pulumi.read_export(api.clear_export(REFERENCE)).outputs == {"host": "db"}


@pytest.mark.parametrize("key", [{"stack": "other"}, {"owner": "other"}, {"url": "https://api.pulumi.com"}])
def test_secrets_under_another_key_are_not_told(caller: Caller, api: StackApi, key: dict[str, str]) -> None:
    imported(caller, {"password": secret(sealed(caller, '"hunter2"'))}, **key)
    with pytest.raises(NotTold):
        api.clear_export(REFERENCE)


def test_secrets_under_a_passphrase_are_not_told(caller: Caller, api: StackApi) -> None:
    caller.post(f"{STACK}/import", deployment({"password": secret("v1:abc:def")}, manager="passphrase"))
    with pytest.raises(NotTold):
        api.clear_export(REFERENCE)


def test_settings_are_decrypted_batch_by_batch(caller: Caller, api: StackApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_api, "BATCH", 2)
    wanted = {sealed(caller, text): text for text in ("one", "two", "three", "dös")}
    assert api.decrypt(REFERENCE, [*wanted, *wanted]) == wanted
    assert api.decrypt(REFERENCE, []) == {}


def test_a_ciphertext_of_another_stack_and_a_missing_stack_are_errors(caller: Caller, api: StackApi) -> None:
    caller.post("/api/stacks/organization/postgresql", {"stackName": "other"})
    foreign = sealed(caller, "x", "/api/stacks/organization/postgresql/other")
    for ask in (lambda: api.decrypt(REFERENCE, [foreign]), lambda: api.clear_export("organization/postgresql/none")):
        with pytest.raises(CloudError) as caught:
            ask()
        assert 400 <= caught.value.status < 500


def test_names_lead_nowhere_else(api: StackApi) -> None:
    with pytest.raises(CloudError):
        api.clear_export("organization/../user")


def test_the_form_is_the_one_pulumi_prints(caller: Caller, api: StackApi) -> None:
    imported(caller, {"password": secret(sealed(caller, '"hunter2"'))})
    (resource,) = json.loads(api.clear_export(REFERENCE))["deployment"]["resources"]
    assert resource["outputs"]["password"] == {SIGNATURE_KEY: SECRET_SIGNATURE, "plaintext": '"hunter2"'}
