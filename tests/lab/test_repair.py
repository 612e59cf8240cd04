"""From a change made by hand to a service that verifies again, by the command that every message names."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.command_line import Checkout, Deployed
from tests.lab.probe import ProbeCheckout

pytestmark = pytest.mark.lab

SERVICE = ("-n", "postgresql", "service/postgresql-cluster-rw-ext")
CLUSTER = ("-n", "postgresql", "clusters.postgresql.cnpg.io/postgresql-cluster")
HOSTNAME = "tailscale.com/hostname"
PASSWORD = "Only0The0Program0Says0This"
OTHER = "Somebody0Typed0This0Instead"
PROGRAM = f"""\
import base64
import pulumi
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.core.v1 import ConfigMap, Secret, Service

labels = {{"app": "probe"}}
password = pulumi.Output.secret(base64.b64encode(b"{PASSWORD}").decode())
Service("probe", metadata={{"name": "probe"}}, spec={{"selector": labels, "ports": [{{"name": "http", "port": 80}}]}})
ConfigMap("probe", metadata={{"name": f"probe-{{pulumi.get_stack()}}"}}, data={{"word": "first"}})
Secret("probe", metadata={{"name": "probe"}}, data={{"password": password}})
Deployment(
    "probe",
    metadata={{"name": "probe"}},
    spec={{
        "replicas": 1,
        "selector": {{"matchLabels": labels}},
        "template": {{
            "metadata": {{"labels": labels}},
            "spec": {{"containers": [{{"name": "main", "image": "registry.example/probe:1"}}]}},
        }},
    }},
)
"""


def refresh(checkout: Checkout, folder: str) -> None:
    """What people try first: plain `pulumi refresh` in the project."""
    inv = shlex.quote(str(checkout.root / "inv"))
    script = f'eval "$({inv} lab.env)" && pulumi -C {folder} refresh --yes --skip-preview --stack lab'
    done = subprocess.run(
        ["sh", "-c", script], cwd=checkout.root, env=checkout.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def postgres(deployed: Deployed) -> Checkout:
    assert deployed.result.code == 0, deployed.result.all
    return deployed.checkout


def rename(postgres: Checkout) -> None:
    postgres.kubectl("annotate", *SERVICE, f"{HOSTNAME}=other", "--overwrite")


def hostname(postgres: Checkout) -> str:
    return str(postgres.get(*SERVICE)["metadata"]["annotations"][HOSTNAME])


def test_every_message_about_a_changed_service_names_its_repair(postgres: Checkout) -> None:
    before, name = postgres.state("postgresql"), hostname(postgres)
    rename(postgres)
    postgres.kubectl("label", *SERVICE, "somebody=else")
    postgres.inv("verify.postgres").ends_with(4, "next: ./inv repair.postgres")
    postgres.inv("drift.postgres").ends_with(7, "./inv repair.postgres")
    postgres.inv("deploy.postgres", "--only").ends_with(4, "./inv repair.postgres")

    postgres.inv("repair.postgres").ends_with(0).shows(
        "(held by kubectl-annotate)", f'"other" => "{name}"', "unchanged: postgres"
    )
    assert hostname(postgres) == name
    assert postgres.get(*SERVICE)["metadata"]["labels"]["somebody"] == "else", "what others added stays"
    assert postgres.state("postgresql") == before, "the state was right all the time"
    postgres.inv("drift.postgres").ends_with(0)
    postgres.inv("verify.postgres").ends_with(0)
    postgres.kubectl("label", *SERVICE, "somebody-")


def test_a_state_that_took_the_change_in_is_repaired_too(postgres: Checkout) -> None:
    name = hostname(postgres)
    rename(postgres)
    postgres.kubectl("label", *SERVICE, "somebody=else")
    refresh(postgres, "pulumi/data/databases/postgres")
    postgres.inv("preview.postgres", "--only").ends_with(
        1, 'conflict with "kubectl-annotate"', HOSTNAME, "next: ./inv repair.postgres"
    )
    postgres.inv("repair.postgres").ends_with(0).shows("(held by kubectl-annotate)")
    assert hostname(postgres) == name
    assert postgres.get(*SERVICE)["metadata"]["labels"]["somebody"] == "else", "what others added stays"
    postgres.inv("preview.postgres", "--only", "--expect-no-changes").ends_with(0)
    postgres.inv("verify.postgres").ends_with(0)
    postgres.kubectl("label", *SERVICE, "somebody-")


def test_a_custom_resource_is_put_back(postgres: Checkout) -> None:
    before = postgres.get(*CLUSTER)["spec"]["enablePDB"]
    postgres.kubectl("patch", *CLUSTER, "--type=merge", "-p", json.dumps({"spec": {"enablePDB": not before}}))
    postgres.inv("repair.postgres").ends_with(0).shows("spec.enablePDB", "(held by kubectl-patch)")
    assert postgres.get(*CLUSTER)["spec"]["enablePDB"] is before


def test_again_nothing_is_to_repair(postgres: Checkout) -> None:
    result = postgres.inv("repair.postgres")
    result.ends_with(0)
    assert "put back" not in result.stdout.partition("> compare")[2]


# The probe


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


def is_as_applied(probe: ProbeCheckout, before: bytes) -> None:
    assert probe.state("probe") == before
    probe.inv("drift.probe").ends_with(0)
    probe.inv("verify.probe").ends_with(0)


def test_a_deployment_gets_its_scale_and_image_back(probe: ProbeCheckout) -> None:
    before = probe.state("probe")
    probe.kubectl("scale", "deployment/probe", "--replicas=3")
    probe.kubectl("set", "image", "deployment/probe", "main=registry.example/probe:2")
    probe.kubectl("set", "env", "deployment/probe", "ADDED=yes")
    probe.inv("repair.probe").ends_with(0).shows("restarted: pods are rolled", "(held by kubectl, kubectl-set)")
    spec = probe.get("deployment/probe")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert (spec["replicas"], container["image"]) == (1, "registry.example/probe:1")
    assert container["env"] == [{"name": "ADDED", "value": "yes"}], "what others added stays"
    is_as_applied(probe, before)
    probe.kubectl("set", "env", "deployment/probe", "ADDED-")


def test_a_service_gets_its_port_back(probe: ProbeCheckout) -> None:
    """A port is known by its number: applied alone, the right one would come beside the wrong one."""
    before = probe.state("probe")
    patch = [
        {"op": "replace", "path": "/spec/ports/0/port", "value": 81},
        {"op": "add", "path": "/metadata/labels", "value": {"somebody": "else"}},
    ]
    probe.kubectl("patch", "service/probe", "--type=json", "-p", json.dumps(patch))
    probe.inv("repair.probe").ends_with(0).shows("(held by kubectl-patch)", "~ spec.ports[0].port: 81 => 80")
    service = probe.get("service/probe")
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [("http", 80)]
    assert service["metadata"]["labels"]["somebody"] == "else", "what others added stays"
    is_as_applied(probe, before)


def test_a_renamed_container_does_not_stay_beside_the_right_one(probe: ProbeCheckout) -> None:
    before = probe.state("probe")
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "renamed"}]
    probe.kubectl("patch", "deployment/probe", "--type=json", "-p", json.dumps(patch))
    probe.inv("repair.probe").ends_with(0)
    containers = probe.get("deployment/probe")["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["main"]
    is_as_applied(probe, before)


def test_a_secret_is_put_back_unseen(probe: ProbeCheckout) -> None:
    before = probe.state("probe")
    other = {"data": {"password": base64.b64encode(OTHER.encode()).decode()}}
    probe.kubectl("patch", "secret/probe", "--type=merge", "-p", json.dumps(other))
    repaired = probe.inv("repair.probe").ends_with(0).shows("~ data.password: [secret] => [secret]")
    assert base64.b64decode(probe.get("secret/probe")["data"]["password"]).decode() == PASSWORD
    is_as_applied(probe, before)
    values = [PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), OTHER, other["data"]["password"]]
    written = b"".join(path.read_bytes() for path in probe.runs.rglob("*") if path.is_file())
    assert [value for value in values if value in repaired.all or value.encode() in written] == []


def test_a_deleted_object_is_made_anew(probe: ProbeCheckout) -> None:
    before = probe.state("probe")
    probe.kubectl("delete", "configmap/probe-lab")
    probe.inv("repair.probe").ends_with(0).shows("ConfigMap probe  (it is gone)")
    assert probe.get("configmap/probe-lab")["data"] == {"word": "first"}
    is_as_applied(probe, before)


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


# A real target

CONFIG_MAP = """\
from pulumi_kubernetes.core.v1 import ConfigMap

