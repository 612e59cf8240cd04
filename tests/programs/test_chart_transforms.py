"""`pulumi/lib/k8s.py`: transforms that protect a chart's objects and fill its Secrets."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pulumi
import pytest
from lib.k8s import SECRET_MARK, fill_secret, protect_objects

SECRET = "kubernetes:core/v1:Secret"


def child(type_: str, **props: Any) -> pulumi.ResourceTransformArgs:
    return pulumi.ResourceTransformArgs(True, type_, "child", props, pulumi.ResourceOptions(retain_on_delete=True))


def test_objects_of_one_kind_are_protected_and_keep_their_other_options():
    transform = protect_objects("ClickHouseInstallation")
    result = transform(child("kubernetes:clickhouse.altinity.com/v1:ClickHouseInstallation", spec={"a": 1}))
    assert isinstance(result, pulumi.ResourceTransformResult)
    assert (result.opts.protect, result.opts.retain_on_delete) == (True, True)
    assert result.props == {"spec": {"a": 1}}
    assert transform(child(SECRET)) is None


def filled(data: Any) -> tuple[dict[str, str], bool]:
    async def run() -> tuple[dict[str, str], bool]:
        transform = fill_secret("hub", {"token": pulumi.Output.secret("real")})
        result = transform(child(SECRET, metadata={"name": "hub"}, data=data, type="Opaque"))
        assert isinstance(result, pulumi.ResourceTransformResult)
        assert result.props["type"] == "Opaque"
        known = pulumi.Output.from_input(result.props["data"])
        return await known.future(), await known.is_secret()

    return asyncio.run(run())


@pytest.mark.parametrize("marked", [False, True])
def test_a_token_takes_the_place_of_the_charts_word_and_the_rest_stays(marked):
    data = {"token": "d29yZA==", "other": "eA=="}
    given = {SECRET_MARK: "1b47061264138c4ac30d75fd1eb44270", "value": data} if marked else data
    content, is_secret = filled(given)
    assert content == {"token": base64.b64encode(b"real").decode(), "other": "eA=="}
    assert is_secret


@pytest.mark.parametrize(
    ("type_", "name"), [("kubernetes:core/v1:ConfigMap", "hub"), (SECRET, "proxy"), (SECRET, None)]
)
def test_only_the_secret_of_that_name_is_filled(type_, name):
    async def run() -> object:
        transform = fill_secret("hub", {"token": pulumi.Output.secret("real")})
        return transform(child(type_, metadata={"name": name} if name else None, data={"token": "x"}))

    assert asyncio.run(run()) is None


def test_a_secret_without_that_key_is_an_error_since_the_word_would_stay_in_use():
    async def run() -> None:
        fill_secret("hub", {"token": pulumi.Output.secret("real")})(child(SECRET, metadata={"name": "hub"}, data={}))

    with pytest.raises(pulumi.RunError, match="the chart's Secret hub has no key token to fill"):
        asyncio.run(run())


def test_the_mark_is_the_sdks():
    from pulumi.runtime import rpc

    assert rpc._special_sig_key == SECRET_MARK
