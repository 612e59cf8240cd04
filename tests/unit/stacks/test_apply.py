"""How a deployment goes: order, approval, second comparison, watched updates, first failure, what comes after."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.checks import of_service
from runbooks.collection import task_for
from runbooks.core import findings
from runbooks.core.errors import NotApproved, OpsError, Refused, ToolFailed, VerificationFailed
from runbooks.stacks import apply, preview
from runbooks.stacks.fingerprint import canonical, read_record
from runbooks.stacks.plan import RunPlan, StackPlan
from runbooks.stacks.preparation import hash_text
from runbooks.stacks.service import closure, layers
from runbooks.stacks.summary import show_plan
from runbooks.tasks.deploy import deploy as deploy_task
from runbooks.tools.secret_values import SECRET_SIGNATURE, SIGNATURE_KEY
from tests.fixtures import (
    ELSEWHERE,
    SUMMARY,
    TREE,
    Answer,
    Repo,
    ScriptedSession,
    applied,
    creating,
    event,
    exported,
    preview_answer,
    secret_value,
    step,
    urn,
    write_locks,
)

SAME = preview_answer()
CLUSTER = "kubernetes:postgresql.cnpg.io/v1:Cluster"
CHART = "kubernetes:helm.sh/v4:Chart"


def three(**changed: Any) -> dict[tuple[str, str], Any]:
    """net, op and db create one object each."""
    script: dict[tuple[str, str], Any] = {}
    for service in ("net", "op", "db"):
        script["preview", service] = creating(service)
        script["up", service] = applied(service)
    return script | {tuple(key.split("__")): value for key, value in changed.items()}


def deploy(session: ScriptedSession, *names: str, yes: bool = False) -> None:
    """Deploy these services and what they need, by default `db`."""
    again = f"./inv deploy.{'.'.join(names or ['db'])}"
    plan = preview.plan_run(session, layers(closure(names or ["db"], session.services), session.services))
    show_plan(session, plan)
    apply.approve(session, plan, yes=yes, again=again)
    apply.apply_run(session, plan, yes=yes, again=again)


def with_app(session: ScriptedSession, **outputs: Any) -> ScriptedSession:
    """`db` gives these outputs, and `app`, which reads them, creates an object."""
    session.runner.script["up", "db"] = applied("db", does=lambda: session.write_state("db", outputs=outputs))
    session.runner.script["preview", "app"], session.runner.script["up", "app"] = creating("app"), applied("app")
    return session


@pytest.mark.parametrize(
    ("done", "is_deployed", "chosen", "is_named"),
    [
        (["db"], True, [], True),
        (["db"], False, [], False),
        (["db"], True, ["app"], False),
        (["op"], True, [], False),
    ],
)
def test_deployed_readers_of_what_was_applied_are_named(
    tmp_path: Path, done: list[str], is_deployed: bool, chosen: list[str], is_named: bool
) -> None:
    session: Any = ScriptedSession(tmp_path, {})
    if is_deployed:
        session.write_state("app", resources=[{"urn": urn("app", CLUSTER, "x"), "type": CLUSTER}])
    stacks = tuple(StackPlan(stack=session.stack(session.service(name))) for name in chosen)
    apply.name_readers(session, apply.Progress(done=done), RunPlan(layers=(stacks,)), look="./inv preview.all")
    assert ("app" in session.reporter.text and "./inv preview.all" in session.reporter.text) is is_named


def ups(session: ScriptedSession) -> list[str]:
    return [service for verb, service in session.runner.ran if verb == "up"]


def test_layer_by_layer_after_one_approval(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, three(), answers=["y"])
    deploy(session)
    assert {service for _, service in session.runner.ran[:2]} == {"net", "op"}
    assert session.runner.ran[2] == ("preview", "db")
    assert {*ups(session)[:2]} == {"net", "op"} and ups(session)[2] == "db"
    assert len(session.reporter.asked) == 1
    assert session.runner.guarded == 3, "the cluster is asked again before each update"
    assert session.reporter.events[-1]["applied"][2] == "db"
    for command in (each for each in session.runner.commands if "-C" in each.argv):
        assert "--non-interactive" in command.argv
        assert command.argv[command.argv.index("--stack") + 1] == "mx"
        assert command.mutates is ("up" in command.argv)
    up = next(command.argv for command in session.runner.commands if "up" in command.argv)
    assert {"--json", "--yes", "--skip-preview"} <= set(up) and "--plan" not in up


def test_what_is_left_out_of_a_run_is_not_waited_for(tmp_path: Path) -> None:
    plan = preview.plan_run(ScriptedSession(tmp_path, three()), [TREE[2:3]])
    assert [stack.service for stack in plan.stacks] == ["db"]


# What is approved


def destructive() -> dict[tuple[str, str], Any]:
    replaced = preview_answer(step("db", "replace", CLUSTER, "pg"))
    events = "\n".join([*event("db", "create-replacement", CLUSTER, "pg"), SUMMARY])
    return three(preview__db=replaced, up__db=events)


NAMESPACE = "kubernetes:core/v1:Namespace"
TAKES_OVER = "kubernetes:upsertExistingObjects"
THERE = "v1\tNamespace\t\tns\told\tns\t\n"
ADOPTS = {TAKES_OVER: "true"}


def meeting(rows: str = THERE) -> dict[tuple[str, str], Any]:
    """db would create a namespace, and the cluster has what `rows` say."""
    created = step("db", "create", NAMESPACE, "ns")
    created["newState"]["inputs"] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}}
    up = "\n".join([*event("db", "create", NAMESPACE, "ns"), SUMMARY])
    return three(preview__db=preview_answer(created), up__db=up) | {("get", "cluster"): rows}


def incomplete() -> dict[tuple[str, str], Any]:
    """Nobody knows yet what a chart with unknown values is made of."""
    output = {"urn": urn("db", CHART, "c"), "message": "Preview is incomplete.", "severity": "warning"}
    answer = {"steps": [step("db", "create", CHART, "c")], "diagnostics": [output], "changeSummary": {}}
    return three(preview__db=answer)


@pytest.mark.parametrize(
    ("script", "config", "typed", "yes", "applied_is"),
    [
        (three, {}, "y", False, True),
        (three, {}, "n", False, False),
        (three, {}, "", False, False),
        (three, {}, None, False, False),
        (three, {}, None, True, True),
        (destructive, {}, "db", True, True),
        (destructive, {}, "y", True, False),
        (destructive, {}, None, True, False),
        (meeting, ADOPTS, "db", True, True),
        (meeting, ADOPTS, "y", True, False),
        (meeting, ADOPTS, None, True, False),
        (incomplete, ADOPTS, None, True, False),
    ],
)
def test_what_is_approved(
    tmp_path: Path, script: Any, config: dict[str, str], typed: str | None, yes: bool, applied_is: bool
) -> None:
    """`typed` at the question, `None` without a terminal. --yes never covers what needs the service's name."""
    session = ScriptedSession(tmp_path, script(), answers=[typed or ""], interactive=typed is not None)
    if config:
        session.write_settings(config)
    with contextlib.nullcontext() if applied_is else pytest.raises(NotApproved) as refused:
        deploy(session, yes=yes)
    assert ups(session) == [] if not applied_is else "db" in ups(session)
    if typed is None and not yes:
        assert refused.value.next_step == "./inv deploy.db --yes"
    elif script is not three:
        assert all("Type db" in question for question in session.reporter.asked)


