"""`pulumi/lib/k8s.py`: the transform that fills a chart's Secret."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pulumi
import pytest
from google.protobuf import struct_pb2
from lib.k8s import SECRET_MARK, fill_secret
from pulumi.runtime import rpc

SECRET = "kubernetes:core/v1:Secret"


def child(type_: str, **props: Any) -> pulumi.ResourceTransformArgs:
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
        result = transform(child(SECRET, metadata={"name": "hub"}, data=handed_over(data), type="Opaque"))
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
        return transform(child(type_, metadata={"name": name} if name else None, data={"token": "x"}))

    assert asyncio.run(run()) is None


def test_the_mark_is_the_sdks():
    assert rpc._special_sig_key == SECRET_MARK
