"""What runs in Superset's pods besides Superset. None of it holds a value of a Secret."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

DATABASE = """
from sqlalchemy.engine import URL

SQLALCHEMY_DATABASE_URI = URL.create(
    "postgresql+psycopg2", env("DB_USER"), env("DB_PASS"), env("DB_HOST"), int(env("DB_PORT")), env("DB_NAME")
).render_as_string(hide_password=False)
"""
"""The chart joins the parts as they are, so that a password with a slash would break the address."""

CONFIGURATION = {
    "database": DATABASE.strip(),
    # Encryption ends at the tailnet's proxy; without this Superset makes links to http.
    "proxy": "ENABLE_PROXY_FIX = True",
}
"""Ends of superset_config.py, by names that mean nothing."""


def bootstrap_script(drivers: Sequence[str]) -> str:
    """Sourced by every pod before it starts: a failed installation ends the pod instead of a query later."""
    packages = " ".join(shlex.quote(driver) for driver in drivers)
    lines = ["#!/bin/bash", "set -e", ". /app/.venv/bin/activate"]
    return "\n".join([*lines, f"uv pip install --no-cache {packages}"] if drivers else lines) + "\n"


def init_script() -> str:
    """Sourced by the Job, which may run at any time again: the first user is made once, the password set always."""
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
