"""Scripts and configuration in Superset's pods. None contains a value of a Secret."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

DATABASE = """
from sqlalchemy.engine import URL

SQLALCHEMY_DATABASE_URI = URL.create(
    "postgresql+psycopg2", env("DB_USER"), env("DB_PASS"), env("DB_HOST"), int(env("DB_PORT")), env("DB_NAME")
).render_as_string(hide_password=False)
"""
"""The chart does not escape the parts: a password with a slash would break the URL."""

CONFIGURATION = {
    "database": DATABASE.strip(),
    # TLS terminates at the tailnet's proxy; without this Superset links to http.
    "proxy": "ENABLE_PROXY_FIX = True",
}
"""Appended to superset_config.py; the keys are arbitrary."""


def bootstrap_script(drivers: Sequence[str]) -> str:
    """Return the script that every pod sources at start. A failed installation fails the pod, not a later query."""
    packages = " ".join(shlex.quote(driver) for driver in drivers)
    lines = ["#!/bin/bash", "set -e", ". /app/.venv/bin/activate"]
    return "\n".join([*lines, f"uv pip install --no-cache {packages}"] if drivers else lines) + "\n"


def init_script() -> str:
    """Return the Job's script. The Job may run again: it creates the first user once and always sets the password."""
    admin = '--username "$ADMIN_USERNAME"'
    made = f'{admin} --firstname Superset --lastname Admin --email "$ADMIN_EMAIL" --password "$ADMIN_PASSWORD"'
    return "\n".join(
        [
            "#!/bin/sh",
            "set -eu",
            "superset db upgrade",
            "superset init",
            f"superset fab create-admin {made} || true",
            f'superset fab reset-password {admin} --password "$ADMIN_PASSWORD"',
            "",
        ]
    )
