"""kubectl: commands that always name the kubeconfig, and what its answers mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runbooks.core.command import Command
from runbooks.core.errors import NotApproved
from runbooks.tools.kubectl import (
    Kubectl,
    KubectlFailed,
    Trouble,
    Versions,
    ask,
    condition,
    find,
    items,
    read_versions,
    trouble_of,
)
from tests.fixtures import Answer, ScriptedRunner, outcome

KUBECTL = Kubectl(program="/bin/kubectl", kubeconfig=Path("/run/kubeconfig"))
HEAD = ("/bin/kubectl", "--kubeconfig=/run/kubeconfig", "--request-timeout=10s", "get")


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        (KUBECTL.get("namespace", "kube-system"), ("namespace", "--output=json", "--", "kube-system")),
        (KUBECTL.get("nodes"), ("nodes", "--output=json")),
        (KUBECTL.get("services", everywhere=True), ("services", "--all-namespaces", "--output=json")),
        (
            KUBECTL.get("secrets", namespace="tailscale", labels="a=b"),
            ("secrets", "--namespace=tailscale", "--selector=a=b", "--output=json"),
        ),
        (KUBECTL.get("secrets", "-x", namespace="-y"), ("secrets", "--namespace=-y", "--output=json", "--", "-x")),
        (KUBECTL.raw("/apis/x/v1"), ("--raw=/apis/x/v1",)),
        (KUBECTL.get_all("postgresql"), ("all", "--namespace=postgresql")),
    ],
)
def test_every_command_names_the_kubeconfig_and_a_time_limit(command: Command, rest: tuple[str, ...]) -> None:
    assert command.argv == (*HEAD, *rest)
    assert not command.mutates and command.timeout
    assert KUBECTL.get("secrets", "x").confidential and KUBECTL.get("x", confidential=True).confidential


ANSWERS = {
    "Unable to connect to the server: dial tcp 10.0.0.2:6443: i/o timeout": Trouble.UNREACHABLE,
    "The connection to the server 127.0.0.1:1 was refused - right host or port?": Trouble.UNREACHABLE,
    "Unable to connect to the server: dial tcp: lookup nope on 10.0.0.1:53: no such host": Trouble.UNREACHABLE,
    "Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded)": Trouble.UNREACHABLE,
    "Unable to connect to the server: net/http: TLS handshake timeout": Trouble.PASSING,
    "read tcp 10.0.0.1:1->10.0.0.2:2: read: connection reset by peer": Trouble.PASSING,
    "Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown "
    "authority": Trouble.UNTRUSTED,
    "error: You must be logged in to the server (Unauthorized)": Trouble.UNAUTHORIZED,
    'Error from server (Forbidden): nodes is forbidden: User "me" cannot list resource "nodes"': Trouble.FORBIDDEN,
    'Error from server (NotFound): namespaces "x" not found': Trouble.MISSING,
    'error: the server doesn\'t have a resource type "clusters"': Trouble.UNKNOWN_KIND,
    "Error from server (NotFound): the server could not find the requested resource": Trouble.UNKNOWN_KIND,
    'error: unable to recognize "x": no matches for kind "Cluster"': Trouble.UNKNOWN_KIND,
    "Unable to connect to the server: getting credentials: exec: executable aws not found": Trouble.PLUGIN,
    "something else": Trouble.OTHER,
    "": Trouble.OTHER,
}


@pytest.mark.parametrize("text", ANSWERS)
def test_what_a_failure_means(text: str) -> None:
    assert trouble_of(outcome(KUBECTL.get("pods"), (1, "", text + "\n"))) is ANSWERS[text]


def test_a_failure_tells_what_was_read_and_why() -> None:
    answer = (1, "", "E1124 noise\nUnable to connect to the server: EOF\n")
    with pytest.raises(KubectlFailed) as caught:
        ask(ScriptedRunner((("get",), answer)), KUBECTL.get("namespace", "kube-system"))
    assert caught.value.trouble is Trouble.UNREACHABLE
    assert caught.value.summary == (
        "read namespace kube-system: the API server does not answer: Unable to connect to the server: EOF"
    )


def test_a_message_of_several_lines_is_reported_from_its_beginning() -> None:
    answer = (1, "", "W1124 noise\nerror: The gcp auth plugin has been removed.\nSee https://example.com\n")
    with pytest.raises(KubectlFailed, match=r"plugin has been removed\. See https") as caught:
        ask(ScriptedRunner((("get",), answer)), KUBECTL.get("pods"))
    assert "noise" not in caught.value.summary


@pytest.mark.parametrize("text", ["", "no json", "[]", "null"])
def test_an_answer_that_is_no_object_fails(text: str) -> None:
    with pytest.raises(KubectlFailed):
        ask(ScriptedRunner((("get",), text)), KUBECTL.get("pods"))


def test_a_broken_connection_is_tried_three_times_a_refusal_once() -> None:
    broken = (1, "", "net/http: TLS handshake timeout")
    late = ScriptedRunner((("get",), [broken, broken, {"items": []}]))
    assert ask(late, KUBECTL.get("pods")) == {"items": []}
    assert len(late.commands) == 3

    never = ScriptedRunner((("get",), broken))
    with pytest.raises(KubectlFailed):
        ask(never, KUBECTL.get("pods"))
    assert len(never.commands) == 3

    refused = ScriptedRunner((("get",), (1, "", "connection refused")))
    with pytest.raises(KubectlFailed):
        ask(refused, KUBECTL.get("pods"))
    assert len(refused.commands) == 1


def test_a_read_that_the_user_interrupted_is_no_failure_of_the_cluster() -> None:
    runner = ScriptedRunner()
    runner.script = {("get", "cluster"): Answer("", exit_code=1, does=runner.interrupt)}
    with pytest.raises(NotApproved):
        ask(runner, KUBECTL.get("namespace", "kube-system"))
    assert len(runner.commands) == 1


def test_a_missing_object_is_none_and_other_failures_are_not() -> None:
    missing = ScriptedRunner((("get",), (1, "", 'Error from server (NotFound): secrets "x" not found')))
    assert find(missing, KUBECTL.get("secrets", "x")) is None
    with pytest.raises(KubectlFailed):
        find(ScriptedRunner((("get",), (1, "", "(Forbidden)"))), KUBECTL.get("secrets", "x"))


def test_conditions() -> None:
    obj = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "R", "message": "m"}, "odd"]}}
    ready = condition(obj, "Ready")
    assert ready is not None
    assert not ready.is_true
    assert str(ready) == "Ready=False (R: m)"
    assert condition(obj, "Other") is None
    assert condition({}, "Ready") is None


@pytest.mark.parametrize(
    ("client", "server", "skew"),
    [
        ("v1.37.1", "v1.36.3", 1),
        ("v1.30.0", "v1.36.3+k3s1", 6),
        ("v1.32.4-dispatcher", "v1.36.3-gke.1100", 4),
        ("v1.36.0", "", None),
        ("v2.0.0", "v1.36.0", None),
        ("?", "v1.36.0", None),
    ],
)
def test_skew(client: str, server: str, skew: int | None) -> None:
    assert Versions(client=client, server=server).skew == skew


def test_versions_are_read_from_the_json() -> None:
    answer = {"clientVersion": {"gitVersion": "v1.37.1"}, "serverVersion": {"gitVersion": "v1.36.3"}}
    assert read_versions(answer) == Versions(client="v1.37.1", server="v1.36.3")
    assert read_versions({}).client == ""
    assert items({"items": [{"a": 1}, "odd"]}) == [{"a": 1}] and items({}) == []


def test_the_time_of_a_login_plugin_is_not_the_api_servers() -> None:
    """A login may send the person to a browser: kubectl's own limit would count that as a slow server."""
    command = replace(KUBECTL, has_plugin=True).get("nodes")
    assert "--request-timeout=0" in command.argv
    assert command.shows_stderr
    assert command.timeout and command.timeout >= 120
    assert not KUBECTL.get("nodes").shows_stderr
