"""Ranks, plan summary, what is approved, and the watch over the event stream."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.mask import Masker
from runbooks.stacks.fingerprint import hash_files
from runbooks.stacks.plan import UNKNOWN, Rank, RunPlan, StackPlan, plan_of, rank_step
from runbooks.stacks.summary import (
    LONGEST_VALUE,
    MOST_LINES,
    MOST_QUIET,
    PROPERTY_INDENT,
    property_lines,
    summary_data,
    summary_lines,
)
from runbooks.stacks.unchanged import changed_parts
from runbooks.stacks.watch import Approved, Watch
from runbooks.tools.pulumi import Event, Export, Preview, PropertyChange, State, StateResource, Step, read_preview
from runbooks.tools.stack import Stack

RECORDED = Path(__file__).parents[2] / "contract" / "recorded" / "pulumi"
STACK = Stack(service="sample", project="sample", name="mx", organization="organization", folder=Path("/sample"))


def lines_of(run: RunPlan, *, diff: bool = False) -> list[str]:
    return summary_lines(summary_data(run, diff=diff), diff=diff)


def recorded(number: str) -> list[dict[str, Any]]:
    (file,) = RECORDED.glob(f"{number}-*.json")
    steps: list[dict[str, Any]] = json.loads(file.read_text())["steps"]
    return steps


def json_answer(number: str, word: str, nth: int = 0) -> str:
    found = [step["stdout"] for step in recorded(number) if {word, "--json"} <= set(step.get("argv", ()))]
    return str(found[nth])


def planned(number: str, nth: int = 0, export: Export | None = None) -> StackPlan:
    return plan_of(STACK, read_preview(json_answer(number, "preview", nth)), export=export)


def urn(kind: str, name: str = "x") -> str:
    return f"urn:pulumi:mx::sample::{kind}::{name}"


def step(op: str, kind: str, *, protected: bool = False, paths: tuple[str, ...] = ()) -> Step:
    changes = tuple(PropertyChange(path=path, kind="update", of_inputs=False) for path in paths)
    old = State(protected=protected) if op != "create" else None
    return Step(op=op, urn=urn(kind), old=old, new=State(), changes=changes)


PVC = "kubernetes:core/v1:PersistentVolumeClaim"
CLUSTER = "kubernetes:postgresql.cnpg.io/v1:Cluster"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"


@pytest.mark.parametrize(
    ("found", "rank"),
    [
        (step("delete", CONFIG_MAP), Rank.DESTRUCTIVE),
        (step("delete", CONFIG_MAP, protected=True), Rank.DESTRUCTIVE),
        (step("replace", CONFIG_MAP), Rank.REPLACE),
        (step("replace", "kubernetes:core/v1:Secret"), Rank.REPLACE),
        (step("delete-replaced", CONFIG_MAP), Rank.REPLACE),
        (step("create-replacement", CONFIG_MAP), Rank.REPLACE),
        (step("replace", CONFIG_MAP, protected=True), Rank.DESTRUCTIVE),
        (step("replace", PVC), Rank.DESTRUCTIVE),
        (step("delete-replaced", PVC), Rank.DESTRUCTIVE),
        (step("replace", CLUSTER), Rank.DESTRUCTIVE),
        (step("replace", "kubernetes:postgresql.cnpg.io/v1:Database"), Rank.DESTRUCTIVE),
        (step("replace", "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"), Rank.DESTRUCTIVE),
        (step("replace", "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinitionPatch"), Rank.DESTRUCTIVE),
        (step("replace", "kubernetes:core/v1:Namespace"), Rank.DESTRUCTIVE),
        (step("replace", "kubernetes:apps/v1:StatefulSet"), Rank.DESTRUCTIVE),
        (step("replace", "postgresql:index/database:Database"), Rank.DESTRUCTIVE),
        (step("replace", "postgresql:index/role:Role"), Rank.DESTRUCTIVE),
        (step("replace", "postgresql:index/extension:Extension"), Rank.REPLACE),
        (step("replace", "kubernetes:rbac.authorization.k8s.io/v1:Role"), Rank.REPLACE),
        (step("replace", "kubernetes:management.example.org/v1:Cluster"), Rank.REPLACE),
        (step("update", DEPLOYMENT, paths=("spec.template.spec.containers[0].image",)), Rank.RESTART),
        (step("update", DEPLOYMENT, paths=("metadata.labels",)), Rank.OTHER),
        (step("update", DEPLOYMENT, paths=("spec.replicas",)), Rank.OTHER),
        (step("update", CLUSTER, paths=("spec.imageName",)), Rank.RESTART),
        (step("update", CLUSTER, paths=("spec.instances",)), Rank.OTHER),
        (step("update", PVC, paths=("spec.resources",)), Rank.OTHER),
        (step("create", PVC), Rank.OTHER),
    ],
)
def test_rank(found: Step, rank: Rank) -> None:
    assert rank_step(found).rank is rank


@pytest.mark.parametrize(
    ("op", "before", "after", "shown", "counted"),
    [
        ("same", True, False, "~  sample     Cluster x  (pulumi would no longer refuse to delete it)",
         "1 to unprotect"),
        ("same", False, True, "~  sample     Cluster x  (pulumi would refuse to delete it from then on)",
         "1 to protect"),
        ("update", True, False, "~  sample     Cluster x  (pulumi would no longer refuse to delete it)", "1 to update"),
    ],
)  # fmt: skip
def test_a_change_of_protection_alone_is_a_change_to_approve(
    op: str, before: bool, after: bool, shown: str, counted: str
) -> None:
    found = Step(op=op, urn=urn(CLUSTER), old=State(protected=before), new=State(protected=after))
    preview = Preview(steps=(found,), diagnostics=(), change_summary={})
    plan = plan_of(STACK, preview)
    assert plan.has_changes and not plan.is_destructive
    text = "\n".join(lines_of(RunPlan(layers=((plan,),), target="mx"), diff=True))
    assert shown in text and f"sample: {counted}" in text
    kept = Step(op="same", urn=urn(CLUSTER), old=State(protected=True), new=State(protected=True))
    assert not kept.changes_something


def test_what_only_pulumi_forgets_is_not_called_deleted() -> None:
    kept = Step(op="delete", urn=urn("kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"),
                old=State(retained=True))  # fmt: skip
    plan = plan_of(STACK, Preview(steps=(kept,), diagnostics=(), change_summary={}))
    text = "\n".join(lines_of(RunPlan(layers=((plan,),), target="mx")))
    assert plan.has_changes and not plan.is_destructive
    assert "CustomResourceDefinition x  (only pulumi forgets it; the object stays)" in text and "1 to forget" in text


def test_recorded_change_is_ranked_and_shown_gravest_first() -> None:
    plan = planned("06")
    assert [(change.rank, change.step.name) for change in plan.changes] == [
        (Rank.DESTRUCTIVE, "sec"),
        (Rank.REPLACE, "cm"),
        (Rank.OTHER, "ns"),
    ]
    lines = lines_of(RunPlan(layers=((plan,),), target="mx"))
    text = "\n".join(lines)
    assert (
        text.index("DESTRUCTIVE") < text.index("Secret sec") < text.index("ConfigMap cm") < text.index("Namespace ns")
    )
    assert '~ data.colour: "blue" => "green" (replaces)' in text
    assert "sample: 1 to delete, 1 to replace, 1 to update" in text
    assert '+ metadata.labels: {"team": "a"}' in text, "what is approved is shown with what differs"


def test_a_long_value_is_masked_before_it_is_cut() -> None:
    secret = "correct-horse-battery-staple"
    old, new = ({"url": "x" * (LONGEST_VALUE - 10) + word} for word in (secret, "other"))
    step = Step(op="update", urn=urn("kubernetes:core/v1:ConfigMap"), old=State(inputs=old), new=State(inputs=new))
    (line,) = property_lines(step, Masker([secret]).mask)
    assert secret[:8] not in line


def test_a_long_update_is_cut_with_the_command_that_shows_all() -> None:
    old, new = ({f"key{number}": word for number in range(MOST_LINES + 3)} for word in ("a", "b"))
    step = Step(op="update", urn=urn("kubernetes:core/v1:ConfigMap"), old=State(inputs=old), new=State(inputs=new))
    plan = plan_of(STACK, Preview(steps=(step,), diagnostics=(), change_summary={}))
    lines = [line for line in lines_of(RunPlan(layers=((plan,),))) if line.startswith(PROPERTY_INDENT)]
    assert len(lines) == MOST_LINES + 1
    assert lines[-1].strip() == f"… 3 more: ./inv preview.{STACK.service} --diff"
    whole = lines_of(RunPlan(layers=((plan,),)), diff=True)
    assert len([line for line in whole if line.startswith(PROPERTY_INDENT)]) == MOST_LINES + 3


def test_secrets_stay_masked_in_the_plan_summary() -> None:
    run = RunPlan(layers=((planned("06"),), (planned("03"),)))
    text = "\n".join(lines_of(run, diff=True)) + json.dumps(summary_data(run, diff=True))
    assert "[secret]" in text and "hunter2" not in text


def test_unchanged_and_blocked_stacks_are_one_line() -> None:
    same = plan_of(STACK, read_preview(json_answer("05", "preview")))
    blocked = StackPlan(stack=Stack(**{**STACK.__dict__, "service": "immich"}), waits_for=("postgres",))
    run = RunPlan(layers=((same,), (blocked,)), target="mx")
    assert not run.has_changes and blocked.is_blocked
    assert lines_of(run) == ["Target mx:", "", "  sample: unchanged", "  immich: blocked: waits for postgres"]
    assert [stack["state"] for stack in summary_data(run)["stacks"]] == ["unchanged", "blocked: waits for postgres"]


@pytest.mark.parametrize(("number", "nth"), [("04", 0), ("06", 0), ("17", 0), ("21", 1)])
def test_recorded_updates_do_what_their_preview_said(number: str, nth: int) -> None:
    """Each recorded pair of preview and up passes the watch: no false alarm."""
    source = {"04": "03"}.get(number, number)
    approved = Approved.of(planned(source))
    counts: list[list[int]] = []
    watch = Watch(
        approved=approved,
        stop=lambda: pytest.fail("stopped"),
        progress=lambda text: counts.append([int(number) for number in re.findall(r"\d+", text)[:2]]),
    )
    for line in json_answer(number, "up", nth).splitlines():
        watch(line)
    assert watch.violation is None and watch.done
    assert counts and all(done <= objects == approved.objects for done, objects in counts)


def test_the_first_operation_that_was_not_approved_stops_the_update_once() -> None:
    stops: list[int] = []
    watch = Watch(approved=Approved.of(planned("03")), stop=lambda: stops.append(1))
    for line in json_answer("06", "up").splitlines():
        watch(line)
    assert len(stops) == 1
    assert watch.violation is not None
    assert (watch.violation.op, watch.violation.urn.rsplit("::")[-1]) == ("update", "ns")


HALVES = [
    {"op": "delete-replaced", "urn": urn(CONFIG_MAP, "user"), "oldState": {"inputs": {"a": 1}}},
    {"op": "delete-replaced", "urn": urn(CONFIG_MAP, "base"), "oldState": {}},
    {"op": "replace", "urn": urn(CONFIG_MAP, "base"), "oldState": {}, "newState": {}, "replaceReasons": ["data"]},
    {"op": "create-replacement", "urn": urn(CONFIG_MAP, "base"), "oldState": {}, "newState": {}},
    {"op": "delete-replaced", "urn": urn(CONFIG_MAP, "left"), "oldState": {"delete": True}},
    {"op": "remove-pending-replace", "urn": urn(CONFIG_MAP, "gone"), "oldState": {}},
]
"""What `preview --json --show-replacement-steps` says of `base`, and of `user`, which depends on it and was dropped."""


def test_a_half_of_a_replace_that_has_no_other_is_a_delete() -> None:
    plan = plan_of(STACK, read_preview(json.dumps({"steps": HALVES})))
    assert [(change.verb, change.step.name, change.rank) for change in plan.changes] == [
        ("delete", "user", Rank.DESTRUCTIVE),
        ("replace", "base", Rank.REPLACE),
    ]
    assert plan.changes[1].why == "because of data"
    approved = Approved.of(plan)
    for name in ("user", "base"):
        assert approved.allows(Event(kind="started", op="delete-replaced", urn=urn(CONFIG_MAP, name)))
    assert not approved.allows(Event(kind="started", op="delete-replaced", urn=urn(CONFIG_MAP, "left")))


def test_a_replacement_of_which_only_the_new_half_is_left_is_a_replace() -> None:
    steps = [{"op": "create-replacement", "urn": urn(CONFIG_MAP), "oldState": {}, "newState": {}}]
    plan = plan_of(STACK, read_preview(json.dumps({"steps": steps})))
    assert [change.verb for change in plan.changes] == ["replace"]


@pytest.mark.parametrize(
    ("approved", "happens", "allowed"),
    [
        ("create", "create", True),
        ("create", "update", False),
        ("update", "update", True),
        ("update", "replace", False),
        ("update", "delete-replaced", False),
        ("update", "same", True),
        ("replace", "create-replacement", True),
        ("replace", "delete-replaced", True),
        ("replace", "update", True),
        ("replace", "delete", False),
        ("delete", "delete", True),
        ("same", "update", False),
        ("same", "read", True),
        ("same", "something-new", False),
    ],
)
def test_weaker_operations_pass_and_stronger_do_not(approved: str, happens: str, allowed: bool) -> None:
    plan = plan_of(STACK, _preview(step(approved, CONFIG_MAP)))
    event = Event(kind="started", op=happens, urn=urn(CONFIG_MAP))
    assert Approved.of(plan).allows(event) is allowed


def _preview(*steps: Step) -> Any:
    return read_preview(json.dumps({"steps": []})).__class__(steps=steps, diagnostics=(), change_summary={})


def test_unknown_resource_is_refused_but_bookkeeping_passes() -> None:
    nothing = Approved(strengths={})
    assert not nothing.allows(Event(kind="started", op="create", urn=urn(CONFIG_MAP, "other")))
    assert nothing.allows(Event(kind="started", op="create", urn=urn("pulumi:providers:kubernetes", "default_4_34_2")))
    assert not nothing.allows(Event(kind="started", op="create", urn=urn("pulumi:providers:postgresql", "pg")))
    assert nothing.allows(Event(kind="started", op="create", urn=urn("pulumi:pulumi:Stack", "sample-mx")))


def test_objects_of_a_chart_that_could_not_be_rendered_may_be_created_only() -> None:
    chart = urn("kubernetes:helm.sh/v4:Chart", "cnpg")
    other = urn("kubernetes:helm.sh/v4:Chart", "other")
    child = urn(f"kubernetes:helm.sh/v4:Chart${CONFIG_MAP}", "cnpg:ns/cm")
    approved = Approved(strengths={}, incomplete=frozenset({chart}))
    assert approved.allows(Event(kind="started", op="create", urn=child, parent=chart))
    assert not approved.allows(Event(kind="started", op="create", urn=child, parent=other))
    assert not approved.allows(Event(kind="started", op="delete", urn=child, parent=chart))


def test_leftover_of_a_half_finished_replace_is_shown_and_may_be_removed() -> None:
    """Recorded in 21: the old half of a replace stays in the state, and preview does not mention it."""
    export = Export(resources=(StateResource(urn=urn(CONFIG_MAP, "a"), pending_delete=True),))
    plan = plan_of(STACK, _preview(step("same", CONFIG_MAP)), export=export)
    assert plan.has_changes and not plan.is_destructive
    assert "left over" in "\n".join(lines_of(RunPlan(layers=((plan,),))))
    approved = Approved.of(plan)
    assert approved.allows(Event(kind="started", op="delete-replaced", urn=urn(CONFIG_MAP, "a")))
    assert not approved.allows(Event(kind="started", op="delete", urn=urn(CONFIG_MAP, "a")))


def test_many_unchanged_stacks_are_counted_and_those_with_something_to_say_named() -> None:
    quiet = [
        StackPlan(stack=replace(STACK, service=f"quiet{n}"), unchanged_since="14:02") for n in range(MOST_QUIET + 1)
    ]
    told = [
        replace(plan_of(STACK, _preview(step("update", CONFIG_MAP))), stack=replace(STACK, service="changing")),
        StackPlan(stack=replace(STACK, service="blocked"), waits_for=("changing",)),
        StackPlan(stack=replace(STACK, service="exporting"), writes_outputs=True),
    ]
    run = RunPlan(layers=((*quiet, *told),))
    text = "\n".join(lines_of(run))
    assert all(plan.service in text for plan in told) and "quiet" not in text and str(len(quiet)) in text
    assert len(summary_data(run)["stacks"]) == len(quiet) + len(told)
    few = "\n".join(lines_of(RunPlan(layers=((*quiet[1:], *told),))))
    assert all(plan.service in few for plan in quiet[1:])


def test_fingerprint_names_what_differs(tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text("a = 1\n")
    (tmp_path / "Pulumi.mx.yaml").write_text("config: {}\n")
    before = {"program files": hash_files([tmp_path]), "settings": "1"}
    (tmp_path / "Pulumi.mx.yaml").write_text("config: {a: b}\n")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_bytes(b"1")
    assert changed_parts(before, {"program files": hash_files([tmp_path]), "settings": "1"}) == []
    (tmp_path / "__main__.py").write_text("a = 2\n")
    after = {"program files": hash_files([tmp_path]), "settings": "2", "new": ""}
    assert changed_parts(before, after) == ["program files", "settings", "new"]


# The difference of properties


def created(inputs: dict[str, Any]) -> list[str]:
    return property_lines(Step(op="create", urn="urn:pulumi:mx::sample::a:b:C::x", new=State(inputs=inputs)))


def test_values_not_known_before_they_are_applied_are_called_so() -> None:
    assert created({"host": UNKNOWN, "args": [UNKNOWN], "port": 1}) == [
        "+ host: (unknown until applied)",
        "+ args[0]: (unknown until applied)",
        "+ port: 1",
    ]
    step = Step(op="update", urn="urn:x", old=State(inputs={"a": {"b": 1}}), new=State(inputs={"a": {"b": UNKNOWN}}))
    assert property_lines(step) == ['~ a: {"b": 1} => {"b": (unknown until applied)}']
