"""A database, a role and a Secret for an app, in the Postgres server that another stack runs.

    @dataclass(frozen=True, kw_only=True)
    class Settings(DatabaseSettings): …

    database = app_database(
        "n8n", server=read_server(settings), password=settings.database_password, namespace=settings.namespace,
        secret_keys={"DB_POSTGRESDB_PASSWORD": "password"}, after=home,
    )
    chart(…, opts=pulumi.ResourceOptions(depends_on=[*database.ready]))

A server has two names. Pulumi runs outside the Kubernetes cluster and uses the name on the tailnet; pods do not resolve
it and use the name of the Service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pulumi
import pulumi_postgresql as postgresql
from lib.k8s import opaque_secret
from lib.settings import matching, one_of, secret, setting

POD_PORT = 5432
"""The port of the operator's own Services; the tailnet Service may have another."""
LOCALE = "C.UTF-8"
"""Sorts by code point, supports letters beyond ASCII, and is part of every glibc. It cannot be changed later."""
CONNECT_TIMEOUT = 20
"""Seconds. The provider's default is three minutes, too long to wait when the tailnet is not connected."""

STACK = matching(r"[^/\s]+/[^/\s]+/[^/\s]+", "organization/project/stack", "{organization}/postgresql/{stack}")
SSLMODE = one_of("disable", "require", "verify-ca", "verify-full")

LoginField = Literal["host", "port", "username", "password", "database"]


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Settings of every project with a database in the Postgres of another stack."""

    postgres_stack: str = setting("Stack that runs Postgres; its outputs are read", accepts=STACK)
    database_password: pulumi.Output[str] = secret("Password of the app's own role in Postgres", generated=True)
    sslmode: str = setting("How pulumi's own connection to Postgres is encrypted", default="require", accepts=SSLMODE)
    protect: bool = setting("Whether pulumi refuses to delete what holds data", default=True)


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A Postgres server under both of its names, with a login that may create roles and databases."""

    admin_host: pulumi.Input[str]
    """The name that pulumi connects to."""
    port: pulumi.Input[int]
    """The port at `admin_host`; pods use `POD_PORT`."""
    username: pulumi.Input[str]
    password: pulumi.Input[str]
    sslmode: str
    pod_host: pulumi.Input[str]
    """The name that pods connect to."""
    namespace: pulumi.Input[str] = ""
    """The namespace of its pods, for network policies."""


@dataclass(frozen=True, kw_only=True)
class AppDatabase:
    """An app's databases, and where the app finds its login."""

    host: pulumi.Input[str]
    """The server's name for pods."""
    username: str
    databases: tuple[str, ...]
    secret_name: str
    """The Secret in the app's namespace. Charts get this name, never a value."""
    ready: tuple[pulumi.Resource, ...]
    """The resources that must exist before the app starts, for `depends_on`."""
    port: int = POD_PORT

    @property
    def name(self) -> str:
        """The app's first database."""
        return self.databases[0]


def read_server(settings: DatabaseSettings) -> PostgresServer:
    """Read the server from the outputs of the stack `settings.postgres_stack`.

    Pulumi connects to `ts_hostname`, or to `host` if the server has no name on the tailnet. A missing output ends
    the program with a `pulumi.RunError` that names it, its stack and this one.
    """
    output = read_outputs(
        settings.postgres_stack, ("ts_hostname|host", "port", "username", "password", "k8s_namespace")
    )
    return PostgresServer(
        admin_host=output["ts_hostname|host"],
        port=output["port"].apply(int),
        username=output["username"],
        password=output["password"],
        sslmode=settings.sslmode,
        pod_host=output["k8s_namespace"].apply(service_host),
        namespace=output["k8s_namespace"],
    )


def service_host(namespace: str) -> str:
    """Return the name of the primary of the platform's cluster, for pods of every namespace."""
    return f"postgresql-cluster-rw.{namespace}.svc.cluster.local"


def read_outputs(stack: str, names: Sequence[str]) -> dict[str, pulumi.Output[Any]]:
    """Read the outputs `names` of another stack; `a|b` is a, or b if a is missing or empty. Secrets stay secret.

    `get_output` returns None for a missing output, and `require_output` raises KeyError at the first one; this function
    reports all missing outputs in one error.
    """
    reference = pulumi.StackReference(stack)
    missing = pulumi.Output.from_input(_find_missing(reference, names))

    def read(name: str) -> pulumi.Output[Any]:
        candidates = [reference.get_output(alternative) for alternative in name.split("|")]
        return pulumi.Output.all(missing, *candidates).apply(lambda found: _require_first(stack, found[0], found[1:]))

    return {name: read(name) for name in names}


