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
from runbooks.stacks.guard import confirm_cluster, private_kubeconfig
from runbooks.stacks.preparation import check_opened, check_stack_settings, plain_settings
from runbooks.stacks.target import Target
from runbooks.tools.esc import read_opened
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
        ((1, "", "error: You must be logged in to the server (Unauthorized)"), "does not accept the credentials"),
        ((1, "", 'Error from server (NotFound): namespaces "kube-system" not found'), "does not exist"),
        ((0, "<html>", ""), "not JSON"),
        (namespace(uid=""), "no UID"),
        (namespace(name="default"), "no UID"),
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


# Config that leads elsewhere

AGREES: list[dict[str, Any]] = [
    {}, {"namespace": "x", "upsertExistingObjects": "true"}, {"context": "home"}, {"cluster": "homelab"},
    {"clusterIdentifier": UID}, {"context": "home", "kubeconfig": "{config}"}, {"deleteUnreachable": "false"},
]  # fmt: skip
LEADS_ELSEWHERE: list[dict[str, Any]] = [
    {"context": "other"}, {"context": ""}, {"cluster": "office"}, {"clusterIdentifier": "somebody"},
    {"kubeconfig": "{config}"}, {"kubeconfig": "/etc/other", "context": "home"},
    {"kubeconfig": "apiVersion: v1\nclusters: []\n", "context": "home"}, {"kubeconfig": None},
    # It would forget every object that is out of reach.
    {"deleteUnreachable": "true"}, {"deleteUnreachable": "True"}, {"deleteUnreachable": None},
]  # fmt: skip


def check_config(target: Target, config: dict[str, Any]) -> None:
    filled = {f"kubernetes:{key}": value and value.format(config=target.kubeconfig) for key, value in config.items()}
    check_stack_settings(filled, target, source="Pulumi.mx.yaml")


@pytest.mark.parametrize("config", AGREES)
def test_config_that_agrees_passes(target: Target, config: dict[str, Any]) -> None:
    check_config(target, config)


@pytest.mark.parametrize("config", LEADS_ELSEWHERE)
def test_config_that_leads_elsewhere_is_refused(target: Target, config: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        check_config(target, config)
    assert "Pulumi.mx.yaml" in caught.value.summary
    assert caught.value.next_step.startswith("remove kubernetes:")


def test_a_whole_kubeconfig_in_a_setting_is_not_shown(target: Target) -> None:
    content = "token: sup3r-s3cret\n" * 20
    with pytest.raises(Refused) as caught:
        check_stack_settings({"kubernetes:kubeconfig": content}, target, source="x")
    assert "sup3r" not in "\n".join(caught.value.lines())


VARIABLE, FILE, CONFIG = "environmentVariables", "files", "pulumiConfig"


@pytest.mark.parametrize(
    ("section", "key", "value", "refused"),
    [
        (VARIABLE, "AWS_REGION", "y", False),
        (VARIABLE, "CODEX_X", "z", False),
        (CONFIG, "postgresql:host", "x", False),
        (VARIABLE, "KUBECONFIG", "/etc/other", True),
        (FILE, "KUBECONFIG", "clusters: [{cluster: {server: elsewhere}}]", True),
        (CONFIG, "kubernetes:context", "other", True),
        (CONFIG, "kubernetes:kubeconfig", {"server": "elsewhere"}, True),
        # These change pulumi unseen.
        (VARIABLE, "PULUMI_K8S_DELETE_UNREACHABLE", "true", True),
        (VARIABLE, "PULUMI_SKIP_CHECKPOINTS", "true", True),
        (VARIABLE, "PULUMI_OPTION_YES", "true", True),
    ],
)
def test_an_opened_environment_may_not_lead_elsewhere(
    target: Target, section: str, key: str, value: Any, refused: bool
) -> None:
    opened = read_opened(
        json.dumps({"value": {section: {"value": {key: {"value": nested(value), "secret": section == FILE}}}}})
    )
    if not refused:
        check_opened(target, opened, "app/prod")
        return
    with pytest.raises(Refused, match=f"{key} in {section} of app/prod") as caught:
        check_opened(target, opened, "app/prod")
    assert caught.value.expected and "elsewhere" not in "\n".join(caught.value.lines())
    assert "environments/app/prod.yaml" in caught.value.next_step and "esc.apply app/prod" in caught.value.next_step


def nested(value: Any) -> Any:
    return {key: {"value": inner} for key, inner in value.items()} if isinstance(value, dict) else value


def test_secrets_in_a_settings_file_have_no_plain_value() -> None:
    assert plain_settings({"a:b": 1, "a:c": {"secure": "v1:x"}, "a:d": "t"}) == {"a:b": "1", "a:c": None, "a:d": "t"}
