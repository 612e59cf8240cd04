"""A database, a role and a Secret for an app, in the Postgres server that another stack runs.

    @dataclass(frozen=True, kw_only=True)
    class Settings(DatabaseSettings): …

    server = referenced_server(settings)
    database = app_database(
        "n8n", server=server, settings=settings, after=home, secret_keys={"DB_POSTGRESDB_PASSWORD": "password"}
    )
    chart(…, opts=pulumi.ResourceOptions(depends_on=[*database.ready]))

A server has two names. Pulumi runs outside the Kubernetes cluster and takes the one on the tailnet; pods do not resolve
that and take the one of the Service.
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
"""Where the operator's own Services listen; the tailnet Service may have another."""
LOCALE = "C.UTF-8"
"""Sorts by code point but knows letters beyond ASCII, and every glibc has it. It cannot be changed afterwards."""
CONNECT_TIMEOUT = 20
"""Seconds; the provider's own default is three minutes, a long time to learn that the tailnet is not connected."""

STACK = matching(r"[^/\s]+/[^/\s]+/[^/\s]+", "organization/project/stack", "{organization}/postgresql/{stack}")
SSLMODE = one_of("disable", "require", "verify-ca", "verify-full")

LoginField = Literal["host", "port", "username", "password", "database"]


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Settings of every project that keeps its data in the Postgres of another stack."""

    postgres_stack: str = setting("Stack that runs Postgres; its outputs are read", accepts=STACK)
    database_password: pulumi.Output[str] = secret("Password of the app's own role in Postgres", generated=True)
    sslmode: str = setting("How pulumi's own connection to Postgres is encrypted", default="require", accepts=SSLMODE)
    protect: bool = setting("Whether pulumi refuses to delete what holds data", default=True)


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A Postgres server under both of its names, and the login of somebody who may make roles and databases there."""

    admin_host: pulumi.Input[str]
    """Reached by pulumi."""
    port: pulumi.Input[int]
    """At `admin_host`; pods use `POD_PORT`."""
    username: pulumi.Input[str]
    password: pulumi.Input[str]
    sslmode: str
    pod_host: pulumi.Input[str]
    """Reached by pods."""
    namespace: pulumi.Input[str] = ""
    """Where its own pods are, for network policies."""


@dataclass(frozen=True, kw_only=True)
class AppDatabase:
    """What an app has in the server, and where it finds its login."""

    host: pulumi.Input[str]
    """Name of the server for pods."""
    username: str
    databases: tuple[str, ...]
    secret_name: str
    """Secret in the app's namespace. Charts get this name, never a value."""
    ready: tuple[pulumi.Resource, ...]
    """What must be there before the app starts, for `depends_on`."""
    port: int = POD_PORT

    @property
    def name(self) -> str:
        """The app's database, or the first of them."""
        return self.databases[0]


def referenced_server(settings: DatabaseSettings) -> PostgresServer:
    """The server whose stack `settings.postgres_stack` names, from the outputs of that stack.

    Pulumi connects to `ts_hostname`, or to `host` where the server has no name on the tailnet. A missing output ends
    the program with a `pulumi.RunError` that names it, its stack and this one; nothing is made up for it.
    """
    output = stack_outputs(
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
    """Name of the primary of the platform's cluster for pods of every namespace."""
    return f"postgresql-cluster-rw.{namespace}.svc.cluster.local"


def stack_outputs(stack: str, names: Sequence[str]) -> dict[str, pulumi.Output[Any]]:
    """The outputs `names` of another stack; `a|b` is a, or b where a is missing or empty. Secret ones stay secret.

    `get_output` gives None for a missing output without a word, and `require_output` a KeyError, so they are looked
    for here: what is missing is reported together.
    """
    reference = pulumi.StackReference(stack)
    missing = pulumi.Output.from_input(_missing(reference, names))

    def read(name: str) -> pulumi.Output[Any]:
        candidates = [reference.get_output(alternative) for alternative in name.split("|")]
        return pulumi.Output.all(missing, *candidates).apply(lambda found: _first(stack, found[0], found[1:]))

    return {name: read(name) for name in names}


async def _missing(reference: pulumi.StackReference, names: Sequence[str]) -> list[str]:
    """Those of `names` that the stack does not have. Not an error yet: it would be raised where nobody waits."""
    missing = []
    for name in names:
        found = [await reference.get_output_details(alternative) for alternative in name.split("|")]
        if all(details.value in (None, "") and details.secret_value in (None, "") for details in found):
            missing.append(name)
    return missing


def _first(stack: str, missing: Sequence[str], candidates: Sequence[Any]) -> Any:
    if missing:
        outputs = ", ".join(name.replace("|", " or ") for name in missing)
        _, project, name = stack.split("/")
        raise pulumi.RunError(
            f"stack {stack} has no output {outputs}\n"
            f"  read by   stack {pulumi.get_stack()} of project {pulumi.get_project()}, which makes nothing up\n"
            f"  expected  project {project} exports it and its stack {name} was applied since\n"
            f"  look      pulumi stack output --stack {stack}\n"
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
    """The role `app`, its databases (one called `app` unless named), and Secret `<app>-database` in `namespace`.

    The role owns its databases and nothing else, so that it needs no right beyond them. The Secret has the keys that
    the app's chart reads, each with the part of the login it stands for, and `more_in_secret` where a chart reads both
    from one. `extensions` are made in every database, in their order, by the server's superuser: many need one.
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
    """Always with a name: without one the provider would add a random end to it."""
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
    """One after the other: some need an earlier one, and Postgres takes it ill when several are made at once.

    They go with their database: dropped before it, as pulumi would, each fails on the app's tables that use it.
    """
    made: list[postgresql.Extension] = []
    for extension in extensions:
        options = pulumi.ResourceOptions(provider=provider, depends_on=made[-1:], deleted_with=database)
        made.append(
            postgresql.Extension(f"{database_name}-{extension}", name=extension, database=database.name, opts=options)
        )
    return made
