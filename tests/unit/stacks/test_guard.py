"""The guard: the pinned cluster or nothing, and no setting that leads pulumi elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runbooks.core.errors import Refused
from runbooks.stacks.guard import (
    check_opened,
    check_stack_settings,
    confirm_cluster,
    plain_settings,
    private_kubeconfig,
)
from runbooks.stacks.target import Target
from runbooks.tools.esc import Opened, Value
from runbooks.tools.kubectl import Kubectl
from tests import fixtures
from tests.fixtures import UID, ScriptedRunner, kubeconfig, namespace


@pytest.fixture
def target(tmp_path: Path) -> Target:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(kubeconfig()))
    return fixtures.target(kubeconfig=path, cluster_uid=UID)


def guard(target: Target, tmp_path: Path, reply: Any) -> ScriptedRunner:
    context, private = private_kubeconfig(target, tmp_path)
    runner = ScriptedRunner((("get", "namespace"), reply))
    kubectl = Kubectl(program="kubectl", kubeconfig=private)
    session: Any = SimpleNamespace(target=target, context=context, kubectl=kubectl, runner=runner)
    confirm_cluster(session)
    return runner


def test_the_pinned_cluster_passes_and_is_asked_through_the_private_kubeconfig(target: Target, tmp_path: Path) -> None:
    runner = guard(target, tmp_path, namespace(uid=UID))
    assert f"--kubeconfig={tmp_path / 'kubeconfig'}" in runner.commands[0].argv
    assert "--request-timeout=10s" in runner.commands[0].argv
    assert json.loads((tmp_path / "kubeconfig").read_text())["current-context"] == "home"


def test_another_cluster_is_refused_with_both_identities(target: Target, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        guard(target, tmp_path, namespace(uid="ffff-0000"))
    assert "ffff-0000" in caught.value.summary
    assert "https://10.0.0.2:6443" in caught.value.summary
    assert UID in caught.value.expected
    assert "target.show" in caught.value.next_step
    assert caught.value.exit_code == 5


def test_an_unpinned_target_is_refused_with_the_command_that_pins(target: Target, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        guard(replace(target, cluster_uid=""), tmp_path, namespace(uid=UID))
    assert caught.value.next_step == "./inv --target home target.pin"
    assert UID in caught.value.summary


@pytest.mark.parametrize(
    ("reply", "seen"),
    [
        ((1, "", "Unable to connect to the server: dial tcp 10.0.0.2:6443: i/o timeout"), "does not answer"),
        ((1, "", "x509: certificate signed by unknown authority"), "not trusted"),
        ((1, "", "error: You must be logged in to the server (Unauthorized)"), "does not accept the credentials"),
        ((1, "", "getting credentials: exec: executable aws not found"), "exec plug-in"),
        ((1, "", 'Error from server (NotFound): namespaces "kube-system" not found'), "does not exist"),
        ((0, "<html>", ""), "not JSON"),
        (namespace(uid=""), "no UID"),
        (namespace(name="default"), "no UID"),
        ({"metadata": None}, "no UID"),
        ({}, "no UID"),
    ],
)
def test_a_cluster_that_does_not_say_who_it_is_is_refused(
    target: Target, tmp_path: Path, reply: Any, seen: str
) -> None:
    with pytest.raises(Refused) as caught:
        guard(target, tmp_path, reply)
    assert seen in caught.value.summary
    assert UID in caught.value.expected
    assert caught.value.next_step


@pytest.mark.parametrize("context", ["", "absent"])
def test_an_empty_or_missing_context_is_refused_before_anything_starts(
    target: Target, tmp_path: Path, context: str
) -> None:
    with pytest.raises(Refused):
        private_kubeconfig(replace(target, context=context), tmp_path)
    assert not (tmp_path / "kubeconfig").exists()


# --- settings that steer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kubernetes:namespace": "x", "kubernetes:upsertExistingObjects": "true"},
        {"kubernetes:context": "home"},
        {"kubernetes:cluster": "homelab"},
        {"kubernetes:clusterIdentifier": UID},
        {"kubernetes:context": "home", "kubernetes:kubeconfig": "{config}"},
    ],
)
def test_settings_that_agree_pass(target: Target, settings: dict[str, str | None]) -> None:
    filled = {key: value and value.format(config=target.kubeconfig) for key, value in settings.items()}
    check_stack_settings(filled, target, source="Pulumi.mx.yaml")


@pytest.mark.parametrize(
    "settings",
    [
        {"kubernetes:context": "other"},
        {"kubernetes:context": ""},
        {"kubernetes:cluster": "office"},
        {"kubernetes:clusterIdentifier": "somebody"},
        {"kubernetes:kubeconfig": "{config}"},
        {"kubernetes:kubeconfig": "/etc/other", "kubernetes:context": "home"},
        {"kubernetes:kubeconfig": "apiVersion: v1\nclusters: []\n", "kubernetes:context": "home"},
        {"kubernetes:kubeconfig": None},
    ],
)
def test_settings_that_lead_elsewhere_are_refused(target: Target, settings: dict[str, str | None]) -> None:
    filled = {key: value and value.format(config=target.kubeconfig) for key, value in settings.items()}
    with pytest.raises(Refused) as caught:
        check_stack_settings(filled, target, source="Pulumi.mx.yaml")
    assert "Pulumi.mx.yaml" in caught.value.summary
    assert caught.value.next_step.startswith("remove kubernetes:")


def test_a_whole_kubeconfig_in_a_setting_is_not_shown(target: Target) -> None:
    content = "token: sup3r-s3cret\n" * 20
    with pytest.raises(Refused) as caught:
        check_stack_settings({"kubernetes:kubeconfig": content}, target, source="x")
    assert "sup3r" not in "\n".join(caught.value.lines())


def environment(variables: dict[str, str], settings: dict[str, str]) -> Opened:
    sections = {"environmentVariables": variables, "pulumiConfig": settings}
    return Opened(
        values=tuple(
            Value(path=(section, key), value=text) for section, found in sections.items() for key, text in found.items()
        )
    )


def test_an_opened_environment_may_not_point_elsewhere(target: Target) -> None:
    check_opened(target, environment({"OTHER": "x"}, {"postgresql:host": "x"}), "app/prod")
    with pytest.raises(Refused, match="KUBECONFIG in environmentVariables of app/prod") as caught:
        check_opened(target, environment({"KUBECONFIG": "/etc/other"}, {}), "app/prod")
    assert caught.value.next_step == "remove it from environments/app/prod.yaml, then ./inv esc.apply app/prod"
    with pytest.raises(Refused, match="kubernetes:context in pulumiConfig of app/prod") as caught:
        check_opened(target, environment({}, {"kubernetes:context": "other"}), "app/prod")
    assert caught.value.next_step == "remove it from environments/app/prod.yaml, then ./inv esc.apply app/prod"


def test_secrets_in_a_settings_file_have_no_plain_value() -> None:
    assert plain_settings({"a:b": 1, "a:c": {"secure": "v1:x"}, "a:d": "t"}) == {"a:b": "1", "a:c": None, "a:d": "t"}


@pytest.mark.parametrize("name", ["PULUMI_K8S_DELETE_UNREACHABLE", "PULUMI_SKIP_CHECKPOINTS", "PULUMI_OPTION_YES"])
def test_an_environment_that_changes_pulumi_unseen_is_refused(target: Target, name: str) -> None:
    with pytest.raises(Refused, match=f"{name} in environmentVariables of stitch/prod") as caught:
        check_opened(target, environment({name: "true", "GREETING": "x"}, {}), "stitch/prod")
    assert caught.value.expected and "./inv esc.apply stitch/prod" in caught.value.next_step
    check_opened(target, environment({"GREETING": "x", "AWS_REGION": "y", "CODEX_X": "z"}, {}), "stitch/prod")


def test_forgetting_what_is_out_of_reach_is_refused(target: Target) -> None:
    key = "kubernetes:deleteUnreachable"
    for value in ("true", "True", None):
        with pytest.raises(Refused, match="forget every object"):
            check_stack_settings({key: value}, target, source="Pulumi.mx.yaml")
    check_stack_settings({key: "false"}, target, source="Pulumi.mx.yaml")
