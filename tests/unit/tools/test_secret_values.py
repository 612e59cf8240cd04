"""Secrets in pulumi's clear answers: all of them, and nothing that is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runbooks.tools.secret_values import secrets_in_config, secrets_in_export, texts_in, unwrapped


def kept(plain: Any) -> dict[str, Any]:
    return {
        "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
        "plaintext": json.dumps(plain),
    }


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
    state = {
        "deployment": {
            "resources": [
                {"outputs": {"password": kept("of-outputs"), "host": "public"}},
                {"inputs": {"data": {"list": ["public", kept({"nested": ["in-list", {"key": "in-map"}]})]}}},
                {"inputs": {"number": kept(123456), "flag": kept(True), "none": kept(None), "empty": kept("")}},
            ]
        }
    }
    assert list(secrets_in_export(json.dumps(state))) == ["of-outputs", "in-list", "in-map", "123456"]
    assert list(secrets_in_export("")) == []


def test_ciphertext_is_no_value() -> None:
    hidden = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:abc"}
    assert list(secrets_in_export(json.dumps({"a": hidden}))) == []


def test_another_special_value_is_looked_into() -> None:
    asset = {"4dabf18193072939515e22adb298388d": "c44067f5952c0a294b673a41bacd8c17", "text": kept("inside")}
    assert list(secrets_in_export(json.dumps(asset))) == ["inside"]


def test_a_plaintext_that_is_no_json_counts_as_it_is() -> None:
    odd = kept("x") | {"plaintext": "not json"}
    assert list(secrets_in_export(json.dumps(odd))) == ["not json"]


@pytest.mark.parametrize(("value", "texts"), [("a", ["a"]), (None, []), (True, []), (1.5, ["1.5"]), ([["a"]], ["a"])])
def test_texts(value: Any, texts: list[str]) -> None:
    assert list(texts_in(value)) == texts


def test_outputs_in_clear_are_those_of_the_stack_itself() -> None:
    resources = [
        {"type": "kubernetes:core/v1:Secret", "outputs": {"data": kept("other")}},
        {
            "type": "pulumi:pulumi:Stack",
            "outputs": {
                "host": "db",
                "port": 5432,
                "password": kept("s3cret"),
                "both": {"user": kept("u"), "l": [kept(1)]},
            },
        },
    ]
    assert unwrapped(resources[-1]["outputs"]) == {
        "host": "db",
        "port": 5432,
        "password": "s3cret",
        "both": {"user": "u", "l": [1]},
    }
