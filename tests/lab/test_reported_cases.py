"""Situations that people reported of clusters like this one, each through the real command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks.services import SERVICES
from tests.lab.command_line import AFTER_ENV, Deployed, Lab, changed
from tests.lab.objects import Object, apply, made, service
from tests.lab.probe import ProbeCheckout

pytestmark = pytest.mark.lab

EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "IfAvailable", "provideClusterInfo": False}
PLUGIN = """\
#!/bin/sh
{first}
token=$(cat "$(dirname "$0")/token")
echo '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"'$token'"}}}}'
"""
NEEDS_PROFILE = 'if [ -z "$OCI_CLI_PROFILE" ]; then echo "ERROR: no profile: set OCI_CLI_PROFILE" >&2; exit 1; fi'
DEVICE_CODE = 'echo "Open https://login.example.com/device and enter the code ABCD-EFGH" >&2; sleep 12'


@pytest.fixture
def checkout(probe_checkout: ProbeCheckout) -> Iterator[ProbeCheckout]:
    yield probe_checkout
    probe_checkout.write_target()


# --- the tools and the network of the person's shell -------------------------------------------------------------


def test_a_shell_with_the_labs_tools_after_the_lab_was_stopped(checkout: ProbeCheckout) -> None:
    """The lab's own links on PATH are not found as the person's tools: they would become links to themselves."""
    checkout.shell(AFTER_ENV + "./inv lab.down; ./inv preview.cnpg --only").ends_with(0)
    assert "Server Version" in checkout.kubectl("version")
    checkout.inv("preview.cnpg", "--only").ends_with(0)


@pytest.mark.parametrize("spelling", ["https_proxy", "HTTP_PROXY"])
def test_a_proxy_is_not_asked_for_this_machine(checkout: ProbeCheckout, spelling: str) -> None:
    checkout.inv("preview.tailscale", env={spelling: "http://127.0.0.1:9"}).ends_with(0)


# --- kubeconfigs and targets -------------------------------------------------------------------------------------


def write_kubeconfig(checkout: ProbeCheckout, folder: Path, login: str = "") -> str:
    """The lab's, in two files as in KUBECONFIG: the context in one, its cluster and user in the other.

    The user logs in with the lab's token, or with a plug-in beside the file, which does this first.
    """
    flat = checkout.kubectl("config", "view", "--raw", "--flatten", "--minify", "--output=json")
    content: dict[str, Any] = json.loads(flat)
    if login:
        (folder / "token").write_text(content["users"][0]["user"]["token"])
        (folder / "login.sh").write_text(PLUGIN.format(first=login))
        (folder / "login.sh").chmod(0o700)
        content["users"][0]["user"] = {"exec": EXEC | {"command": "./login.sh"}}
    files = {folder / "a.yaml": ("contexts", "current-context"), folder / "b.yaml": ("clusters", "users")}
    for path, keys in files.items():
        path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config"} | {key: content[key] for key in keys}))
    return ":".join(map(str, files))


@pytest.mark.parametrize(
    ("login", "env", "words"),
    [("", {}, ()), (NEEDS_PROFILE, {"OCI_CLI_PROFILE": "home"}, ()), (DEVICE_CODE, {}, ("ABCD-EFGH",))],
    ids=["a token", "a plug-in that needs the person's environment", "a plug-in that shows a code"],
)
def test_a_kubeconfig_in_two_files(
    checkout: ProbeCheckout, tmp_path: Path, login: str, env: dict[str, str], words: tuple[str, ...]
) -> None:
    checkout.write_target(kubeconfig=write_kubeconfig(checkout, tmp_path, login))
    shown = checkout.at_home("target.show", env=env).ends_with(0).shows(checkout.target["cluster_uid"])
    assert [word for word in words if word not in shown.all] == []
    if env:
        without = checkout.at_home("preview.probe")
        assert without.code == 5 and "set OCI_CLI_PROFILE" in without.all


TARGETS = """\
default: lab
# my clusters
targets:
  home: &home
    stack: mx   # every project
    backend: {file_backend}
    organization: organization
    kubeconfig: {kubeconfig}
    context: {context}
"""
SPARE = """\
  spare:
    <<: *home
    stack: spare
