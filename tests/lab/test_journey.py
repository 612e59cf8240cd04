"""The first evening of a newcomer: one command, the same again, a look around, and what is refused at the end."""

from __future__ import annotations

import re
import shlex
import shutil

import psycopg
import pytest

from tests.lab.command_line import AFTER_ENV, Checkout, Deployed, changed, git_status

pytestmark = pytest.mark.lab

OBJECTS = {
    "pod/postgresql-cluster-1",
    "service/postgresql-cluster-rw",
    "service/postgresql-cluster-ro",
    "service/postgresql-cluster-r",
    "service/postgresql-cluster-rw-ext",
    "secret/postgresql-cluster-superuser",
}
"""What the handbook shows in the namespace `postgresql`."""


@pytest.fixture(scope="module")
def checkout(deployed: Deployed) -> Checkout:
    return deployed.checkout


@pytest.fixture(scope="module")
def password(checkout: Checkout) -> str:
    return checkout.superuser_password


def test_the_first_command_deploys_and_proves(deployed: Deployed) -> None:
    result = deployed.result
    lines = result.stdout.splitlines()
    assert "throw-away platform on this machine" in lines[0]
    order = [
        "start the lab: done in",
        "target lab · stack lab",
        "preview tailscale, cnpg: done in",
        "preview postgres: done in",
        "postgres: 4 to create",
        "apply tailscale, cnpg: done in",
        "apply postgres: done in",
        "the server answers SQL as the exported user: PostgreSQL 18",
        "verify.postgres: verified: ",
    ]
    places = [next((number for number, line in enumerate(lines) if words in line), -1) for words in order]
    assert -1 not in places, (order[places.index(-1)], result.all)
    assert places == sorted(places)
    planned = re.findall(r"^  (\S+): (\d+) to create$", result.stdout, re.MULTILINE)
    assert sorted(planned) == sorted(re.findall(r"^(\S+): applied, (\d+) changes ", result.stdout, re.MULTILINE))
    assert sum("stitch/prod" in line for line in lines) == 1, "a new environment of the lab is one line"
    assert (result.stderr, deployed.changed_files) == ("", "")


def test_the_second_run_changes_nothing(checkout: Checkout) -> None:
    before = {path: path.read_bytes() for path in (checkout.lab_dir / "stacks").rglob("*") if path.is_file()}
    states = {name: checkout.deployment(name)["resources"] for name in ("tailscale", "cnpg", "postgresql")}
    result = checkout.inv("deploy.postgres").ends_with(0).shows("unchanged: tailscale, cnpg, postgres")
    assert "> apply" not in result.shows("PostgreSQL 18").stdout
    assert {path: path.read_bytes() for path in before} == before
    assert {name: checkout.deployment(name)["resources"] for name in states} == states
    checkout.assert_nothing_left(*states)
    assert git_status(checkout.root) == ""


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("preview.postgres",), "unchanged"),
        (("preview.postgres", "--expect-no-changes"), "unchanged"),
        (("cancel.postgres",), "the stack of postgres is not locked"),
        (("graph",), "stitch/prod"),
        (("lab.status",), "postgres"),
        (("charts.render", "tailscale"), "Deployment"),
        (("charts.render", "tailscale", "--text"), "kind: Deployment"),
        (("status",), "postgres"),
        (("doctor",), "pulumi"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_tasks_that_change_nothing(checkout: Checkout, words: tuple[str, ...], shown: str) -> None:
    checkout.inv(*words).ends_with(0).shows(shown)
    assert git_status(checkout.root) == ""


def test_the_text_of_a_pull_request(checkout: Checkout) -> None:
    with changed(checkout.root / "pulumi/apps/web/glance/page.py", lambda text: text + "\n# more\n"):
        checkout.inv("pr.body").ends_with(0).shows("glance", "./inv deploy.postgres")


def test_kubectl_shows_the_handbooks_objects(checkout: Checkout) -> None:
    listed = checkout.kubectl("get", "all,secret", "-n", "postgresql", "--output=name").split()
    assert set(listed) >= OBJECTS
    annotations = checkout.get("service", "postgresql-cluster-rw-ext", "-n", "postgresql")["metadata"]["annotations"]
    assert annotations["tailscale.com/expose"] == "true"
    assert annotations["tailscale.com/hostname"] == "localhost"


def test_a_client_connects_with_what_is_exported(checkout: Checkout, password: str) -> None:
    lines = checkout.inv("lab.env").ends_with(0).stdout.splitlines()
    words = [shlex.split(line) for line in lines]
    assert {word[0] for word in words} == {"export"}
    env = dict(word[1].split("=", 1) for word in words)
    assert env["PGPORT"] in checkout.inv("--json", "outputs.postgres").stdout
    login = {"host": "localhost", "port": env["PGPORT"], "user": env["PGUSER"], "password": password}
    with psycopg.connect(**login, dbname="postgres", connect_timeout=10) as connection:
        (version,) = connection.execute("select version()").fetchone() or ("",)
    assert version.startswith("PostgreSQL 18")


@pytest.mark.skipif(shutil.which("psql") is None, reason="no psql on PATH")
def test_psql_connects_with_what_is_exported(checkout: Checkout) -> None:
    checkout.shell(AFTER_ENV + "psql -At -d postgres -c 'show server_version'").ends_with(0).shows("18")


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["plain", "JSON"])
def test_secret_outputs_are_masked(checkout: Checkout, password: str, words: tuple[str, ...]) -> None:
    result = checkout.inv(*words, "outputs.postgres").ends_with(0)
    assert password not in result.all
    result.shows("postgresql-cluster-rw.postgresql.svc.cluster.local")
    assert "[secret]" in next(line for line in result.stdout.splitlines() if "password" in line)


def test_no_run_kept_the_password(deployed: Deployed, password: str) -> None:
    checkout = deployed.checkout
    assert password not in deployed.result.all
    kept = [path for path in checkout.state_dir.rglob("*") if path.is_file() and checkout.lab_dir not in path.parents]
    assert [path for path in kept if password.encode() in path.read_bytes()] == []


def test_files_of_runs_are_private(checkout: Checkout) -> None:
    assert checkout.runs.stat().st_mode & 0o077 == 0
    readable = [path for path in checkout.runs.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert readable == []


def test_a_change_where_none_is_expected(checkout: Checkout) -> None:
    with changed(checkout.settings_file("postgresql"), lambda text: text.replace("size: 1Gi", "size: 9Gi")):
        result = checkout.inv("preview.postgres", "--only", "--diff", "--expect-no-changes")
    result.ends_with(7, "postgres").shows("spec.storage.size", "9Gi")


def test_a_setting_that_the_program_refuses(checkout: Checkout) -> None:
    more = "config:\n  postgresql:instances: many\n"
    with changed(checkout.settings_file("postgresql"), lambda text: text.replace("config:\n", more, 1)):
        result = checkout.inv("deploy.postgres", "--only")
    assert "> apply" not in result.ends_with(2, "postgresql:instances").stdout


@pytest.mark.parametrize("name", ["cnpg", "tailscale"])
def test_what_others_need_is_not_destroyed(checkout: Checkout, name: str) -> None:
    before = checkout.state(name)
    checkout.inv(f"destroy.{name}").ends_with(
        5, f"postgres is still deployed and needs {name}", "before their controllers", "next: ./inv destroy.postgres"
    )
    assert checkout.state(name) == before
