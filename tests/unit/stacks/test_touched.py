"""Which services a change touches: by their own files, and by what they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.services import SERVICES
from runbooks.stacks import touched
from runbooks.stacks.service import Service
from runbooks.tools.git import Changed
from tests.unit.house import REAL_ROOT

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
    found = touched.touched_services(root, [APP, WEB], [Changed(status="M", path=path)], charts={"redis"})
    assert [each.service.name for each in found] == names
    assert all(each.files == (path,) and not each.is_new for each in found)


def test_a_chart_that_it_does_not_use_is_none_of_its_business(root: Path) -> None:
    changed = [Changed(status="M", path="charts.yaml")]
    assert touched.touched_services(root, [APP, WEB], changed, charts={"postgres"}) == []


def test_a_project_that_the_base_does_not_have_is_new(root: Path) -> None:
    changed = [Changed(status="A", path=f"pulumi/apps/web/{name}") for name in ("Pulumi.yaml", "app.py")]
    (found,) = touched.touched_services(root, [APP, WEB], changed)
    assert found.is_new and found.service is WEB and len(found.files) == 2


def test_a_project_that_is_gone_is_named() -> None:
    changed = [
        Changed(status="D", path="pulumi/apps/old/Pulumi.yaml"),
        Changed(status="D", path="pulumi/apps/app/app.py"),
        Changed(status="M", path="pulumi/apps/app/Pulumi.yaml"),
    ]
    assert touched.gone_projects(changed) == ["pulumi/apps/old"]


def test_the_platforms_own_programs_are_understood() -> None:
    changed = [Changed(status="M", path="pulumi/lib/database.py"), Changed(status="M", path="charts.yaml")]
    found = touched.touched_services(REAL_ROOT, SERVICES, changed, charts={"cloudnative-pg"})
    assert {each.service.name for each in found} == {
        "cnpg", "n8n", "immich", "stitch", "temporal", "superset", "jupyterhub",
    }  # fmt: skip


STACK = "pulumi/apps/app/Pulumi.mx.yaml"


@pytest.mark.parametrize(
    ("path", "before", "after", "told"),
    [
        (STACK, "config:\n  app:a: 1\n  app:b: 2\n", "config:\n  app:a: 3\n  app:c: 2\n",
         ("app:a changed", "app:c added", "app:b removed")),
        (STACK, "config: {}\n", "config:\n  app:password:\n    secure: v1:canary\n", ("app:password added",)),
        (STACK, "", "environment:\n  - app/prod\nencryptionsalt: canary\n",
         ("environment added", "encryptionsalt added")),
        (STACK, "config:\n  app:tags: [a]\n", "config:\n  app:tags: [a, canary]\n", ("app:tags changed",)),
        (STACK, "config:\n  app:a: 1\n", "# why\nconfig:\n  app:a: 1\n", ("comments or order only",)),
        (STACK, "", "config: {}\n", ("new, without a setting",)),
        (STACK, "config: {}\n", "", ("removed, had no setting",)),
        (STACK, "config: [", "config: {}\n", ("it is not YAML, so its keys are not known",)),
        ("targets.yaml", "targets: {}\n", "targets:\n  home:\n    stack: mx\n", ("targets.home.stack added",)),
        ("charts.yaml", "redis:\n  version: 1.0.0\n", "redis:\n  version: 1.1.0\n", ("redis.version changed",)),
        ("environments/app/prod.yaml", "values:\n  a: canary\n", "", ("values.a removed",)),
    ],
)  # fmt: skip
def test_settings_are_told_by_name_never_by_value(path: str, before: str, after: str, told: tuple[str, ...]) -> None:
    assert touched.has_keys(path)
    found = touched.told_keys(path, before.encode(), after.encode())
    assert sorted(found) == sorted(told) and "canary" not in "".join(found)


@pytest.mark.parametrize(
    ("path", "is_one", "keys"),
    [
        ("pyproject.toml", True, False),
        ("uv.lock", True, False),
        ("pulumi/apps/app/Pulumi.yaml", False, False),
        ("pulumi/apps/app/settings.py", False, False),
        ("lab/charts/redis/values.yaml", False, False),
    ],
)
def test_what_counts_as_settings(path: str, is_one: bool, keys: bool) -> None:
    assert touched.is_settings(path) is is_one and touched.has_keys(path) is keys