"""


@pytest.mark.parametrize(
    ("name", "before", "newline", "line"),
    [
        ("spare", TARGETS + SPARE, "\n", "    stack: spare\n    cluster_uid: {uid}\n"),
        ("home", TARGETS.replace(" &home", ""), "\r\n", "    context: {context}\n    cluster_uid: {uid}\n"),
    ],
    ids=["merge key", "CRLF"],
)
def test_pinning_adds_one_line_and_leaves_the_rest(
    checkout: ProbeCheckout, name: str, before: str, newline: str, line: str
) -> None:
    facts = {key: checkout.target[key] for key in ("file_backend", "kubeconfig", "context")}
    text = before.format(**facts).replace("\n", newline)
    path = checkout.root / "targets.yaml"
    path.write_bytes(text.encode())
    answers = [("Pin", "y")]
    checkout.typed("--target", name, "target.pin", answers=answers, env=checkout.with_pulumi).ends_with(0)
    added = line.format(uid=checkout.target["cluster_uid"], **facts).replace("\n", newline)
    kept = added.rpartition("    cluster_uid")[0]
    assert path.read_bytes().decode() == text.replace(kept, added)


# --- exposures, Postgres -----------------------------------------------------------------------------------------


def real_condition(kind: str, reason: str, message: str) -> dict[str, str]:
    """As the operator of a real cluster leaves it."""
    facts = {"type": kind, "status": "True", "reason": reason, "message": message}
    return facts | {"lastTransitionTime": "2026-11-01T00:00:00Z"}


PROXY_GROUP = {"tailscale.com/proxy-group": "ingress-proxies", "tailscale.com/hostname": "files"}
CONFIGURED = {
    "conditions": [
        real_condition(kind, kind, "2/2 proxy backends ready and advertising")
        for kind in ("TailscaleIngressSvcValid", "TailscaleIngressSvcConfigured")
    ],
    "loadBalancer": {"ingress": [{"hostname": "files.tail0000.ts.net", "ip": "100.90.1.2"}]},
}
HIBERNATED = {
    "readyInstances": 0,
    "instances": 0,
    "conditions": [real_condition("cnpg.io/hibernation", "Hibernated", "Cluster has been hibernated")],
}


@contextmanager
def applied(lab: Lab, *objects: Object) -> Iterator[None]:
    """Objects in a namespace of their own."""
    lab.kubectl("create", "namespace", "people")
    try:
        apply(lab, *objects)
        yield
    finally:
        lab.kubectl("delete", "namespace", "people")


@contextmanager
def with_status(lab: Lab, kind: str, name: str, namespace: str, status: Object) -> Iterator[None]:
    where = (kind, name, f"--namespace={namespace}")
    before = lab.get(*where).get("status") or {}
    patch = ("patch", *where, "--subresource=status", "--type=merge", "--patch")
    with lab.changed(*((*patch, json.dumps({"status": each})) for each in (status, before))):
        yield


def exposure(checkout: ProbeCheckout, name: str) -> dict[str, str]:
    """The object's row of the table; a finding about it that failed is an AssertionError."""
    events = checkout.inv("--json", "verify.tailscale").events
    failed = [each for each in events if each["event"] == "finding" and each["state"] == "failed"]
    assert not [each for each in failed if name in json.dumps(each)], failed
    rows = [row for each in events if each["event"] == "table" for row in each["rows"]]
    (row,) = [row for row in rows if row.get("object") == name]
    return {key: str(value) for key, value in row.items()}


def test_a_service_of_a_proxy_group_is_judged_by_its_own_conditions(checkout: ProbeCheckout) -> None:
    files = service("people", "files", PROXY_GROUP, type="LoadBalancer", loadBalancerClass="tailscale")
    with applied(checkout, files), with_status(checkout, "service", "files", "people", CONFIGURED):
        row = exposure(checkout, "people/files")
    assert (row["proxy"], row["device"]) == ("ok", "ok")
    assert row["tailnet name"].startswith("files")


def test_names_of_devices_are_compared_without_case(checkout: ProbeCheckout) -> None:
    annotations = {"tailscale.com/expose": "true", "tailscale.com/hostname": "NAS"}
    with applied(checkout, service("people", "nas", annotations)):
        assert exposure(checkout, "people/nas")["device"] == "ok"


def test_exposures_that_are_not_ready_are_waited_for_side_by_side(checkout: ProbeCheckout) -> None:
    """Each is given 20 s to get ready; the operator makes no proxy for a backend that is not there."""
    waiting = [
        ingress(name, "tailscale", tls=[{"hosts": [name]}], defaultBackend=backend("nobody"))
        for name in ("one", "two", "three")
    ]
    with applied(checkout, *waiting):
        events = checkout.inv("--json", "verify.tailscale").events
    assert len([each for each in events if each.get("state") == "failed" and "people/" in each["subject"]]) == 3
    (seconds,) = [each["seconds"] for each in events if each["event"] == "step" and each["state"] == "done"]
    assert seconds < 3 * 20


