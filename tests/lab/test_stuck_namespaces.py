"""A namespace that will not go: while `destroy` waits, it names who holds the namespace and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab.command_line import finished, until
from tests.lab.probe import ProbeCheckout

pytestmark = pytest.mark.lab

NAMESPACE = """\
from pulumi_kubernetes.core.v1 import Namespace

Namespace("probe", metadata={"name": "stuck"})
"""
HELD_OBJECT = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "left-behind", "namespace": "stuck", "finalizers": ["example.com/gone-controller"]},
}
LOST_API = {
    "apiVersion": "apiregistration.k8s.io/v1",
    "kind": "APIService",
    "metadata": {"name": "v1beta1.metrics.k8s.io"},
    "spec": {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443},
    },
}


@pytest.fixture
def checkout(probe_checkout: ProbeCheckout) -> Iterator[ProbeCheckout]:
    probe_checkout.forget_probe()
    yield probe_checkout
    probe_checkout.kubectl("delete", "--ignore-not-found", "apiservice/v1beta1.metrics.k8s.io")


@pytest.mark.parametrize(
    ("obstacle", "words", "remedy"),
    [
        (
            HELD_OBJECT,
            ("ConfigMap left-behind", "example.com/gone-controller"),
            (
                "patch",
                "configmap/left-behind",
                "--namespace=stuck",
                "--type=json",
                '-p=[{"op":"remove","path":"/metadata/finalizers"}]',
            ),
        ),
        (
            LOST_API,
            ("metrics.k8s.io/v1beta1", "kubectl get apiservices"),
            ("delete", "apiservice/v1beta1.metrics.k8s.io"),
        ),
    ],
    ids=["finalizer", "aggregated API"],
)
def test_what_holds_a_namespace_is_named(
    checkout: ProbeCheckout, tmp_path: Path, obstacle: Any, words: tuple[str, ...], remedy: tuple[str, ...]
) -> None:
    checkout.write_program(NAMESPACE)
    checkout.inv("deploy.probe", env=checkout.with_pulumi).ends_with(0)
    manifest = tmp_path / "obstacle.yaml"
    manifest.write_text(yaml.safe_dump(obstacle))
    checkout.kubectl("apply", f"--filename={manifest}")
    shown = tmp_path / "stdout"
    with shown.open("w") as stdout:
        run = checkout.start("destroy.probe", env=checkout.with_pulumi, stdout=stdout)
        until(
            lambda: all(word in shown.read_text() for word in words) or run.poll() is not None, "a cause", seconds=300
        )
        assert run.poll() is None, shown.read_text()
        assert "next: " in shown.read_text()
        checkout.kubectl(*remedy)
        finished(run).ends_with(0)
    namespaces = json.loads(checkout.kubectl("get", "namespaces", "--output=json"))["items"]
    assert "stuck" not in {each["metadata"]["name"] for each in namespaces}
