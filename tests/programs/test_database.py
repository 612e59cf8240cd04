"""`pulumi/lib/database.py`: how an app gets its database, tried through n8n's program."""

from __future__ import annotations

import pytest

FOLDER = "data/workflow/n8n"
STACK = "organization/postgresql/test"
PLAIN = {"n8n:postgres_stack": STACK, "n8n:webhook_host": "hooks.home.example", "n8n:sslmode": "disable"}
SECRETS = {"n8n:database_password": "role-of-the-test", "n8n:encryption_key": "key-of-the-test"}


@pytest.fixture
def app(run_program, postgres_stack):
    def run(without: tuple[str, ...] = (), **changed: object):
        (outputs,) = postgres_stack.values()
        known = {name: value for name, value in {**outputs, **changed}.items() if name not in without}
        return run_program(FOLDER, PLAIN, SECRETS, {STACK: known})

    return run


def test_what_is_the_same_for_every_app(app):
    """The rest is in `expected/`."""
    made = app()
    given = {"superuser": "true", "connectTimeout": "20"}
    assert given.items() <= made["postgresql", "postgresql"]["inputs"].items()
    locale = {"encoding": "UTF8", "lcCollate": "C.UTF-8", "lcCtype": "C.UTF-8"}
    assert locale.items() <= made["Database", "n8n"]["inputs"].items()
    assert {made[kind, "n8n"]["provider"] for kind in ("Role", "Database")} == {"postgresql"}


@pytest.mark.parametrize("changed", [{"without": ("ts_hostname",)}, {"ts_hostname": ""}])
def test_without_a_name_on_the_tailnet_it_takes_the_host(app, changed):
    assert app(**changed)["postgresql", "postgresql"]["inputs"]["host"] == "postgresql-cluster-rw.db.svc.cluster.local"


@pytest.mark.parametrize(
    ("without", "missing"),
    [
        (("k8s_namespace",), "k8s_namespace"),
        (("ts_hostname", "host"), "ts_hostname or host"),
        (("port", "password"), "port, password"),
        (
            ("host", "port", "username", "user", "password", "ts_hostname", "k8s_namespace"),
            "ts_hostname or host, port, username, password, k8s_namespace",
        ),
    ],
)
def test_a_missing_output_is_named_with_producer_and_consumer(app, without, missing):
    failed = app(without=without)
    for part in (
        f"stack organization/postgresql/test has no output {missing}\n",
        "stack test of project n8n",
        "pulumi stack output --stack organization/postgresql/test",
        "pulumi config set n8n:postgres_stack ORGANIZATION/postgresql/STACK",
    ):
        assert part in failed.error
    assert not {kind for kind, _ in failed.names()} & {"Chart", "Database", "Role"}


@pytest.mark.parametrize("place", ["", "postgresql:", "n8n:"])
def test_the_postgres_stack_is_required_and_no_login_by_hand_takes_its_place(run_program, place):
    by_hand = {"host": "pg.example", "port": "5432", "k8s_namespace": "postgresql", "username": "postgres"}
    given = {f"{place}{key}": value for key, value in by_hand.items()} if place else {}
    without = {key: value for key, value in PLAIN.items() if key != "n8n:postgres_stack"}
    failed = run_program(
        FOLDER, without | given, SECRETS | {f"{place}password": "of-the-superuser"} if place else SECRETS
    )
    assert failed.resources == ()
    assert "n8n:postgres_stack: not set\n" in failed.error
