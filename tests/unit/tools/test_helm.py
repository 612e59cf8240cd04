"""helm: which releases; what is rendered, and what a failure says of a pin or of the cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbooks.core.errors import ToolFailed
from runbooks.tools import helm
from runbooks.tools.helm import Chart, Published
from tests.fixtures import outcome

LIST = helm.list_releases("/bin/helm", Path("/run/kubeconfig"))


def test_releases_name_the_kubeconfig_and_tell_which_are_stuck() -> None:
    argv = LIST.argv
    assert "--kubeconfig=/run/kubeconfig" in argv
    assert "--pending" in argv
    assert "--all" not in argv  # helm 4 has no such option
    listed = (
        '[{"name":"a","namespace":"n","status":"deployed","chart":"a-1"},'
        '{"name":"b","namespace":"n","status":"pending-upgrade"}]'
    )
    releases = helm.read_releases(outcome(LIST, listed))
    assert [(release.name, release.is_stuck) for release in releases] == [("a", False), ("b", True)]
    assert [helm.read_releases(outcome(LIST, text)) for text in ("", "[]", "null")] == [[], [], []]


@pytest.mark.parametrize("reply", [(1, "", "no"), "{", '[{"name": "a"}]', '["a"]', "7"])
def test_an_answer_without_sense_fails(reply: object) -> None:
    with pytest.raises(ToolFailed):
        helm.read_releases(outcome(LIST, reply))


# Charts

REPOSITORY = Chart(
    release="cnpg", chart="cloudnative-pg", namespace="cnpg-system", version="0.29.0", repository="https://cnpg/charts",
    values={"replicas": 1.0, "list": [2.0, "a"], "gone": None, "ratio": 0.5},
)  # fmt: skip
OCI = Chart(release="c", chart="oci://quay.io/x/cert-manager", namespace="n", version="v1", skip_crds=True)
FOLDER = Chart(release="c", chart="/lab/charts/immich", namespace="n")


def test_a_chart_is_rendered_as_pulumi_renders_it() -> None:
    command = helm.template("/bin/helm", REPOSITORY, kube_version="v1.36.3")
    assert " ".join(command.argv) == (
        "/bin/helm template cnpg cloudnative-pg --version 0.29.0 --repo https://cnpg/charts --namespace=cnpg-system "
        "--values=- --include-crds --kube-version=v1.36.3"
    )
    assert json.loads(command.stdin or b"") == {"replicas": 1, "list": [2, "a"], "gone": None, "ratio": 0.5}
    assert not command.mutates and command.timeout


def test_where_charts_come_from() -> None:
    assert OCI.where == ("oci://quay.io/x/cert-manager", "--version", "v1") and OCI.name == "cert-manager"
    assert FOLDER.where == ("/lab/charts/immich",) and FOLDER.name == "immich"
    assert "--skip-crds" in helm.template("helm", OCI).argv
    assert helm.show_chart("helm", OCI).argv == ("helm", "show", "chart", *OCI.where)


def test_texts_that_pyyaml_makes_no_value_of_are_texts() -> None:
    """The definitions of kube-prometheus-stack list the operators of Alertmanager's matchers, `=` among them."""
    enum = "spec:\n  enum: ['!=', =, =~, 2026-13-40]\n"
    (found,) = helm.read_manifests(f"kind: CustomResourceDefinition\nmetadata:\n  name: 0x1F\n  annotations:\n{enum}")
    assert (found.kind, found.name, found.hooks) == ("CustomResourceDefinition", "0x1F", ())


def test_what_is_no_yaml_is_reported() -> None:
    with pytest.raises(ToolFailed, match="invalid YAML"):
        helm.read_manifests("---\na: [\n")


@pytest.mark.parametrize(
    ("stderr", "found"),
    [
        ('Error: Get "https://x/index.yaml": dial tcp: lookup x on 10.0.0.1:53: no such host', Published.UNREACHABLE),
        ('Error: failed to perform "FetchReference": Get "https://quay.io/v2/": i/o timeout', Published.UNREACHABLE),
        ("Error: GET https://ghcr.io/token: response status code 403: denied", Published.UNREACHABLE),
        ('Error: chart "x" matching 9.9.9 not found in https://x index', Published.ABSENT),
        ("Error: quay.io/x/y:v9: not found", Published.ABSENT),
    ],
)
def test_a_pin_is_there_absent_or_nothing_was_learnt(stderr: str, found: Published) -> None:
    assert helm.read_published(outcome(LIST, (1, "", stderr))) is found
    assert helm.read_published(outcome(LIST, "name: x")) is Published.THERE


def test_a_chart_for_another_cluster() -> None:
    said = "Error: chart requires kubeVersion: >=1.32.0-0 which is incompatible with Kubernetes v1.20.0\n\nUse --debug"
    told = helm.read_misfit(outcome(LIST, (1, "", said)))
    assert told == "it requires Kubernetes >=1.32.0-0, the cluster has v1.20.0"
    assert helm.read_misfit(outcome(LIST, (1, "", "Error: other"))) == ""
