"""A namespace that will not go: while `destroy` waits, it names who holds the namespace and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command_line import finished, until
from tests.lab.objects import apply, made
from tests.lab.probe import ProbeCheckout

pytestmark = pytest.mark.lab

NAMESPACE = """\
from pulumi_kubernetes.core.v1 import Namespace

Namespace("probe", metadata={"name": "stuck"})
"""
HELD_OBJECT = made("v1", "ConfigMap", "stuck", "left-behind")
HELD_OBJECT["metadata"]["finalizers"] = ["example.com/gone-controller"]
LOST_API = made(
    "apiregistration.k8s.io/v1", "APIService", "", "v1beta1.metrics.k8s.io",
    spec={
        "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "insecureSkipTLSVerify": True, "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443},
    },
)  # fmt: skip


@pytest.fixture
def checkout(probe_checkout: ProbeCheckout) -> Iterator[ProbeCheckout]:
    probe_checkout.forget_probe()
    yield probe_checkout
    probe_checkout.kubectl("delete", "--ignore-not-found", "apiservice/v1beta1.metrics.k8s.io")


@pytest.mark.parametrize(
    ("obstacle", "words", "remedy"),
    [
        (
            HELD_OBJECT, ("ConfigMap left-behind", "example.com/gone-controller"),
            ("patch", "configmap/left-behind", "--namespace=stuck", "--type=json",
             '-p=[{"op":"remove","path":"/metadata/finalizers"}]'),
        ),
        (
            LOST_API, ("metrics.k8s.io/v1beta1", "kubectl get apiservices"),
            ("delete", "apiservice/v1beta1.metrics.k8s.io"),
        ),
    ],
    ids=["finalizer", "aggregated API"],
)  # fmt: skip
def test_what_holds_a_namespace_is_named(
    checkout: ProbeCheckout, tmp_path: Path, obstacle: Any, words: tuple[str, ...], remedy: tuple[str, ...]
) -> None:
    checkout.write_program(NAMESPACE)
    checkout.inv("deploy.probe", env=checkout.with_pulumi).ends_with(0)
    apply(checkout, obstacle)
    shown = tmp_path / "stdout"
    with shown.open("w") as stdout:
        run = checkout.start("destroy.probe", env=checkout.with_pulumi, stdout=stdout)
        until(lambda: run.poll() is not None or all(word in shown.read_text() for word in words), "a cause", 300)
        assert run.poll() is None, shown.read_text()
        assert "next: " in shown.read_text()
        checkout.kubectl(*remedy)
        finished(run).ends_with(0)
    assert "namespace/stuck" not in checkout.kubectl("get", "namespaces", "--output=name")
