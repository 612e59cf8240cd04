"""From a change made by hand to a service that verifies again, by the command that every message names."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.command_line import AFTER_ENV, Checkout, Deployed
from tests.lab.probe import CONFIG_MAP, DEPLOYMENT, ProbeCheckout

pytestmark = pytest.mark.lab

SERVICE = ("-n", "postgresql", "service/postgresql-cluster-rw-ext")
CLUSTER = ("-n", "postgresql", "clusters.postgresql.cnpg.io/postgresql-cluster")
HOSTNAME = "tailscale.com/hostname"
PASSWORD = "Only0The0Program0Says0This"
OTHER = "Somebody0Typed0This0Instead"
PROGRAM = (
    CONFIG_MAP.format(word="first")
    + DEPLOYMENT.format(annotations={})
    + f"""
import base64
from pulumi_kubernetes.core.v1 import Secret, Service

password = pulumi.Output.secret(base64.b64encode(b"{PASSWORD}").decode())
Service("probe", metadata={{"name": "probe"}}, spec={{"selector": labels, "ports": [{{"name": "http", "port": 80}}]}})
Secret("probe", metadata={{"name": "probe"}}, data={{"password": password}})
"""
)


def refresh(checkout: Checkout, folder: str) -> None:
    """What people try first: plain `pulumi refresh` in the project."""
    checkout.shell(AFTER_ENV + "pulumi refresh --yes --skip-preview --stack lab", folder).ends_with(0)


@pytest.fixture(scope="module")
def postgres(deployed: Deployed) -> Checkout:
    return deployed.checkout


def hostname(postgres: Checkout) -> str:
    return str(postgres.get(*SERVICE)["metadata"]["annotations"][HOSTNAME])


@pytest.fixture
def renamed(postgres: Checkout) -> Iterator[str]:
    """The name of Postgres on the tailnet, which a person changed; and a label that somebody added, which stays."""
    name = hostname(postgres)
    postgres.kubectl("annotate", *SERVICE, f"{HOSTNAME}=other", "--overwrite")
    postgres.kubectl("label", *SERVICE, "somebody=else")
    yield name
    assert hostname(postgres) == name
    assert postgres.get(*SERVICE)["metadata"]["labels"]["somebody"] == "else", "what others added stays"
    postgres.kubectl("label", *SERVICE, "somebody-")
    postgres.inv("verify.postgres").ends_with(0)


def test_every_message_about_a_changed_service_names_its_repair(postgres: Checkout, renamed: str) -> None:
    before = postgres.state("postgresql")
    postgres.inv("verify.postgres").ends_with(4, "next: ./inv repair.postgres")
    postgres.inv("drift.postgres").ends_with(7, "./inv repair.postgres")
    postgres.inv("deploy.postgres", "--only").ends_with(4, "./inv repair.postgres")

    repaired = postgres.inv("repair.postgres").ends_with(0)
    repaired.shows("(held by kubectl-annotate)", f'"other" => "{renamed}"', "unchanged: postgres")
    assert postgres.state("postgresql") == before, "the state was right all the time"
    postgres.inv("drift.postgres").ends_with(0)


def test_a_state_that_took_the_change_in_is_repaired_too(postgres: Checkout, renamed: str) -> None:
    refresh(postgres, "pulumi/data/databases/postgres")
    failed = postgres.inv("preview.postgres", "--only")
    failed.ends_with(1, 'conflict with "kubectl-annotate"', HOSTNAME, "next: ./inv repair.postgres")
    postgres.inv("repair.postgres").ends_with(0).shows("(held by kubectl-annotate)")
    postgres.inv("preview.postgres", "--only", "--expect-no-changes").ends_with(0)


def test_a_custom_resource_is_put_back(postgres: Checkout) -> None:
    before = postgres.get(*CLUSTER)["spec"]["enablePDB"]
    postgres.kubectl("patch", *CLUSTER, "--type=merge", "-p", json.dumps({"spec": {"enablePDB": not before}}))
    postgres.inv("repair.postgres").ends_with(0).shows("spec.enablePDB", "(held by kubectl-patch)")
    assert postgres.get(*CLUSTER)["spec"]["enablePDB"] is before
    again = postgres.inv("repair.postgres").ends_with(0)
    assert "put back" not in again.stdout.partition("> compare")[2]


@pytest.fixture(scope="module")
def probe(probe_checkout: ProbeCheckout) -> Iterator[ProbeCheckout]:
    probe_checkout.forget_probe()
    probe_checkout.write_program(PROGRAM)
    probe_checkout.inv("deploy.probe").ends_with(0)
    try:
        yield probe_checkout
    finally:
        probe_checkout.kubectl("delete", "--ignore-not-found", "secret/probe", "service/probe")
        probe_checkout.forget_probe()


@pytest.fixture
def as_applied(probe: ProbeCheckout) -> Iterator[None]:
    """What the test changes in the cluster is repaired in the end, by nothing but the cluster's objects."""
    before = probe.state("probe")
    yield
    assert probe.state("probe") == before
    probe.inv("drift.probe").ends_with(0)
    probe.inv("verify.probe").ends_with(0)