def test_the_task_asks_before_it_applies(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_service, "prove", lambda *_, **__: None)
    repo.has_stacks("cnpg")
    repo.answer("pulumi", ["preview", "--json"], preview_answer(step("cnpg", "update")))
    repo.answer("pulumi", ["up", "--skip-preview"], "\n".join([*event("cnpg", "update"), SUMMARY]))
    for typed in (None, "n", "y"):
        if typed is not None:  # else there is no terminal
            repo.types(typed)
        with contextlib.nullcontext() if typed == "y" else pytest.raises(NotApproved):
            task_for(deploy_task, "cnpg").body(repo.c)
        assert any(" up " in argv for argv in repo.argvs("pulumi")) is (typed == "y")


@pytest.mark.parametrize(("script", "config"), [(destructive, {}), (meeting, ADOPTS)])
def test_the_lab_needs_no_approval(tmp_path: Path, script: Any, config: dict[str, str]) -> None:
    session = ScriptedSession(tmp_path, script(), ephemeral=True, interactive=False)
    session.write_settings(config)
    deploy(session)
    assert len(ups(session)) == 3 and session.reporter.asked == []
    assert ("db: 1 to adopt" in session.reporter.text) is bool(config)


@pytest.mark.parametrize("ephemeral", [False, True])
def test_what_is_in_the_way_is_refused_before_anything_is_applied(tmp_path: Path, ephemeral: bool) -> None:
    session = ScriptedSession(tmp_path, meeting(), ephemeral=ephemeral)
    with pytest.raises(Refused, match=r"db .*Namespace ns") as refused:
        deploy(session, yes=True)
    assert TAKES_OVER in refused.value.next_step and "./inv deploy.db" in refused.value.next_step
    assert ups(session) == [] and session.reporter.asked == []
    assert "Namespace ns  (of the helm release old in ns" in session.reporter.text
    assert "db: 1 in the way" in session.reporter.text


