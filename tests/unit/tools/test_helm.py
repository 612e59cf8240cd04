"""helm: which version, which releases, which of them are stuck."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.core.errors import ToolFailed
from runbooks.tools import helm
from tests.fixtures import outcome

HELM = helm.Helm(program="/bin/helm", kubeconfig=Path("/run/kubeconfig"))


@pytest.mark.parametrize(
    ("text", "version"),
    [("v3.18.4+gd80839c\n", "v3.18.4"), ("v4.2.4\n", "v4.2.4"), ("v4.0.0-rc.1+g1", "v4.0.0-rc.1"), ("", ""), ("x", "")],
)
def test_version(text: str, version: str) -> None:
    assert helm.read_version(outcome(helm.version("helm"), text)) == version
    assert helm.read_version(outcome(helm.version("helm"), (1, text, ""))) == ""


def test_releases_name_the_kubeconfig_and_tell_which_are_stuck() -> None:
    argv = HELM.releases().argv
    assert "--kubeconfig=/run/kubeconfig" in argv
    assert "--pending" in argv
    assert "--all" not in argv  # helm 4 has no such option
    listed = (
        '[{"name":"a","namespace":"n","status":"deployed","chart":"a-1"},'
        '{"name":"b","namespace":"n","status":"pending-upgrade"}]'
    )
    releases = helm.read_releases(outcome(HELM.releases(), listed))
    assert [(release.name, release.is_stuck) for release in releases] == [("a", False), ("b", True)]


@pytest.mark.parametrize("text", ["", "[]", "null"])
def test_no_releases(text: str) -> None:
    assert helm.read_releases(outcome(HELM.releases(), text)) == []


@pytest.mark.parametrize("reply", [(1, "", "no"), "{", '[{"name": "a"}]', '["a"]', "7"])
def test_an_answer_without_sense_fails(reply: object) -> None:
    with pytest.raises(ToolFailed):
        helm.read_releases(outcome(HELM.releases(), reply))
