"""repair.*: what is put back, what is left alone, and what has to be the same between summary and apply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.errors import NotApproved, OpsError, Refused, ToolFailed, UnexpectedChanges
from runbooks.stacks.plan import UNKNOWN
from runbooks.stacks.repair import (
    Compared,
    fill_in,
    is_applied,
    put_back_all,
    read_holders,
    refuse_beyond,
    step_back,
    take_items,
    wanted_steps,
)
from runbooks.stacks.summary import property_lines
from runbooks.tools.pulumi import SECRET, PropertyChange, State, StateResource, Step
from tests.fixtures import ELSEWHERE, TREE, ScriptedSession, preview_of, urn, write_locks

MANAGER = "pulumi-kubernetes-1a2b3c4d"
CONFIG_MAP = urn("net", "kubernetes:core/v1:ConfigMap", "cm")
ONE = 'Apply failed with 1 conflict: conflict with "kubectl-annotate" using v1: .metadata.annotations.a.example/b'
TWO = """\
Apply failed with 2 conflicts: conflicts with "kubectl" with subresource "scale" using apps/v1:
- .spec.replicas
conflicts with "kubectl-set" using apps/v1 at 2026-01-02T03:04:05Z:
- .spec.template.spec.containers[name="main"].image
- .spec.paused
"""


@pytest.mark.parametrize(
    ("text", "holders"),
    [
        (ONE + "\nPlease review", ("kubectl-annotate",)),
        (TWO + "Please review the fields above.", ("kubectl", "kubectl-set")),
        ('conflict with "helm": .data.word', ("helm",)),
        ('Operation cannot be fulfilled on configmaps "cm": the object has been modified', ()),
        ("", ()),
    ],
)
def test_the_servers_refusal_names_the_managers(text: str, holders: tuple[str, ...]) -> None:
    assert read_holders(text) == holders


OWN = {"manager": MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:spec": {"f:type": {}}}}


def port(number: int) -> str:
    return json.dumps({"port": number, "protocol": "TCP"}, separators=(",", ":"))


def held(*numbers: int, more: Any = None) -> dict[str, Any]:
    items: Any = {f"k:{port(number)}": {".": {}, "f:port": {}} for number in numbers}
    return {"f:spec": {"f:ports": items, **(more or {})}}


def managed(*others: dict[str, Any]) -> dict[str, Any]:
    ports = [{"port": 5555, "protocol": "TCP", "targetPort": 1}, {"port": 99, "protocol": "TCP", "targetPort": 1}]
    return {"metadata": {"managedFields": [OWN, *others]}, "spec": {"ports": ports, "type": "ClusterIP"}}


def patch(fields: dict[str, Any], **more: str) -> dict[str, Any]:
    return {"manager": "kubectl-patch", "operation": "Update", "apiVersion": "v1", "fieldsV1": fields, **more}


TYPE: Any = {"f:type": {}}


@pytest.mark.parametrize(
    ("others", "paths", "own", "left", "holders"),
    [
        # The item alone is taken; what the same manager added beside it, and what it is in, stays.
        ([patch(held(5555, 99))], ["spec.ports[0].port"], held(5555, more=TYPE), [held(99)], ("kubectl-patch",)),
        ([patch(held(5555))], ["spec.ports[0].port"], held(5555, more=TYPE), [], ("kubectl-patch",)),
        ([patch(held(5555))], ["spec.ports[0].targetPort"], OWN["fieldsV1"], [held(5555)], ()),
        ([patch(held(99))], ["spec.ports[0].port"], OWN["fieldsV1"], [held(99)], ()),
        ([patch(held(5555))], ["spec.type"], OWN["fieldsV1"], [held(5555)], ()),
        ([patch(held(5555))], ["spec.ports[7].port"], OWN["fieldsV1"], [held(5555)], ()),
        ([patch(held(5555), apiVersion="v2")], ["spec.ports[0].port"], OWN["fieldsV1"], [held(5555)], ()),
    ],
)
def test_a_list_item_whose_key_was_changed_is_taken_over(
    others: list[Any], paths: list[str], own: Any, left: list[Any], holders: tuple[str, ...]
) -> None:
    obj = managed(*others)
    before = json.dumps(obj)
    entries, found = take_items(obj, paths, MANAGER)
    assert [entry["fieldsV1"] for entry in entries] == [own, *left]
    assert found == holders
    assert json.dumps(obj) == before


def test_without_an_own_entry_nothing_is_taken_over() -> None:
    assert take_items(managed(patch(held(5555))), ["spec.ports[0].port"], "another")[1] == ()


@pytest.mark.parametrize(
    ("value", "applied", "found"),
    [
        ({"a": SECRET, "b": 1}, {"a": "hidden", "b": 2}, {"a": "hidden", "b": 1}),
        ({"data": SECRET}, {"data": {"x": "hidden"}}, {"data": {"x": "hidden"}}),
        ({"new": SECRET}, {}, {}),
        ({"l": [{"v": 1}, 3]}, {"l": [{"v": 2}]}, {"l": [{"v": 1}, 3]}),
        (
            [{"name": "new", "value": SECRET}, {"name": "b", "value": SECRET}, {"name": "a", "value": SECRET}],
            [{"name": "a", "value": "of a"}, {"name": "b", "value": "of b"}],
            [{"name": "new"}, {"name": "b", "value": "of b"}, {"name": "a", "value": "of a"}],
        ),
    ],
)
def test_what_a_preview_hides_is_as_the_state_has_it(value: Any, applied: Any, found: Any) -> None:
    assert fill_in(value, applied, "Pod x") == found


@pytest.mark.parametrize(
    ("items", "applied"),
    [
        ([SECRET], ["hidden"]),
        ([{"value": SECRET}], [{"value": "hidden"}]),
        ([{"value": UNKNOWN}], [{"value": "then"}]),
        ([{"in": {"deep": [1, SECRET]}}], [{"in": {"deep": [1, "hidden"]}}]),
        ([{"name": "a", "args": [SECRET]}], [{"name": "a", "args": ["hidden"]}]),
        ([{"name": SECRET, "value": 1}], [{"name": "hidden", "value": 1}]),
        ([{"name": "a", "v": SECRET}, {"name": "a", "v": 1}], [{"name": "a", "v": "hidden"}]),
        ([{"name": "a", "v": SECRET}], [{"name": "a", "v": "one"}, {"name": "a", "v": "other"}]),
        ([SECRET], "text"),
    ],
)
def test_a_hidden_value_never_follows_an_index(items: Any, applied: Any) -> None:
    with pytest.raises(Refused, match="Pod x") as refused:
        fill_in({"l": items}, {"l": applied}, "Pod x")
    assert "hidden" not in refused.value.summary.replace("hidden or unknown", "") and refused.value.next_step


def step(op: str, old: Any, new: Any, *paths: str, of: str = CONFIG_MAP) -> Step:
    changes = tuple(PropertyChange(path=path, kind="update", of_inputs=True) for path in paths)
    states = [None if each is None else State(inputs=each) for each in (old, new)]
    return Step(op=op, urn=of, old=states[0], new=states[1], changes=changes)


A, B, C = {"data": {"w": "a"}}, {"data": {"w": "b"}}, {"data": {"w": "c"}}
SAME = step("same", A, A)
HIDDEN = {"data": SECRET}
NOT_READ_BACK = Step(op="update", urn=CONFIG_MAP, new=State(inputs={"a": 1}, outputs={"a": 1, **A}))


@pytest.mark.parametrize(
    ("wanted", "changed", "refused", "op", "lines"),
    [
        (SAME, None, False, "", []),
        (SAME, step("update", A, B, "data.w"), False, "update", ['~ data.w: "b" => "a"']),
        (SAME, step("delete", A, None), False, "create", ['+ data.w: "a"']),
        (SAME, step("update", A, {"data": {}}, "data.w"), False, "update", ['+ data.w: "a"']),
        (step("same", HIDDEN, HIDDEN), step("update", HIDDEN, HIDDEN, "data.w"), False, "update",
         ["~ data.w: [secret] => [secret]"]),
        # What only the program changed is for an update, unless pulumi was refused.
        (step("update", A, B, "data.w"), None, False, "", []),
        (step("update", A, B, "data.w"), None, True, "update", ['~ data.w: "a" => "b"']),
        # The program changed, too: what it says now is put back.
        (step("update", A, C, "data.w"), step("update", A, B, "data.w"), True, "update", ['~ data.w: "b" => "c"']),
        # The state alone is behind: of what is there, pulumi reads back as inputs only what the state has.
        (step("update", B, A, "data.w"), step("update", B, A, "data.w"), False, "", []),
        (step("update", {}, A, "data.w"), NOT_READ_BACK, False, "", []),
    ],
)  # fmt: skip
def test_what_is_put_back(wanted: Step, changed: Step | None, refused: bool, op: str, lines: list[str]) -> None:
    found = step_back(wanted, changed, refused=refused)
    assert (found.op if found else "", property_lines(found) if found else []) == (op, lines)


@pytest.mark.parametrize(
    ("op", "is_complete", "wanted"),
    [("", True, "same"), ("", False, ""), ("update", False, "update"), ("replace", True, ""), ("delete", True, "")],
)
def test_what_the_program_says(op: str, is_complete: bool, wanted: str) -> None:
    """A preview names no unchanged object, and none that depends on one with a conflict."""
    preview = preview_of(step(op, A, A)) if op else preview_of()
    found = wanted_steps(preview, {CONFIG_MAP: step("update", A, B, "data.w")}, is_complete=is_complete)
    assert [made.op for made in found.values()] == ([wanted] if wanted else [])


PATCH = urn("net", "kubernetes:core/v1:ConfigMapPatch", "cm")


@pytest.mark.parametrize(
    ("resource", "changed", "reached"),
    [
        (StateResource(urn=CONFIG_MAP, field_manager=MANAGER), None, True),
        (StateResource(urn=CONFIG_MAP, field_manager=MANAGER), step("delete", A, None), True),
        (StateResource(urn=CONFIG_MAP), None, False),
        (StateResource(urn=CONFIG_MAP, field_manager=MANAGER, pending_delete=True), None, False),
        (StateResource(urn=PATCH, field_manager=MANAGER), step("update", A, B, of=PATCH), True),
        (StateResource(urn=PATCH, field_manager=MANAGER), step("delete", A, None, of=PATCH), False),
    ],
)
def test_only_what_pulumi_applied_is_reached(resource: StateResource, changed: Step | None, reached: bool) -> None:
    assert is_applied(resource, changed) is reached


# One run, with scripted answers


def inputs(word: str, kind: str = "ConfigMap") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "cm"}, "data": {"word": word}}


def refresh(word: str | None, resource: str = CONFIG_MAP) -> Any:
    """pulumi's answer when the cluster has another word than the state; `None` when the object is gone."""
    state = {"urn": resource, "inputs": inputs("first")}
    there: dict[str, Any] = {"op": "delete", "urn": resource, "oldState": state}
    if word is not None:
        diff = {"data.word": {"kind": "update", "inputDiff": False}}
        there |= {"op": "update", "newState": {**state, "inputs": inputs(word)}, "detailedDiff": diff}
    return {"steps": [there]}


