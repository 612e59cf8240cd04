"""A canary secret that programs, exceptions and charts give away in every spelling is found nowhere afterwards."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab import spellings
from tests.lab.command_line import Result
from tests.lab.probe import ProbeCheckout

pytestmark = pytest.mark.lab

ONE_LINE = "Zeisig/\"29\"+'käfig' & <tür>$HOME\\%20=="
LINES = 'first line of a note\nZmluY2hlcy1zaW5nLWF0LW5pZ2h0\n\tthird: "two" <words>\nthe last line of it'
CANARIES = {"one line": ONE_LINE, "lines": LINES}

LEAK = """\
import sys

import pulumi
import spellings

config = pulumi.Config()
values = [config.require("token"), config.require("note")]


def give_away(tell):
    for value in values:
        for name, text in spellings.spellings(value).items():
            tell(f"{name}: {text}")


give_away(print)
give_away(lambda text: print(text, file=sys.stderr))
give_away(pulumi.log.info)
give_away(pulumi.log.warn)
"""
CHART = """
from pulumi_kubernetes.core.v1 import ConfigMap
from pulumi_kubernetes.helm.v4 import Chart

Chart("leaky", chart=CHART, namespace="default", values={"one": values[0], "lines": values[1]})
ConfigMap("plain", metadata={"name": "canary-plain"}, data={"one": values[0], "lines": values[1]})
pulumi.export("plain", values[0])
pulumi.export("nested", {"in": ["a", "list", values[1]]})
pulumi.export("secret", pulumi.Output.secret(values[0]))
"""
TEMPLATE = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: canary-chart
data:
  one: {{ .Values.one | quote }}
  encoded: {{ .Values.one | b64enc | quote }}
  url: {{ .Values.one | urlquery | quote }}
  lines: {{ .Values.lines | toJson | quote }}
"""
RAISE = """
texts = [text for value in values for text in spellings.spellings(value).values()]
raise ValueError("\\n".join(texts))
"""
RUN_ERROR = RAISE.replace("ValueError", "pulumi.RunError")
SECRETS = {"secrets.set token": ("token", ONE_LINE), "secrets.set note": ("note", LINES)}
PREVIEW, DEPLOY = ("preview.probe", "--diff"), ("deploy.probe",)
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "preview": (CHART, PREVIEW),
    "preview in JSON": (CHART, ("--json", *PREVIEW)),
    "deploy": (CHART, DEPLOY),
    "unchanged in JSON": (CHART, ("--json", *DEPLOY)),
    "outputs": (CHART, ("outputs.probe",)),
    "exception": (RAISE, PREVIEW),
    "exception in JSON": (RAISE, ("--json", *DEPLOY)),
    "run error": (RUN_ERROR, PREVIEW),
    "run error in JSON": (RUN_ERROR, ("--json", *DEPLOY)),
}
"""Name → how the program ends, and what is typed."""


@dataclass
class Arguments:
    """The arguments of every process of this machine, looked at again and again while runs go on."""

    seen: set[bytes] = field(default_factory=set)
    rounds: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        while not self._over.wait(0.005):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    self.seen.add((process / "cmdline").read_bytes())
                except OSError:
                    continue  # it ended while we looked
            self.rounds += 1

    def stop(self) -> None:
        self._over.set()


@pytest.fixture(scope="module")
def arguments() -> Iterator[Arguments]:
    looked = Arguments()
    thread = threading.Thread(target=looked.look, daemon=True)
    thread.start()
    yield looked
    looked.stop()
    thread.join()


@pytest.fixture(scope="module")
def runs(probe_checkout: ProbeCheckout, arguments: Arguments) -> dict[str, Result]:
    """Every run of this module by its name, with the canaries planted first."""
    probe_checkout.forget_probe()
    chart = probe_checkout.root.with_name("leaky-chart")
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: leaky\nversion: 0.1.0\n")
    (chart / "templates" / "leak.yaml").write_text(TEMPLATE)
    (probe_checkout.project / "spellings.py").write_text(Path(spellings.__file__).read_text())
    temporary = probe_checkout.root.with_name("tmp")
    temporary.mkdir()
    env, result = {"TMPDIR": str(temporary)}, {}
    for name, (key, value) in SECRETS.items():
        result[name] = probe_checkout.inv("secrets.set", "probe", key, stdin=value, env=env)
    for name, (end, words) in RUNS.items():
        probe_checkout.write_program(LEAK + end.replace("CHART,", f"{str(chart)!r},"))
        result[name] = probe_checkout.inv(*words, env=env)
    return result


