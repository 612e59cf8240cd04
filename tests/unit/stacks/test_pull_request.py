"""What a pull request's text is made of: services that a file touches, changed settings, journals of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbooks.core.journal import Journal, runs_of
from runbooks.core.mask import Masker
from runbooks.services import SERVICES
from runbooks.stacks import pull_request
from runbooks.stacks.pull_request import read_runs
from runbooks.stacks.service import Service
from tests.fixtures import REAL_ROOT

APP = Service(name="app", folder="apps/app", about="", namespace="app", environment="app/prod")
WEB = Service(name="web", folder="apps/web", about="", namespace="web")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "apps/app/__main__.py": "from lib.database import app_database\nfrom settings import Settings\n",
        "apps/app/release.py": 'release = chart(\n    "redis", release="app")\n',
        "apps/web/__main__.py": "import lib.k8s\n",
        "lib/database.py": "    from lib.k8s import labels\n",
        "lib/k8s.py": "import pulumi\n",
        "lib/ingress.py": "# from lib.k8s import labels\n",
    }
    for name, text in files.items():
        path = tmp_path / "pulumi" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("pulumi/apps/app/__main__.py", ["app"]),
        ("pulumi/apps/app/Pulumi.mx.yaml", ["app"]),
        ("pulumi/apps/application/x.py", []),
        ("pulumi/lib/database.py", ["app"]),
        ("pulumi/lib/k8s.py", ["app", "web"]),
        ("pulumi/lib/ingress.py", []),
        ("charts.yaml", ["app"]),
        ("environments/app/prod.yaml", ["app"]),
        ("environments/app/other.yaml", []),
        ("uv.lock", ["app", "web"]),
        ("docs/tasks.md", []),
    ],
)
def test_a_file_touches_those_who_use_it(root: Path, path: str, names: list[str]) -> None:
    assert [each.name for each in (APP, WEB) if pull_request.is_touched(root, each, path, {"redis"})] == names
    assert path != "charts.yaml" or not pull_request.is_touched(root, APP, path, {"postgres"})


def test_the_platforms_own_programs_are_understood() -> None:
    paths = ("pulumi/lib/database.py", "charts.yaml")
    names = {
        each.name
        for each in SERVICES
        for path in paths
        if pull_request.is_touched(REAL_ROOT, each, path, {"cloudnative-pg"})
    }
    assert names == {"cnpg", "n8n", "immich", "stitch", "temporal", "superset", "jupyterhub"}


STACK = "pulumi/apps/app/Pulumi.mx.yaml"


@pytest.mark.parametrize(
    ("path", "before", "after", "shown"),
    [
        (STACK, "config:\n  app:a: 1\n  app:b: 2\n", "config:\n  app:a: 3\n  app:c: 2\n",
         ("app:a changed", "app:c added", "app:b removed")),
        (STACK, "config: {}\n", "config:\n  app:password:\n    secure: v1:canary\n", ("app:password added",)),
        (STACK, "", "environment:\n  - app/prod\nencryptionsalt: canary\n",
         ("environment added", "encryptionsalt added")),
        (STACK, "config:\n  app:tags: [a]\n", "config:\n  app:tags: [a, canary]\n", ("app:tags changed",)),
        (STACK, "config:\n  app:a: 1\n", "# why\nconfig:\n  app:a: 1\n", ("no setting differs",)),
        (STACK, "", "config: {}\n", ("no setting differs",)),
        (STACK, "config: {}\n", "", ("no setting differs",)),
        (STACK, "config: [", "config: {}\n", ("not YAML, so its keys are not known",)),
        ("targets.yaml", "targets: {}\n", "targets:\n  home:\n    stack: mx\n", ("targets.home.stack added",)),
        ("charts.yaml", "redis:\n  version: 1.0.0\n", "redis:\n  version: 1.1.0\n", ("redis.version changed",)),
        ("environments/app/prod.yaml", "values:\n  a: canary\n", "", ("values.a removed",)),
    ],
)  # fmt: skip
def test_settings_are_shown_by_name_never_by_value(path: str, before: str, after: str, shown: tuple[str, ...]) -> None:
    assert pull_request.SETTINGS.fullmatch(path)
    found = pull_request.changed_keys(path, before.encode(), after.encode())
    assert sorted(found) == sorted(shown) and "canary" not in "".join(found)


# Journals


DEPLOYMENT = "urn:pulumi:mx::glance::kubernetes:apps/v1:Deployment::glance"
PLAN: dict[str, Any] = {
    "target": "home",
    "changes": True,
    "destructive": [],
    "stacks": [
        {
            "service": "glance", "stack": "organization/glance/mx", "state": "would change", "leftovers": [],
            "changes": [
                {"op": "delete", "verb": "delete", "urn": "urn:pulumi:mx::glance::v1:Secret::old",
                 "rank": "destructive", "why": "deleted"},
                {"op": "update", "verb": "update", "urn": DEPLOYMENT, "rank": "restart", "why": ""},
            ],
        },
        {"service": "tailscale", "stack": "organization/tailscale/mx", "state": "unchanged", "changes": []},
    ],
}  # fmt: skip


def record(state: Path, task: str, argv: list[str], *entries: tuple[str, dict[str, Any]], **how: Any) -> Path:
    """A record as a run leaves it; without `exit_code` it has no end."""
    journal = Journal.open(state, task, ["/checkout/tasks.py", *argv], masker=how.get("masker"))
    for kind, facts in entries:
        journal.write(kind, **facts)
    if "exit_code" in how:
        journal.finish(how["exit_code"])
    journal.close()
    return journal.path


def test_a_run_is_read_back(tmp_path: Path) -> None:
    record(
        tmp_path, "deploy.glance", ["--target", "home", "deploy.glance"],
        ("target", {"target": "home", "stack": "mx"}), ("plan", PLAN), exit_code=4,
    )  # fmt: skip
    (run,) = read_runs(tmp_path)
    assert (run.task, run.command, run.target) == ("deploy.glance", "./inv --target home deploy.glance", "home")
    assert run.exit_code == 4
    glance, tailscale = run.previews
    assert (glance.service, glance.target, glance.state) == ("glance", "home", "1 to delete, 1 to update")
    assert glance.changes == ("DESTRUCTIVE: delete Secret old  (deleted)", "update Deployment glance")
    assert (tailscale.state, tailscale.changes) == ("unchanged", ())
    assert run.began <= glance.at


def test_runs_are_in_their_order_and_without_an_end_have_no_exit_code(tmp_path: Path) -> None:
    record(tmp_path, "status", ["status"], exit_code=0)
    record(tmp_path, "deploy.all", ["deploy.all"])
    assert [(run.task, run.exit_code, run.target) for run in read_runs(tmp_path)] == [
        ("status", 0, ""),
        ("deploy.all", None, ""),
    ]


def test_a_command_can_be_typed_again_and_what_was_masked_stays_masked(tmp_path: Path) -> None:
    argv = ["esc.run", "stitch/prod", "--", "psql", "-c", "select 'a b'", "two\nlines", "canary-of-the-test"]
    path = record(tmp_path, "esc.run", argv, masker=Masker(["canary-of-the-test"]))
    (run,) = read_runs(tmp_path)
    assert run.command.startswith("""./inv esc.run stitch/prod -- psql -c 'select '"'"'a b'"'"'' 'two lines'""")
    assert "[secret]" in run.command and "canary" not in path.read_text()


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "plan", "stacks": "none"},
        {"kind": "plan", "time": "noon", "stacks": [{"service": "x"}]},
        {"kind": "plan", "stacks": [None, 3]},
        {"kind": "target"},
        {"kind": ["odd"]},
    ],
)
def test_a_journal_of_another_form_is_left_out(tmp_path: Path, broken: dict[str, Any]) -> None:
    path = record(tmp_path, "status", ["status"])
    with path.open("a") as journal:
        journal.write('{"torn')
    assert len(read_runs(tmp_path)) == 1
    with path.open("a") as journal:
        journal.write("\n" + json.dumps(broken) + "\n")
    record(tmp_path, "doctor", ["doctor"])
    assert [run.task for run in read_runs(tmp_path)] == ["doctor"]


def test_a_journal_without_a_beginning_is_left_out(tmp_path: Path) -> None:
    path = record(tmp_path, "status", ["status"])
    path.write_text('{"time": "2026-01-01T00:00:00Z", "kind": "end", "exit_code": 0}\n')
    assert runs_of(tmp_path) and read_runs(tmp_path) == []