async def _find_missing(reference: pulumi.StackReference, names: Sequence[str]) -> list[str]:
    """Return those of `names` that the stack does not have. An error raised here would be lost: no task awaits it."""
    missing = []
    for name in names:
        found = [await reference.get_output_details(alternative) for alternative in name.split("|")]
        if all(details.value in (None, "") and details.secret_value in (None, "") for details in found):
            missing.append(name)
    return missing


def _require_first(stack: str, missing: Sequence[str], candidates: Sequence[Any]) -> Any:
    if missing:
        outputs = ", ".join(name.replace("|", " or ") for name in missing)
        _, project, name = stack.split("/")
        raise pulumi.RunError(
            f"stack {stack} has no output {outputs}\n"
            f"  read by   stack {pulumi.get_stack()} of project {pulumi.get_project()}\n"
            f"  expected  project {project} exports it, and stack {name} was applied after that\n"
            f"  check     pulumi stack output --stack {stack}\n"
            f"  or        pulumi config set {pulumi.get_project()}:postgres_stack ORGANIZATION/{project}/STACK"
        )
    return next(candidate for candidate in candidates if candidate not in (None, ""))


def app_database(
    app: str,
    *,
    server: PostgresServer,
    password: pulumi.Input[str],
    namespace: str,
    secret_keys: Mapping[str, LoginField],
    more_in_secret: Mapping[str, pulumi.Input[str]] | None = None,
    databases: Sequence[str] = (),
    extensions: Sequence[str] = (),
    protect: bool = True,
    after: pulumi.Resource,
) -> AppDatabase:
    """Create the role `app`, its databases (one called `app` by default), and Secret `<app>-database` in `namespace`.

    The role owns its databases and has no other privilege. `secret_keys` maps each key that the app's chart reads to a
    field of the login; `more_in_secret` adds entries for charts that read other values from the same Secret. The
    server's superuser creates `extensions` in every database, in the given order: many need a superuser.
    """
    names = tuple(databases) or (app,)
    provider = _provider(server)
    role = postgresql.Role(app, name=app, login=True, password=password, opts=pulumi.ResourceOptions(provider=provider))
    made = [_database(name, role, provider, protect) for name in names]
    added = [_extensions(database, name, extensions, provider) for database, name in zip(made, names, strict=True)]
    login = {
        "host": server.pod_host,
        "port": str(POD_PORT),
        "username": app,
        "password": password,
        "database": names[0],
    }
    secret_data = {key: login[field] for key, field in secret_keys.items()} | dict(more_in_secret or {})
    kept = opaque_secret(f"{app}-database", namespace=namespace, component=app, data=secret_data, after=after)
    return AppDatabase(
        host=server.pod_host,
        username=app,
        databases=names,
        secret_name=f"{app}-database",
        ready=(kept, *made, *(extension for chain in added for extension in chain)),
    )


def _provider(server: PostgresServer) -> postgresql.Provider:
    return postgresql.Provider(
        "postgresql",
        host=server.admin_host,
        port=server.port,
        username=server.username,
        password=server.password,
        sslmode=server.sslmode,
        superuser=True,
        connect_timeout=CONNECT_TIMEOUT,
    )


def _database(name: str, role: postgresql.Role, provider: postgresql.Provider, protect: bool) -> postgresql.Database:
    """Create a database. Without an explicit name the provider would add a random suffix."""
    return postgresql.Database(
        name,
        name=name,
        owner=role.name,
        encoding="UTF8",
        lc_collate=LOCALE,
        lc_ctype=LOCALE,
        opts=pulumi.ResourceOptions(provider=provider, protect=protect),
    )


def _extensions(
    database: postgresql.Database, database_name: str, extensions: Sequence[str], provider: postgresql.Provider
) -> list[postgresql.Extension]:
    """Create extensions one after the other: some depend on an earlier one, and concurrent creations fail.

    `deleted_with`: pulumi would drop each before its database, which fails on the app's tables that use it.
    """
    made: list[postgresql.Extension] = []
    for extension in extensions:
        options = pulumi.ResourceOptions(provider=provider, depends_on=made[-1:], deleted_with=database)
        made.append(
            postgresql.Extension(f"{database_name}-{extension}", name=extension, database=database.name, opts=options)
        )
    return made
