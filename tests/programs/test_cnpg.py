"""What `core/operators/cnpg` asks pulumi for."""

from __future__ import annotations

import pytest

FOLDER = "core/operators/cnpg"


@pytest.fixture
def cnpg(run_program):
    return run_program(FOLDER)


def test_the_chart_comes_after_its_namespace(cnpg):
    assert cnpg.error is None
    assert cnpg.names() == {("Namespace", "cnpg-system"), ("Chart", "cnpg")}
    assert cnpg.after("Chart", "cnpg") == {("Namespace", "cnpg-system")}


def test_the_chart_is_the_pinned_one_and_brings_its_crds(cnpg):
    from lib.charts import read_pin

    assert cnpg["Chart", "cnpg"]["type"] == "kubernetes:helm.sh/v4:Chart"
    chart = cnpg["Chart", "cnpg"]["inputs"]
    pin = read_pin("cloudnative-pg")
    assert (chart["chart"], chart["version"]) == ("cloudnative-pg", pin.version)
    assert chart["repositoryOpts"] == {"repo": pin.repository}
    assert chart["namespace"] == "cnpg-system"
    assert chart["values"] == {"crds": {"create": True}, "monitoring": {"podMonitorEnabled": False}}


def test_readiness_is_awaited_because_its_webhook_refuses_clusters_until_then(cnpg):
    assert cnpg["Chart", "cnpg"]["children"] == {
        "CustomResourceDefinition": {
            "pulumi.com/waitFor": "condition=Established",
            "pulumi.com/timeoutSeconds": "60",
            # Databases must outlive the stack, and the next installation must be able to adopt their definitions.
            "pulumi.com/patchForce": "true",
            "retain": "true",
        },
        # No waitFor on the Deployment and the webhook's Service: it would replace the provider's own, stricter waits.
        "Deployment": {"pulumi.com/timeoutSeconds": "300"},
        "Service": {},
    }


def test_settings_reach_the_chart(run_program):
    chosen = run_program(
        FOLDER,
        {
            "charts:source": "oci://mirror.home/charts",
            "cnpg:namespace": "operators",
            "cnpg:create_crds": "false",
            "cnpg:pod_monitor": "true",
        },
    )
    chart = chosen["Chart", "cnpg"]["inputs"]
    assert chart["chart"] == "oci://mirror.home/charts/cloudnative-pg"
    assert chart["namespace"] == "operators"
    assert chart["values"] == {"crds": {"create": False}, "monitoring": {"podMonitorEnabled": True}}
    assert chosen.exports == {"k8s_namespace": {"value": "operators", "secret": False}}
