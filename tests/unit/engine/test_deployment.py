"""What the engine makes of registrations, with the fake provider and no program."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.engine.cancellation import CancellationToken
from lab.engine.deleting import delete_left_over
from lab.engine.deployment import Deployment, Goal, Stopped
from lab.engine.events import Diagnostic, Event, StepDone, StepFailed, StepStarted
from lab.engine.hosting import Host, ProviderRegistry
from lab.engine.journal import Journal
from lab.engine.providers import CustomTimeouts, ProviderFactory
from lab.engine.refreshing import refresh
from lab.engine.state import PendingOperation, ResourceState, Snapshot
from lab.engine.urns import ROOT_STACK_TYPE
from lab.engine.values import Secret
from tests.unit.engine.fake_kubernetes import FakeKubernetes

CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
OUTPUTS = {"port": 5432, "password": Secret("s")}
NAMESPACE = "kubernetes:core/v1:Namespace"


@dataclass
class Run:
    """One run and what it said."""

    deployment: Deployment
    journal: Journal
    events: list[Event]
    saved: list[Snapshot]
    root: ResourceState | None = None

    def start(self) -> Run:
        self.root = self.deployment.register(Goal(ROOT_STACK_TYPE, "sample-mx", False))
        return self

    def register(self, type: str, name: str, **fields: Any) -> ResourceState:
        assert self.root is not None
        inputs = fields.pop("inputs", {"metadata": {"name": fields.pop("called", name)}, **fields.pop("more", {})})
        reference = fields.pop("provider", "") or self.deployment.default_provider("kubernetes", "4.34.2")
        parent = fields.pop("parent", self.root.urn)
        return self.deployment.register(
            Goal(type, name, fields.pop("custom", True), inputs, parent, provider=reference, **fields)
        )

    def finish(self) -> Snapshot:
        delete_left_over(self.deployment, self.journal)
        self.deployment.finish_root()
        self.journal.flush()
        return self.journal.snapshot()

    def operations(self, kind: type[StepStarted | StepDone | StepFailed] = StepDone) -> list[str]:
        return [f"{event.step.op} {event.step.urn.rsplit('::', 1)[-1]}" for event in self.events if type(event) is kind]

    def errors(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Diagnostic) and event.severity == "error"]


@dataclass
class Bench:
    """Makes runs one after the other on one fake cluster."""

    cluster: Path
    state: Snapshot = field(default_factory=Snapshot)

    def run(self, *, preview: bool = False, token: CancellationToken | None = None) -> Run:
        events: list[Event] = []
        saved: list[Snapshot] = []
        token = token or CancellationToken()
        host = Host(project="sample", stack="mx", program_folder="/", cancellation=token, emit=events.append)

        def load(_package: str) -> ProviderFactory:
            return FakeKubernetes

        journal = Journal(self.state, None if preview else saved.append)
        deployment = Deployment(
            stack="mx",
            project="sample",
            journal=journal,
            registry=ProviderRegistry(host, load),
            preview=preview,
            emit=events.append,
            cancellation=token,
            settings={},
            read_stack=lambda name: (
                ({"port": 5432, "password": Secret("s")}, ["password"]) if name == "o/p/s" else None
            ),
            parallel=4,
        )
        return Run(deployment, journal, events, saved).start()

    def apply(self, *steps: Callable[[Run], object]) -> Run:
        run = self.run()
        for step in steps:
            step(run)
        self.state = run.finish()
        return run

    def objects(self) -> dict[str, Any]:
        return dict(json.loads(self.cluster.read_text() or "{}")) if self.cluster.exists() else {}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("FAKE_CLUSTER", str(tmp_path / "cluster.json"))
    return Bench(tmp_path / "cluster.json")


def config_map(name: str, **fields: Any) -> Callable[[Run], ResourceState]:
    return lambda run: run.register(CONFIG_MAP, name, **fields)


def names(snapshot: Snapshot) -> list[str]:
    return [state.urn.rsplit("::", 1)[-1] for state in snapshot.resources]


def test_create_then_nothing_to_do(bench: Bench) -> None:
    first = bench.apply(config_map("a"))
    second = bench.apply(config_map("a"))

    assert first.operations() == ["create a", "create sample-mx"]
    assert first.deployment.changes == {"create": 2}
    assert second.operations() == ["same a", "same sample-mx"]
    assert second.deployment.changes == {"same": 2}
    assert not second.saved, "nothing changed, nothing is written"
    assert names(bench.state) == ["sample-mx", "default_4_34_2", "a"]


def test_a_create_is_recorded_as_pending_while_it_runs(bench: Bench) -> None:
    run = bench.apply(config_map("a"))

    pending = [[(item.type, item.resource.urn.rsplit("::", 1)[-1]) for item in snap.pending] for snap in run.saved]
    assert [("creating", "a")] in pending
    assert pending[-1] == []


def test_a_preview_changes_nothing(bench: Bench) -> None:
    run = bench.run(preview=True)
    run.register(CONFIG_MAP, "a")
    run.finish()

    assert run.deployment.changes == {"create": 2}
    assert bench.objects() == {}
    assert not run.saved


def test_what_the_program_no_longer_asks_for_is_deleted_dependents_first(bench: Bench) -> None:
    def chain(run: Run) -> None:
        first = run.register(CONFIG_MAP, "first")
        second = run.register(CONFIG_MAP, "second", dependencies=[first.urn])
        run.register(CONFIG_MAP, "third", property_dependencies={"metadata": [second.urn]})

    bench.apply(chain)
    run = bench.apply()

    assert run.operations() == ["delete third", "delete second", "delete first", "same sample-mx"]
    assert bench.objects() == {}
    assert names(bench.state) == ["sample-mx"], "the default provider goes with its last resource"


def test_a_dependency_on_a_component_is_one_on_its_children(bench: Bench) -> None:
    def tree(run: Run) -> None:
        chart = run.register("kubernetes:helm.sh/v4:Chart", "chart", custom=False, inputs={})
        run.register(CONFIG_MAP, "child", parent=chart.urn)
        run.register(CONFIG_MAP, "after", dependencies=[chart.urn])

    bench.apply(tree)
    run = bench.apply()

    assert run.operations()[:2] == ["delete after", "delete child"]


def test_a_changed_name_creates_before_it_deletes(bench: Bench) -> None:
    bench.apply(config_map("a", called="one"))
    run = bench.apply(config_map("a", called="two"))

    assert run.operations() == ["create-replacement a", "replace a", "delete-replaced a", "same sample-mx"]
    assert run.deployment.changes == {"replace": 1, "same": 1}
    assert sorted(bench.objects()) == ["two"]


def test_the_same_name_is_deleted_before_it_is_created(bench: Bench) -> None:
    bench.apply(config_map("a", more={"data": {"k": "1"}}))
    run = bench.apply(config_map("a", more={"data": {"k": "2"}}))

    assert run.operations() == ["delete-replaced a", "replace a", "create-replacement a", "same sample-mx"]
    assert bench.objects()["a"]["data"] == {"k": "2"}


def test_dependents_that_cannot_stay_are_replaced_too(bench: Bench) -> None:
    def pair(value: str) -> Callable[[Run], None]:
        def registrations(run: Run) -> None:
            base = run.register(CONFIG_MAP, "base", more={"data": {"k": value}})
            run.register(CONFIG_MAP, "user", more={"data": {"uses": "x"}}, property_dependencies={"data": [base.urn]})

        return registrations

    bench.apply(pair("1"))
    run = bench.apply(pair("2"))

    assert run.operations()[:2] == ["delete-replaced user", "delete-replaced base"]
    assert run.operations()[2:] == [
        "replace base",
        "create-replacement base",
        "replace user",
        "create-replacement user",
        "same sample-mx",
    ]


def test_a_dependent_that_the_program_dropped_is_deleted_as_half_of_a_replace(bench: Bench) -> None:
    """As the real engine does it: no step of a preview but that half tells of it."""

    def both(run: Run) -> None:
        base = run.register(CONFIG_MAP, "base", more={"data": {"k": "1"}})
        run.register(CONFIG_MAP, "user", more={"data": {"uses": "x"}}, property_dependencies={"data": [base.urn]})

    changed = config_map("base", more={"data": {"k": "2"}})
    bench.apply(both)
    before = copy.deepcopy(bench.state)  # each command reads it anew
    preview = bench.run(preview=True)
    changed(preview)
    preview.finish()
    assert [told for told in preview.operations(StepStarted) if "user" in told] == ["delete-replaced user"]
    assert "user" in bench.objects()
    bench.state = before
    update = bench.apply(changed)
    assert [told for told in update.operations() if "user" in told] == ["delete-replaced user"]
    assert sorted(bench.objects()) == ["base"] and "user" not in names(bench.state)


def test_an_interrupted_replacement_is_finished_by_the_next_run(bench: Bench) -> None:
    bench.apply(config_map("a", more={"data": {"k": "1"}}))
    run = bench.run()
    reference = run.deployment.default_provider("kubernetes", "4.34.2")
    provider = run.deployment.registry.get(reference)
    provider.delete = lambda *_, **__: None  # type: ignore[method-assign,union-attr]
    with pytest.raises(Stopped):
        run.register(CONFIG_MAP, "a", more={"data": {"k": "2"}})
    bench.state = run.finish()

    assert [state.pending_replacement for state in bench.state.resources if state.type == CONFIG_MAP] == [True]

    bench.cluster.write_text("{}")
    again = bench.apply(config_map("a", more={"data": {"k": "2"}}))
    assert again.operations() == ["replace a", "create-replacement a", "same sample-mx"]


def test_protected_resources_stop_every_delete(bench: Bench) -> None:
    bench.apply(config_map("kept", protect=True), config_map("other"))
    run = bench.apply()

    assert run.deployment.failed
    assert "cannot be deleted\nbecause it is protected" in run.errors()[0]
    assert sorted(bench.objects()) == ["kept", "other"]


def test_protection_is_inherited_from_the_parent(bench: Bench) -> None:
    def tree(run: Run) -> None:
        parent = run.register("my:component:Thing", "thing", custom=False, inputs={}, protect=True)
        run.register(CONFIG_MAP, "child", parent=parent.urn)

    bench.apply(tree)

    assert {state.urn.rsplit("::", 1)[-1] for state in bench.state.resources if state.protect} == {"thing", "child"}


def test_a_protected_resource_is_not_deleted_to_be_replaced(bench: Bench) -> None:
    bench.apply(config_map("a", protect=True, more={"data": {"k": "1"}}))
    run = bench.run()

    with pytest.raises(Stopped):
        run.register(CONFIG_MAP, "a", protect=True, more={"data": {"k": "2"}})

    assert "cannot be replaced" in run.errors()[0]
    assert bench.objects()["a"]["data"] == {"k": "1"}


def test_retain_on_delete_leaves_the_object(bench: Bench) -> None:
    bench.apply(config_map("a", retain_on_delete=True))
    run = bench.apply()

    assert "delete a" in run.operations()
    assert sorted(bench.objects()) == ["a"]


def test_deleted_with_spares_the_provider(bench: Bench) -> None:
    def pair(run: Run) -> None:
        space = run.register(NAMESPACE, "space")
        run.register(CONFIG_MAP, "inside", called="stuck", deleted_with=space.urn)

    bench.apply(pair)
    run = bench.apply()

    assert not run.deployment.failed
    assert names(bench.state) == ["sample-mx"]


def test_ignored_changes_keep_the_recorded_input(bench: Bench) -> None:
    bench.apply(config_map("a", more={"data": {"k": "1", "other": "x"}}))
    run = bench.apply(config_map("a", more={"data": {"k": "2"}}, ignore_changes=["data.k", "data.other"]))

    assert run.operations()[0] == "same a"
    assert bench.state.resources[-1].inputs["data"] == {"k": "1", "other": "x"}


def test_replace_on_changes_forces_a_replace(bench: Bench) -> None:
    bench.apply(config_map("a", more={"labels": {"k": "1"}}))
    run = bench.apply(
        config_map("a", more={"labels": {"k": "2"}}, replace_on_changes=["labels"], delete_before_replace=True)
    )

    assert run.operations()[0] == "delete-replaced a"


def test_an_alias_finds_the_old_resource(bench: Bench) -> None:
    bench.apply(config_map("old", called="same"))
    old = bench.state.resources[-1].urn
    run = bench.apply(config_map("new", called="same", aliases=[old]))

    assert run.operations() == ["same new", "same sample-mx"]
    assert names(bench.state) == ["sample-mx", "default_4_34_2", "new"]


def test_metadata_alone_is_recorded_without_a_change(bench: Bench) -> None:
    bench.apply(config_map("a"))
    run = bench.apply(config_map("a", protect=True, custom_timeouts=CustomTimeouts(create=15)))

    assert run.deployment.changes == {"same": 2}
    assert bench.state.resources[-1].protect
    assert bench.state.resources[-1].custom_timeouts == {"create": 15}


def test_two_of_the_same_name_are_refused(bench: Bench) -> None:
    run = bench.run()
    run.register(CONFIG_MAP, "a")
    with pytest.raises(Stopped):
        run.register(CONFIG_MAP, "a")

    assert "Duplicate resource URN" in run.errors()[0]


def test_after_a_failure_nothing_is_started(bench: Bench) -> None:
    bench.apply(config_map("there"))
    run = bench.run()
    with pytest.raises(Stopped):
        run.register(CONFIG_MAP, "again", called="there")
    with pytest.raises(Stopped):
        run.register(CONFIG_MAP, "later")
    state = run.finish()

    assert "already exists" in run.errors()[0]
    assert run.operations(StepFailed) == ["create again"]
    assert sorted(bench.objects()) == ["there"]
    assert "there" in names(state), "what was not reached stays recorded"


def test_refused_inputs_are_told_with_the_property(bench: Bench) -> None:
    run = bench.run()
    with pytest.raises(Stopped):
        run.register(CONFIG_MAP, "a", called="refused")

    assert "resource 'a': property metadata.name has a problem: no" in run.errors()[0]


def test_a_type_that_is_not_supported_is_named(bench: Bench) -> None:
    run = bench.run()
    with pytest.raises(Stopped):
        run.register("kubernetes:core/v1:Unsupported", "a")

    assert "'kubernetes:core/v1:Unsupported' is not supported" in run.errors()[0]
    assert run.deployment.not_supported


def test_cancelling_a_wait_records_the_object_with_its_errors(bench: Bench) -> None:
    token = CancellationToken()
    run = bench.run(token=token)
    emit = run.events.append

    def cancel_when_waiting(event: Event) -> None:
        emit(event)
        if isinstance(event, Diagnostic) and "Waiting" in event.message:
            token.cancel()

    run.deployment.registry._host._emit = cancel_when_waiting  # type: ignore[attr-defined]
    with pytest.raises(Stopped):
        run.register(CONFIG_MAP, "slow")
    bench.state = run.finish()

    assert bench.state.pending == []
    assert bench.state.resources[-1].init_errors[0].endswith('Resource operation was cancelled for "slow"')

    preview = bench.run(preview=True)
    preview.register(CONFIG_MAP, "slow")
    assert preview.operations(StepStarted)[-1] == "update slow"


def test_stack_references_are_read_and_missing_ones_named(bench: Bench) -> None:
    def read(run: Run, name: str) -> ResourceState:
        return run.deployment.read(Goal("pulumi:pulumi:StackReference", name, True, {"name": name}), name)

    run = bench.run()
    state = read(run, "o/p/s")
    assert state.outputs["outputs"] == {"port": 5432, "password": Secret("s")}
    assert state.outputs["secretOutputNames"] == ["password"]
    with pytest.raises(Stopped):
        read(run, "o/p/none")
    assert run.errors() == ['unknown stack "o/p/none"\n']


def test_refresh_takes_over_what_is_there(bench: Bench) -> None:
    bench.apply(config_map("a", more={"data": {"k": "1"}}), config_map("gone"))
    objects = bench.objects()
    objects["a"]["data"] = {"k": "2"}
    del objects["gone"]
    bench.cluster.write_text(json.dumps(objects))

    run = bench.run()
    run.journal.base = bench.state
    snapshot = refresh(run.deployment, run.journal)

    assert (
        run.deployment.changes == {"create": 0, "same": 1, "update": 1, "delete": 1}
        or run.deployment.changes["update"] == 1
    )
    assert "gone" not in names(snapshot)
    assert snapshot.resources[2].inputs["data"] == {"k": "2"}


def test_interrupted_operations_are_told_before_an_update(bench: Bench) -> None:
    bench.apply(config_map("a"))
    interrupted: Sequence[PendingOperation] = [PendingOperation(bench.state.resources[-1], "creating")]
    bench.state.pending = list(interrupted)
    run = bench.run()
    run.deployment.warn_pending()

    warnings = [event.message for event in run.events if isinstance(event, Diagnostic)]
    assert warnings[0].startswith("Attempting to deploy or update resources with 1 pending operations")
    assert "interrupted while creating" in warnings[0]
