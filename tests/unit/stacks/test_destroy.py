"""`destroy` only by name, not while another service needs it, and only what was shown; who holds a namespace."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.checks.of_service import refuse_while_needed
from runbooks.collection import task_for
from runbooks.core.errors import NotApproved, Refused, ToolFailed
from runbooks.stacks import destroy
from runbooks.stacks.apply import Approved
from runbooks.stacks.destroy import plan_end, refuse_if_changed
from runbooks.stacks.plan import Change, Rank, StackPlan
from runbooks.tasks.destroy import destroy as destroy_task
from runbooks.tools.pulumi import State, Step, read_event
from tests.fixtures import (
    SUMMARY,
    TREE,
    Answer,
    Repo,
    ScriptedSession,
    event,
    listing,
    preview_answer,
    step,
    until,
    urn,
)
from tests.fixtures import (
    namespace as cluster_namespace,
)

NET, _, DB, APP = TREE


def standing(service: str) -> list[dict[str, Any]]:
    kind = "kubernetes:core/v1:ConfigMap"
    return [{"urn": urn(service, kind, "cm"), "type": kind}]


def test_refused_while_a_consumer_stands(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, {})
    session.write_state("app", resources=standing("app"))
    session.write_state("db", resources=standing("db"))
    with pytest.raises(Refused, match="db, app are still deployed") as refused:
        refuse_while_needed(session, NET)
    assert refused.value.next_step == "./inv destroy.app"


def test_empty_consumers_do_not_hold_it(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, {})
    refuse_while_needed(session, NET)
    refuse_while_needed(session, APP)


def test_everything_it_deletes_is_destructive(tmp_path: Path) -> None:
    answer = preview_answer(step("db", "delete"), step("db", "delete", "pulumi:pulumi:Stack", "db-mx"))
    session = ScriptedSession(tmp_path, {("destroy-preview", "db"): answer})
    plan = plan_end(session, DB)
    assert plan.is_destructive and len(plan.changes) == 1


def test_what_a_broken_replace_left_belongs_to_the_end(tmp_path: Path) -> None:
    """pulumi's preview does not show it, and `destroy` deletes it first."""
    session = ScriptedSession(tmp_path, {("destroy-preview", "db"): preview_answer()})
    session.write_state("db", resources=[standing("db")[0] | {"delete": True}])
    plan = plan_end(session, DB)
    assert plan.has_changes
    (began, _) = (read_event(line) for line in event("db", "delete-replaced"))
    assert began is not None and Approved.of(plan).allows(began)


def test_refused_when_something_changed_since_it_was_shown(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, {("destroy-preview", "db"): preview_answer(step("db", "delete"))})
    plan = plan_end(session, DB)
    refuse_if_changed(session, DB, plan, again="./inv destroy.db")
    session.write_state("db", resources=standing("db"))
    with pytest.raises(Refused, match="state of db changed"):
        refuse_if_changed(session, DB, plan, again="./inv destroy.db")


# A namespace that is not gone in time is explained by its own conditions

NAMESPACE = "kubernetes:core/v1:Namespace"


def condition(reason: str, message: str, status: str = "True") -> dict[str, str]:
    return {"type": f"Namespace{reason}", "status": status, "message": message}


FINALIZER = condition(
    "FinalizersRemaining",
    "Some content in the namespace has finalizers remaining: example.com/gone in 1 resource instances",
)
CONTENT = condition(
    "ContentRemaining",
    "Some resources are remaining: configmaps. has 1 resource instances, widgets.example.com has 2 resource instances",
)
DISCOVERY = condition(
    "DeletionDiscoveryFailure",
    "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
    "metrics.k8s.io/v1beta1: stale GroupVersion discovery: metrics.k8s.io/v1beta1",
)
FINE = condition("DeletionGroupVersionParsingFailure", "fine", "False")


def namespace(*conditions: Any, leaving: bool = True) -> Any:
    facts = {"name": "db"} | ({"deletionTimestamp": "2026-11-30T12:00:00Z"} if leaving else {})
    return {"kind": "Namespace", "metadata": facts, "status": {"conditions": conditions}}


HELD = {"kind": "ConfigMap", "metadata": {"name": "left-behind", "finalizers": ["example.com/gone"]}}
FREE = {"kind": "Widget", "metadata": {"name": "free"}}


@pytest.mark.parametrize(
    ("conditions", "answers", "cause", "next_step"),
    [
        ((FINALIZER, CONTENT, FINE), [listing(HELD), listing(FREE)], "ConfigMap left-behind", "finalizer"),
        ((DISCOVERY, FINE), [], "metrics.k8s.io/v1beta1", "kubectl get apiservices"),
        ((FINE,), [], "db", "kubectl get namespace db"),
    ],
    ids=["finalizer", "aggregated API", "no reason"],
)
def test_what_holds_a_namespace(
    tmp_path: Path, conditions: Any, answers: list[Any], cause: str, next_step: str
) -> None:
    session = ScriptedSession(tmp_path, {("get", "cluster"): answers})
    stuck = destroy.explain_namespace(session, namespace(*conditions))
    assert cause in stuck.cause and next_step in stuck.next_step
    assert "fine" not in stuck.cause and "free" not in stuck.cause