ConfigMap("probe", metadata={"name": "probe-mx"}, data={"word": "first"})
"""


def test_a_real_target_asks_first(probe: ProbeCheckout) -> None:
    """Nothing is put back without a yes; a service that is not deployed has nothing to repair."""
    probe.make_stack_at_home()
    probe.at_home("repair.probe").ends_with(6, "probe")
    probe.write_program(CONFIG_MAP)
    try:
        probe.at_home("deploy.probe", "--yes").ends_with(0)
        probe.kubectl("patch", "configmap/probe-mx", "--type=merge", "-p", '{"data": {"word": "other"}}')
        probe.at_home("repair.probe").ends_with(8, "next: ./inv --target home repair.probe --yes")
        assert probe.get("configmap/probe-mx")["data"] == {"word": "other"}
        words = ("--target", "home", "repair.probe")
        probe.typed(*words, answers=[("Apply this?", "n")], env=probe.with_pulumi).ends_with(8)
        assert probe.get("configmap/probe-mx")["data"] == {"word": "other"}
        probe.at_home("repair.probe", "--yes").ends_with(0)
        assert probe.get("configmap/probe-mx")["data"] == {"word": "first"}
        probe.at_home("drift.probe").ends_with(0)
        probe.write_target(cluster_uid="00000000-dead-beef-0000-000000000000")
        probe.at_home("repair.probe", "--yes").ends_with(5)
    finally:
        probe.write_target()
        probe.write_program(PROGRAM)
