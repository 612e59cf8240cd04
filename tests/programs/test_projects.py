"""Rules that every Pulumi project keeps, each project tried by itself."""

from __future__ import annotations

import ast
import dataclasses
import importlib.machinery
import re
import sys
from pathlib import Path

import pytest
import yaml
from lib.settings import setting_rows

from runbooks.services import SERVICES
from runbooks.stacks.service import required_settings

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "pulumi"
PROJECTS = sorted(path.parent for path in PROGRAMS.rglob("Pulumi.yaml"))
FOLDERS = [str(project.relative_to(PROGRAMS)) for project in PROJECTS]
BY_FOLDER = {service.folder: service for service in SERVICES}
ABOUT_SECRETS = re.compile(r"password|passwd|secret|token|private|credential|api_?key|client_id", re.IGNORECASE)

each_project = pytest.mark.parametrize("folder", FOLDERS)


def stack_files(folder: str) -> dict[str, dict]:
    return {
        path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (PROGRAMS / folder).glob("Pulumi.*.yaml")
    }


def project_name(folder: str) -> str:
    return yaml.safe_load((PROGRAMS / folder / "Pulumi.yaml").read_text(encoding="utf-8"))["name"]


def test_every_project_is_a_service_and_the_reverse():
    assert set(FOLDERS) == set(BY_FOLDER)


def test_nothing_below_pulumi_shadows_the_sdk():
    assert list(PROGRAMS.rglob("__init__.py")) == []


def test_nothing_installed_is_called_like_the_helpers():
    installed = [entry for entry in sys.path if entry not in ("", str(PROGRAMS), str(ROOT))]
    assert importlib.machinery.PathFinder.find_spec("lib", installed) is None


@each_project
def test_it_runs_in_the_shared_environment(folder):
    project = yaml.safe_load((PROGRAMS / folder / "Pulumi.yaml").read_text(encoding="utf-8"))
    assert project["name"] == BY_FOLDER[folder].project_name
    assert project["description"]
    assert project["runtime"]["name"] == "python"
    options = project["runtime"]["options"]
    assert options["toolchain"] == "uv"
    assert (PROGRAMS / folder / options["virtualenv"]).resolve() == ROOT / ".venv"


@each_project
def test_its_folder_has_the_name_that_messages_give_to_inv(folder):
    assert Path(folder).name == BY_FOLDER[folder].name


@each_project
def test_its_main_is_a_table_of_contents(folder):
    main = (PROGRAMS / folder / "__main__.py").read_text(encoding="utf-8")
    assert len(main.splitlines()) <= 60
    depth = len(Path(folder).parts)
    assert f"sys.path.append(str(Path(__file__).resolve().parents[{depth}]))  # pulumi/, for lib" in main


@pytest.mark.parametrize("path", sorted(PROGRAMS.rglob("*.py")), ids=lambda path: str(path.relative_to(PROGRAMS)))
def test_functions_and_literals_stay_short(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Dict):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= (30 if isinstance(node, ast.Dict) else 50), f"{path}:{node.lineno} has {lines} lines"


@each_project
def test_its_modules_hide_no_other(folder):
    """The project's folder comes first on the module path: a `json.py` in it would break everything."""
    mine = {path.stem for path in (PROGRAMS / folder).glob("*.py")} - {"__main__"}
    installed = [entry for entry in sys.path if entry not in ("", str(PROGRAMS), str(ROOT))]
    assert not mine & sys.stdlib_module_names
    assert [name for name in mine if importlib.machinery.PathFinder.find_spec(name, installed)] == []
    assert "lib" not in mine


@each_project
def test_its_programs_import_only_the_sdks_and_the_helpers(folder):
    project = PROGRAMS / folder
    allowed = {"pulumi", "pulumi_kubernetes", "pulumi_postgresql", "lib"} | {path.stem for path in project.glob("*.py")}
    for path in project.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            foreign = {name.partition(".")[0] for name in names} - allowed - sys.stdlib_module_names
            assert not foreign, f"{path} imports {foreign}"


@each_project
def test_it_has_stack_files_for_the_cluster_and_for_the_lab(folder):
    files = stack_files(folder)
    assert {"Pulumi.mx.yaml", "Pulumi.lab.yaml"} <= set(files)
    lab = files["Pulumi.lab.yaml"].get("config") or {}
    uses_charts = "lib.charts" in "".join(path.read_text() for path in (PROGRAMS / folder).glob("*.py"))
    assert (lab.get("charts:source") == "lab/charts") or not uses_charts


