"""`pulumi/lib/k8s.py`: the transform that makes pulumi wait, called as the engine does for each object of a chart."""

from __future__ import annotations

import pulumi
import pytest
from lib.k8s import add_wait_annotation, keep_on_destroy, labels, protect_objects, wait_annotations

DEPLOYMENT = "kubernetes:apps/v1:Deployment"
CLUSTER = "kubernetes:postgresql.cnpg.io/v1:Cluster"


def child(type_: str, metadata: dict | None) -> pulumi.ResourceTransformArgs:
    props = {"kind": type_.rpartition(":")[2], "spec": {"replicas": 1}}
    if metadata is not None:
        props["metadata"] = metadata
    return pulumi.ResourceTransformArgs(True, type_, "chart:ns/child", props, pulumi.ResourceOptions(protect=True))


def annotations_after(transform: pulumi.ResourceTransform, args: pulumi.ResourceTransformArgs) -> dict | None:
    result = transform(args)
    return None if result is None else result.props["metadata"]["annotations"]


def test_it_adds_to_the_annotations_of_its_kind():
    transform = add_wait_annotation("Cluster", wait_for="condition=Ready", timeout=900)
    metadata = {"name": "pg", "annotations": {"kept": "yes", "pulumi.com/timeoutSeconds": "1"}}
    assert annotations_after(transform, child(CLUSTER, metadata)) == {
        "kept": "yes",
        "pulumi.com/waitFor": "condition=Ready",
        "pulumi.com/timeoutSeconds": "900",
    }
    assert metadata["annotations"] == {"kept": "yes", "pulumi.com/timeoutSeconds": "1"}, "the input stays as it was"


def test_everything_else_of_the_object_stays():
    args = child(CLUSTER, {"name": "pg", "labels": {"app": "pg"}})
    result = add_wait_annotation("Cluster", wait_for="condition=Ready")(args)
    assert result is not None
    assert result.props["spec"] == {"replicas": 1}
    assert result.props["metadata"]["labels"] == {"app": "pg"}
    assert (result.opts.protect, result.opts.retain_on_delete) == (True, None)


@pytest.mark.parametrize(
    ("type_", "metadata", "reached"),
    [
        (DEPLOYMENT, {"name": "operator"}, True),
        (DEPLOYMENT, {"name": "operator", "annotations": None}, True),
        (DEPLOYMENT, None, True),
        ("kubernetes:apps/v1:DeploymentPatch", {"name": "operator"}, False),
        ("kubernetes:helm.sh/v4:Chart", {"name": "operator"}, False),
        (CLUSTER, {"name": "operator"}, False),
    ],
)
def test_it_reaches_every_object_of_the_kind(type_, metadata, reached):
    transform = add_wait_annotation("Deployment", timeout=60)
    found = annotations_after(transform, child(type_, metadata))
    assert found == ({"pulumi.com/timeoutSeconds": "60"} if reached else None)


@pytest.mark.parametrize(
    ("wait_for", "written"),
    [
        ("condition=Ready", "condition=Ready"),
        (["condition=Ready"], "condition=Ready"),
        ("jsonpath={.status.applied}=true", "jsonpath={.status.applied}=true"),
        (("condition=A", "jsonpath={.b}"), '["condition=A", "jsonpath={.b}"]'),
    ],
)
def test_several_conditions_become_a_list(wait_for, written):
    assert wait_annotations(wait_for) == {"pulumi.com/waitFor": written}


@pytest.mark.parametrize("wrong", ["Ready", "condition:Ready", "jsonpath=.status.phase", "jsonpath='{.a}'"])
def test_a_condition_the_provider_could_not_read_is_refused(wrong):
    with pytest.raises(ValueError, match="cannot wait for"):
        wait_annotations(wrong)


def test_labels_say_what_it_is_and_where_it_came_from():
    assert labels("postgresql") == {
        "app.kubernetes.io/name": "postgresql",
        "app.kubernetes.io/part-of": "homelab-ops",
        "app.kubernetes.io/managed-by": "pulumi",
    }


def test_objects_of_one_kind_are_protected_and_stay_as_they_are():
    args = child(DEPLOYMENT, {"name": "operator", "annotations": {"kept": "yes"}})
    result = protect_objects("Deployment")(pulumi.ResourceTransformArgs(True, args.type_, "a", args.props, None))
    assert result is not None
    assert result.opts.protect is True
    assert result.props == args.props
    assert protect_objects("Deployment")(child(CLUSTER, {"name": "operator"})) is None


def test_objects_can_be_kept_when_their_stack_is_destroyed():
    transform = keep_on_destroy("Deployment")
    result = transform(child(DEPLOYMENT, {"name": "operator"}))
    assert result is not None
    assert result.opts.retain_on_delete is True
    assert result.opts.protect is True, "the other options stay"
    assert result.props["metadata"]["annotations"] == {"pulumi.com/patchForce": "true"}, (
        "else they could not be adopted"
    )
    assert transform(child(CLUSTER, {"name": "operator"})) is None
