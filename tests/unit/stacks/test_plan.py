"""Ranks, plan summary, what is approved, and the watch over the event stream."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.mask import Masker
from runbooks.stacks.apply import Approved, Watch
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
from runbooks.tools.pulumi import (
    Event,
    Export,
    PropertyChange,
    State,
    StateResource,
    Step,
    describe_object,
    read_events,
    read_preview,
)
from runbooks.tools.stack import Stack
from tests.fixtures import preview_of, urn

RECORDED = Path(__file__).parents[2] / "contract" / "recorded" / "pulumi"
STACK = Stack(service="sample", project="sample", name="mx", organization="organization", folder=Path("/sample"))
PVC = "kubernetes:core/v1:PersistentVolumeClaim"
CLUSTER = "kubernetes:postgresql.cnpg.io/v1:Cluster"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
CRD = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"
CHART = "kubernetes:helm.sh/v4:Chart"


def of(kind: str, name: str = "x") -> str:
    return urn("sample", kind, name)


def lines_of(*plans: StackPlan, diff: bool = False, names_only: bool = False) -> list[str]:
    data = summary_data(RunPlan(layers=(plans,)), diff=diff)
    return summary_lines(data, diff=diff, names_only=names_only)


def text_of(*plans: StackPlan, diff: bool = False) -> str:
    return "\n".join(lines_of(*plans, diff=diff))


def recorded(number: str, word: str, nth: int = 0) -> str:
    """The answer of a real pulumi to a command with this word."""
    (file,) = RECORDED.glob(f"{number}-*.json")
    steps = json.loads(file.read_text())["steps"]
    return str([step["stdout"] for step in steps if {word, "--json"} <= set(step.get("argv", ()))][nth])


def planned(*steps: Any, export: Export | None = None) -> StackPlan:
    """The plan of these steps: as objects, as pulumi prints them, or all those of a recorded preview."""
    match steps:
        case (str(number),):
            preview = read_preview(recorded(number, "preview"))
        case (dict(), *_):
            preview = read_preview(json.dumps({"steps": steps}))
        case _:
            preview = preview_of(*steps)
    return plan_of(STACK, preview, export=export)


def step(op: str, kind: str, *paths: str, protected: bool = False) -> Step:
    changes = tuple(PropertyChange(path=path, kind="update", of_inputs=False) for path in paths)
    old = State(protected=protected) if op != "create" else None
    return Step(op=op, urn=of(kind), old=old, new=State(), changes=changes)


def update(old: dict[str, Any], new: dict[str, Any]) -> Step:
    return Step(op="update", urn=of(CONFIG_MAP), old=State(inputs=old), new=State(inputs=new))


PRECIOUS = (
    PVC, CLUSTER, "kubernetes:postgresql.cnpg.io/v1:Database", CRD, f"{CRD}Patch", "kubernetes:core/v1:Namespace",
    "kubernetes:apps/v1:StatefulSet", "postgresql:index/database:Database", "postgresql:index/role:Role",
)  # fmt: skip
OTHER_KINDS = (
    CONFIG_MAP, "kubernetes:core/v1:Secret", "postgresql:index/extension:Extension",
    "kubernetes:rbac.authorization.k8s.io/v1:Role", "kubernetes:management.example.org/v1:Cluster",
)  # fmt: skip


@pytest.mark.parametrize(
    ("found", "rank"),
    [
        *((step("replace", kind), Rank.DESTRUCTIVE) for kind in PRECIOUS),
        *((step("replace", kind), Rank.REPLACE) for kind in OTHER_KINDS),
        (step("delete", CONFIG_MAP), Rank.DESTRUCTIVE),
        (step("delete", CONFIG_MAP, protected=True), Rank.DESTRUCTIVE),
        (step("replace", CONFIG_MAP, protected=True), Rank.DESTRUCTIVE),
        (step("delete-replaced", PVC), Rank.DESTRUCTIVE),
        (step("delete-replaced", CONFIG_MAP), Rank.REPLACE),
        (step("create-replacement", CONFIG_MAP), Rank.REPLACE),
        (step("update", DEPLOYMENT, "spec.template.spec.containers[0].image"), Rank.RESTART),
        (step("update", DEPLOYMENT, "metadata.labels"), Rank.OTHER),
        (step("update", CLUSTER, "spec.imageName"), Rank.RESTART),
        (step("update", CLUSTER, "spec.instances"), Rank.OTHER),
        (step("update", PVC, "spec.resources"), Rank.OTHER),
        (step("create", PVC), Rank.OTHER),
    ],
)
def test_rank(found: Step, rank: Rank) -> None:
    assert rank_step(found).rank is rank


@pytest.mark.parametrize(
    ("found", "counted"),
    [
        (Step(op="same", urn=of(CLUSTER), old=State(protected=True), new=State()), "1 to unprotect"),
        (Step(op="same", urn=of(CLUSTER), old=State(), new=State(protected=True)), "1 to protect"),
        (Step(op="update", urn=of(CLUSTER), old=State(protected=True), new=State()), "1 to update"),
        # Only pulumi forgets it; the object stays.
        (Step(op="delete", urn=of(CRD), old=State(retained=True)), "1 to forget"),
    ],
)
def test_a_change_of_pulumis_state_alone_is_a_change_to_approve(found: Step, counted: str) -> None:
    plan = planned(found)
    assert plan.has_changes and not plan.is_destructive
    assert plan.changes[0].why and plan.changes[0].why in text_of(plan) and f"sample: {counted}" in text_of(plan)
    assert not Step(op="same", urn=of(CLUSTER), old=State(protected=True), new=State(protected=True)).changes_something


# The summary


def test_recorded_change_is_ranked_and_shown_gravest_first() -> None:
    plan = planned("06")
    assert [(change.rank, change.step.name) for change in plan.changes] == [
        (Rank.DESTRUCTIVE, "sec"),
        (Rank.REPLACE, "cm"),
        (Rank.OTHER, "ns"),
    ]
    text = text_of(plan)
    places = [text.index(word) for word in ("DESTRUCTIVE", "Secret sec", "ConfigMap cm", "Namespace ns")]
    assert places == sorted(places)
    assert '~ data.colour: "blue" => "green" (replaces)' in text
    assert "sample: 1 to delete, 1 to replace, 1 to update" in text
    assert '+ metadata.labels: {"team": "a"}' in text, "what is approved is shown with what differs"


def test_secrets_stay_masked_in_the_plan_summary() -> None:
    run = RunPlan(layers=((planned("06"),), (planned("03"),)))
    text = text_of(*run.stacks, diff=True) + json.dumps(summary_data(run, diff=True))
    assert "[secret]" in text and "hunter2" not in text


@pytest.mark.parametrize(("value", "is_explained"), [("postgres", True), ("public", False)])
def test_a_public_text_that_equals_a_secret_is_explained(value: str, is_explained: bool) -> None:
    run = RunPlan(layers=((planned(update({"name": "old"}, {"name": value})),),))
    lines = summary_lines(summary_data(run, mask=Masker(["postgres"]).mask))
    assert any("in quotes" in line for line in lines) is is_explained


def test_a_long_value_is_masked_before_it_is_cut() -> None:
    secret = "correct-horse-battery-staple"
    old, new = ({"url": "x" * (LONGEST_VALUE - 10) + word} for word in (secret, "other"))
    (line,) = property_lines(update(old, new), Masker([secret]).mask)
    assert secret[:8] not in line


def test_a_long_update_is_cut_with_the_command_that_shows_all() -> None:
    old, new = ({f"key{number}": word for number in range(MOST_LINES + 3)} for word in ("a", "b"))
    plan = planned(update(old, new))
    cut, whole = (
        [line for line in lines_of(plan, diff=diff) if line.startswith(PROPERTY_INDENT)] for diff in (False, True)
    )
    assert len(cut) == MOST_LINES + 1 and f"./inv preview.{STACK.service} --diff" in cut[-1]
    assert len(whole) == MOST_LINES + 3


def test_names_alone_are_one_line_for_each_object() -> None:
    plan = planned("06")
    lines = lines_of(plan, names_only=True)
    assert not [line for line in lines if line.startswith(PROPERTY_INDENT)]
    assert all(describe_object(change.step.urn) in "\n".join(lines) for change in plan.changes)


def test_an_object_is_described_by_its_kind_and_name() -> None:
    assert describe_object(of("pulumi:providers:postgresql", "pg")) == "Provider pg"
    assert describe_object(of(CRD, "pg")) == "CustomResourceDefinition pg"


def test_values_not_known_before_they_are_applied_are_called_so() -> None:
    made = Step(op="create", urn="urn:x", new=State(inputs={"host": UNKNOWN, "args": [UNKNOWN], "port": 1}))
    assert property_lines(made) == [
        "+ host: (unknown until applied)",
        "+ args[0]: (unknown until applied)",
        "+ port: 1",
    ]
    changed = update({"a": {"b": 1}}, {"a": {"b": UNKNOWN}})
    assert property_lines(changed) == ['~ a: {"b": 1} => {"b": (unknown until applied)}']


def test_unchanged_and_blocked_stacks_are_one_line() -> None:
    same = planned("05")
    blocked = StackPlan(stack=replace(STACK, service="immich"), waits_for=("postgres",))
    run = RunPlan(layers=((same,), (blocked,)), target="mx")
    assert not run.has_changes and blocked.is_blocked
    assert lines_of(same, blocked)[-2:] == ["  sample: unchanged", "  immich: blocked: waits for postgres"]
    assert [stack["state"] for stack in summary_data(run)["stacks"]] == ["unchanged", "blocked: waits for postgres"]


def test_objects_start_in_one_column_however_long_a_services_name_is() -> None:
    preview = preview_of(step("create", CONFIG_MAP))
    plans = (plan_of(replace(STACK, service=name), preview) for name in ("db", "cert-manager"))
    assert len({line.index("ConfigMap") for line in lines_of(*plans) if "ConfigMap" in line}) == 1


def test_many_unchanged_stacks_are_counted_and_those_with_something_to_say_named() -> None:
    def named(name: str) -> Stack:
        return replace(STACK, service=name)

    quiet = [StackPlan(stack=named(f"quiet{n}"), unchanged_since="14:02") for n in range(MOST_QUIET + 1)]
    others = [
        replace(planned(step("update", CONFIG_MAP)), stack=named("changing")),
        StackPlan(stack=named("blocked"), waits_for=("changing",)),
        StackPlan(stack=named("exporting"), writes_outputs=True),
    ]
    text = text_of(*quiet, *others)
    assert all(plan.service in text for plan in others) and "quiet" not in text and str(len(quiet)) in text
    assert len(summary_data(RunPlan(layers=((*quiet, *others),)))["stacks"]) == len(quiet) + len(others)
    assert all(plan.service in text_of(*quiet[1:], *others) for plan in quiet[1:])


# What is approved


@pytest.mark.parametrize(("number", "nth"), [("04", 0), ("06", 0), ("17", 0), ("21", 1)])
def test_recorded_updates_do_what_their_preview_said(number: str, nth: int) -> None:
    """Each recorded pair of preview and up passes the watch: no false alarm."""
    source = {"04": "03"}.get(number, number)
    approved, counts = Approved.of(planned(source)), list[list[int]]()
    watch = Watch(
        approved=approved,
        stop=lambda: pytest.fail("stopped"),
        progress=lambda text: counts.append([int(number) for number in re.findall(r"\d+", text)[:2]]),
    )
    for line in recorded(number, "up", nth).splitlines():
        watch(line)
    assert watch.violation is None
    failed = {each.urn for each in read_events(recorded(number, "up", nth)) if each.kind == "failed"}
    assert watch.changed == {change.step.urn for change in planned(source).changes} - failed
    assert counts and all(done <= objects == approved.objects for done, objects in counts)


def test_what_the_provider_waits_for_is_shown_and_masked() -> None:
    shown: list[str] = []
    watch = Watch(approved=Approved.of(planned("03")), stop=lambda: None, progress=shown.append)
    watch.mask = Masker(["hunter2-hunter2"]).mask
    says = {"urn": of(DEPLOYMENT), "prefix": "warning: ", "severity": "warning", "ephemeral": True}
    for more in (
        {"message": "0 of 1 pods ready, hunter2-hunter2\n"},
        {"message": "\n"},
        {"message": "kept", "ephemeral": False},
    ):
        watch(json.dumps({"diagnosticEvent": says | more}))
    assert [text.partition("; ")[2] for text in shown] == ["Deployment x: 0 of 1 pods ready, [secret]"]


def test_the_first_operation_that_was_not_approved_stops_the_update_once() -> None:
    stops: list[int] = []
    watch = Watch(approved=Approved.of(planned("03")), stop=lambda: stops.append(1))
    for line in recorded("06", "up").splitlines():
        watch(line)
    assert len(stops) == 1
    assert watch.violation is not None
    assert (watch.violation.op, watch.violation.urn.rsplit("::")[-1]) == ("update", "ns")


def allows(approved: Approved, op: str, urn: str, parent: str = "") -> bool:
    return approved.allows(Event(kind="started", op=op, urn=urn, parent=parent))


WEAKER = {
    "create": "create", "update": "update same", "replace": "create-replacement delete-replaced update",
    "delete": "delete", "same": "read",
}  # fmt: skip
STRONGER = {
    "create": "update", "update": "replace delete-replaced", "replace": "delete", "same": "update something-new",
}  # fmt: skip


@pytest.mark.parametrize("approved", WEAKER)
def test_weaker_operations_pass_and_stronger_do_not(approved: str) -> None:
    plan = Approved.of(planned(step(approved, CONFIG_MAP)))
    assert all(allows(plan, happens, of(CONFIG_MAP)) for happens in WEAKER[approved].split())
    assert not any(allows(plan, happens, of(CONFIG_MAP)) for happens in STRONGER.get(approved, "").split())


def test_unknown_resource_is_refused_but_bookkeeping_passes() -> None:
    for known in (of("pulumi:pulumi:Stack"), of("pulumi:providers:kubernetes", "default_4_34_2")):
        assert allows(Approved(strengths={}), "create", known)
    for unknown in (of(CONFIG_MAP), of("pulumi:providers:postgresql", "pg")):
        assert not allows(Approved(strengths={}), "create", unknown)


def test_objects_of_a_chart_that_could_not_be_rendered_may_be_created_only() -> None:
    chart, other = of(CHART, "cnpg"), of(CHART, "other")
    child = of(f"{CHART}${CONFIG_MAP}", "cnpg:ns/cm")
    approved = Approved(strengths={}, incomplete=frozenset({chart}))
    assert allows(approved, "create", child, chart)
    assert not allows(approved, "create", child, other)
    assert not allows(approved, "delete", child, chart)


HALVES = [
    {"op": "delete-replaced", "urn": of(CONFIG_MAP, "user"), "oldState": {"inputs": {"a": 1}}},
    {"op": "delete-replaced", "urn": of(CONFIG_MAP, "base"), "oldState": {}},
    {"op": "replace", "urn": of(CONFIG_MAP, "base"), "oldState": {}, "newState": {}, "replaceReasons": ["data"]},
    {"op": "create-replacement", "urn": of(CONFIG_MAP, "base"), "oldState": {}, "newState": {}},
    {"op": "delete-replaced", "urn": of(CONFIG_MAP, "left"), "oldState": {"delete": True}},
    {"op": "remove-pending-replace", "urn": of(CONFIG_MAP, "gone"), "oldState": {}},
]
"""What `preview --json --show-replacement-steps` says of `base`, and of `user`, which depends on it and was dropped."""


def test_a_half_of_a_replace_that_has_no_other_is_a_delete() -> None:
    plan = planned(*HALVES)
    assert [(change.verb, change.step.name, change.rank) for change in plan.changes] == [
        ("delete", "user", Rank.DESTRUCTIVE),
        ("replace", "base", Rank.REPLACE),
    ]
    assert "data" in plan.changes[1].why
    allowed = [name for name in ("user", "base", "left")
               if allows(Approved.of(plan), "delete-replaced", of(CONFIG_MAP, name))]  # fmt: skip
    assert allowed == ["user", "base"]
    assert [change.verb for change in planned(HALVES[3]).changes] == ["replace"], "of which only the new half is left"


def test_leftover_of_a_half_finished_replace_is_shown_and_may_be_removed() -> None:
    """Recorded in 21: the old half of a replace stays in the state, and preview does not mention it."""
    left = of(CONFIG_MAP, "a")
    export = Export(resources=(StateResource(urn=left, pending_delete=True),))
    plan = planned(step("same", CONFIG_MAP), export=export)
    assert plan.has_changes and not plan.is_destructive
    assert "ConfigMap a" in text_of(plan)
    assert allows(Approved.of(plan), "delete-replaced", left)
    assert not allows(Approved.of(plan), "delete", left)
