"""The superuser's password: the server's, the file's and the Secret's kept in step."""

from __future__ import annotations

import contextlib

from psycopg import sql as psql

from lab.operators import postgres, sql


def keep_in_step(place: postgres.Place, wanted: str) -> bool:
    """Make `wanted` the superuser's password of a running server; True when something changed.

    The file holds the password that works; a crash between server and file, or somebody's own ALTER ROLE, is noticed
    at the next login and mended, if need be through single-user mode (which interrupts the sessions).
    """
    known = place.password_file.read_text(encoding="utf-8")
    if not _works(place):
        postgres.write_private(place.password_file, wanted)
        if not _works(place):
            _force(place, wanted)
        return True
    if known == wanted:
        return False
    with postgres.connect(place) as connection:
        sql.set_password(connection, postgres.SUPERUSER, wanted)
    postgres.write_private(place.password_file, wanted)
    return True


def _works(place: postgres.Place) -> bool:
    with contextlib.suppress(postgres.LoginRefusedError), postgres.connect(place):
        return True
    return False


def _force(place: postgres.Place, wanted: str) -> None:
    verifier = sql.new_verifier(wanted)
    alter = psql.SQL("ALTER ROLE {} LOGIN SUPERUSER PASSWORD {}").format(
        psql.Identifier(postgres.SUPERUSER), psql.Literal(verifier)
    )
    postgres.run_in_single_user_mode(place, alter.as_string(None))
    postgres.start(place)
