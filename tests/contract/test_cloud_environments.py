"""Environments over the cloud's own stacks, evaluated by the vendor's evaluator."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.cloud import server
from tests.fixtures import side_by_side
from tests.unit.cloud.conftest import Caller, Reply
from tests.unit.cloud.operation import STACK, create_stack, deployment, seal, secret

E = "/api/esc/environments/organization"
DEFINITION = """\
values:
  stacks:
    fn::open::pulumi-stacks:
      stacks:
        postgresql:
          stack: postgresql/lab
  pulumiConfig:
    POSTGRES_HOST: ${stacks.postgresql.host}
    postgresql:port: ${stacks.postgresql.port}
    postgresql:ratio: ${stacks.postgresql.ratio}
    postgresql:pin: ${stacks.postgresql.pin}
    postgresql:password: ${stacks.postgresql.password}
    url: postgres://${stacks.postgresql.password}@${stacks.postgresql.host}
"""


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    cloud = server.serve_in_thread(tmp_path_factory.mktemp("cloud"))
    caller = Caller(cloud.url, cloud.token)
    create_stack(caller)
    outputs: dict[str, Any] = {"host": "db.svc", "port": 5432, "ratio": 0.1}
    for name, plain in {"password": "a-long-password", "pin": 123456}.items():
        outputs[name] = secret(seal(caller, json.dumps(plain)))
    caller.post(f"{STACK}/import", deployment(outputs))
    yield caller
    cloud.stop()


@pytest.fixture
def environment(caller: Caller) -> Iterator[str]:
    """The path of an environment that is there for one test."""
    caller.post(E, {"project": "app", "name": "prod"})
    yield f"{E}/app/prod"
    assert caller.send("DELETE", f"{E}/app/prod").status == 204


def put(caller: Caller, path: str, definition: str, etag: str = "", header: str = "If-Match") -> Reply:
    return caller.send("PATCH", path, definition.encode(), **({header: etag} if etag else {}))


def opened(caller: Caller, path: str, body: Any = None) -> Any:
    session = caller.post(f"{path}/open?duration=1h0m0s", body)["id"]
    return caller.get(f"{path}/open/{session}")["properties"]


def complaints(reply: Reply) -> list[tuple[str, str]]:
    """Where and what, of every diagnostic of a refusal."""
    assert reply.status == 400, reply.body
    reported = reply.content["diagnostics"]
    return [
        ("{environment}:{begin[line]}".format(**one["range"]) if "range" in one else "", one["summary"])
        for one in reported
    ]


def test_a_check_opens_nothing(caller: Caller, environment: str) -> None:
    put(caller, environment, DEFINITION)
    checked = caller.post(f"{E}/yaml/check?showSecrets=false", {"imports": ["app/prod"]})
    assert checked["properties"]["pulumiConfig"]["value"]["POSTGRES_HOST"]["unknown"] is True
    assert "diagnostics" not in checked


@pytest.mark.parametrize(
    ("definition", "reported"),
    [
        (DEFINITION.replace("lab", "none"), ("app/prod:3", 'stack "postgresql/none" not found')),
        (
            DEFINITION.replace(".host}\n    postgresql:port", ".nope}\n    postgresql:port"),
            ("app/prod:8", 'unknown property "nope"'),
        ),
        (
            "values: {a: {'fn::open::pulumi-stacks': {}}}",
            ("app/prod:1", '"stacks" must be an object of local names, each with a "stack"'),
        ),
        (
            "values: {a: {'fn::open::pulumi-stacks': {stacks: {p: {name: x}}}}}",
            ("app/prod:1", '"stack" of "p" must be a text, project/stack'),
        ),
    ],
)
def test_what_shows_only_when_opened(
    caller: Caller, environment: str, definition: str, reported: tuple[str, str]
) -> None:
    """It is stored, and opening says where the trouble is: the environment's own line, imported or not."""
    assert put(caller, environment, definition).status == 200
    refused = caller.send("POST", f"{environment}/open")
    assert refused.content["message"] == "evaluation failed"
    assert complaints(refused) == [reported]
    assert complaints(caller.send("POST", f"{E}/yaml/open", {"imports": ["app/prod"]})) == [reported]


@pytest.mark.parametrize(
    ("definition", "reported"),
    [
        ("values: {port: {'fn::secret': 5432}}", ("app/prod:1", "secret values must be string literals")),
        ("values:\n  - [unclosed\n", ("", "yaml: line 1: did not find expected ',' or ']'")),
        ("imports: [app/none]", ("app/prod:1", 'environment "app/none" not found')),
        ("imports: [app/prod]", ("app/prod:1", "cyclic import of app/prod")),
        ("values: {a: {'fn::open::aws-login': {}}}", ("app/prod:1", 'unknown provider "aws-login"')),
        ("values: {a: {'fn::secret': {ciphertext: bm9wZQ==}}}", ("app/prod:1", "invalid ciphertext: EOF")),
    ],
)
def test_what_is_wrong_at_once_is_not_stored(
    caller: Caller, environment: str, definition: str, reported: tuple[str, str]
) -> None:
    refused = put(caller, environment, definition)
    assert refused.content["message"] == "Bad Request: invalid environment"
    assert complaints(refused) == [reported]
    assert caller.send("GET", environment).headers["Pulumi-ESC-Revision"] == "1"


@pytest.mark.parametrize("header", ["If-Match", "ETag"])
def test_an_etag_of_an_older_revision_is_a_conflict(caller: Caller, environment: str, header: str) -> None:
    first = caller.send("GET", environment).headers["ETag"]
    written = put(caller, environment, "values: {a: 1}", first, header)
    assert (written.status, written.content, written.headers["Pulumi-ESC-Revision"]) == (200, {}, "2")
    late = put(caller, environment, "values: {a: 2}", first, header)
    assert (late.status, late.content["code"]) == (409, 409)
    assert put(caller, environment, "values: {a: 3}", written.headers["ETag"], header).status == 200
    assert put(caller, environment, "values: {a: 4}").headers["Pulumi-ESC-Revision"] == "4"


