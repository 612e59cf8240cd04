"""`pulumi/lib/k8s.py`: the transforms of a chart's objects, called as the engine does for each of them."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pulumi
import pytest
from google.protobuf import struct_pb2
from lib.k8s import (
    SECRET_MARK,
    add_wait_annotation,
    fill_secret,
    keep_on_destroy,
    labels,
    protect_objects,
    wait_annotations,
)
from pulumi.runtime import rpc

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


def test_it_adds_to_the_annotations_of_its_kind_and_everything_else_stays():
    transform = add_wait_annotation("Cluster", wait_for="condition=Ready", timeout=900)
    metadata = {"labels": {"app": "pg"}, "annotations": {"kept": "yes", "pulumi.com/timeoutSeconds": "1"}}
    result = transform(child(CLUSTER, metadata))
    added = {"pulumi.com/waitFor": "condition=Ready", "pulumi.com/timeoutSeconds": "900"}
    assert result.props["metadata"] == {"labels": {"app": "pg"}, "annotations": {"kept": "yes", **added}}
    assert result.props["spec"] == {"replicas": 1}
    assert (result.opts.protect, result.opts.retain_on_delete) == (True, None)
    assert metadata["annotations"] == {"kept": "yes", "pulumi.com/timeoutSeconds": "1"}, "the input stays as it was"


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


SECRET = "kubernetes:core/v1:Secret"


def any_child(type_: str, **props: Any) -> pulumi.ResourceTransformArgs:
    return pulumi.ResourceTransformArgs(True, type_, "child", props, pulumi.ResourceOptions())


def handed_over(data: Any) -> Any:
    """`data` as the SDK gives it to a transform when the engine sends it in this form."""
    struct = struct_pb2.Struct()
    struct.update({"data": data})
    return rpc.deserialize_properties(struct).get("data")


def as_output(**content: Any) -> dict[str, Any]:
    """A secret as the engine sends it to a transform. Source: pulumi/pulumi, pkg/resource/deploy/source_eval.go."""
    return {SECRET_MARK: rpc._special_output_value_sig, "secret": True, **content}


def filled(data: Any) -> tuple[dict[str, str] | None, bool, bool]:
    """The data that the transform gives back; whether it is known, and whether it is secret."""

    async def run() -> tuple[dict[str, str] | None, bool, bool]:
        transform = fill_secret("hub", {"to.ken": pulumi.Output.secret("real")})
        result = transform(any_child(SECRET, metadata={"name": "hub"}, data=handed_over(data), type="Opaque"))
        assert isinstance(result, pulumi.ResourceTransformResult)
        assert result.props["type"] == "Opaque"
        output = result.props["data"]
        return await output.future(), await output.is_known(), await output.is_secret()

    return asyncio.run(run())


DATA = {"to.ken": "d29yZA==", "other": "eA=="}


@pytest.mark.parametrize(
    "given",
    [
        DATA,
        {SECRET_MARK: rpc._special_secret_sig, "value": DATA},
        as_output(value=DATA),
        {"to.ken": as_output(value="d29yZA=="), "other": "eA=="},
    ],
    ids=["plain", "marked", "output", "outputs in it"],
)
def test_a_token_takes_the_place_of_the_charts_word_and_the_rest_stays(given):
    content = {"to.ken": base64.b64encode(b"real").decode(), "other": "eA=="}
    assert filled(given) == (content, True, True)


@pytest.mark.parametrize("given", [as_output(), {"to.ken": as_output(), "other": "eA=="}], ids=["all", "one"])
def test_data_that_a_preview_does_not_know_stays_unknown_and_secret(given):
    assert filled(given) == (None, False, True)


@pytest.mark.parametrize("given", [{}, {"other": "eA=="}, as_output(value={"other": "eA=="})])
def test_a_secret_without_that_key_is_an_error_since_the_word_would_stay_in_use(given):
    with pytest.raises(pulumi.RunError, match=r"the chart's Secret hub has no key to\.ken to fill"):
        filled(given)


@pytest.mark.parametrize(
    ("type_", "name"), [("kubernetes:core/v1:ConfigMap", "hub"), (SECRET, "proxy"), (SECRET, None)]
)
def test_only_the_secret_of_that_name_is_filled(type_, name):
    async def run() -> object:
        transform = fill_secret("hub", {"token": pulumi.Output.secret("real")})
        return transform(any_child(type_, metadata={"name": name} if name else None, data={"token": "x"}))

    assert asyncio.run(run()) is None


def test_the_mark_is_the_sdks():
    assert rpc._special_sig_key == SECRET_MARK
