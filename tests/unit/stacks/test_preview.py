"""From services to one plan: which are chosen, what each waits for, what the cluster has already, what is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runbooks.collection import task_for
from runbooks.core.errors import OpsError, ToolFailed, UnexpectedChanges, Usage
from runbooks.stacks import preview
from runbooks.stacks.plan import BEING_DELETED, TAKES_OVER, UNKNOWN, find_existing, manifest_of, takes_over
from runbooks.stacks.summary import show_plan
from runbooks.tasks import preview as tasks
from runbooks.tools.kubectl import Found, Kubectl, KubectlFailed, Trouble, ask_found
from runbooks.tools.pulumi import State, Step
from tests.fixtures import TREE, Repo, ScriptedRunner, ScriptedSession, creating, preview_answer, preview_of, step, urn

# A service that needs ESC on a file backend: left out of everything, refused by name

BOUND = replace(TREE[3], environment="app/prod")
LAYERS = [TREE[:2], (TREE[2],), (BOUND,)]
EVERYTHING = ("net", "op", "db", "app")


def staged(tmp_path: Path, settings: str = "environment:\n  - app/prod\n") -> ScriptedSession:
    """Its stack file binds the environment."""
    session = ScriptedSession(tmp_path, {})
    session.services = (*TREE[:3], BOUND)
    path = session.stack(BOUND).settings_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(settings)
    return session


def test_left_out_of_everything_and_named(tmp_path: Path) -> None:
    session = staged(tmp_path)
    assert preview.choose(session, EVERYTHING) == LAYERS[:2]
    assert "app: left out: " in session.reporter.text


def test_refused_by_name_with_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(Usage) as refused:
        preview.choose(staged(tmp_path), ("app",))
    assert refused.value.exit_code == 2
    assert "pulumi login --cloud" in refused.value.next_step and "esc.unbind app/prod" in refused.value.next_step


@pytest.mark.parametrize("on_cloud", [True, False], ids=["on the cloud", "unbound, with config of its own"])
def test_either_way_out_has_it_planned_like_any_other(tmp_path: Path, on_cloud: bool) -> None:
    session = staged(tmp_path) if on_cloud else staged(tmp_path, "config:\n  app:x: y\n")
    session.target.has_diy_backend = not on_cloud
    assert preview.choose(session, ("app",)) == LAYERS
    assert preview.choose(session, ("db", "app")) == LAYERS


# What a stack would create and the cluster has already

KUBECTL = Kubectl(program="/bin/kubectl", kubeconfig=Path("/run/kubeconfig"))
CRD = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"
UNKNOWN_KIND = 'error: unable to recognize "STDIN": no matches for kind "Thing" in version "x.io/v1"\n'


SECRET = "kubernetes:core/v1:Secret"


def creates(kind: str, name: str, *, op: str = "create", namespace: Any = None, version: str = "v1") -> Step:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    inputs = {"apiVersion": version, "kind": kind.rpartition(":")[2], "metadata": metadata, "data": {"a": "b"}}
    return Step(op=op, urn=urn("app", kind, name), new=State(inputs=inputs))


def row(*facts: str, deleted_at: str = "") -> str:
    return "\t".join((*facts, deleted_at)) + "\n"


@pytest.mark.parametrize("namespace", [{}, {"namespace": "ns"}])
def test_an_object_that_is_created_can_be_asked_for(namespace: dict[str, str]) -> None:
    manifest = manifest_of(creates(SECRET, "s", **namespace))
    assert manifest is not None and manifest["metadata"] == {"name": "s", **namespace}
    assert manifest.keys() == {"apiVersion", "kind", "metadata"}, "no content leaves this process"


@pytest.mark.parametrize(
    "step",
    [
        *(creates(SECRET, "s", op=op) for op in ("update", "replace", "import")),
        *(creates(SECRET, name) for name in ("", UNKNOWN)),
        *(creates(SECRET, "s", namespace=where) for where in (UNKNOWN, {"4dabf": "secret"})),
        creates("kubernetes:core/v1:ConfigMapPatch", "c", namespace="ns"),
        Step(op="create", urn=urn("app", "kubernetes:helm.sh/v4:Chart", "c"), new=State(inputs={"chart": "x"})),
        creates("postgresql:index/database:Database", "d"),
        Step(op="create", urn=urn("app", SECRET, "s")),
    ],
)
def test_other_steps_create_nothing_that_can_be_asked_for(step: Step) -> None:
    assert manifest_of(step) is None


def test_one_question_for_all_and_none_where_nothing_is_created() -> None:
    namespace, secret = creates("kubernetes:core/v1:Namespace", "ns"), creates(SECRET, "s")
    answers = ScriptedRunner((("--filename=-",), row("v1", "Namespace", "", "ns", "", "")))
    found = find_existing(preview_of(namespace, secret), KUBECTL, answers)
    assert found == {namespace.urn: ""}
    (command,) = answers.commands
    assert not command.mutates and command.argv[:4] == (
        "/bin/kubectl", "--kubeconfig=/run/kubeconfig", "--request-timeout=10s", "get",
    )  # fmt: skip
    asked = [(each["kind"], each["metadata"]["name"]) for each in json.loads(command.stdin or b"")["items"]]
    assert asked == [("Namespace", "ns"), ("Secret", "s")]
    unchanged = creates(SECRET, "s", op="same")
    assert find_existing(preview_of(unchanged), KUBECTL, answers) == {} and len(answers.commands) == 1


@pytest.mark.parametrize(
    ("namespace", "found_in", "same"),
    [("a", "a", True), ("a", "b", False), (None, "default", True), ("a", "", True), (None, "", True)],
)
def test_an_object_is_the_same_in_its_own_namespace_only(namespace: str | None, found_in: str, same: bool) -> None:
    """A kind without namespaces is found without one, and one left out is that of the kubeconfig's context."""
    step = creates(SECRET, "s", namespace=namespace)
    answers = ScriptedRunner((("get",), row("v1", "Secret", found_in, "s", "", "")))
    assert bool(find_existing(preview_of(step), KUBECTL, answers)) is same