def test_of_two_writers_with_one_etag_one_wins(caller: Caller, environment: str) -> None:
    etag = caller.send("GET", environment).headers["ETag"]
    replies: list[Reply] = []

    def write(number: int) -> None:
        replies.append(put(caller, environment, f"values: {{a: {number}}}", etag))

    side_by_side(write, 6)
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409, 409, 409]


def test_a_secret_is_ciphertext_until_decrypted(caller: Caller, environment: str) -> None:
    put(caller, environment, "values:\n  empty: {fn::secret: ''}\n  token: {fn::secret: from-a-prompt}\n")
    stored = caller.send("GET", environment)
    assert stored.headers["Content-Type"] == "application/x-yaml"
    assert b"from-a-prompt" not in stored.body
    assert stored.body.count(b"ciphertext") == 2
    decrypted = caller.send("GET", f"{environment}/versions/2/decrypt")
    assert b"fn::secret': from-a-prompt" in decrypted.body
    assert decrypted.headers["ETag"] == stored.headers["ETag"]
    seen = opened(caller, environment)
    assert {name: one["value"] for name, one in seen.items()} == {"empty": "", "token": "from-a-prompt"}
    hidden = caller.send("POST", f"{E}/yaml/check?showSecrets=false", stored.body).content["properties"]["token"]
    assert (hidden["secret"], hidden["unknown"], hidden.get("value")) == (True, True, None)
    shown = caller.send("POST", f"{E}/yaml/check?showSecrets=true", stored.body).content["properties"]["token"]
    assert shown["value"] == "from-a-prompt"


def test_tags_and_revisions_move_go_with_a_clone_and_are_removed(caller: Caller, environment: str) -> None:
    put(caller, environment, "values: {a: {b: [1, 2]}}")
    session = caller.post(f"{environment}/open")["id"]
    assert caller.get(f"{environment}/open/{session}?property=a.b[1]")["value"] == 2
    caller.post(f"{environment}/tags", {"name": "owner", "value": "me"})
    caller.post(f"{environment}/versions/tags", {"name": "stable", "revision": 1})
    assert caller.send("PATCH", f"{environment}/versions/tags/stable", {"revision": 2}).status == 204
    whole = dict.fromkeys(("preserveHistory", "preserveRevisionTags", "preserveEnvironmentTags"), True)
    caller.post(f"{environment}/clone", {"project": "copy", "name": "whole", **whole})
    for path, value in (("versions/tags/stable", 2), ("tags/owner", "me")):
        found = caller.get(f"{E}/copy/whole/{path}")
        assert (found.get("revision") or found["value"]) == value
        assert [caller.send("DELETE", f"{E}/copy/whole/{path}").status for _ in range(2)] == [204, 404]
        assert caller.send("GET", f"{E}/copy/whole/{path}").status == 404
    assert caller.send("GET", f"{E}/copy/whole/versions/99").status == 404
    assert caller.send("DELETE", f"{E}/copy/whole").status == 204


def test_an_empty_environment_opens_to_nothing(caller: Caller, environment: str) -> None:
    session = caller.post(f"{environment}/open")["id"]
    assert caller.get(f"{environment}/open/{session}") == {}
    assert caller.get(f"{E}/yaml/open/{caller.post(f'{E}/yaml/open', {'imports': ['app/prod']})['id']}")["schema"]


def test_an_import_is_overridden_as_pulumi_override_env_asks(caller: Caller, environment: str) -> None:
    put(caller, environment, "values: {round: 2}")
    text = base64.urlsafe_b64encode(json.dumps({"app/gone": "app/prod@2"}).encode()).decode().rstrip("=")
    path = f"{E}/yaml/open?environmentOverrides={text}"
    session = caller.post(path, {"imports": ["app/gone"]})["id"]
    assert caller.get(f"{E}/yaml/open/{session}")["properties"]["round"]["value"] == 2
    assert complaints(caller.send("POST", f"{E}/yaml/open", {"imports": ["app/gone"]}))


@pytest.mark.parametrize("overrides", [b"x", b"[]", b'{"app/prod": 1}'])
def test_overrides_that_are_not_names_are_refused(caller: Caller, overrides: bytes) -> None:
    text = base64.urlsafe_b64encode(overrides).decode()
    refused = caller.send("POST", f"{E}/yaml/open?environmentOverrides={text}", {"imports": []})
    assert refused.status == 400
    assert "environmentOverrides" in refused.content["message"]


def test_what_the_lab_has_not_is_refused_by_name(caller: Caller) -> None:
    assert caller.send("POST", "/api/esc/environments/other/yaml/check", b"values: {}").status == 404
    assert caller.send("POST", f"{E}/app/none/open").content == {
        "code": 404,
        "message": "Not Found: environment 'app/none' not found",
    }


def test_a_stack_whose_secrets_are_not_the_clouds_says_so(caller: Caller, environment: str) -> None:
    caller.post("/api/stacks/organization/other", {"stackName": "lab"})
    state = deployment({"password": secret("v1:x")}, manager="passphrase")
    caller.post("/api/stacks/organization/other/lab/import", state)
    put(caller, environment, DEFINITION.replace("postgresql/lab", "other/lab"))
    ((_, reported),) = complaints(caller.send("POST", f"{environment}/open"))
    assert 'the secrets of stack "other/lab" cannot be decrypted' in reported
    assert "passphrase" in reported