@each_project
def test_nothing_is_taken_over_on_a_real_target_unless_a_person_says_so(folder):
    """docs/decisions/0006: the setting counts for every object of the stack."""
    assert "kubernetes:upsertExistingObjects" not in (stack_files(folder)["Pulumi.mx.yaml"].get("config") or {})


@each_project
def test_its_stack_files_hold_no_secret(folder):
    declared = {f"{project_name(folder)}:{secret.key}" for secret in BY_FOLDER[folder].secrets}
    for name, content in stack_files(folder).items():
        for key, value in (content.get("config") or {}).items():
            if isinstance(value, dict) and set(value) == {"secure"}:
                assert name != "Pulumi.lab.yaml", f"{name}: {key} is generated in the lab's own copy"
                continue
            assert key not in declared, f"{name}: {key} is a secret in plain text"
            assert not ABOUT_SECRETS.search(key), f"{name}: {key} looks like a secret in plain text"


@each_project
def test_its_stack_files_name_settings_that_exist(folder, settings_of):
    project = project_name(folder)
    known = {key for key, _, _ in setting_rows(settings_of(folder), project)} | {"charts:source"}
    for name, content in stack_files(folder).items():
        unknown = {key for key in content.get("config") or {} if not key.startswith("kubernetes:")} - known
        assert not unknown, f"{name} sets what the program does not read"


@each_project
def test_what_it_requires_is_read_from_its_source(folder, settings_of):
    """The runbooks read `settings.py` without importing it; that must give what the program itself declares."""
    declared = {
        (entry.key or field.name, entry.about, entry.is_secret, entry.generated)
        for field in dataclasses.fields(settings_of(folder))
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        for entry in (field.metadata["setting"],)
    }
    found = required_settings(PROGRAMS / folder)
    assert {(one.key, one.about, one.is_secret, one.generated) for one in found} == declared
    service = BY_FOLDER[folder]
    keys = {one.key for one in (*service.secrets, *service.environment_keys)} | {*service.required}
    assert keys | ({service.reference.setting} if service.reference else set()) == {one.key for one in found}


@each_project
def test_it_reads_nothing_but_what_it_needs(folder):
    service = BY_FOLDER[folder]
    assert set(service.reads_outputs_of) <= set(service.needs)
    for name, content in stack_files(folder).items():
        bound = content.get("environment") or []
        assert bound == ([service.environment] if service.environment else []), name


@each_project
def test_its_namespace_is_the_one_the_services_list(folder, settings_of):
    assert settings_of(folder).__dataclass_fields__["namespace"].default == BY_FOLDER[folder].namespace


@each_project
def test_its_readme_has_every_setting(folder, settings_of):
    rows = setting_rows(settings_of(folder), project_name(folder))
    table = [f"| `{key}` | {default} | {meaning} |" for key, default, meaning in rows]
    readme = (PROGRAMS / folder / "README.md").read_text(encoding="utf-8")
    assert "\n".join(["| setting | default | what |", "|---|---|---|", *table]) + "\n" in readme
    for topic in ("undo", "backup", "exposure"):
        assert topic in readme.lower()


@each_project
def test_what_prometheus_may_scrape_is_off_and_the_monitoring_stack_says_how_to_turn_it_on(folder, settings_of):
    """Before that stack has brought the CRDs it would fail."""
    rows = setting_rows(settings_of(folder), project_name(folder))
    switches = {key: default for key, default, about in rows if "CRD of the monitoring stack" in about}
    assert set(switches.values()) <= {"`false`"}
    readme = (PROGRAMS / "ops/monitoring/README.md").read_text(encoding="utf-8")
    assert [key for key in switches if f"`{key}`" not in readme] == []


def test_every_pinned_chart_is_used_and_every_used_chart_is_pinned():
    used = {
        node.args[0].value
        for path in PROGRAMS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "chart"
        and isinstance(node.args[0], ast.Constant)
    }
    assert used == set(yaml.safe_load((ROOT / "charts.yaml").read_text(encoding="utf-8")))
    assert used <= {path.parent.name for path in (ROOT / "lab/charts").glob("*/Chart.yaml")}
