"""What each program asks pulumi for, against `expected/<service>.yaml`.

Such a file has the config and the secrets of one run and all that comes of it: each object with its inputs, what it
comes after and what is protected; the exports. `with` has other runs: more config, and what it changes (maps are
merged, null takes away). `wrong` has config that is refused, with every key of it named.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pytest
from lib.charts import locate, read_pin

from runbooks.services import find_service
from tests.programs.conftest import EXPECTED

NOT_SHOWN = {"apiVersion", "kind", "chart", "version", "repositoryOpts", "valueYamlFiles"} | {
    "lcCollate", "lcCtype", "encoding", "connectTimeout", "superuser",
}  # fmt: skip
"""Inputs that other tests compare, or that are the same in each program."""
OF_EVERY_OBJECT = ("app.kubernetes.io/", "checksum/")
"""Beginnings of labels and annotations that are not shown."""
NOT_SHOWN_TEXT = re.compile(r"\n|^docker\.io/")
"""Scripts, which have tests of their own, and the images that no config names."""
SECRET_INPUTS = {"Secret": ["stringData"], "Role": ["password"], "postgresql": ["password", "username"]}
"""Of other kinds no input is secret: charts and pods get the names of Secrets."""

each_service = pytest.mark.parametrize("name", EXPECTED)


def each_entry(key: str) -> Any:
    """One test for each entry of the lists of that name."""
    found = [(name, entry) for name, expected in EXPECTED.items() for entry in expected.get(key, ())]
    ids = [f"{name}: {', '.join(entry.get('config', entry))}" for name, entry in found]
    return pytest.mark.parametrize(("name", "entry"), found, ids=ids)


def shown(recording: Any) -> dict[str, Any]:
    """The recording in the form of the files."""
    objects = {f"{_kind(one)} {one['name']}": _shown_object(recording, one) for one in recording.resources}
    exports = {
        name: {"secret": export["value"]} if export["secret"] else export["value"]
        for name, export in recording.exports.items()
    }
    return {"objects": objects, "exports": exports}


def _kind(resource: Mapping[str, Any]) -> str:
    return str(resource["type"]).rpartition(":")[2]


def _shown_object(recording: Any, resource: Mapping[str, Any]) -> dict[str, Any]:
    after = recording.after(_kind(resource), resource["name"])
    found = {
        "after": sorted(" ".join(key) for key in after),
        "protect": resource["protect"] or None,
        "deleted with": resource["deleted_with"] or None,
        "aliases": [alias["spec"] for alias in resource["aliases"] if "name" in alias["spec"]],
        "waits": {kind: given for kind, given in resource["children"].items() if given},
        **_shown_inputs(resource),
    }
    return {key: value for key, value in found.items() if value not in ({}, [], None)}


def _shown_inputs(resource: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {key: value for key, value in _plain(resource["inputs"]).items() if key not in NOT_SHOWN}
    metadata = inputs.pop("metadata", {})
    if _kind(resource) == "Ingress":
        inputs |= _shown_routes(inputs.pop("spec"))
    if _kind(resource) == "PrometheusRule":
        del inputs["spec"]
    if inputs.get("type") == "Opaque":
        del inputs["type"]
    return inputs | {key: metadata.get(key) for key in ("labels", "annotations")}


def _shown_routes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Class, hosts on the tailnet, host of the tunnel, and which path leads where."""
    (rule,) = spec["rules"]
    to = {path["path"]: "{name}:{port[number]}".format(**path["backend"]["service"]) for path in rule["http"]["paths"]}
    tls = [host for entry in spec.get("tls", ()) for host in entry["hosts"]]
    return {"class": spec["ingressClassName"], "tls": tls, "host": rule.get("host"), "to": to}


