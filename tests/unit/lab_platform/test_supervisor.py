"""Components start in order and again when they must, and a failure has its cause. The components here are scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.platform import processes, supervisor
from lab.platform.paths import LabPaths
from lab.platform.supervisor import Component, Record, Supervisor, hold_lock
from runbooks.core.errors import OpsError, ToolFailed, Usage
from runbooks.core.files import Unwritable

READY_THEN_SLEEP = "import sys, pathlib, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"


class ScriptedLab:
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
def lab(tmp_path: Path) -> Iterator[ScriptedLab]:
    lab = ScriptedLab(tmp_path)
    yield lab
    lab.new().end_all()
    assert processes.of_lab(lab.paths.lab) == set()


@pytest.mark.parametrize("change", ["ended", "declared differently", "reads another content", "does not answer", ""])
def test_a_component_is_started_again_only_when_it(
    lab: ScriptedLab, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE", 0.1)
    config = lab.paths.lab / "config"
    config.write_text("one")
    component = lab.component("one", reads=(config,))
    lab.new().bring_up([component])
    before = Record.load(lab.paths.record).components["one"].process
    if change == "ended":
        processes.end(before, seconds=5)
    elif change == "declared differently":
        component = lab.component("one", reads=(config,), env={"MORE": "1"})
    elif change == "reads another content":
        config.write_text("other")
    elif change:
        (lab.paths.lab / "one.ready").unlink()
    lab.new().bring_up([component])
    assert (lab.pid(component) != before.pid) is bool(change)
    assert any("starting it again" in line for line in lab.lines) is bool(change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": "import sys; sys.exit('cannot find my socks')"}, r"one ended right after its start .* find my socks"),
        ({"code": "import time; time.sleep(600)", "ready_within": 0.2}, "one is not ready: no file"),
        ({"argv": ("/nowhere/at/all",)}, "/nowhere/at/all"),
    ],
)
def test_a_component_that_does_not_start_is_an_error_with_its_cause(
    lab: ScriptedLab, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ToolFailed, match=said) as failed:
        lab.new().bring_up([lab.component("one", **change)])
    assert "argv" in change or str(lab.paths.log("one")) in failed.value.next_step


def test_a_component_gets_nothing_of_the_callers_environment(lab: ScriptedLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of the caller")
    component = lab.component("one", env={"OWN": "1"})
    lab.new().bring_up([component])
    environ = Path(f"/proc/{lab.pid(component)}/environ").read_bytes().split(b"\0")
    assert not any(b"A_SECRET" in line for line in environ)
    assert b"OWN=1" in environ


def test_everything_that_carries_the_mark_is_ended(lab: ScriptedLab) -> None:
    # A process that no record knows, as a killed lab.up may leave it.
    left = processes.start(
        (sys.executable, "-c", "import time; time.sleep(600)"),
        env=supervisor.base_environment(lab.paths),
        cwd=lab.paths.lab,
        log=lab.paths.log("left"),
    )
    # The kernel shows a new program's environment a moment after its start.
    assert processes.wait_until(lambda: left in processes.of_lab(lab.paths.lab), 5)
    lab.new().end_all()
    assert not processes.is_alive(left)


def test_the_last_started_ends_first(lab: ScriptedLab, monkeypatch: pytest.MonkeyPatch) -> None:
    components = [lab.component("first"), lab.component("second", needs=("first",))]
    lab.new().bring_up(components)
    pids = {lab.pid(component): component.name for component in components}
    order: list[str] = []
    end: Callable[..., bool] = processes.end

    def noted(process: processes.ProcessId, **options: float) -> bool:
        order.append(pids[process.pid])
        return end(process, **options)

    monkeypatch.setattr(processes, "end", noted)
    lab.new().end_all()
    assert order == ["second", "first"]


def test_a_large_log_is_rotated(lab: ScriptedLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 10)
    log = lab.paths.log("one")
    log.write_text("much more than ten bytes\n")
    lab.new().bring_up([lab.component("one")])
    assert log.with_name("one.log.1").read_text() == "much more than ten bytes\n"
    assert log.read_text().startswith("--- started ")


def test_a_second_command_waits_and_says_so(lab: ScriptedLab) -> None:
    refused = pytest.raises(OpsError, match="another lab command has held")
    with hold_lock(lab.paths, lab.lines.append), refused, hold_lock(lab.paths, lab.lines.append, seconds=0.1):
        pytest.fail("two at once")
    assert lab.lines == ["another lab command is at work; waiting for it"]


def test_a_state_folder_that_cannot_be_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    paths = LabPaths(tmp_path / "file")
    with pytest.raises(Unwritable) as refused, hold_lock(paths, print):
        pytest.fail("locked a file")
    with pytest.raises(Unwritable):
        paths.prepare()
    assert "OPS_STATE" in refused.value.next_step


# --- lab.json ---


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "ports": {"etcd": "many"}, "components": {}}',
        '{"format": 1, "ports": {}, "components": {"etcd": {"pid": 1}}}',
        '{"format": 1, "ports": [], "components": {}}',
    ],
)
def test_another_content_is_refused_with_the_way_out(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lab.json"
    path.write_text(content)
    with pytest.raises(Usage) as refused:
        Record.load(path)
    assert str(path) in refused.value.summary
    assert "lab.reset" in refused.value.next_step