@pytest.mark.parametrize("config", [{}, ADOPTS])
def test_what_is_still_being_deleted_is_waited_for(tmp_path: Path, config: dict[str, str]) -> None:
    """To import it or to take it over would end with its deletion."""
    session = ScriptedSession(tmp_path, meeting("v1\tNamespace\t\tns\t\t\t2026-11-30T00:00:00Z\n"))
    session.write_settings(config)
    with pytest.raises(Refused, match=r"being deleted: Namespace ns") as refused:
        deploy(session, yes=True)
    assert TAKES_OVER not in refused.value.next_step and "./inv deploy.db" in refused.value.next_step
    assert ups(session) == [] and session.reporter.asked == []
    assert "being deleted" in session.reporter.text


def test_what_another_run_creates_now_is_not_in_the_way(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, meeting())
    write_locks(session.root / "backend", "db", ELSEWHERE)
    with pytest.raises(Refused, match="another run holds") as refused:
        deploy(session, yes=True)
    assert TAKES_OVER not in refused.value.next_step and ups(session) == []


def test_what_appeared_after_the_approval_is_asked_for(tmp_path: Path) -> None:
    script = meeting()
    script["get", "cluster"] = ["", THERE]
    session = ScriptedSession(tmp_path, script, answers=["y", "db"])
    session.write_settings(ADOPTS)
    deploy(session)
    first, second = session.reporter.asked
    assert "[y/N]" in first and "Type db" in second
    assert "db: what exists already changed" in session.reporter.text


def test_what_an_interrupted_update_made_is_reported_as_such(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, meeting("v1\tNamespace\t\tns\t\t\t\n"))
    session.write_state("db", pending=[{"type": "creating", "resource": {"urn": urn("db", NAMESPACE, "ns")}}])
    with pytest.raises(Refused):
        deploy(session)
    assert "of an interrupted update of db" in session.reporter.text


# What is applied


def test_unchanged_stacks_are_left_alone(tmp_path: Path) -> None:
    script = three(preview__net=[SAME], preview__op=[SAME], preview__db=[SAME])
    session = ScriptedSession(tmp_path, script | {("up", name): SUMMARY for name in ("net", "op", "db")})
    deploy(session)
    assert len(ups(session)) == 3, "outputs are written once from here"
    session.runner.commands.clear()
    deploy(session)
    assert ups(session) == [] and session.reporter.asked == []
    assert session.reporter.events[-1]["unchanged"] == ["net", "op", "db"]
    (tmp_path / "pulumi" / "db" / "__main__.py").write_text("pulumi.export('new', 1)")
    deploy(session)
    assert ups(session) == ["db"], "a changed program may change outputs, which pulumi's JSON preview does not show"


def test_first_failure_lets_running_stacks_finish_and_starts_nothing_new(tmp_path: Path) -> None:
    both_run = threading.Barrier(2, timeout=20)
    broken = applied("net", exit_code=1, stderr="error: incorrect passphrase\n", does=both_run.wait)
    running = applied("op", does=both_run.wait)
    session = ScriptedSession(tmp_path, three(up__net=broken, up__op=running), answers=["y"])
    with pytest.raises(OpsError, match="passphrase"):
        deploy(session)
    assert {*ups(session)} == {"net", "op"}
    summary = session.reporter.events[-1]
    assert summary["applied"] == ["op"] and summary["failed"] == ["net"] and summary["not_started"] == ["db"]
    assert summary["again"] == "./inv deploy.db"


def test_a_stack_of_a_later_layer_that_fails_meanwhile_is_reported_too(tmp_path: Path) -> None:
    both_run = threading.Barrier(2, timeout=20)
    broken = {
        f"up__{name}": applied(name, exit_code=1, stderr=f"error: {why}\n", does=both_run.wait)
        for name, why in (("op", "no stack named 'mx' found"), ("db", "incorrect passphrase of db"))
    }
    session = ScriptedSession(tmp_path, three(**broken), answers=["y"])
    session.services = tuple(replace(each, needs=("net",)) if each.name == "db" else each for each in TREE)
    with pytest.raises(OpsError, match="no stack"):
        deploy(session, "op", "db")
    assert {*session.reporter.events[-1]["failed"]} == {"op", "db"}
    assert "passphrase" in session.reporter.text


