"""Secrets in pulumi's clear answers: all of them, and nothing that is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runbooks.tools.secret_values import (
    SECRET_SIGNATURE,
    SIGNATURE_KEY,
    secrets_in_config,
    secrets_in_export,
    texts_in,
    unwrap_secrets,
)
from tests.fixtures import secret_value as kept


def test_secret_settings_and_no_others() -> None:
    answer = {
        "a:plain": {"value": "public", "secret": False},
        "a:secret": {"value": "s3cret", "secret": True},
        "a:hidden": {"secret": True},
        "a:object": {"value": '{"k":"v"}', "objectValue": {"k": "deep-s3cret", "n": 5}, "secret": True},
    }
    assert list(secrets_in_config(json.dumps(answer))) == ["s3cret", "deep-s3cret", "5"]
    assert list(secrets_in_config("")) == []


def test_every_secret_of_a_state_wherever_it_lies() -> None:
    resources = [
        {"outputs": {"password": kept("of-outputs"), "host": "public"}},
        {"inputs": {"data": {"list": ["public", kept({"nested": ["in-list", {"key": "in-map"}]})]}}},
        {"inputs": {"number": kept(123456), "flag": kept(True), "none": kept(None), "empty": kept("")}},
    ]
    assert list(secrets_in_export(json.dumps({"deployment": {"resources": resources}}))) == [
        "of-outputs",
        "in-list",
        "in-map",
        "123456",
    ]
    assert list(secrets_in_export("")) == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({SIGNATURE_KEY: SECRET_SIGNATURE, "ciphertext": "v1:abc"}, []),
        (
            {SIGNATURE_KEY: "c44067f5952c0a294b673a41bacd8c17", "text": kept("inside an asset")},
            ["inside an asset"],
        ),
        (kept("x") | {"plaintext": "not json"}, ["not json"]),
    ],
)
def test_values_with_a_signature(value: dict[str, Any], found: list[str]) -> None:
    assert list(secrets_in_export(json.dumps({"a": value}))) == found


@pytest.mark.parametrize(("value", "texts"), [("a", ["a"]), (None, []), (True, []), (1.5, ["1.5"]), ([["a"]], ["a"])])
def test_texts(value: Any, texts: list[str]) -> None:
    assert list(texts_in(value)) == texts


def test_plaintexts_take_the_place_of_secrets() -> None:
    outputs = {"host": "db", "port": 5432, "password": kept("s3cret"), "both": {"user": kept("u"), "l": [kept(1)]}}
    plain = {"host": "db", "port": 5432, "password": "s3cret", "both": {"user": "u", "l": [1]}}
    assert unwrap_secrets(outputs) == plain
