"""What `inv new.service` writes keeps the rules of every project, before anybody touched it.

In a copy of the checkout: the task is run, the entry it prints is put into the list of services, and the checks and
tests that hold for every project are run there.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lib.settings import VERSIONED_IMAGE

from runbooks.stacks import scaffolding

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("lab", "pulumi", "runbooks", "tests/programs", "scripts", "docs", ".devcontainer")
COPIED_FILES = ("tasks.py", "charts.yaml", "pyproject.toml", "README.md", "inv", "mise.toml")
LONG = "x" * 63
EXAMPLE = (ROOT / "docs/add-a-service.md").read_text(encoding="utf-8")
"""Its first project is the one that the docs add."""
COMMAND = shlex.split(re.findall(r"^\./inv new\.service (podinfo .*)$", EXAMPLE, re.MULTILINE)[0])
pytestmark = pytest.mark.skipif(
    (ROOT / COMMAND[COMMAND.index("--folder") + 1]).exists(), reason="the example was followed in this checkout"
)
PROJECTS = {
    COMMAND[0]: COMMAND[1:],
    LONG: ["--folder", f"pulumi/ops/{LONG}"],
    "on": ["--folder", "pulumi/apps/one/two/three/on", "--about", "yes: isn't it"],
}
"""An ordinary one, and two that are hard on line lengths, on YAML and on relative paths."""


def run(checkout: Path, *argv: str | Path, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *argv], cwd=checkout, input=given, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "OPS_STATE": str(checkout.parent / "state"), "HOME": str(checkout.parent)},
    )  # fmt: skip
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("home") / "checkout"
    for name in COPIED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in COPIED_FILES:
        shutil.copyfile(ROOT / name, copy / name)
    (copy / ".venv").mkdir()
    services = copy / "runbooks/services.py"
    for name, options in PROJECTS.items():
        output = run(copy, "tasks.py", "new.service", name, *options)
        (entry,) = re.findall(r"^    Service\(\n.*?^    \),\n", output, re.DOTALL | re.MULTILINE)
        before, mark, after = services.read_text().partition(")\n\n\ndef find_service")
        services.write_text(before + entry + mark + after)
    return copy


def test_the_tests_of_every_project_pass(checkout):
    words = " or ".join([*PROJECTS, "every_project", "nothing"])
    options = ("-p", "no:cacheprovider", "-k", words, "tests/programs/test_projects.py")
    output = run(checkout, "-m", "pytest", *options)
    (passed,) = re.findall(r"(\d+) passed", output)
    assert int(passed) >= 3 * 14, output


def test_format_and_lint_pass(checkout):
    for words in (("format", "--check"), ("check",)):
        run(checkout, "-m", "ruff", *words, "--no-cache", "pulumi", "runbooks/services.py")


@pytest.mark.parametrize("name", PROJECTS)
def test_it_previews_under_mocks(checkout, name):
    folder = PROJECTS[name][1]
    given = json.dumps({"folder": folder, "config": {f"{name}:hostname": "other"}, "secrets": []})
    answer = json.loads(run(checkout, "tests/programs/record.py", given=given).splitlines()[0])
    assert answer["error"] is None and answer["warnings"] == []
    made = {resource["type"].rpartition(":")[2]: resource for resource in answer["resources"]}
    after = {kind: [before for before, _ in resource["after"]] for kind, resource in made.items()}
    assert after == {"Namespace": [], "Deployment": ["Namespace"], "Service": ["Deployment"], "Ingress": ["Service"]}
    assert answer["exports"]["url"]["value"] == "https://other/"
    (container,) = made["Deployment"]["inputs"]["spec"]["template"]["spec"]["containers"]
    image, port = {"podinfo": ("stefanprodan/podinfo:6.7.1", 9898)}.get(name, (scaffolding.ANY_IMAGE, 8080))
    assert (container["image"], container["ports"][0]["containerPort"]) == (image, port)
    assert made["Ingress"]["inputs"]["spec"]["tls"] == [{"hosts": ["other"]}]


def test_the_tables_and_the_picture_take_it_in(checkout):
    for script in ("write_tables.py", "draw_platform.py"):
        run(checkout, f"scripts/{script}")
    assert (
        "[`podinfo`](pulumi/apps/web/podinfo) | Podinfo: says where it runs | tailscale |"
        in (checkout / "README.md").read_text()
    )
    assert ">podinfo</text>" in (checkout / "docs/platform.svg").read_text()


def test_it_gets_its_tasks(checkout):
    output = run(checkout, "tasks.py", "--list")
    for task in ("preview.podinfo", "deploy.podinfo", "verify.podinfo", "destroy.podinfo"):
        assert task in output


ENTRY, *CHANGES = re.findall(r"^```python\n(.*?)^```", EXAMPLE, re.DOTALL | re.MULTILINE)
"""The Python of the docs."""


def test_the_docs_show_the_entry_that_the_task_prints(checkout):
    assert ENTRY in (checkout / "runbooks/services.py").read_text()


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new))


CHECKS = """\
from runbooks.checks.apps import APPS
from runbooks.services import find_service
print([name in APPS for name in find_service("podinfo").checks])
"""


@pytest.fixture
def another(checkout, tmp_path):
    """A checkout of its own with the new projects."""
    return Path(shutil.copytree(checkout, tmp_path / "checkout"))


def test_what_the_docs_change_works_as_they_say(another):
    folder, own_test = another / "pulumi/apps/web/podinfo", another / "tests/programs/test_podinfo.py"
    fields, env, test, app, answers = CHANGES
    assert run(another, "-c", CHECKS).strip() == "[]"
    (before,) = re.findall(r"^    health_path: .*\n", (folder / "settings.py").read_text(), re.MULTILINE)
    image = '                "image": settings.image,\n'
    replaced(folder / "settings.py", before, fields)
    replaced(folder / "app.py", image, image + env)
    replaced(another / "runbooks/checks/apps.py", '    "immich": App(\n', app + '    "immich": App(\n')
    exposed = 'exposed={"ingress/podinfo": "url"},'
    replaced(another / "runbooks/services.py", exposed, f'checks=("podinfo",), {exposed}')
    own_test.write_text(test)
    assert "1 passed" in run(another, "-m", "pytest", "-p", "no:cacheprovider", own_test)
    run(another, "-m", "ruff", "format", "--check", "--no-cache", folder, own_test, "runbooks/checks/apps.py")
    assert run(another, "-c", CHECKS).strip() == "[True]"
    ((path, body),) = ast.literal_eval("{" + answers + "}").items()
    assert f'path="{path}"' in app and re.findall(r'marker="(.*?)"', app)[0] in body


@pytest.mark.parametrize(
    "image",
    [scaffolding.ANY_IMAGE, "registry.local:5000/team/app:v1.2.3", "ghcr.io/a/b-c:2024.1@sha256:" + "0a" * 32],
)
def test_an_image_that_the_task_takes_is_one_that_the_program_takes(image):
    assert scaffolding.IMAGE.fullmatch(image) and VERSIONED_IMAGE.holds(image)