@pytest.mark.parametrize(
    ("release", "within", "owner"),
    [
        ("cnpg", "cnpg-system", "the helm release cnpg in cnpg-system"),
        ("cnpg", "", "the helm release cnpg"),
        ("", "cnpg-system", ""),
        ("", "", ""),
    ],
)
def test_whose_it_is(release: str, within: str, owner: str) -> None:
    step = creates(CRD, "clusters.postgresql.cnpg.io", version="apiextensions.k8s.io/v1")
    facts = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "clusters.postgresql.cnpg.io", release, within)
    assert find_existing(preview_of(step), KUBECTL, ScriptedRunner((("get",), row(*facts)))) == {step.urn: owner}


def test_an_object_that_is_being_deleted_is_ranked_so_whoever_made_it() -> None:
    step = creates(SECRET, "s", namespace="ns")
    there = row("v1", "Secret", "ns", "s", "old", "ns", deleted_at="2026-11-30T00:00:00Z")
    found = find_existing(preview_of(step), KUBECTL, ScriptedRunner((("get",), there)))
    assert found == {step.urn: BEING_DELETED}


def test_a_kind_that_the_server_does_not_know_has_no_objects() -> None:
    rows = row("v1", "Namespace", "", "ns", "", "")
    found = ask_found(ScriptedRunner((("get",), (1, rows, UNKNOWN_KIND * 2))), KUBECTL.find_all([{}]))
    assert found == [Found(api_version="v1", kind="Namespace", namespace="", name="ns")]


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        ("Error from server (Forbidden): secrets is forbidden: no", Trouble.FORBIDDEN),
        (UNKNOWN_KIND + "Unable to connect to the server: dial tcp", Trouble.UNKNOWN_KIND),
        ("", Trouble.OTHER),
    ],
)
def test_any_other_failure_is_reported(said: str, trouble: Trouble) -> None:
    with pytest.raises(KubectlFailed) as failed:
        ask_found(ScriptedRunner((("get",), (1, "", said))), KUBECTL.find_all([{}]))
    assert failed.value.trouble is trouble
    assert "look which of 1 objects exist already" in failed.value.summary


@pytest.mark.parametrize(
    ("said", "written", "on"),
    [
        ({}, {}, False),
        ({}, {TAKES_OVER: "true"}, True),
        ({}, {TAKES_OVER: True}, True),
        ({}, {TAKES_OVER: "false"}, False),
        ({TAKES_OVER: "true"}, {}, True),
        ({TAKES_OVER: "false"}, {TAKES_OVER: "true"}, False),
    ],
)
def test_the_setting_counts_as_pulumi_sees_it(said: dict[str, str], written: dict[str, Any], on: bool) -> None:
    """An opened environment may set it: the preview then names it, the file does not."""
    assert takes_over(preview_of(settings=said), written) is on


