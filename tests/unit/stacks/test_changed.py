"""Which services count as changed: by their files, and because they read what another exports."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.services import SERVICES
from runbooks.stacks.changed import SETTINGS, changed_keys, changed_services, choose_changed, is_touched
from runbooks.stacks.fingerprint import Reads, fingerprint_of, write_record
from runbooks.stacks.service import Service
from tests.fixtures import REAL_ROOT, ScriptedSession, git, outcome

READERS = {service.name for service in SERVICES if "postgres" in service.reads_outputs_of}


STACK = "pulumi/apps/app/Pulumi.mx.yaml"
APP = Service(name="app", folder="apps/app", about="", namespace="app", environment="app/prod")
WEB = Service(name="web", folder="apps/web", about="", namespace="web")
LIST = Service(name="list", folder="apps/list", about="")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "apps/app/__main__.py": "from lib.database import app_database\nfrom settings import Settings\n",
        "apps/app/release.py": 'release = chart(\n    "redis", release="app")\n',
        "apps/web/__main__.py": "import lib.k8s\n",
        "apps/list/__main__.py": "from lib import (\n    ingress,\n    storage as kept,\n)\n",
        "apps/list/more.py": "from lib import settings # database\n",
        "lib/database.py": "    from lib.k8s import labels\n",
        "lib/k8s.py": "import pulumi\n",
        "lib/ingress.py": "# from lib.k8s import labels\n",
        "lib/storage.py": "from lib import chart\n",
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
        ("pulumi/lib/ingress.py", ["list"]),
        ("pulumi/lib/storage.py", ["list"]),
        ("pulumi/lib/chart.py", ["list"]),
        ("pulumi/lib/settings.py", ["list"]),
        ("charts.yaml", ["app"]),
        ("environments/app/prod.yaml", ["app"]),
        ("environments/app/other.yaml", []),
        ("uv.lock", ["app", "web", "list"]),
        ("docs/tasks.md", []),
    ],
)
def test_a_file_touches_those_who_use_it(root: Path, path: str, names: list[str]) -> None:
    assert [each.name for each in (APP, WEB, LIST) if is_touched(root, each, path, {"redis"})] == names
    assert path != "charts.yaml" or not is_touched(root, APP, path, {"postgres"})


def test_the_platforms_own_programs_are_understood() -> None:
    paths = ("pulumi/lib/database.py", "charts.yaml")
    names = {each.name for each in SERVICES for path in paths if is_touched(REAL_ROOT, each, path, {"cloudnative-pg"})}
    assert names == {"cnpg", "n8n", "immich", "stitch", "temporal", "superset", "jupyterhub"}


def test_without_a_commit_it_is_compared_with_what_was_applied(tmp_path: Path) -> None:
    session: Any = ScriptedSession(tmp_path, {})
    reasons = changed_services(session)
    assert list(reasons) == [service.name for service in session.services]
    assert all("never applied" in why for why in reasons.values())
    assert choose_changed(session, "") == tuple(reasons)
    assert f": {', '.join(reasons)}\n" in session.reporter.text, "one line for all of them"
    assert "--since HEAD" in session.reporter.text
    for service in session.services:
        reads, fingerprint = Reads(complete=True), fingerprint_of(session, service)
        write_record(session, session.stack(service), fingerprint, reads, applied=True)
    assert changed_services(session) == {}
    (tmp_path / "pulumi" / session.service("db").folder / "__main__.py").write_text("changed = True\n")
    readers = {each.name for each in session.services if "db" in each.reads_outputs_of}
    reasons = changed_services(session)
    assert set(reasons) == {"db", *readers} and "never" not in reasons["db"]
    assert all("db" in reasons[name] for name in readers)
    assert choose_changed(session, "") == tuple(reasons)
    assert all(f"{name}: {why}" in session.reporter.text for name, why in reasons.items())


def test_readers_of_what_changed_are_among_them(tmp_path: Path) -> None:
    session: Any = ScriptedSession(tmp_path, {})
    session.services = SERVICES
    session.runner = SimpleNamespace(run=lambda command: outcome(command, git(tmp_path, *command.argv[3:])))
    program = tmp_path / "pulumi/data/databases/postgres/cluster.py"
    settings = program.with_name("Pulumi.lab.yaml")
    program.parent.mkdir(parents=True)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "chore: begin")
    settings.write_text("config: {}\n")
    assert changed_services(session, "main") == {}, "the config of another stack"
    program.write_text("")
    reasons = changed_services(session, "main")
    assert set(reasons) == {"postgres", *READERS} and reasons["postgres"].endswith("cluster.py")


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
        (STACK, "config: [", "config: {}\n", ("not YAML, so its keys are not known",)),
        ("targets.yaml", "targets: {}\n", "targets:\n  home:\n    stack: mx\n", ("targets.home.stack added",)),
        ("charts.yaml", "redis:\n  version: 1.0.0\n", "redis:\n  version: 1.1.0\n", ("redis.version changed",)),
        ("environments/app/prod.yaml", "values:\n  a: canary\n", "", ("values.a removed",)),
    ],
)  # fmt: skip
def test_settings_are_shown_by_name_never_by_value(path: str, before: str, after: str, shown: tuple[str, ...]) -> None:
    assert SETTINGS.fullmatch(path)
    found = changed_keys(path, before, after)
    assert sorted(found) == sorted(shown) and "canary" not in "".join(found)
