"""What `inv new.service` writes keeps the rules of every project, before anybody touched it.

In a copy of the checkout: the task is run, the entry it prints is put into the list of services, and the checks and
tests that hold for every project are run there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lib.settings import VERSIONED_IMAGE

from runbooks import scaffolding

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("pulumi", "runbooks", "tests/programs", "scripts", "docs", "lab/charts")
COPIED_FILES = ("tasks.py", "charts.yaml", "pyproject.toml", "README.md")
LONG = "x" * 63
PROJECTS = {
    "podinfo": ["--folder", "pulumi/apps/web/podinfo", "--image", "stefanprodan/podinfo:6.7.1", "--port", "9898",
                "--about", "Podinfo: says where it runs, isn't it"],
    LONG: ["--folder", f"pulumi/ops/{LONG}"],
    "on": ["--folder", "pulumi/apps/one/two/three/on", "--about", "yes"],
}  # fmt: skip
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
        told = run(copy, "tasks.py", "new.service", name, *options)
        (entry,) = re.findall(r"^    Service\(\n.*?^    \),\n", told, re.DOTALL | re.MULTILINE)
        before, mark, after = services.read_text().partition(")\n\n\ndef find_service")
        services.write_text(before + entry + mark + after)
    return copy


def test_the_tests_of_every_project_pass(checkout):
    words = " or ".join([*PROJECTS, "every_project", "nothing"])
    options = ("-p", "no:cacheprovider", "-k", words, "tests/programs/test_projects.py")
    told = run(checkout, "-m", "pytest", *options)
    (passed,) = re.findall(r"(\d+) passed", told)
    assert int(passed) >= 3 * 14, told


def test_format_and_lint_pass(checkout):
    for words in (("format", "--check"), ("check",)):
        run(checkout, "-m", "ruff", *words, "--no-cache", "pulumi", "runbooks/services.py")


@pytest.mark.parametrize("name", PROJECTS)
def test_it_previews_under_mocks(checkout, name):
    folder = PROJECTS[name][1]
    given = json.dumps({"config": {f"{name}:hostname": "other"}, "secrets": []})
    answer = json.loads(run(checkout, "tests/programs/record.py", folder, given=given))
    assert answer["error"] is None and answer["warnings"] == []
    kinds = [resource["type"].rpartition(":")[2] for resource in answer["resources"]]
    assert kinds == ["Namespace", "Deployment", "Service", "Ingress"]
    assert answer["exports"]["url"]["value"] == "https://other/"
    deployment, ingress = answer["resources"][1], answer["resources"][3]
    (container,) = deployment["inputs"]["spec"]["template"]["spec"]["containers"]
    image, port = {"podinfo": ("stefanprodan/podinfo:6.7.1", 9898)}.get(name, (scaffolding.ANY_IMAGE, 8080))
    assert (container["image"], container["ports"][0]["containerPort"]) == (image, port)
    assert ingress["inputs"]["spec"]["tls"] == [{"hosts": ["other"]}]
    assert all(resource["after"] for resource in answer["resources"][1:])


def test_the_tables_and_the_picture_take_it_in(checkout):
    for script in ("write_tables.py", "draw_platform.py"):
        run(checkout, f"scripts/{script}")
    assert "| `podinfo` | Podinfo: says where it runs, isn't it | tailscale |" in (checkout / "README.md").read_text()
    assert ">podinfo</text>" in (checkout / "docs/platform.svg").read_text()


def test_it_gets_its_tasks(checkout):
    told = run(checkout, "tasks.py", "--list")
    for task in ("preview.podinfo", "deploy.podinfo", "verify.podinfo", "destroy.podinfo"):
        assert task in told


@pytest.mark.parametrize(
    "image",
    [scaffolding.ANY_IMAGE, "registry.local:5000/team/app:v1.2.3", "ghcr.io/a/b-c:2024.1@sha256:" + "0a" * 32],
)
def test_an_image_that_the_task_takes_is_one_that_the_program_takes(image):
    assert scaffolding.IMAGE.fullmatch(image) and VERSIONED_IMAGE.holds(image)