def watched(session: ScriptedSession, what: Any) -> None:
    state = State(inputs={"metadata": {"name": "db"}})
    step = Step(op="delete", urn=urn("db", NAMESPACE, "ns"), old=state)
    stack = SimpleNamespace(service="db")
    plan = StackPlan(stack=stack, changes=(Change(step=step, rank=Rank.DESTRUCTIVE),))
    with destroy.report_stuck_namespaces(session, plan):
        what()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destroy, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(destroy, "PATIENCE", 0.0)


def test_it_is_reported_once_while_the_command_runs_and_named_when_it_fails(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, {("get", "cluster"): [listing(namespace(DISCOVERY))]})

    def fails() -> None:
        until(lambda: len(session.runner.ran) > 3)
        raise ToolFailed("timed out", next_step="wait")

    with pytest.raises(ToolFailed) as failed:
        watched(session, fails)
    assert "timed out" in failed.value.summary and "metrics.k8s.io" in failed.value.summary
    assert "apiservices" in failed.value.next_step
    assert session.reporter.text.count("metrics.k8s.io/v1beta1: stale") == 1


@pytest.mark.parametrize(
    "answer",
    [listing(namespace(leaving=False)), listing(), Answer(exit_code=1, stderr="the server is gone")],
    ids=["not deleted yet", "gone", "no answer"],
)
def test_nothing_is_reported_without_a_namespace_that_waits(tmp_path: Path, answer: Any) -> None:
    session = ScriptedSession(tmp_path, {("get", "cluster"): [answer]})
    watched(session, lambda: until(lambda: len(session.runner.ran) > 3))
    assert session.reporter.text == ""


# The task: everything that forbids it comes before pulumi deletes anything

DELETING = preview_answer(step("glance", "delete"))
UNFINISHED = json.dumps({"checkpoint": {"latest": {"pending_operations": [
    {"type": "creating", "resource": {"urn": urn("glance", "kubernetes:core/v1:ConfigMap", "cm")}}
]}}})  # fmt: skip


@pytest.fixture
def home(repo: Repo) -> Repo:
    """A real target where `glance` is deployed."""
    repo.has_stacks("glance")
    repo.config_file("glance").write_text("config: {}\n")
    repo.answer("pulumi", ["destroy", "--preview-only"], DELETING)
    repo.answer("pulumi", ["destroy", "--skip-preview"], "\n".join([*event("glance", "delete"), SUMMARY]))
    return repo


def end(repo: Repo, service: str = "glance") -> list[str]:
    task_for(destroy_task, service).body(repo.c)
    return destroyed(repo)


def destroyed(repo: Repo) -> list[str]:
    return [argv for argv in repo.argvs("pulumi") if "destroy --json --yes" in argv]


def test_the_typed_name_and_nothing_else_destroys(home: Repo) -> None:
    for typed in (None, "y", ""):
        if typed is not None:  # else there is no terminal
            home.types(typed)
        with pytest.raises(NotApproved):
            end(home)
    assert destroyed(home) == []
    home.types("glance")
    asked = len(home.calls("kubectl"))
    assert len(end(home)) == 1
    guarded = [argv for argv in home.argvs("kubectl")[asked:] if "kube-system" in argv]
    assert len(guarded) == 2, "before the preview, and again after the answer"


def test_a_cluster_that_changed_before_the_answer_keeps_everything(home: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    home.types("glance")
    other = lambda *_, **__: home.answer("kubectl", ["kube-system"], cluster_namespace(uid="other"))  # noqa: E731
    monkeypatch.setattr("runbooks.stacks.apply.approve", other)
    with pytest.raises(Refused, match="wrong cluster"):
        end(home)
    assert destroyed(home) == []


def test_what_needs_it_or_is_unfinished_keeps_everything(home: Repo) -> None:
    home.types("glance", "tailscale", "cnpg")
    home.has_stacks("glance", state=UNFINISHED)
    with pytest.raises(Refused, match="creations"):
        end(home)
    home.has_stacks("glance")
    with pytest.raises(Refused, match="glance is still deployed"):
        end(home, "tailscale")
    cluster = {"metadata": {"namespace": "db", "name": "mine"}}
    home.answer("kubectl", ["get", "cnpg.io"], {"items": []})
    home.answer("kubectl", ["get", "clusters.postgresql.cnpg.io"], {"items": [cluster]})
    with pytest.raises(Refused, match="db/mine"):
        end(home, "cnpg")
    assert destroyed(home) == []