NOTHING = {"steps": []}
CONFLICT = (1, "", f"error: {ONE}")
IMMUTABLE = (1, "", "field is immutable")
OK = "configmap/cm serverside-applied\n"


def staged(tmp_path: Path, refreshes: Any, kubectl: Any, resource: str = CONFIG_MAP, **options: Any) -> ScriptedSession:
    kept = {"urn": resource, "id": "default/cm", "inputs": inputs("first"), "outputs": {"__fieldManager": MANAGER}}
    export = {"deployment": {"resources": [kept]}}
    script = {
        ("preview", "net"): [NOTHING],
        ("refresh", "net"): list(refreshes),
        ("export", "net"): [export],
        ("get", "cluster"): list(kubectl),
    }
    return ScriptedSession(tmp_path, script, **options)


def repair(session: ScriptedSession, *, yes: bool = False) -> Compared:
    return put_back_all(session, TREE[0], yes=yes, again="./inv repair.net")


def applies(session: ScriptedSession) -> list[Any]:
    """What was really applied."""
    made = [command for command in session.runner.commands if "apply" in command.argv and command.mutates]
    return [json.loads(command.stdin or b"") for command in made]


TRIED = [CONFLICT, OK]


def test_what_differs_is_shown_approved_and_applied_with_pulumis_manager(tmp_path: Path) -> None:
    refreshes = [refresh("other"), refresh("other"), NOTHING]
    session = staged(tmp_path, refreshes, [*TRIED, *TRIED, OK], answers=["y"])
    repaired = repair(session)
    assert (repaired.put_back, repaired.plan.has_changes, repaired.beyond) == (1, False, [])
    (applied,) = applies(session)
    assert applied == inputs("first") | {"metadata": {"name": "cm", "namespace": "default"}}
    (argv,) = [command.argv for command in session.runner.commands if command.mutates]
    assert {f"--field-manager={MANAGER}", "--force-conflicts", "--server-side", "--filename=-"} <= set(argv)
    assert not any("first" in word for command in session.runner.commands for word in command.argv)
    assert session.runner.guarded == 1, "the cluster is asked who it is right before"
    assert "(held by kubectl-annotate)" in session.reporter.text
    assert '~ data.word: "other" => "first"' in session.reporter.text
    assert [kind for kind, _ in session.journalled] == ["plan", "approved", "put_back"]


