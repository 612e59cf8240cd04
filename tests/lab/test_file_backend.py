"""Three services on the lab with its states in files, as docs/runbooks/lab.md says how: their whole life."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import platform
from tests.lab.command_line import Checkout, Result, changed, commit_everything, git_status, make_state

pytestmark = pytest.mark.lab

SERVICES = ("tailscale", "glance", "cert-manager")


class OnFiles(Checkout):
    """A checkout whose runs work on the file backend of a lab of its own."""

    def run(self, *words: str) -> Result:
        return self.inv(*words, env={"PULUMI_BACKEND_URL": f"file://{self.lab_dir / 'backend'}"})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnFiles]:
    folder = tmp_path_factory.mktemp("files")
    make_state(folder / "state")
    checkout = OnFiles(folder / "checkout", folder / "state")
    commit_everything(checkout.root)
    try:
        checkout.inv("lab.up").ends_with(0)
        yield checkout
    finally:
        platform.reset(folder / "state", print)


def test_their_life(files: OnFiles) -> None:
    files.run("preview.glance").ends_with(0).shows(f"file://{files.lab_dir / 'backend'}")
    for service in ("glance", "cert-manager"):
        files.run(f"deploy.{service}").ends_with(0)
    assert {path.parent.name for path in files.lab_dir.glob("backend/.pulumi/stacks/*/lab.json")} == set(SERVICES)
    assert not list(files.lab_dir.glob("cloud/stacks/*/lab/deployment.json"))
    files.run("preview.glance", "--expect-no-changes").ends_with(0)

    template = files.root / "pulumi/apps/web/glance/Pulumi.lab.yaml"
    with changed(template, lambda text: f"{text.rstrip()}\n  glance:title: Rehearsal\n"):
        files.run("preview.glance", "--expect-no-changes").ends_with(7, "glance")
        files.run("deploy.glance").ends_with(0)
        files.run("verify.glance").ends_with(0)
    assert git_status(files.root) == ""

    for service in ("cert-manager", "glance", "tailscale"):
        files.run(f"destroy.{service}").ends_with(0)


def test_what_needs_environments_is_refused_with_a_way_out(files: OnFiles) -> None:
    files.run("esc.bind", "stitch/prod").ends_with(2, "Pulumi ESC", "esc.unbind")


def test_another_backend_is_not_taken(files: OnFiles) -> None:
    """A person's own platform may be elsewhere; the lab stays where it is."""
    files.inv("status", env={"PULUMI_BACKEND_URL": "file:///srv/somebody"}).ends_with(0).shows("backend")


def test_the_lab_is_removed_after_a_question(files: OnFiles) -> None:
    """Comes last: nothing is left to test on."""
    question = "Throw the lab in"
    files.typed("lab.reset", answers=[(question, "n")]).ends_with(8, "lab.reset --yes")
    assert files.lab_dir.exists()
    files.typed("lab.reset", answers=[(question, "y")]).ends_with(0)
    assert not files.lab_dir.exists()
    files.inv("lab.reset", "--yes").ends_with(0)