def readings(text: str, depth: int = 3) -> Iterator[str]:
    """The text, the same without colour, and every text in the JSON that stands in it, read again."""
    yield text
    if "\x1b" in text:
        yield re.sub(r"\x1b\[[0-9;]*m", "", text)
    if depth and text[:1] in '{["':
        for line in (text, *text.splitlines()):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            for part in texts_in(found):
                yield from readings(part, depth - 1)


def texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from texts_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts_in(part)


def found_in(text: str) -> list[str]:
    """Which spellings of which canary the text gives away."""
    every = list(readings(text))
    return [
        f"{name}: {spelling}"
        for name, value in CANARIES.items()
        for spelling, trace in spellings.traces(value).items()
        if any(trace in reading for reading in every)
    ]


def test_the_search_finds_every_spelling() -> None:
    """Otherwise the other tests of this module would prove nothing."""
    for name, value in CANARIES.items():
        for spelling, text in spellings.spellings(value).items():
            assert any(found.startswith(name) for found in found_in(text)), (name, spelling)
            assert found_in(json.dumps({"stdout": json.dumps({"message": text})})), (name, spelling)


@pytest.mark.parametrize("name", [*SECRETS, *RUNS])
def test_no_run_shows_the_canary(runs: dict[str, Result], name: str) -> None:
    result = runs[name]
    is_broken = name in RUNS and RUNS[name][0] is not CHART
    assert result.code == (1 if is_broken else 0), result.all
    assert found_in(result.stdout) == []
    assert found_in(result.stderr) == []


def test_the_runs_did_show_what_stood_around_it(runs: dict[str, Result]) -> None:
    """Masking is no silence."""
    assert "[secret]" in runs["preview"].stdout
    assert re.search("ConfigMap (canary-)?plain", runs["preview"].stdout)
    assert "ValueError: " in runs["exception"].stderr
    assert "with text around: url=postgres://me:[secret]@host/db" in runs["preview"].stdout


def test_the_canary_really_was_in_the_cluster(probe_checkout: ProbeCheckout, runs: dict[str, Result]) -> None:
    assert probe_checkout.get("configmap", "canary-chart")["data"]["one"] == ONE_LINE


def test_no_file_outside_the_labs_own_state_has_it(probe_checkout: ProbeCheckout, runs: dict[str, Result]) -> None:
    folders = [path for path in probe_checkout.state_dir.iterdir() if path.name != "lab"]
    folders += [probe_checkout.home, probe_checkout.root.with_name("tmp"), probe_checkout.project]
    searched, given_away = 0, {}
    for path in (file for folder in folders for file in (folder.rglob("*") if folder.is_dir() else [folder])):
        if path.is_file() and not path.is_symlink():
            searched += 1
            if found := found_in(path.read_bytes().decode("utf-8", "replace")):
                given_away[str(path)] = found
    assert given_away == {}
    assert searched > len(runs)


def test_no_log_of_pulumi_is_left(probe_checkout: ProbeCheckout, runs: dict[str, Result]) -> None:
    left = [*probe_checkout.runs.rglob("pulumi-home"), *probe_checkout.home.rglob("logs")]
    assert left == []


def test_no_process_had_it_in_its_arguments(
    probe_checkout: ProbeCheckout, runs: dict[str, Result], arguments: Arguments
) -> None:
    argvs = [argv.replace(b"\0", b" ").decode("utf-8", "replace") for argv in arguments.seen]
    assert arguments.rounds > 20
    assert any("config set" in argv for argv in argvs), "the sampling saw the command that sets a secret"
    assert any(" up --json" in argv for argv in argvs)
    assert [argv for argv in argvs if found_in(argv)] == []


def test_the_settings_hold_it_encrypted(probe_checkout: ProbeCheckout, runs: dict[str, Result]) -> None:
    text = probe_checkout.settings_file("probe").read_text()
    assert text.count("secure: ") == 2
    assert found_in(text) == []