def test_failing_preview_stops_before_any_approval(tmp_path: Path) -> None:
    broken = (6, "", "error: no stack named 'mx' found\n")
    session = ScriptedSession(tmp_path, three(preview__op=broken))
    with pytest.raises(OpsError) as missing:
        deploy(session)
    assert missing.value.exit_code == 6
    assert ("preview", "db") not in session.runner.ran and session.reporter.asked == []


def test_a_preview_that_went_to_another_cluster_is_refused(tmp_path: Path) -> None:
    """`config:` of Pulumi.yaml sets it, which neither the stack file nor an environment shows."""
    answer = json.loads(preview_answer(step("op", "create"))) | {"config": {"kubernetes:context": "elsewhere"}}
    session = ScriptedSession(tmp_path, three(preview__op=answer))
    session.target.context = "home"
    with pytest.raises(Refused, match=r"kubernetes:context in the settings of op, .* is 'elsewhere'") as refused:
        deploy(session)
    assert refused.value.expected == "'home'" and "Pulumi.yaml" in refused.value.next_step
    assert ups(session) == [] and session.reporter.asked == []


def test_an_operation_that_was_not_approved_is_stopped_with_one_signal(tmp_path: Path) -> None:
    more = [*event("db", "delete", name="other"), *event("db", "delete", name="third")]
    session = ScriptedSession(tmp_path, three(up__db=applied("db", *more)), answers=["y"])
    with pytest.raises(Refused, match=r"delete .*ConfigMap other of db") as refused:
        deploy(session)
    assert session.runner.signals == ["db"]
    assert refused.value.exit_code == 5
    assert session.reporter.events[-1]["failed"] == ["db"]


def test_what_a_preview_did_not_show_is_reported_as_such(tmp_path: Path) -> None:
    unseen = applied("db", *event("db", "delete-replaced", name="user"))
    session = ScriptedSession(tmp_path, three(up__db=unseen), answers=["y"])
    with pytest.raises(Refused, match=r"delete-replaced .*user of db, which the preview did not") as refused:
        deploy(session)
    assert "./inv preview.db --diff" in refused.value.next_step


@pytest.mark.parametrize("left", [True, False], ids=["something left", "nothing left"])
def test_interrupted_update_says_what_it_left_behind(tmp_path: Path, left: bool) -> None:
    session = ScriptedSession(tmp_path, three(), answers=["y"])

    def ctrl_c() -> None:
        if left:
            pending = [{"type": "creating", "resource": {"urn": "urn:pulumi:mx::db::kubernetes:core/v1:ConfigMap::cm"}}]
            session.write_state("db", pending=pending)
            write_locks(session.root / "backend", "db", ELSEWHERE)
        session.runner.signals.append("person")

    session.runner.script["up", "db"] = applied("db", does=ctrl_c)
    with pytest.raises(NotApproved) as stopped:
        deploy(session)
    assert stopped.value.exit_code == 8
    summary, next_step = stopped.value.summary, stopped.value.next_step
    assert ("creating cm" in summary and "lock is still there" in summary) is left
    assert ("./inv cancel.db" in next_step) is left
    assert next_step.endswith("run the same command again")


@pytest.mark.parametrize("what", ["program files", "settings", "state", "provider versions"])
def test_difference_means_a_new_preview_and_a_new_approval(tmp_path: Path, what: str) -> None:
    session = ScriptedSession(tmp_path, three(), answers=["y", "y"])
    (tmp_path / "uv.lock").write_text("1")

    def change() -> None:
        if what == "state":
            session.write_state("db", outputs={"changed": "meanwhile"})
            return
        names = {"program files": "pulumi/db/__main__.py", "settings": "pulumi/db/Pulumi.mx.yaml"}
        (tmp_path / names.get(what, "uv.lock")).write_text("# changed")

    session.runner.script["up", "op"] = applied("op", does=change)
    deploy(session)
    assert [verb for verb, service in session.runner.ran if service == "db"] == ["preview", "preview", "up"]
    assert len(session.reporter.asked) == 2
    assert f"db: {what} changed since the preview" in session.reporter.text