@pytest.mark.parametrize(
    ("refreshes", "kubectl", "options", "error", "output"),
    [
        ([refresh("other")], TRIED, {"answers": ["n"]}, NotApproved, "not approved"),
        ([refresh("other")], TRIED, {"interactive": False}, NotApproved, "--yes was not given"),
        ([refresh("other"), refresh("third")], [*TRIED, *TRIED], {"answers": ["y"]}, Refused, "since it was shown"),
        ([refresh("other"), NOTHING], TRIED, {"answers": ["y"]}, Refused, "since it was shown"),
        ([refresh("other")], [IMMUTABLE], {}, ToolFailed, "field is immutable"),
        ([refresh("other")], [CONFLICT, IMMUTABLE], {}, ToolFailed, "nothing was changed"),
    ],
)
def test_nothing_is_applied(
    tmp_path: Path, refreshes: Any, kubectl: Any, options: Any, error: type[OpsError], output: str
) -> None:
    session = staged(tmp_path, refreshes, kubectl, **options)
    with pytest.raises(error, match=output):
        repair(session)
    assert applies(session) == []


def test_nothing_is_applied_while_another_run_holds_the_stack(tmp_path: Path) -> None:
    session = staged(tmp_path, [refresh("other")], TRIED, answers=["y"])
    write_locks(session.root / "backend", "net", ELSEWHERE)
    with pytest.raises(Refused, match="another run holds"):
        repair(session)
    assert applies(session) == []


