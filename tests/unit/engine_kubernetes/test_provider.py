"""The provider without a cluster: checks, names, settings, and what it says when nothing answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.engine.cancellation import CancellationToken
from lab.engine.providers import ConstructRequest, ProviderError, ResourceOptions
from lab.engine.providers.kubernetes.ownership import forces_conflicts, keep_ignored, takeover_patch
from lab.engine.providers.kubernetes.provider import KubernetesProvider
from lab.engine.providers.kubernetes.settings import check_settings, read_settings
from lab.engine.values import UNKNOWN, Secret
from tests.unit.engine_kubernetes.test_kubeconfig import document

CONFIG_MAP, NAMESPACE = "kubernetes:core/v1:ConfigMap", "kubernetes:core/v1:Namespace"


class Host:
    """Keeps what the provider says."""

    def __init__(self) -> None:
        self.cancellation = CancellationToken()
        self.project, self.stack, self.program_folder = "sample", "mx", "/"
        self.said: list[str] = []

    def log(self, severity: str, urn: str, message: str, *, ephemeral: bool = False) -> None:
        self.said.append(f"{severity}: {message}")


@pytest.fixture
def refused() -> Iterator[int]:
    """A port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@pytest.fixture
def provider(refused: int, tmp_path: Path) -> KubernetesProvider:
    """Configured for a cluster that does not answer."""
    (tmp_path / "config").write_text(document(server=f"https://127.0.0.1:{refused}"))
    one = KubernetesProvider(Host(), {"KUBECONFIG": str(tmp_path / "config"), "OPS_STATE": str(tmp_path)})
    one.configure({})
    return one


def urn(token: str, name: str = "cm") -> str:
    return f"urn:pulumi:mx::sample::{token}::{name}"


def config_map(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "n"}, **fields}


def check(provider: KubernetesProvider, token: str, news: dict[str, Any], olds: dict[str, Any] | None = None) -> Any:
    return provider.check(urn(token), token, olds, news, autoname_seed=b"seed").inputs


def test_previews_pass_without_a_cluster(provider: KubernetesProvider) -> None:
    made = provider.create(urn(CONFIG_MAP), CONFIG_MAP, config_map(), preview=True, timeout=0)
    assert (made.id, made.outputs) == ("", config_map())


def test_updates_fail_without_a_cluster(provider: KubernetesProvider, refused: int) -> None:
    with pytest.raises(ProviderError) as caught:
        provider.create(urn(CONFIG_MAP), CONFIG_MAP, config_map(), preview=False, timeout=0)
    address = f"127.0.0.1:{refused}"
    assert str(caught.value) == (
        "configured Kubernetes cluster is unreachable: unable to load schema information from the API server: "
        f'Get "https://{address}/openapi/v2?timeout=32s": dial tcp {address}: connect: connection refused'
    )


def test_components_need_a_cluster_already_in_previews(provider: KubernetesProvider) -> None:
    request = ConstructRequest("kubernetes:helm.sh/v4:Chart", "c", {"chart": "x"}, ResourceOptions(), preview=True)
    with pytest.raises(ProviderError, match="configured Kubernetes cluster is unreachable"):
        provider.construct(request, None)  # type: ignore[arg-type]


def test_a_refresh_without_a_cluster_says_how_to_let_go(provider: KubernetesProvider) -> None:
    with pytest.raises(ProviderError, match="PULUMI_K8S_DELETE_UNREACHABLE"):
        provider.read(urn(CONFIG_MAP), CONFIG_MAP, "n/settings", config_map(), config_map())


def test_a_context_that_is_not_there_is_told_at_the_update(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(document())
    provider = KubernetesProvider(Host(), {"KUBECONFIG": str(tmp_path / "config"), "OPS_STATE": str(tmp_path)})
    provider.configure({"context": "absent"})
    with pytest.raises(ProviderError, match='context "absent" does not exist'):
        provider.create(urn(CONFIG_MAP), CONFIG_MAP, config_map(), preview=False, timeout=0)


def test_another_cluster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(document(server="https://10.0.0.1:6443"))
    provider = KubernetesProvider(Host(), {"KUBECONFIG": str(tmp_path / "config"), "OPS_STATE": str(tmp_path)})
    with pytest.raises(ProviderError, match="works on the lab's cluster only"):
        provider.configure({})


def test_nameless_objects_get_a_name_and_keep_it(provider: KubernetesProvider) -> None:
    made = check(provider, CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap"})
    name = made["metadata"]["name"]
    assert name.startswith("cm-")
    assert len(name) == len("cm-") + 8
    assert made["metadata"]["annotations"] == {"pulumi.com/autonamed": "true"}
    again = check(provider, CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}}, made)
    assert again["metadata"] == made["metadata"]
    fixed = check(provider, CONFIG_MAP, config_map(), made)
    assert fixed["metadata"]["name"] == "settings"


def test_namespaces_are_filled_in_where_they_belong(provider: KubernetesProvider) -> None:
    assert check(provider, CONFIG_MAP, {"metadata": {"name": "a"}})["metadata"]["namespace"] == "default"
    assert "namespace" not in check(provider, NAMESPACE, {"metadata": {"name": "a"}})["metadata"]


def test_secrets_are_normalized_and_marked(provider: KubernetesProvider) -> None:
    inputs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": Secret({"a": "x"})}
    made = check(provider, "kubernetes:core/v1:Secret", inputs)
    assert made["data"] == Secret({"a": "eA=="})
    assert "stringData" not in made