# Every stack that can be previewed is shown, and each failure once


def previewed(session: ScriptedSession) -> Mapping[str, OpsError]:
    plan = preview.plan_run(session, LAYERS[:2], keep_going=True)
    show_plan(session, plan)
    return plan.failures


def script(**failing: str) -> dict[tuple[str, str], Any]:
    """What each preview answers: one object to create, or the error given."""
    answers = {name: creating(name) for name in ("net", "op", "db")}
    answers |= {name: (255, "", text) for name, text in failing.items()}
    return {("preview", name): answer for name, answer in answers.items()} | {("get", "cluster"): ""}


def test_one_stack_that_fails_does_not_hide_the_others(tmp_path: Path) -> None:
    """`db` needs `op`, and is previewed all the same: it reads what the state of `op` holds."""
    session = ScriptedSession(tmp_path, script(op="error: boom"))
    failures = previewed(session)
    assert list(failures) == ["op"]
    assert "net: 1 to create" in session.reporter.text and "db: 1 to create" in session.reporter.text
    with pytest.raises(ToolFailed, match="boom"):
        preview.raise_worst(session, failures)


@pytest.mark.parametrize(
    ("how", "of_db", "of_app"),
    [
        ({}, {"net", "op"}, {"db"}),
        # What it reads decides whether it is on record.
        ({"keep_going": True}, set(), {"db"}),
        ({"keep_going": True, "fresh": True}, set(), set()),
    ],
)
def test_what_a_stack_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, bool], of_db: set[str], of_app: set[str]
) -> None:
    awaited: dict[str, set[str]] = {}

    def work_in_order(_pool: Any, _layers: Any, needs: Mapping[Any, Any], *_: Any, **__: Any) -> Any:
        awaited.update({each.name: {need.name for need in of} for each, of in needs.items()})
        raise ToolFailed("enough")

    monkeypatch.setattr(preview, "work_in_order", work_in_order)
    with pytest.raises(ToolFailed, match="enough"):
        preview.plan_run(ScriptedSession(tmp_path, {}), [TREE[:2], TREE[2:3], TREE[3:]], **how)
    assert (awaited["db"], awaited["app"]) == (of_db, of_app)


def test_one_cause_is_one_row(tmp_path: Path) -> None:
    words = 'error: Get "https://backend.example/api": connection refused'
    session = ScriptedSession(tmp_path, script(net=words, op=words, db=words))
    with pytest.raises(ToolFailed):
        preview.raise_worst(session, previewed(session))
    assert session.reporter.text.count("not previewed") == 1
    assert "net, op, db: not previewed" in session.reporter.text


def test_the_worst_exit_code_counts_and_the_others_are_shown(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, script(net="error: boom", op="error: incorrect passphrase"))
    with pytest.raises(Usage):
        preview.raise_worst(session, previewed(session))
    assert "boom" in session.reporter.text


@pytest.mark.parametrize(
    ("changes", "options", "shown"),
    [
        (True, {}, "next: ./inv --target home deploy.cnpg applies"),
        (True, {"only": True}, "next: ./inv --target home deploy.cnpg --only applies"),
        (False, {}, ""),
    ],
)
def test_a_preview_with_changes_names_the_command_that_applies_them(
    repo: Repo, changes: bool, options: dict[str, bool], shown: str
) -> None:
    repo.has_stacks("cnpg")
    operation = "update" if changes else "same"
    repo.answer("pulumi", ["preview", "--json"], preview_answer(step("cnpg", operation)))
    task_for(tasks.preview, "cnpg").body(repo.c, **options)
    printed = repo.printed()
    assert ("next: " in printed) == bool(shown) and shown in printed


def test_a_preview_that_expects_no_changes_ends_with_7(repo: Repo) -> None:
    repo.has_stacks("cnpg")
    repo.answer("pulumi", ["preview", "--json"], preview_answer(step("cnpg", "update")))
    with pytest.raises(UnexpectedChanges, match="cnpg") as found:
        task_for(tasks.preview, "cnpg").body(repo.c, only=True, expect_no_changes=True)
    assert "preview.cnpg" in found.value.next_step
