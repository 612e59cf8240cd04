"""Components start in order and again when they must, and a failure has its cause. The components here are scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.platform import processes, supervisor
from lab.platform.paths import LabPaths
from lab.platform.supervisor import Component, Record, Supervisor, hold_lock
from runbooks.core.errors import OpsError, ToolFailed
from runbooks.core.files import Unwritable

READY_THEN_SLEEP = "import sys, pathlib, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"


class Stage:
    """A supervisor with a lab folder of its own and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.paths = LabPaths(folder)
        self.paths.prepare()
        self.lines: list[str] = []

    def new(self) -> Supervisor:
        """As the next command would have it: it knows only what was written down."""
        return Supervisor(self.paths, Record.load(self.paths.record), self.lines.append)

    def component(self, name: str, code: str = READY_THEN_SLEEP, **more: object) -> Component:
        file = self.paths.lab / f"{name}.ready"

        def probe() -> str:
            return "" if file.exists() else "no file"

        options: dict[str, object] = {"argv": (sys.executable, "-c", code, str(file)), "probe": probe, **more}
        return Component(name=name, **options)  # type: ignore[arg-type]

    def pid(self, component: Component) -> int:
        return Record.load(self.paths.record).components[component.name].process.pid


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.new().end_all()
    assert processes.of_lab(stage.paths.lab) == set()


def test_components_start_after_what_they_need(stage: Stage) -> None:
    first = stage.component("first")

    def second_probe() -> str:
        return "" if (stage.paths.lab / "second.ready").exists() else "no file"

    code = "import os, sys; assert os.path.exists(sys.argv[2]);" + READY_THEN_SLEEP
    argv = (sys.executable, "-c", code, str(stage.paths.lab / "second.ready"), str(stage.paths.lab / "first.ready"))
    second = stage.component("second", argv=argv, needs=("first",), probe=second_probe)
    stage.new().bring_up([second, first])
    assert [line.split()[0] for line in stage.lines] == ["first", "second"]


def test_what_runs_is_left_alone(stage: Stage) -> None:
    component = stage.component("one")
    stage.new().bring_up([component])
    before = stage.pid(component)
    stage.lines.clear()
    stage.new().bring_up([component])
    assert stage.pid(component) == before
    assert stage.lines == []


@pytest.mark.parametrize("change", ["ended", "declared differently", "reads another content", "does not answer"])
def test_a_component_is_started_again_when_it(stage: Stage, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE", 0.1)
    config = stage.paths.lab / "config"
    config.write_text("one")
    component = stage.component("one", reads=(config,))
    stage.new().bring_up([component])
    before = Record.load(stage.paths.record).components["one"].process
    if change == "ended":
        processes.end(before, seconds=5)
    elif change == "declared differently":
        component = stage.component("one", reads=(config,), env={"MORE": "1"})
    elif change == "reads another content":
        config.write_text("other")
    else:
        (stage.paths.lab / "one.ready").unlink()
    stage.new().bring_up([component])
    assert stage.pid(component) != before.pid
    assert any("starting it again" in line for line in stage.lines)


def test_a_required_component_that_ends_is_an_error_with_its_last_words(stage: Stage) -> None:
    component = stage.component("one", "import sys; sys.exit('cannot find my socks')")
    with pytest.raises(ToolFailed, match=r"one ended right after its start .* cannot find my socks") as failed:
        stage.new().bring_up([component])
    assert str(stage.paths.log("one")) in failed.value.next_step


def test_a_required_component_that_never_answers_is_an_error(stage: Stage) -> None:
    component = stage.component("one", "import time; time.sleep(600)", ready_within=0.2)
    with pytest.raises(ToolFailed, match="one is not ready: no file"):
        stage.new().bring_up([component])


def test_a_program_that_is_not_there_is_an_error_that_names_it(stage: Stage) -> None:
    with pytest.raises(ToolFailed, match="/nowhere/at/all"):
        stage.new().bring_up([stage.component("one", argv=("/nowhere/at/all",))])


def test_a_component_gets_nothing_of_the_callers_environment(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of the caller")
    component = stage.component("one", env={"OWN": "1"})
    stage.new().bring_up([component])
    environ = Path(f"/proc/{stage.pid(component)}/environ").read_bytes().split(b"\0")
    assert not any(b"A_SECRET" in line for line in environ)
    assert b"OWN=1" in environ


def test_everything_that_carries_the_mark_is_ended(stage: Stage) -> None:
    # A process that no record knows, as a killed lab.up may leave it.
    left = processes.start(
        (sys.executable, "-c", "import time; time.sleep(600)"),
        env=supervisor.base_environment(stage.paths),
        cwd=stage.paths.lab,
        log=stage.paths.log("left"),
    )
    # The kernel shows a new program's environment a moment after its start.
    assert processes.wait_until(lambda: left in processes.of_lab(stage.paths.lab), 5)
    stage.new().end_all()
    assert not processes.is_alive(left)


def test_the_last_started_ends_first(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    components = [stage.component("first"), stage.component("second", needs=("first",))]
    stage.new().bring_up(components)
    pids = {stage.pid(component): component.name for component in components}
    order: list[str] = []
    end: Callable[..., bool] = processes.end

    def noted(process: processes.ProcessId, **options: float) -> bool:
        order.append(pids[process.pid])
        return end(process, **options)

    monkeypatch.setattr(processes, "end", noted)
    stage.new().end_all()
    assert order == ["second", "first"]


def test_a_large_log_is_rotated(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 10)
    log = stage.paths.log("one")
    log.write_text("much more than ten bytes\n")
    stage.new().bring_up([stage.component("one")])
    assert log.with_name("one.log.1").read_text() == "much more than ten bytes\n"
    assert log.read_text().startswith("--- started ")


def test_a_second_command_waits_and_says_so(stage: Stage) -> None:
    refused = pytest.raises(OpsError, match="another lab command has held")
    with hold_lock(stage.paths, stage.lines.append), refused, hold_lock(stage.paths, stage.lines.append, seconds=0.1):
        pytest.fail("two at once")
    assert stage.lines == ["another lab command is at work; waiting for it"]


def test_a_state_folder_that_cannot_be_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    paths = LabPaths(tmp_path / "file")
    with pytest.raises(Unwritable) as refused, hold_lock(paths, print):
        pytest.fail("locked a file")
    with pytest.raises(Unwritable):
        paths.prepare()
    assert "OPS_STATE" in refused.value.next_step