def test_what_keeps_changing_is_refused(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, three(), ephemeral=True)
    count = iter(range(100))

    def change() -> None:
        (tmp_path / "pulumi/db/__main__.py").write_text(str(next(count)))

    session.runner.script["preview", "db"] = [Answer(stdout=preview_answer(step("db", "create")), does=change)]
    with pytest.raises(Refused, match="keeps changing"):
        deploy(session)
    assert "db" not in ups(session)


def test_consumer_waits_for_its_producers_outputs_and_is_approved_on_its_own(tmp_path: Path) -> None:
    session = with_app(ScriptedSession(tmp_path, three(), answers=["y", "y"]), host="x")
    deploy(session, "app")
    assert "app: blocked: waits for db" in session.reporter.text
    assert [verb for verb, service in session.runner.ran if service == "app"] == ["preview", "up"]
    assert len(session.reporter.asked) == 2


def test_consumers_that_waited_together_are_shown_and_approved_together(tmp_path: Path) -> None:
    session = with_app(ScriptedSession(tmp_path, three(), answers=["y", "y"]), host="x")
    session.services = (*TREE, replace(TREE[3], name="web", folder="web"))
    (tmp_path / "pulumi" / "web").mkdir()
    session.write_state("web")
    session.runner.script |= {("preview", "web"): creating("web"), ("up", "web"): applied("web")}
    deploy(session, "app", "web")
    assert sorted(ups(session)[-2:]) == ["app", "web"]
    assert len(session.reporter.asked) == 2, "once at first, once for those that waited"
    waited = [verb for verb, name in session.runner.ran if name in ("app", "web") and verb != "export"]
    assert waited[:2] == ["preview"] * 2


def test_consumer_of_a_producer_that_gave_no_outputs_is_refused(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, three(), ephemeral=True)
    with pytest.raises(Refused, match="still waits for the outputs of db"):
        deploy(session, "app")


@pytest.mark.parametrize(("after", "previews"), [("correct-horse", 1), ("battery-staple", 2)])
def test_changed_outputs_of_a_producer_mean_a_new_preview_of_its_consumer(
    tmp_path: Path, after: str, previews: int
) -> None:
    """Secret outputs are compared by their values: the ciphertext of the same value differs each time."""
    before, later = ({SIGNATURE_KEY: SECRET_SIGNATURE, "ciphertext": f"v1:{when}"} for when in ("before", "later"))
    session = with_app(ScriptedSession(tmp_path, three(), ephemeral=True), password=later)
    session.write_state("db", outputs={"password": before})
    exports = [exported({"password": secret_value(value)}) for value in ("correct-horse", after)]
    session.runner.script["export", "db"] = exports
    deploy(session, "app")
    assert [verb for verb, service in session.runner.ran if service == "app"] == ["preview"] * previews + ["up"]
    assert ("outputs of db changed" in session.reporter.text) is (previews == 2)
    recorded = (tmp_path / ".ops" / "applied" / "mx" / "app.json").read_text()
    # The hash of a known text with a short secret in it could be guessed.
    assert after not in recorded and hash_text(canonical({"password": after})) not in recorded


def test_what_was_applied_counts_as_that_also_when_it_cannot_be_written_down(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, three(), answers=["y"])
    (tmp_path / ".ops").mkdir()
    (tmp_path / ".ops/applied").write_text("a file where the folder should be")
    with pytest.raises(OpsError, match="what was applied cannot be written") as ended:
        deploy(session)
    assert ended.value.exit_code == 1
    summary = next(event for event in session.reporter.events if event["event"] == "summary")
    assert summary["applied"] and summary["failed"] == [] and "db" in summary["not_started"]


def test_what_an_update_said_while_it_ran_is_reported_masked(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, three(), ephemeral=True)
    session.masker.register("s3cret-value")
    output = json.dumps({"diagnosticEvent": {"severity": "error", "message": "error: no room for s3cret-value\n"}})
    session.runner.script["up", "net"] = applied("net", output, exit_code=1)
    with pytest.raises(ToolFailed, match=r"no room for \[secret\]"):
        deploy(session)


