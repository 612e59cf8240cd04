"""The provider's configuration: a provider resource's arguments or settings ``postgresql:*``, and ``PG*`` variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.engine.providers import CheckFailure
from lab.engine.values import UNKNOWN, PropertyMap, Value, strip_secrets

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SUPPORTED = (
    "connectTimeout",
    "database",
    "databaseUsername",
    "expectedVersion",
    "host",
    "maxConnections",
    "password",
    "port",
    "scheme",
    "sslMode",
    "sslmode",
    "sslrootcert",
    "superuser",
    "username",
)
_CLOUD_LOGINS = (
    "awsRdsIamAuth",
    "awsRdsIamProfile",
    "awsRdsIamProviderRoleArn",
    "awsRdsIamRegion",
    "azureIdentityAuth",
    "azureTenantId",
    "clientcert",
    "gcpIamImpersonateServiceAccount",
)


@dataclass(frozen=True)
class Settings:
    """Where the server is and how to log in. ``host`` is ``None`` when it is not known yet (a preview)."""

    host: str | None = ""
    port: int = 5432
    username: str = "postgres"
    password: str = field(default="", repr=False)
    database: str = "postgres"
    database_username: str = ""
    sslmode: str = "require"
    sslrootcert: str = ""
    superuser: bool = True
    connect_timeout: int = 180
    max_connections: int = 20

    @property
    def user(self) -> str:
        """The role one is after login."""
        return self.database_username or self.username


def check_settings(inputs: PropertyMap) -> tuple[CheckFailure, ...]:
    """What is not a setting of this provider, or has a value it cannot have."""
    plain = strip_secrets(inputs)
    failures: list[CheckFailure | None] = []
    for key, value in plain.items():
        if key in ("version", "pluginDownloadURL"):
            continue
        if key in _CLOUD_LOGINS and value not in (None, "", "false", False):
            failures.append(CheckFailure("", f"'{key}' is not supported by the lab's stand-in for pulumi"))
        elif key not in _SUPPORTED and key not in _CLOUD_LOGINS:
            failures.append(
                CheckFailure(
                    "",
                    "could not validate provider configuration: Invalid or unknown key. Check "
                    f"`pulumi config get postgresql:{key}`.",
                )
            )
    failures += [_not_a_number(key, plain[key]) for key in ("port", "connectTimeout", "maxConnections") if key in plain]
    mode = plain.get("sslmode")
    if isinstance(mode, str) and mode and mode not in SSL_MODES:
        known = ", ".join(SSL_MODES)
        failures.append(CheckFailure("", f'unsupported sslmode "{mode}"; only {known} are supported'))
    if plain.get("scheme") not in (None, "", "postgres", UNKNOWN):
        failures.append(CheckFailure("", f"scheme '{plain['scheme']}' is not supported by the lab's stand-in"))
    return tuple(failure for failure in failures if failure is not None)


def _not_a_number(key: str, value: Value) -> CheckFailure | None:
    if value is UNKNOWN or value is None or str(value).lstrip("-").isdigit():
        return None
    return CheckFailure("", f"provider setting '{key}' must be a whole number, not '{value}'")


def read_settings(inputs: PropertyMap, environment: Mapping[str, str]) -> Settings:
    """Checked inputs; what is not known yet counts as not given, but for the host."""
    plain = strip_secrets(inputs)

    def text(key: str, variable: str, default: str) -> str:
        value = plain.get(key)
        if value in (None, "") or value is UNKNOWN:
            return environment.get(variable, default) if variable else default
        return str(value)

    is_superuser = text("superuser", "PGSUPERUSER", "true").lower() not in ("false", "0", "f")
    host = None if UNKNOWN in (plain.get("host"), plain.get("port")) else text("host", "PGHOST", "")
    return Settings(
        host=host,
        port=int(text("port", "PGPORT", "5432")),
        username=text("username", "PGUSER", "postgres"),
        password=text("password", "PGPASSWORD", ""),
        database=text("database", "PGDATABASE", "postgres"),
        database_username=text("databaseUsername", "", ""),
        sslmode=text("sslmode", "PGSSLMODE", text("sslMode", "", "require")),
        sslrootcert=text("sslrootcert", "", ""),
        superuser=is_superuser,
        connect_timeout=int(text("connectTimeout", "PGCONNECT_TIMEOUT", "180")),
        max_connections=int(text("maxConnections", "", "20")),
    )
