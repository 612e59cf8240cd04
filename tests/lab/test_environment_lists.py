"""A list whose entries hold secrets, from the command line to the vendor's evaluator and back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command_line import Checkout
from tests.lab.conftest import first_run

pytestmark = pytest.mark.lab

HOOKS = """\
values:
  hooks:
{entries}  pulumiConfig:
    demo:hooks: ${{hooks}}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """With people/hooks, whose tokens are set."""
    with first_run(tmp_path_factory.mktemp("lists"), "lab.up") as done:
        write(done.checkout, "alpha", "beta")
        done.checkout.inv("esc.apply", "people/hooks").ends_with(0)
        for index, name in enumerate(("alpha", "beta")):
            done.checkout.inv("esc.set", "people/hooks", f"hooks[{index}].token", stdin=f"of-{name}").ends_with(0)
        yield done.checkout


def write(checkout: Checkout, *names: str) -> None:
    path = checkout.root / "environments" / "people" / "hooks.yaml"
    path.parent.mkdir(exist_ok=True)
    entries = "".join(f'    - name: {name}\n      token: {{fn::secret: ""}}\n' for name in names)
    path.write_text(HOOKS.format(entries=entries))


def esc(checkout: Checkout, *words: str) -> str:
    """What the lab's esc prints."""
    target = checkout.target
    login = {"PULUMI_ACCESS_TOKEN": Path(target["token_file"]).read_text(), "PULUMI_BACKEND_URL": target["backend"]}
    argv, env = [target["tools"]["esc"], *words], checkout.environment(**login)
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=180, check=True).stdout


def tokens(checkout: Checkout) -> dict[str, str]:
    opened: dict[str, Any] = json.loads(esc(checkout, "open", "organization/people/hooks"))
    return {hook["name"]: hook["token"] for hook in opened["hooks"]}


def test_secrets_follow_their_entries(checkout: Checkout) -> None:
    write(checkout, "gamma", "beta", "alpha")
    refused = checkout.inv("esc.set", "people/hooks", "hooks[0].token", stdin="of-gamma")
    refused.ends_with(5, "is {'name': 'alpha'", "is {'name': 'gamma'", "./inv esc.apply people/hooks")
    checkout.inv("esc.apply", "people/hooks").ends_with(0).shows("+ hooks[0].name: 'gamma'")
    checkout.inv("esc.set", "people/hooks", "hooks[0].token", stdin="of-gamma").ends_with(0)
    assert tokens(checkout) == {"alpha": "of-alpha", "beta": "of-beta", "gamma": "of-gamma"}


def test_a_list_in_doubt_is_refused_and_what_is_advised_works(checkout: Checkout) -> None:
    before = tokens(checkout)
    write(checkout, "alpha", "alpha")
    checkout.inv("esc.apply", "people/hooks").ends_with(
        5, "hooks[2] {'name': 'alpha'", "equals [0], [1]", "esc env set organization/people/hooks hooks '[]'"
    )
    assert tokens(checkout) == before
    esc(checkout, "env", "set", "organization/people/hooks", "hooks", "[]")
    write(checkout, "alpha", "delta")
    checkout.inv("esc.apply", "people/hooks").ends_with(0)
    assert not set(tokens(checkout).values()) & set(before.values())


def test_a_secret_that_esc_takes_for_a_reference(checkout: Checkout) -> None:
    """The escape of plain values would be stored: the evaluator opens `$${` as `$${`."""
    result = checkout.inv("esc.set", "stitch/prod", "pulumiConfig.eventsub_secret", stdin="pa${ss")
    result.ends_with(2, "`${`", "fn::fromBase64")
    assert "pa${ss" not in result.all
    checkout.inv("esc.set", "stitch/prod", "pulumiConfig.eventsub_secret", stdin="pa$${ss").ends_with(0)
    definition = "values:\n  token: {fn::fromBase64: {fn::secret: ''}}\n"
    (checkout.root / "environments" / "people" / "encoded.yaml").write_text(definition)
    checkout.inv("esc.apply", "people/encoded").ends_with(0)
    checkout.inv("esc.set", "people/encoded", 'token["fn::fromBase64"]', stdin="cGEke3Nz").ends_with(0)
    assert json.loads(esc(checkout, "open", "organization/people/encoded")) == {"token": "pa${ss"}
