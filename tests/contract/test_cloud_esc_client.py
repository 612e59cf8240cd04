"""The vendor's Python client (`pulumi-esc-sdk`) against the lab's cloud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pulumi_esc_sdk import EscClient
from pulumi_esc_sdk.configuration import Configuration
from pulumi_esc_sdk.exceptions import ApiException, BadRequestException, NotFoundException

from lab.cloud import server

ORG = "organization"
BASE = """\
values:
  # where the database is
  postgres:
    host: db.svc
    port: 5432
    ratio: 1.10
    password: {fn::secret: a-long-password}
"""
CHILD = """\
imports:
  - shared/base
values:
  pulumiConfig:
    "postgresql:host": ${postgres.host}
    "postgresql:password": ${postgres.password}
    url: postgres://me:${postgres.password}@${postgres.host}:${postgres.port}
  list: [1, two, {three: 3}]
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EscClient]:
    cloud = server.serve_in_thread(tmp_path_factory.mktemp("cloud"))
    yield EscClient(Configuration(host=cloud.url, access_token=cloud.token))
    cloud.stop()


@pytest.fixture
def environment(client: EscClient) -> Iterator[str]:
    """`shared/base` and `app/prod`, which imports it."""
    for project, name, definition in (("shared", "base", BASE), ("app", "prod", CHILD)):
        client.create_environment(ORG, project, name)
        client.update_environment_yaml(ORG, project, name, definition)
    yield "prod"
    for project, name in (("shared", "base"), ("app", "prod")):
        client.delete_environment(ORG, project, name)


def test_environments_are_listed_while_they_are_there(client: EscClient, environment: str) -> None:
    listed = client.list_environments(ORG)
    assert [(one.organization, one.project, one.name) for one in listed.environments] == [
        (ORG, "app", "prod"),
        (ORG, "shared", "base"),
    ]
    client.create_environment(ORG, "app", "other")
    client.delete_environment(ORG, "app", "other")
    with pytest.raises(NotFoundException):
        client.get_environment(ORG, "app", "other")


def test_pushing_back_what_was_read_keeps_the_secret(client: EscClient, environment: str) -> None:
    _, raw = client.get_environment(ORG, "shared", "base")
    client.update_environment_yaml(ORG, "shared", "base", raw.decode() + "  more: 1\n")
    _, values, _ = client.open_and_read_environment(ORG, "shared", "base")
    assert values["postgres"]["password"] == "a-long-password"
    assert values["more"] == 1


def test_imports_and_interpolation_are_evaluated_and_secrets_spread(client: EscClient, environment: str) -> None:
    opened, values, raw = client.open_and_read_environment(ORG, "app", "prod")
    assert values["pulumiConfig"]["postgresql:host"] == "db.svc"
    assert values["pulumiConfig"]["url"] == "postgres://me:a-long-password@db.svc:5432"
    assert values["list"] == [1, "two", {"three": 3}]
    assert values["postgres"]["port"] == 5432
    assert '"ratio":{"value":1.1' in raw
    config = opened.properties["pulumiConfig"].value
    assert config["postgresql:password"]["secret"] is True
    assert config["url"]["secret"] is True
    assert "secret" not in config["postgresql:host"]


def test_one_property_of_an_opened_environment(client: EscClient, environment: str) -> None:
    session = client.open_environment(ORG, "app", "prod").id
    value, plain = client.read_open_environment_property(
        ORG, "app", "prod", session, 'pulumiConfig["postgresql:password"]'
    )
    assert (value.secret, plain) == (True, "a-long-password")
    _, item = client.read_open_environment_property(ORG, "app", "prod", session, "list[2].three")
    assert item == 3
    with pytest.raises(NotFoundException):
        client.read_open_environment_property(ORG, "app", "prod", session, "list[3]")
    with pytest.raises(BadRequestException):
        client.read_open_environment_property(ORG, "app", "prod", session, "list[")


