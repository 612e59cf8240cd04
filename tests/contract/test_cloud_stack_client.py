"""The vendor's client of the cloud API (`pulumi-cloud-sdk`) against the lab's cloud: it can read the answers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from pulumi_cloud_sdk import ApiClient, Configuration
from pulumi_cloud_sdk.apis import MiscellaneousApi, OrganizationsApi, StacksApi

from lab.cloud import server
from tests.unit.cloud.operation import deployment

STACK = ("organization", "postgresql", "lab")


@dataclass
class Client:
    """The generated APIs. They know the account's token only, so that of an update is put in here."""

    http: ApiClient
    update_token: str = ""

    @property
    def stacks(self) -> Any:
        return StacksApi(self.http)

    def transport(self, request: Request, timeout: float | None) -> Any:
        if self.update_token and request.full_url.rsplit("/", 1)[-1] in (
            "renew_lease",
            "checkpoint",
            "batch",
            "complete",
        ):
            request.add_header("Authorization", f"update-token {self.update_token}")
        return urlopen(request, timeout=timeout)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    cloud = server.serve_in_thread(tmp_path_factory.mktemp("cloud"))
    configuration = Configuration()
    configuration.host, configuration.access_token = cloud.url, cloud.token
    client = Client(ApiClient(configuration))
    client.http._transport = client.transport
    request = {"stackName": "lab", "tags": {"pulumi:project": "postgresql"}}
    OrganizationsApi(client.http).create_stack("organization", "postgresql", request)
    yield client
    cloud.stop()


def test_a_stack(client: Client) -> None:
    assert MiscellaneousApi(client.http).capabilities().capabilities == []
    stack = client.stacks.get_stack(*STACK)
    assert (stack.org_name, stack.project_name, stack.stack_name) == STACK
    assert (stack.version, stack.tags) == (0, {"pulumi:project": "postgresql"})


def test_an_operation(client: Client) -> None:
    program = {"name": "postgresql", "runtime": "python", "options": {}, "config": {}, "metadata": {"message": "why"}}
    created = client.stacks.create_update_for_update(*STACK, program)
    update = (*STACK, created.update_id)
    started = client.stacks.start_update_for_update(*update, {"tags": {"a": "b"}, "journalVersion": 1})
    assert (started.version, started.journal_version) == (1, 0)
    client.update_token = started.token
    running = client.stacks.get_stack(*STACK)
    assert (running.active_update, running.current_operation.author) == (created.update_id, "lab")
    client.stacks.patch_update_checkpoint_update(*update, {"isInvalid": False, **deployment({"port": 5432})})
    client.update_token = client.stacks.renew_update_lease_update(*update, {"duration": 60}).token
    client.stacks.record_engine_event_batch_update(*update, {"events": []})
    client.stacks.complete_update_update(*update, {"status": "succeeded"})
    assert client.stacks.export_stack(*STACK).deployment["resources"][0]["outputs"] == {"port": 5432}
    latest = client.stacks.get_latest_stack_update(*STACK)
    assert (latest.update_id, latest.version, latest.info.message) == (created.update_id, 1, "why")
    status = client.stacks.get_update_status_for_update(*update)
    assert (status.status.value, status.events, status.continuation_token) == ("succeeded", [], None)


def test_a_cancelled_update(client: Client) -> None:
    program = {"name": "postgresql", "runtime": "python"}
    update = (*STACK, client.stacks.create_update_for_update(*STACK, program).update_id)
    client.update_token = client.stacks.start_update_for_update(*update, {}).token
    client.stacks.cancel_update_update(*update)
    with pytest.raises(HTTPError, match="403"):
        client.stacks.renew_update_lease_update(*update, {"duration": 60})


def test_secrets(client: Client) -> None:
    plain = base64.b64encode(b"hello").decode()
    sealed = client.stacks.encrypt_value(*STACK, {"plaintext": plain}).ciphertext
    assert sealed
    with pytest.raises(HTTPError, match="400"):
        client.stacks.decrypt_value(*STACK, {"ciphertext": plain})