def _plain(value: Any, key: str = "") -> Any:
    """The value without what is not shown."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: _plain(item, name) for name, item in value.items()}
    if key in ("labels", "annotations"):
        return {name: item for name, item in found.items() if not name.startswith(OF_EVERY_OBJECT)}
    return {
        name: item
        for name, item in found.items()
        if not (isinstance(item, str) and NOT_SHOWN_TEXT.search(item))
        and not (name == "metadata" and not any(item.values()))
    }


def merged(one: Any, change: Any) -> Any:
    if not isinstance(one, dict) or not isinstance(change, dict):
        return change
    together = one | {key: merged(one.get(key), value) for key, value in change.items()}
    return {key: value for key, value in together.items() if value is not None}


@each_service
def test_its_objects_and_exports(run_service, name):
    made = run_service(name)
    assert (made.error, made.warnings) == (None, ())
    assert shown(made) == {key: EXPECTED[name][key] for key in ("objects", "exports")}
    namespaces = {one["inputs"].get("metadata", {}).get("namespace") for one in made.resources}
    assert namespaces - {None} <= {made.exports["k8s_namespace"]["value"]}


@each_service
def test_secrets_are_only_where_they_belong(run_service, name):
    """The password of the database's superuser stays with its provider."""
    for resource in run_service(name).resources:
        kind = _kind(resource)
        assert sorted(resource["secret_inputs"]) == SECRET_INPUTS.get(kind, []), resource["urn"]
        assert kind in SECRET_INPUTS or "of-the-test" not in str(resource), resource["urn"]
        assert kind == "postgresql" or name == "postgres" or "superuser-of-the-test" not in str(resource), resource[
            "urn"
        ]


@each_service
def test_selectors_find_the_pods_of_the_same_name(run_service, name):
    made = {(_kind(one), one["name"]): one["inputs"].get("spec", {}) for one in run_service(name).resources}
    for (kind, called), spec in made.items():
        if kind in ("Service", "NetworkPolicy") and ("Deployment", called) in made:
            selector = spec["selector"] if kind == "Service" else spec["podSelector"]["matchLabels"]
            pod = made["Deployment", called]["template"]["metadata"]["labels"]
            assert selector and selector.items() <= pod.items()


@each_service
def test_its_charts_are_the_pinned_ones(run_service, name):
    for resource in run_service(name).resources:
        if _kind(resource) == "Chart":
            inputs = resource["inputs"]
            pinned = locate(read_pin(inputs["chart"].rpartition("/")[2]), None)
            repository = inputs.get("repositoryOpts", {}).get("repo")
            assert (inputs["chart"], inputs["version"], repository) == dataclasses.astuple(pinned)


@each_service
def test_nothing_is_protected_where_the_setting_says_so(run_service, name):
    if any(one.get("protect") for one in EXPECTED[name]["objects"].values()):
        made = run_service(name, {f"{find_service(name).project_name}:protect": "false"})
        assert made.error is None
        assert [one["urn"] for one in made.resources if one["protect"] or "'protect': 'true'" in str(one)] == []


@each_entry("with")
def test_what_other_config_changes(run_service, name, entry):
    made = run_service(name, entry.get("config"), entry.get("secrets"))
    assert made.error is None
    assert shown(made) == {key: merged(EXPECTED[name][key], entry.get(key, {})) for key in ("objects", "exports")}


@each_entry("wrong")
def test_what_is_wrong_is_named_and_nothing_is_made(run_service, name, entry):
    failed = run_service(name, entry)
    assert failed.resources == ()
    for key, value in entry.items():
        if key in EXPECTED[name].get("secrets", {}):
            assert f"{key}: found a" in failed.error
            assert not value or f"'{value}'" not in failed.error
        else:
            assert f"{key}: found {value!r}" in failed.error


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if "secrets" in expected])
def test_without_its_secrets_nothing_is_made_and_each_is_named(run_program, postgres_stack, name):
    service = find_service(name)
    failed = run_program(service.folder, EXPECTED[name].get("config"), {}, postgres_stack)
    assert failed.resources == ()
    for key in EXPECTED[name]["secrets"]:
        assert f"\n{key}: not set\n" in failed.error
    command = f"inv secrets.set {name} " if not service.environment else f"inv esc.bind {service.environment}\n"
    assert failed.error.count(command) >= len(EXPECTED[name]["secrets"])
