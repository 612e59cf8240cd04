"""The real server, without Kubernetes: made, started, adopted, stopped, its password follows the Secret."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from lab.operators import parameters, postgres, sql
from lab.platform import ports


@pytest.fixture(scope="module")
def lab_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("lab")
    folder.chmod(0o700)
    yield folder
    postgres.stop_all(folder)


@pytest.fixture(scope="module")
def place(lab_dir: Path) -> postgres.Place:
    place = postgres.Place(postgres.folder_of(lab_dir, "postgresql", "main"), ports.pick(()))
    postgres.create(place, {}, "first-password")
    postgres.start(place)
    return place


def login(place: postgres.Place, password: str, **more: str) -> psycopg.Connection:
    given = {"host": "127.0.0.1", "port": place.port, "user": "postgres", "dbname": "postgres", "sslmode": "disable"}
    return psycopg.connect(password=password, connect_timeout=5, **(given | more))


def test_psql_finds_the_password_in_its_file(place: postgres.Place, tmp_path: Path) -> None:
    file = tmp_path / "pgpass"
    for password in ("another", "first-password"):
        postgres.write_pgpass(file, place, password)
    assert file.stat().st_mode & 0o777 == 0o600
    given = {"host": "127.0.0.1", "port": place.port, "user": "postgres", "dbname": "postgres"}
    psycopg.connect(passfile=str(file), connect_timeout=5, **given).close()
    postgres.write_pgpass(file, place, r"a:b\c")
    assert file.read_text() == f"*:{place.port}:*:postgres:a" + r"\:b\\c" + "\n"


def test_the_server_is_closed_to_others(place: postgres.Place) -> None:
    asked = "password_encryption log_statement log_min_error_statement listen_addresses log_min_duration_statement"
    with sql.connect(place) as connection:
        shown = {name: connection.execute(f"show {name}").fetchone()[0] for name in asked.split()}
        methods = connection.execute("select distinct auth_method from pg_hba_file_rules").fetchall()
    assert list(shown.values()) == ["scram-sha-256", "none", "panic", "127.0.0.1,::1", "-1"]
    assert methods == [("scram-sha-256",)]


def test_answers_where_localhost_is_an_ipv6_address_alone(place: postgres.Place) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
    with login(place, "first-password", host="::1") as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_files_are_private(place: postgres.Place) -> None:
    for folder in (place.folder, place.data, place.socket):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (place.password_file, place.log):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_never_runs_as_root(place: postgres.Place) -> None:
    assert psutil.Process(postgres.read_postmaster(place.data).pid).uids().effective != 0


def test_start_adopts_the_running_server(place: postgres.Place) -> None:
    assert postgres.start(place) == postgres.read_postmaster(place.data)


def test_a_recycled_process_id_is_not_the_server(lab_dir: Path) -> None:
    data = lab_dir / "postgres" / "other" / "recycled" / "data"
    data.mkdir(parents=True)
    lines = [str(os.getpid()), str(data), str(int(time.time())), "5432", "", "127.0.0.1", "", "ready"]
    (data / "postmaster.pid").write_text("\n".join(lines))
    assert postgres.read_postmaster(data) is None


def test_the_password_follows(place: postgres.Place) -> None:
    assert not sql.keep_superuser_password(place, "first-password")
    assert sql.keep_superuser_password(place, "second-password")
    login(place, "second-password").close()
    for wrong in ("first-password", ""):
        with pytest.raises(psycopg.OperationalError):
            login(place, wrong)
    assert sql.keep_superuser_password(place, "first-password")


def test_roles_databases_and_what_is_in_them_follow_their_specs(place: postgres.Place) -> None:
    role = {"name": "App", "login": True, "connectionLimit": 3, "inRoles": ["staff"], "comment": "it's 100 % {mine}"}
    database = {"name": "app data", "owner": "App", "encoding": "UTF8", "template": "template0", "isTemplate": False}
    with sql.connect(place) as connection:
        sql.ensure_role(connection, {"name": "staff"})
        for limit in (3, 5):
            sql.ensure_role(connection, role | {"connectionLimit": limit})
        assert sql.set_password(connection, "App", "app-password")
        assert not sql.set_password(connection, "App", "app-password")
        for changed in ({}, {"connectionLimit": 7}):
            sql.ensure_database(connection, database | changed)
        facts = connection.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'App'").fetchone()
        limits = connection.execute("SELECT datconnlimit FROM pg_database WHERE datname = 'app data'").fetchone()
        assert (facts, limits) == ((5,), (7,))
    with sql.connect(place, "app data") as connection:
        for ensure in ("present", "present", "absent"):
            sql.ensure_extension(connection, {"name": "plpgsql", "schema": "pg_catalog", "ensure": ensure})
            sql.ensure_schema(connection, {"name": "Own", "owner": "App", "ensure": ensure})
    with login(place, "app-password", user="App", dbname="app data") as client:
        assert client.execute("SELECT count(*) FROM pg_extension").fetchone() == (0,)
    with sql.connect(place) as connection:
        assert sql.set_password(connection, "App", None)
        sql.ensure_role(connection, role | {"inRoles": []})
        sql.drop_database(connection, "app data")
        sql.drop_role(connection, "App")


def test_a_password_changed_by_hand_is_set_back(place: postgres.Place) -> None:
    with sql.connect(place) as connection:
        connection.execute("ALTER ROLE postgres PASSWORD 'by hand'")
    assert sql.keep_superuser_password(place, "first-password")
    login(place, "first-password").close()


def test_passwords_stay_out_of_the_log(place: postgres.Place) -> None:
    with sql.connect(place) as connection, pytest.raises(psycopg.Error):
        connection.execute("ALTER ROLE no_such PASSWORD 'canary-in-statement'")
    log = place.log.read_text()
    assert not re.search("canary-in-statement|first-password|second-password|by hand", log)


def test_verifier_is_the_servers_own(place: postgres.Place) -> None:
    with sql.connect(place) as connection:
        theirs = connection.pgconn.encrypt_password(b"p w'd", b"postgres", b"scram-sha-256").decode()
    assert sql.matches(theirs, "p w'd")
    assert sql.matches(sql.new_verifier("p w'd"), "p w'd")
    assert not sql.matches(theirs, "p w'e")


def test_sorts_out_parameters(place: postgres.Place) -> None:
    asked = parameters.read_spec(
        {
            "parameters": {"work_mem": "8MB", "max_connections": "lots", "port": "1", "no_such": "1"},
            "shared_preload_libraries": ["vchord.so", "pg_stat_statements"],
        }
    )
    found = parameters.sort_out(place, asked)
    assert found.accepted == {"work_mem": "8MB", "shared_preload_libraries": "pg_stat_statements"}
    assert found.refused["port"] == "set by the lab"
    assert found.refused["no_such"] == 'unrecognized configuration parameter "no_such"'
    assert found.refused["max_connections"] == 'invalid value for parameter "max_connections": "lots"'
    assert found.refused["shared_preload_libraries"] == "the embedded server has no vchord.so"


def test_survives_sigkill_and_restarts(place: postgres.Place) -> None:
    first = postgres.read_postmaster(place.data)
    os.kill(first.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while postgres.read_postmaster(place.data) is not None:
        assert time.monotonic() < deadline
    assert postgres.start(place).pid != first.pid
    login(place, "first-password").close()


def test_a_server_that_cannot_start_reports_why(place: postgres.Place) -> None:
    postgres.stop(place.data)
    settings = place.data / "parameters.conf"
    settings.write_text("shared_buffers = '900TB'\n")
    try:
        with pytest.raises(postgres.PostgresError, match="FATAL"):
            postgres.start(place)
    finally:
        settings.write_text("")
    postgres.start(place)


def test_stop_all_and_remove(lab_dir: Path) -> None:
    place = postgres.Place(postgres.folder_of(lab_dir, "second", "one"), ports.pick(()))
    postgres.create(place, {}, "p")
    running = postgres.start(place)
    assert running.pid in postgres.stop_all(lab_dir)
    assert postgres.read_postmaster(place.data) is None
    postgres.remove(place.folder)
    assert not place.folder.parent.exists()


def test_a_checkout_in_a_private_folder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in /root: only root may walk through it, and the server is another user."""
    tmp_path.chmod(0o700)
    (tmp_path / "pginstall").symlink_to(postgres.BINARIES.parent)
    monkeypatch.setattr(postgres, "BINARIES", tmp_path / "pginstall" / "bin")
    place = postgres.Place(postgres.folder_of(tmp_path, "postgresql", "main"), ports.pick(()))
    postgres.create(place, {}, "a-password")
    try:
        postgres.start(place)
        with login(place, "a-password") as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    finally:
        postgres.stop_all(tmp_path)