def test_a_session_is_of_its_environment_only(client: EscClient, environment: str) -> None:
    session = client.open_environment(ORG, "app", "prod").id
    with pytest.raises(NotFoundException):
        client.read_open_environment(ORG, "shared", "base", session)


def test_revisions_stay_and_have_names(client: EscClient, environment: str) -> None:
    client.update_environment_yaml(ORG, "app", "prod", "values: {round: 3}")
    listed = client.list_environment_revisions(ORG, "app", "prod")
    assert [(one.number, one.tags) for one in listed] == [(3, ["latest"]), (2, []), (1, [])]
    assert [one.number for one in client.list_environment_revisions(ORG, "app", "prod", before=3, count=1)] == [2]
    client.create_environment_revision_tag(ORG, "app", "prod", "stable", 2)
    assert client.get_environment_at_version(ORG, "app", "prod", "stable")[1].decode() == CHILD
    _, values, _ = client.open_and_read_environment_at_version(ORG, "app", "prod", "2")
    assert values["list"][1] == "two"
    client.update_environment_revision_tag(ORG, "app", "prod", "stable", 3)
    assert client.get_environment_revision_tag(ORG, "app", "prod", "stable").revision == 3
    names = [one.name for one in client.list_environment_revision_tags(ORG, "app", "prod").tags]
    assert names == ["latest", "stable"]
    client.delete_environment_revision_tag(ORG, "app", "prod", "stable")
    with pytest.raises(NotFoundException):
        client.get_environment_at_version(ORG, "app", "prod", "stable")
    with pytest.raises(NotFoundException):
        client.get_environment_at_version(ORG, "app", "prod", "99")


def test_tags_of_an_environment(client: EscClient, environment: str) -> None:
    assert client.create_environment_tag(ORG, "app", "prod", "owner", "me").value == "me"
    changed = client.update_environment_tag(ORG, "app", "prod", "owner", "me", "team", "us")
    assert (changed.name, changed.value) == ("team", "us")
    assert list(client.list_environment_tags(ORG, "app", "prod").tags) == ["team"]
    with pytest.raises(ApiException, match="409"):
        client.update_environment_tag(ORG, "app", "prod", "team", "me", "team", "them")
    client.delete_environment_tag(ORG, "app", "prod", "team")
    with pytest.raises(NotFoundException):
        client.get_environment_tag(ORG, "app", "prod", "team")


def test_a_definition_is_checked_without_being_stored(client: EscClient, environment: str) -> None:
    good = client.check_environment_yaml(ORG, CHILD)
    assert good.diagnostics is None
    assert good.properties["pulumiConfig"].value["postgresql:host"]["value"] == "db.svc"
    bad = client.check_environment_yaml(ORG, "imports: [shared/none]\nvalues: {a: '${nope}'}")
    assert [one.summary for one in bad.diagnostics] == [
        'environment "shared/none" not found',
        'unknown property "nope"',
    ]


def test_a_clone_has_the_definition_and_what_is_asked_for(client: EscClient, environment: str) -> None:
    client.create_environment_tag(ORG, "shared", "base", "owner", "me")
    everything = {"preserve_history": True, "preserve_environment_tags": True, "preserve_revision_tags": True}
    for name, options in (("bare", {}), ("whole", everything)):
        client.clone_environment(ORG, "shared", "base", "copy", name, options)
        _, values, _ = client.open_and_read_environment(ORG, "copy", name)
        assert values["postgres"]["password"] == "a-long-password"
    assert [one.number for one in client.list_environment_revisions(ORG, "copy", "bare")] == [1]
    assert [one.number for one in client.list_environment_revisions(ORG, "copy", "whole")] == [2, 1]
    assert list(client.list_environment_tags(ORG, "copy", "whole").tags) == ["owner"]
    assert not client.list_environment_tags(ORG, "copy", "bare").tags
    for name in ("bare", "whole"):
        client.delete_environment(ORG, "copy", name)
