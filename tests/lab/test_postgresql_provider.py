"""The stand-in's postgresql provider against a real server: as recorded, and what the recording does not show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab.operators import postgres
from tests.contract.replay import Scenario, Stage, replay
from tests.contract.test_standin_replay import make_stage

PASSWORD = "superpw123"
RECORDED_PORT = "15432"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Place]:
    lab_dir = tmp_path_factory.mktemp("lab")
    lab_dir.chmod(0o700)
    place = postgres.Place(postgres.folder_of(lab_dir, "postgresql", "main"), postgres.free_port())
    creation = postgres.Creation(locale_collate="C.UTF-8", locale_ctype="C.UTF-8")
    postgres.create(place, creation, PASSWORD)
    postgres.start(place)
    yield place
    postgres.stop_all(lab_dir)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = make_stage(tmp_path)
    stage.write_program("")
    return stage


def ask(place: postgres.Place, query: str, database: str = "postgres", **more: Any) -> Any:
    given = {"host": "127.0.0.1", "port": place.port, "user": "postgres", "password": PASSWORD, "sslmode": "disable"}
    with psycopg.connect(dbname=database, autocommit=True, **(given | more)) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else None


def provider(port: int | str, password: str = 'config.require_secret("pgpassword")') -> str:
    return f"""
import pulumi
import pulumi_postgresql as postgresql

config = pulumi.Config()
pg = postgresql.Provider("pg", host="localhost", port=config.get_int("pgport") or {port}, username="postgres",
                         password={password}, sslmode="disable", superuser=True, connect_timeout=5)
opts = pulumi.ResourceOptions(provider=pg)
"""


def recorded_program(port: int, *, database: str = "app", extension: str = "vector", again: bool = False) -> str:
    return (
        provider(port)
        + f"""
role = postgresql.Role("app", name="app", login=True, password=config.require_secret("apppassword"), opts=opts)
db = postgresql.Database("app", name="{database}", owner=role.name, opts=opts)
again = [{'postgresql.Database("again", name="app", opts=opts)' if again else ""}]
postgresql.Extension("vector", name="{extension}", database=db.name,
                     opts=pulumi.ResourceOptions(provider=pg, depends_on=again))
postgresql.Schema("extra", name="extra", database=db.name, owner=role.name, opts=opts)
postgresql.Grant("connect", role=role.name, database=db.name, object_type="database",
                 privileges=["CONNECT", "CREATE", "TEMPORARY"], opts=opts)
pulumi.export("db", db.name)
pulumi.export("password", role.password)
"""
    )


def is_incidental(difference: str, place: postgres.Place) -> bool:
    """The port, and the order of a list that the real engine makes of a set."""
    return difference.endswith(f"'{place.port}', recorded '{RECORDED_PORT}'") or ".dependencies[" in difference


def test_answers_as_recorded(stage: Stage, place: postgres.Place) -> None:
    """Scenario 24, with this server's port in place of the recorded one."""
    programs = {
        0: recorded_program(place.port),
        9: recorded_program(place.port, extension="nope"),
        10: recorded_program(place.port, again=True),
        12: recorded_program(place.port, database="app2"),
        13: recorded_program(place.port),
        22: provider(place.port),
    }
    scenario = Scenario("24-postgresql", programs)

    differences = [text for text in replay(scenario, stage) if not is_incidental(text, place)]
    assert not differences, "\n".join(differences)


MORE = """
reader = postgresql.Role("reader", name="reader", opts=opts)
owner = postgresql.Role("owner", name="owner2", login=True, password=config.require_secret("apppassword"),
                        # Without it the membership below would be a difference of the role, as with the real provider.
                        roles=[reader.name], opts=opts)
db = postgresql.Database("more", name="more", owner=owner.name, opts=opts)
postgresql.GrantRole("membership", role=owner.name, grant_role=reader.name, opts=opts)
postgresql.DefaultPrivileges("tables", role=reader.name, database=db.name, owner=owner.name, schema="public",
                             object_type="table", privileges=["SELECT"], opts=opts)
auto = postgresql.Role("made-up", opts=opts)
pulumi.export("auto", auto.name)
"""


def test_memberships_default_privileges_names_drift_and_secrets(stage: Stage, place: postgres.Place) -> None:
    stage.must("stack", "init", "mx")
    stage.must("config", "set", "--secret", "pgpassword", "-s", "mx", stdin=PASSWORD)
    stage.must("config", "set", "--secret", "apppassword", "-s", "mx", stdin="appPassw0rdLong")
    stage.write_program(provider(place.port) + MORE)
    told = stage.must("up", "-s", "mx", "--yes", "--skip-preview", "--json")

    assert "appPassw0rdLong" not in told and PASSWORD not in told and "SCRAM-SHA-256" not in told
    assert ask(place, "select 1", "more", user="owner2", password="appPassw0rdLong") == [(1,)]
    assert json.loads(stage.must("stack", "output", "--json", "-s", "mx"))["auto"].startswith("made-up-")
    assert "appPassw0rdLong" not in place.log.read_text()
    again = json.loads(stage.must("preview", "-s", "mx", "--refresh", "--expect-no-changes", "--output", "json"))
    assert set(again["summary"]) == {"same"}

    ask(place, "revoke reader from owner2")
    ask(place, "alter role owner2 nologin")
    drifted = json.loads(stage.must("preview", "-s", "mx", "--refresh", "--output", "json"))["summary"]
    assert (drifted["create"], drifted["update"]) == (1, 1)

    stage.must("up", "-s", "mx", "--yes", "--skip-preview", "--refresh", "--output", "json")
    stage.must("destroy", "-s", "mx", "--yes", "--skip-preview", "--output", "json")
    assert ask(place, "select rolname from pg_roles where rolname in ('reader', 'owner2')") == []