@pytest.mark.parametrize(("done", "repairs"), [(["net"], False), (["op"], True)])
def test_unproven_service_is_4(tmp_path: Path, done: list[str], repairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ScriptedSession(tmp_path, {})
    looked: list[str] = []

    def verify(_: Any, service: Any) -> Any:
        looked.append(service.name)
        look = findings.passed if service.name == "op" else findings.failed
        return findings.Verdict(findings=(look("it works", "seen"),))

    monkeypatch.setattr(of_service, "verify_service", verify)
    with pytest.raises(VerificationFailed, match=r"net: .*not proven") as unproven:
        of_service.prove(session, TREE[:2], done=done)
    assert ("./inv repair.net" in unproven.value.next_step) is repairs
    assert looked == ["net", "op"]
    assert "verify.all: NOT verified: net: 1 passed, 1 failed, 0 not tried" in session.reporter.text


def test_outputs_are_shown_with_what_to_open(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, {})
    password = {SIGNATURE_KEY: SECRET_SIGNATURE, "ciphertext": "v1:hunter2"}
    session.write_state("db", outputs={"url": "https://x.example", "password": password, "port": 5432})
    apply.show_outputs(session, TREE[2])
    table = next(event for event in session.reporter.events if event["event"] == "table")
    assert [row["value"] for row in table["rows"]] == ["[secret]", "5432", "https://x.example"]
    assert "open: https://x.example" in session.reporter.text and "hunter2" not in session.reporter.text


def test_unreadable_answer_is_reported_without_its_text(tmp_path: Path) -> None:
    session = ScriptedSession(tmp_path, three(preview__net="{ hunter2"))
    with pytest.raises(ToolFailed) as unreadable:
        deploy(session)
    assert "not JSON" in unreadable.value.summary and "hunter2" not in str(unreadable.value)


@pytest.fixture
def closed_port() -> Iterator[socket.socket]:
    """A socket that is bound on this machine and does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


# A consumer is applied once its producer answers where the consumer's provider connects, or patience ends


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "LOOK_AGAIN", 0.05)


def deployed(tmp_path: Path, **outputs: Any) -> ScriptedSession:
    """A first deployment of `app`, for which `db` gives these outputs."""
    session = with_app(ScriptedSession(tmp_path, three(), ephemeral=True), host="db.example", **outputs)
    deploy(session, "app")
    assert ("up", "app") in session.runner.ran
    return session


def waits(session: ScriptedSession) -> list[str]:
    lines = [event["text"] for event in session.reporter.events if event["event"] == "line"]
    return [text for text in lines if ": waiting " in text]


def test_what_answers_at_once_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not waits(deployed(tmp_path, ts_hostname="127.0.0.1", port=float(server.getsockname()[1])))


@pytest.mark.parametrize("outputs", [{}, {"ts_hostname": "db"}, {"ts_hostname": "", "port": 5432}, {"port": 5432}])
def test_a_producer_without_an_address_is_not_waited_for(tmp_path: Path, outputs: dict[str, Any]) -> None:
    assert not waits(deployed(tmp_path, **outputs))


def test_what_answers_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: socket.socket
) -> None:
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: closed_port.listen())
    monkeypatch.setattr(apply, "time", clock)
    number = closed_port.getsockname()[1]
    session = deployed(tmp_path, ts_hostname="127.0.0.1", port=number)
    (waited,) = waits(session)
    assert waited.startswith("db: ") and f"127.0.0.1:{number}" in waited
    assert "does not answer" not in session.reporter.text


@pytest.mark.parametrize(
    ("name", "number"), [("127.0.0.1", 0), ("127.0.0.1", 99_999_999), ("x" * 70 + ".example", 5432)]
)
def test_what_does_not_answer_is_reported_and_pulumi_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: socket.socket, name: str, number: int
) -> None:
    monkeypatch.setattr(apply, "LAB_PATIENCE", 0.1)
    number = number or closed_port.getsockname()[1]
    text = deployed(tmp_path, ts_hostname=name, port=number).reporter.text
    assert f"db does not answer at {name}:{number}" in text and "./inv verify.db" in text


def test_a_run_that_was_interrupted_waits_no_longer(tmp_path: Path, closed_port: socket.socket) -> None:
    session = ScriptedSession(tmp_path, {})
    session.write_state("db", outputs={"ts_hostname": "127.0.0.1", "port": closed_port.getsockname()[1]})
    session.runner.interrupted = True
    apply.await_producer(session, "db")
    assert waits(session)


@pytest.mark.parametrize("edits", [True, False])
def test_an_edit_during_an_update_is_not_recorded_as_applied(tmp_path: Path, edits: bool) -> None:
    session = ScriptedSession(tmp_path, three(), answers=["y"])
    program = session.root / "pulumi" / session.service("db").folder / "__main__.py"
    session.runner.script["up", "db"] = applied("db", does=lambda: program.write_text("edited = True\n" * edits))
    deploy(session)
    record = read_record(session, session.stack(session.service("db")))
    assert (record is None) is edits