def test_a_hibernated_database_is_not_well(checkout: ProbeCheckout) -> None:
    with with_status(checkout, "cluster.postgresql.cnpg.io", "postgresql-cluster", "postgresql", HIBERNATED):
        checkout.inv("verify.postgres").ends_with(4).shows("ibernat")


def backend(name: str, **port: Any) -> Object:
    return {"service": {"name": name, "port": port or {"number": 80}}}


def ingress(name: str, of_class: str, **spec: Any) -> Object:
    return made("networking.k8s.io/v1", "Ingress", "people", name, spec={"ingressClassName": of_class, **spec})


# --- the whole platform ------------------------------------------------------------------------------------------

INLINE = """\
environment:
  imports:
    - stitch/prod@5
  values:
    pulumiConfig:
      stitch:replicas: "2"
"""


def test_one_stack_config_that_is_wrong_hides_no_other_service(whole: Deployed) -> None:
    checkout = whole.checkout
    path = checkout.root / "pulumi/apps/stitch/Pulumi.lab.yaml"
    with changed(path, lambda _: INLINE):
        listed, previewed = checkout.inv("esc.list"), checkout.inv("--json", "preview.all")
    listed.ends_with(2, str(path))
    assert "environments/stitch/prod.yaml" in listed.stdout
    assert previewed.code == 2 and str(path) in previewed.stdout
    (plan,) = [event for event in previewed.events if event["event"] == "plan" and "stacks" in event]
    assert {stack["service"] for stack in plan["stacks"]} == {each.name for each in SERVICES} - {"stitch"}
    checkout.inv("preview.stitch", "--only").ends_with(0)


def test_what_is_bound_is_what_is_judged(whole: Deployed) -> None:
    """An older, empty revision, one that does not exist, and an entry whose values are not merged."""
    checkout = whole.checkout
    path = checkout.lab_dir / "stacks/stitch/Pulumi.lab.yaml"
    before = path.read_bytes()
    checkout.inv("esc.bind", "stitch/prod@99").ends_with(6, "99")
    assert path.read_bytes() == before
    entries = {"- stitch/prod@1": "missing", "- stitch/prod: {merge: false}": "merge"}
    for entry, word in entries.items():
        with changed(path, lambda text, entry=entry: text.replace("- stitch/prod", entry)):  # type: ignore[misc]
            for task in (("esc.bind", "stitch/prod"), ("wire.stitch",)):
                checkout.inv(*task).ends_with(2, word)
    assert path.read_bytes() == before


def test_a_value_that_the_program_refuses_is_named_whole(whole: Deployed) -> None:
    """A part of the key is a secret value; type and allowed values are judged before anything is bound."""
    checkout = whole.checkout
    definition = checkout.root / "environments/stitch/prod.yaml"
    with changed(definition, lambda text: text.replace("postgresql:sslmode: disable", 'postgresql:sslmode: "off"')):
        checkout.inv("esc.apply", "stitch/prod").ends_with(0)
        for task in (("esc.bind", "stitch/prod"), ("wire.stitch",), ("preview.stitch", "--only")):
            checkout.inv(*task).ends_with(2, "postgresql:sslmode", "verify-full", "environments/stitch/prod.yaml")
    checkout.inv("esc.apply", "stitch/prod").ends_with(0)
    checkout.inv("wire.stitch").ends_with(0)


def test_ingresses_of_the_tunnel_as_people_have_them(whole: Deployed) -> None:
    checkout = whole.checkout
    paths = [
        ("*.apps.example.com", {"path": "/", "pathType": "Prefix", "backend": backend("files", name="http")}),
        ("a.example.com", {"path": "/api", "pathType": "Exact", "backend": backend("files")}),
    ]
    rules = [{"host": host, "http": {"paths": [path]}} for host, path in paths]
    objects = [
        ingress("only-default", "cloudflare-tunnel", defaultBackend=backend("files")),
        ingress("wildcard", "cloudflare-tunnel", rules=rules),
    ]
    with applied(checkout, *objects):
        events = checkout.inv("--json", "verify.cf-tunnel").events
    evidence = [each for each in events if each["event"] == "finding"]
    text = json.dumps([each for each in evidence if "people" in json.dumps(each)])
    assert "*.apps.example.com: " not in text.replace("not tried", ""), text
    assert not [each for each in evidence if each["state"] == "failed" and "only-default" in json.dumps(each)], text
