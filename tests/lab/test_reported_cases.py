"""Situations that people reported of clusters like this one, each through the real command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks.services import SERVICES
from tests.lab.command_line import AFTER_ENV, Checkout, Lab, changed
from tests.lab.objects import Object, apply, backend, made, service
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
def probe(probe_checkout: ProbeCheckout) -> Iterator[ProbeCheckout]:
    yield probe_checkout
    probe_checkout.write_target()


def test_a_shell_with_the_labs_tools_after_the_lab_was_stopped(probe: ProbeCheckout) -> None:
    """The lab's own links on PATH are not found as the person's tools: they would become links to themselves."""
    probe.shell(AFTER_ENV + "./inv lab.down; ./inv preview.cnpg --only").ends_with(0)
    assert "Server Version" in probe.kubectl("version")
    probe.inv("preview.cnpg", "--only").ends_with(0)


@pytest.mark.parametrize("spelling", ["https_proxy", "HTTP_PROXY"])
def test_a_proxy_is_not_asked_for_this_machine(probe: ProbeCheckout, spelling: str) -> None:
    probe.inv("preview.tailscale", env={spelling: "http://127.0.0.1:9"}).ends_with(0)


def write_kubeconfig(probe: ProbeCheckout, folder: Path, login: str = "") -> str:
    """The lab's, in two files as in KUBECONFIG: the context in one, its cluster and user in the other.

    The user logs in with the lab's token, or with a plug-in beside the file, which does this first.
    """
    flat = probe.kubectl("config", "view", "--raw", "--flatten", "--minify", "--output=json")
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
    probe: ProbeCheckout, tmp_path: Path, login: str, env: dict[str, str], words: tuple[str, ...]
) -> None:
    probe.write_target(kubeconfig=write_kubeconfig(probe, tmp_path, login))
    shown = probe.at_home("target.show", env=env).ends_with(0).shows(probe.target["cluster_uid"])
    assert [word for word in words if word not in shown.all] == []
    if env:
        without = probe.at_home("preview.probe")
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
    probe: ProbeCheckout, name: str, before: str, newline: str, line: str
) -> None:
    facts = {key: probe.target[key] for key in ("file_backend", "kubeconfig", "context")}
    text = before.format(**facts).replace("\n", newline)
    path = probe.root / "targets.yaml"
    path.write_bytes(text.encode())
    answers = [("Pin", "y")]
    probe.typed("--target", name, "target.pin", answers=answers, env=probe.with_pulumi).ends_with(0)
    added = line.format(uid=probe.target["cluster_uid"], **facts).replace("\n", newline)
    kept = added.rpartition("    cluster_uid")[0]
    assert path.read_bytes().decode() == text.replace(kept, added)


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


def test_exposures_as_people_have_them(probe: ProbeCheckout) -> None:
    """A Service of a proxy group has conditions of its own, and names are compared without case.

    What is not ready gets 20 s, side by side; the operator makes no proxy for a backend that is not there.
    """
    files = service("people", "files", PROXY_GROUP, type="LoadBalancer", loadBalancerClass="tailscale")
    nas = service("people", "nas", {"tailscale.com/expose": "true", "tailscale.com/hostname": "NAS"})
    waiting = [
        ingress(name, "tailscale", tls=[{"hosts": [name]}], defaultBackend=backend("nobody"))
        for name in ("one", "two", "three")
    ]
    with applied(probe, files, nas, *waiting), with_status(probe, "service", "files", "people", CONFIGURED):
        events = probe.inv("--json", "verify.tailscale").events
    failed = [each for each in events if each.get("state") == "failed" and "people/" in each["subject"]]
    assert len(failed) == 3
    assert not [each for each in failed if re.search("people/(files|nas)", json.dumps(each))]
    rows = {row.get("object"): row for each in events if each["event"] == "table" for row in each["rows"]}
    assert [rows["people/files"][column] for column in ("proxy", "device")] == ["ok", "ok"]
    assert str(rows["people/files"]["tailnet name"]).startswith("files")
    assert rows["people/nas"]["device"] == "ok"
    (seconds,) = [each["seconds"] for each in events if each["event"] == "step" and each["state"] == "done"]
    assert seconds < 3 * 20


def test_a_hibernated_database_is_not_well(probe: ProbeCheckout) -> None:
    with with_status(probe, "cluster.postgresql.cnpg.io", "postgresql-cluster", "postgresql", HIBERNATED):
        probe.inv("verify.postgres").ends_with(4).shows("ibernat")


def ingress(name: str, of_class: str, **spec: Any) -> Object:
    return made("networking.k8s.io/v1", "Ingress", "people", name, spec={"ingressClassName": of_class, **spec})


INLINE = """\
environment:
  imports:
    - stitch/prod@5
  values:
    pulumiConfig:
      stitch:replicas: "2"
"""


def test_one_stack_config_that_is_wrong_hides_no_other_service(checkout: Checkout) -> None:
    path = checkout.root / "pulumi/apps/stitch/Pulumi.lab.yaml"
    with changed(path, lambda _: INLINE):
        listed, previewed = checkout.inv("esc.list"), checkout.inv("--json", "preview.all")
    listed.ends_with(2, str(path))
    assert "environments/stitch/prod.yaml" in listed.stdout
    assert previewed.code == 2 and str(path) in previewed.stdout
    (plan,) = [event for event in previewed.events if event["event"] == "plan" and "stacks" in event]
    assert {stack["service"] for stack in plan["stacks"]} == {each.name for each in SERVICES} - {"stitch"}
    checkout.inv("preview.stitch", "--only").ends_with(0)


def test_what_is_bound_is_what_is_judged(checkout: Checkout) -> None:
    """An older, empty revision, one that does not exist, and an entry whose values are not merged."""
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


def test_a_value_that_the_program_refuses_is_named_whole(checkout: Checkout) -> None:
    """A part of the key is a secret value; type and allowed values are judged before anything is bound."""
    definition = checkout.root / "environments/stitch/prod.yaml"
    with changed(definition, lambda text: text.replace("postgresql:sslmode: disable", 'postgresql:sslmode: "off"')):
        checkout.inv("esc.apply", "stitch/prod").ends_with(0)
        for task in (("esc.bind", "stitch/prod"), ("wire.stitch",), ("preview.stitch", "--only")):
            checkout.inv(*task).ends_with(2, "postgresql:sslmode", "verify-full", "environments/stitch/prod.yaml")
    checkout.inv("esc.apply", "stitch/prod").ends_with(0)
    checkout.inv("wire.stitch").ends_with(0)


def test_ingresses_of_the_tunnel_as_people_have_them(checkout: Checkout) -> None:
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