@pytest.mark.usefixtures("as_applied")
def test_a_deployment_gets_its_scale_and_image_back(probe: ProbeCheckout) -> None:
    probe.kubectl("scale", "deployment/probe", "--replicas=3")
    probe.kubectl("set", "image", "deployment/probe", "main=registry.example/probe:2")
    probe.kubectl("set", "env", "deployment/probe", "ADDED=yes")
    probe.inv("repair.probe").ends_with(0).shows("restarted: pods are rolled", "(held by kubectl, kubectl-set)")
    spec = probe.get("deployment/probe")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert (spec["replicas"], container["image"]) == (1, "registry.example/probe:1")
    assert container["env"] == [{"name": "ADDED", "value": "yes"}], "what others added stays"
    probe.kubectl("set", "env", "deployment/probe", "ADDED-")


@pytest.mark.usefixtures("as_applied")
def test_whatever_was_changed_by_hand_is_put_back_and_no_secret_is_seen(probe: ProbeCheckout) -> None:
    """A port is known by its number, a container by its name: the right one must not come beside the wrong one."""
    other = base64.b64encode(OTHER.encode()).decode()
    patches: dict[str, Any] = {
        "service/probe": [
            {"op": "replace", "path": "/spec/ports/0/port", "value": 81},
            {"op": "add", "path": "/metadata/labels", "value": {"somebody": "else"}},
        ],
        "deployment/probe": [{"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "renamed"}],
        "secret/probe": [{"op": "replace", "path": "/data/password", "value": other}],
    }
    for what, patch in patches.items():
        probe.kubectl("patch", what, "--type=json", "-p", json.dumps(patch))
    probe.kubectl("delete", "configmap/probe-lab")
    repaired = probe.inv("repair.probe").ends_with(0)
    repaired.shows(
        *("(held by kubectl-patch)", "~ spec.ports[0].port: 81 => 80"),
        *("~ data.password: [secret] => [secret]", "ConfigMap probe  (it is gone)"),
    )
    service = probe.get("service/probe")
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [("http", 80)]
    assert service["metadata"]["labels"]["somebody"] == "else", "what others added stays"
    containers = probe.get("deployment/probe")["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["main"]
    assert probe.get("configmap/probe-lab")["data"] == {"word": "first"}
    assert probe.secret("default", "probe")["password"] == PASSWORD
    values = [PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), OTHER, other]
    assert [value for value in values if value in repaired.all or probe.in_runs(value)] == []


def test_a_deleted_object_that_the_state_forgot_is_made_anew(probe: ProbeCheckout) -> None:
    probe.kubectl("delete", "configmap/probe-lab")
    refresh(probe, "pulumi/probe")
    probe.inv("repair.probe").ends_with(0)
    assert probe.get("configmap/probe-lab")["data"] == {"word": "first"}
    probe.inv("preview.probe", "--expect-no-changes").ends_with(0)


def test_a_change_by_hand_and_one_of_the_program_meet(probe: ProbeCheckout) -> None:
    """The preview stops at the conflict; what the program says now is put in its place, and then applied."""
    probe.kubectl("set", "image", "deployment/probe", "main=registry.example/probe:2")
    probe.write_program(PROGRAM.replace("probe:1", "probe:3"))
    try:
        probe.inv("preview.probe").ends_with(1, "kubectl-set", "next: ./inv repair.probe")
        probe.inv("repair.probe").ends_with(0).shows('"registry.example/probe:2" => "registry.example/probe:3"')
        probe.inv("preview.probe", "--expect-no-changes").ends_with(0)
    finally:
        probe.write_program(PROGRAM)
        probe.inv("deploy.probe").ends_with(0)


def test_a_real_target_asks_first(probe: ProbeCheckout) -> None:
    """Nothing is put back without a yes; a service that is not deployed has nothing to repair."""
    probe.make_stack_at_home()
    probe.at_home("repair.probe").ends_with(6, "probe")
    probe.write_program(CONFIG_MAP.format(word="first"))
    try:
        probe.at_home("deploy.probe", "--yes").ends_with(0)
        probe.kubectl("patch", "configmap/probe-mx", "--type=merge", "-p", '{"data": {"word": "other"}}')
        probe.at_home("repair.probe").ends_with(8, "next: ./inv --target home repair.probe --yes")
        words, answers = ("--target", "home", "repair.probe"), [("Apply this?", "n")]
        probe.typed(*words, answers=answers, env=probe.with_pulumi).ends_with(8)
        assert probe.get("configmap/probe-mx")["data"] == {"word": "other"}
        probe.at_home("repair.probe", "--yes").ends_with(0)
        assert probe.get("configmap/probe-mx")["data"] == {"word": "first"}
        probe.at_home("drift.probe").ends_with(0)
        probe.write_target(cluster_uid="00000000-dead-beef-0000-000000000000")
        probe.at_home("repair.probe", "--yes").ends_with(5)
    finally:
        probe.write_target()
        probe.write_program(PROGRAM)