def test_unknown_metadata_is_left_alone(provider: KubernetesProvider) -> None:
    made = check(provider, CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": UNKNOWN})
    assert made["metadata"] is UNKNOWN


def test_generated_names_and_lists_are_refused(provider: KubernetesProvider) -> None:
    with pytest.raises(ProviderError, match="generateName"):
        check(provider, CONFIG_MAP, {"metadata": {"generateName": "a-"}})
    with pytest.raises(ProviderError, match="list resources exist for compatibility"):
        check(provider, "kubernetes:core/v1:ConfigMapList", {})


def recorded(**fields: Any) -> dict[str, Any]:
    inputs = config_map(**fields)
    live = {**inputs, "metadata": {**inputs["metadata"], "uid": "u", "resourceVersion": "1"}}
    return {**live, "__inputs": inputs, "__initialApiVersion": "v1", "__fieldManager": "pulumi-kubernetes-0a4b487c"}


def diff(provider: KubernetesProvider, new: dict[str, Any], **fields: Any) -> Any:
    return provider.diff(urn(CONFIG_MAP), CONFIG_MAP, "n/settings", config_map(), recorded(**fields), new, ())


def test_nothing_changed_is_no_difference(provider: KubernetesProvider) -> None:
    assert not diff(provider, config_map(data={"a": "1"}), data={"a": "1"}).changes


def test_a_fixed_name_is_deleted_before_it_is_replaced(provider: KubernetesProvider) -> None:
    found = diff(provider, config_map(data={"a": "2"}), data={"a": "1"})
    assert found.replaces == ("data.a",)
    assert found.delete_before_replace


def test_another_name_is_created_first(provider: KubernetesProvider) -> None:
    renamed = config_map(data={"a": "1"})
    renamed["metadata"] = {"name": "other", "namespace": "n"}
    found = diff(provider, renamed, data={"a": "1"})
    assert found.replaces == ("metadata.name",)
    assert not found.delete_before_replace


def test_ignored_changes_are_not_seen(provider: KubernetesProvider) -> None:
    found = provider.diff(
        urn(CONFIG_MAP),
        CONFIG_MAP,
        "n/settings",
        {},
        recorded(data={"a": "1"}),
        config_map(data={"a": "2"}),
        ["data.a"],
    )
    assert not found.changes


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (CONFIG_MAP, True),
        ("kubernetes:postgresql.cnpg.io/v1:Cluster", True),
        ("kubernetes:helm.sh/v4:Chart", True),
        ("kubernetes:yaml/v2:ConfigGroup", True),
        ("kubernetes:core/v1:NamespacePatch", False),
        ("kubernetes:helm.sh/v3:Release", False),
        ("kubernetes:kustomize/v2:Directory", False),
        ("kubernetes:yaml:decode", False),
    ],
)
def test_supported_types(provider: KubernetesProvider, token: str, expected: bool) -> None:
    assert provider.supports(token) is expected


def test_unsupported_settings_are_named() -> None:
    failures = check_settings({"renderYamlToDirectory": "x", "namespace": "n", "version": "4.34.2"}, is_default=True)
    assert [failure.property for failure in failures] == ["renderYamlToDirectory"]
    assert check_settings({"enableServerSideApply": "false"}, is_default=True)[0].property == "enableServerSideApply"


def test_strict_mode_wants_explicit_clusters() -> None:
    failures = check_settings({"strictMode": "true", "context": "lab"}, is_default=True)
    assert [failure.reason for failure in failures] == [
        "strict mode prohibits default provider",
        'strict mode requires Provider "kubeconfig" argument',
    ]


def test_settings_win_over_variables() -> None:
    variables = {"PULUMI_K8S_UPSERT_EXISTING_OBJECTS": "true"}
    assert read_settings({}, variables).upsert_existing_objects
    assert not read_settings({"upsertExistingObjects": "false"}, variables).upsert_existing_objects
    assert read_settings({"enableConfigMapMutable": True}, {}).mutability.config_map


def live(*managers: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    entries = [{"manager": name, "operation": operation, "fieldsV1": fields} for name, operation, fields in managers]
    return {"metadata": {"resourceVersion": "7", "managedFields": entries}, "spec": {"replicas": 3}}


def test_the_first_update_takes_over_what_the_create_made() -> None:
    created = live(("pulumi-kubernetes", "Update", {"f:a": {"f:b": {}}}), ("kube-controller", "Update", {"f:c": {}}))
    patch = takeover_patch(created, "own")
    kept = patch[0]["value"]
    assert [(entry["manager"], entry["operation"], entry["fieldsV1"]) for entry in kept] == [
        ("kube-controller", "Update", {"f:c": {}}),
        ("own", "Apply", {"f:a": {"f:b": {}}}),
    ]
    assert patch[1]["value"] == "7"
    assert takeover_patch(live(("own", "Apply", {"f:a": {}})), "own") == []


def test_conflicts_are_forced_only_where_they_may_be() -> None:
    other = live(("kubectl-edit", "Update", {"f:a": {}}))
    assert not forces_conflicts({}, other, always=False, preview=False)
    assert forces_conflicts({}, other, always=True, preview=False)
    assert forces_conflicts(
        {"metadata": {"annotations": {"pulumi.com/patchForce": "true"}}}, other, always=False, preview=False
    )
    created = live(("pulumi-kubernetes", "Update", {"f:a": {}}))
    assert forces_conflicts({}, created, always=False, preview=True)
    assert not forces_conflicts({}, created, always=False, preview=False)


def test_ignored_fields_of_others_are_left_out_and_own_ones_keep_their_value() -> None:
    fields = {"f:spec": {"f:replicas": {}}}
    theirs = {"spec": {"replicas": 1}}
    keep_ignored(theirs, live(("autoscaler", "Update", fields)), ["spec.replicas"], "own")
    assert theirs == {"spec": {}}
    ours = {"spec": {"replicas": 1}}
    keep_ignored(ours, live(("own", "Apply", fields)), ["spec.replicas"], "own")
    assert ours == {"spec": {"replicas": 3}}