def test_what_differs_again_is_not_fought_over(tmp_path: Path) -> None:
    session = staged(tmp_path, [refresh("other")], [*TRIED, *TRIED, OK, *TRIED], answers=["y"])
    with pytest.raises(ToolFailed, match=r"changed again: ConfigMap cm \(held by kubectl-annotate\)"):
        repair(session)
    assert len(applies(session)) == 1


def test_a_deleted_object_is_made_anew_although_its_namespace_is_gone_too(tmp_path: Path) -> None:
    missing = (1, "", 'Error from server (NotFound): namespaces "x" not found')
    refreshes = [refresh(None), refresh(None), NOTHING]
    session = staged(tmp_path, refreshes, [missing, missing, OK], answers=["y"])
    assert repair(session).put_back == 1
    assert "ConfigMap cm  (it is gone)" in session.reporter.text
    assert " + kind" not in session.reporter.text, "a definition has thousands of properties"


def test_what_held_data_is_created_again_only_by_name(tmp_path: Path) -> None:
    claim = urn("net", "kubernetes:core/v1:PersistentVolumeClaim", "cm")
    session = staged(tmp_path, [refresh(None, claim)], [OK], claim, interactive=False)
    with pytest.raises(NotApproved, match="net deletes or replaces"):
        repair(session, yes=True)
    assert "its data does not come back" in session.reporter.text


def test_a_missing_custom_resource_definition_is_not_destructive(tmp_path: Path) -> None:
    definition = urn("net", "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition", "cm")
    refreshes = [refresh(None, definition), refresh(None, definition), NOTHING]
    session = staged(tmp_path, refreshes, [OK, OK, OK], definition, interactive=False)
    assert repair(session, yes=True).put_back == 1


def test_what_pulumi_did_not_apply_to_the_cluster_is_named(tmp_path: Path) -> None:
    role = urn("net", "postgresql:index/role:Role", "app")
    session = staged(tmp_path, [refresh("other", role)], [])
    repaired = repair(session)
    assert (repaired.put_back, [step.urn for step in repaired.beyond]) == (0, [role])
    with pytest.raises(UnexpectedChanges, match="Role app") as left:
        refuse_beyond(TREE[0], repaired.beyond)
    assert "./inv deploy.net" in left.value.next_step


def refused(message: str) -> Any:
    state = {"urn": CONFIG_MAP, "inputs": inputs("first")}
    made = {"op": "update", "urn": CONFIG_MAP, "oldState": state, "newState": {**state, "inputs": inputs("new")},
            "detailedDiff": {"data.word": {"kind": "update"}}}  # fmt: skip
    output = {"severity": "error", "urn": CONFIG_MAP, "message": message}
    return (1, {"steps": [made], "diagnostics": [output]}, "")


def test_a_refreshed_state_takes_in_what_was_put_back(tmp_path: Path) -> None:
    message = (
        'error: Preview failed: 1 error occurred:\n\t* the Kubernetes API server reported that "default/cm" failed to '
        "fully initialize or become live: Server-Side Apply field conflict detected. See https://x for help.\n"
        f'The resource managed by field manager "{MANAGER}" had an apply conflict: {ONE}\n\n\n'
    )
    session = staged(tmp_path, [NOTHING], [*TRIED, *TRIED, OK], answers=["y"])
    conflict = refused(message)
    session.runner.script["preview", "net"] = [conflict, conflict, conflict, conflict, NOTHING]
    assert repair(session).put_back == 1
    assert [sent["data"] for sent in applies(session)] == [{"word": "new"}]
    (taken,) = [command.argv for command in session.runner.commands if "refresh" in command.argv and command.mutates]
    assert f"--target={CONFIG_MAP}" in taken
    session.runner.script["preview", "net"] = [refused("error: something else")]
    with pytest.raises(ToolFailed, match="something else"):
        repair(session)
