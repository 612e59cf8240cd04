"""ESC environments: list, open, set, apply from `environments/`, run a command with, bind to a stack, unbind."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from invoke import task

ENV = "The environment, <project>/<env>, such as stitch/prod."
HIDDEN = "[secret]"


@task(name="list")
def list_environments(c: Any) -> None:
    """Show every environment: on the backend, as a file in environments/, bound by which service. Changes nothing."""
    from runbooks.core.errors import OpsError
    from runbooks.core.parallel import raise_first
    from runbooks.run import open_session
    from runbooks.services import SERVICES
    from runbooks.stacks.preparation import config_file_of, live_names
    from runbooks.stacks.target import refuse_without_esc
    from runbooks.tools import definitions, esc
    from runbooks.tools.stack_config import StackFile, is_same

    with open_session(c, "esc.list", cluster=False) as session:
        refuse_without_esc(session.target, "<env>")
        organization = session.target.organization
        live = {name.short: name for name in live_names(session)}
        files = definitions.defined_names(session.root)
        names = [live.get(text) or esc.read_name(text, organization) for text in sorted({*live, *files})]
        bound: dict[str, tuple[str, ...]] = {}
        unread: list[OpsError] = []
        for service in SERVICES:
            try:
                bound[service.name] = StackFile.read(config_file_of(session, service)).environment
            except OpsError as error:
                unread.append(error)
        rows = [
            (
                name.short,
                "there" if name.short in live else "not applied",
                f"environments/{name.short}.yaml" if name.short in files else "-",
                ", ".join(key for key, entries in bound.items() if any(is_same(each, name.short) for each in entries))
                or "-",
            )
            for name in names
        ]
        session.reporter.table(f"Environments of {organization}", ("environment", "backend", "file", "bound by"), rows)
        raise_first(session.reporter, unread)


@task(
    name="open", positional=["env"], help={"env": ENV, "format": "Only `detailed`; esc's other formats have no mask."}
)
def open_task(c: Any, env: str, format: str = "detailed") -> None:  # noqa: A002 - the option of `esc open`
    """Open an environment and show each value: path, kind, where it comes from; secrets masked. Changes nothing.

    Example: ./inv esc.open stitch/prod
    """
    from runbooks.core.errors import Usage
    from runbooks.run import open_session
    from runbooks.stacks import environments
    from runbooks.stacks.preparation import open_environment
    from runbooks.tools.pulumi import as_text

    if format != "detailed":
        raise Usage(
            f"esc.open has no format {format!r}: it would print secrets in plaintext",
            expected="--format detailed, where secrets are masked",
            next_step=f"./inv esc.open {env}",
        )
    with open_session(c, "esc.open", cluster=False) as session:
        name = environments.read_name(session, env)
        opened = open_environment(session, name)
        rows = []
        for value in opened.values:
            text = HIDDEN if value.secret else "[unknown]" if value.unknown else as_text(value.value)
            rows.append((value.shown_path, value.kind, text, value.origin or "-"))
        session.reporter.table(f"{name.short}, opened", ("path", "kind", "value", "from"), rows)
        for value, (path, kind, text, origin) in zip(opened.values, rows, strict=True):
            session.reporter.event("value", path=path, type=kind, secret=value.secret, value=text, origin=origin)


@task(
    name="set", positional=["env", "path"], help={"env": ENV, "path": "Below `values`: pulumiConfig.eventsub_secret."}
)
def set_value(c: Any, env: str, path: str) -> None:
    """Set a secret of an environment on the backend, from a prompt without echo or from standard input.

    Example: ./inv esc.set stitch/prod pulumiConfig.eventsub_secret
    """
    from runbooks.core.names import refuse_option_like
    from runbooks.run import open_session
    from runbooks.stacks import environments
    from runbooks.stacks.preparation import explain_missing
    from runbooks.tools import esc
    from runbooks.tools.definitions import has_place
    from runbooks.tools.esc import read_path, refuse_reference
    from runbooks.tools.secret_values import read_value

    refuse_option_like("path", path)
    keys = read_path(path)
    with open_session(c, "esc.set", cluster=False) as session:
        name = environments.read_name(session, env)
        live = environments.live_definition(session, name)
        if live is None:
            raise explain_missing(session, name)
        if entry := environments.check_place(session, name, live, keys):
            session.reporter.line(f"{path} of {name.short} is in the list entry {entry}.")
        value = read_value(session.reporter, path, f"secret of {name.short}")
        session.masker.register(value)
        refuse_reference(value, keys, name)
        esc.ask(session.runner, session.esc.set_secret(name, path, value), name, session.masker.mask)
        session.reporter.line(f"Set the secret {path} of {name.short}.")
        if not has_place(session.root, name, path):
            session.reporter.line(f'environments/{name.short}.yaml has no `fn::secret: ""` at {path}; apply keeps it')


@task(positional=["env"], help={"env": ENV, "yes": "Push without asking, where there is no terminal."})
def apply(c: Any, env: str, yes: bool = False) -> None:
    """Push environments/<project>/<env>.yaml to the backend, after showing what changes; secrets set there stay.

    Example: ./inv esc.apply stitch/prod
    """
    from runbooks.core.reporter import require_yes
    from runbooks.run import open_session
    from runbooks.stacks import environments
    from runbooks.tools.definitions import shown_path

    with open_session(c, "esc.apply", cluster=False) as session:
        name = environments.read_name(session, env)
        session.reporter.announce(f"Comparing environments/{name.short}.yaml with the definition on the backend.")
        draft = environments.compare(session, name)
        if not draft.is_new and not draft.differences:
            session.reporter.line(f"{name.short}: nothing to do: the backend has the same definition")
            return
        session.reporter.line(f"{name.short}: {'is new' if draft.is_new else 'changes'}")
        environments.show_draft(session, draft)
        if not session.target.ephemeral and not yes:
            refusal = f"{name.short} was left as it is: the push was not approved"
            again = f"./inv esc.apply {name.short}"
            require_yes(session.reporter, f"Push this to {name.full}?", refusal=refusal, again=again)
        revision = environments.push(session, draft)
        session.reporter.line(f"{name.short}: applied" + (f", revision {revision}" if revision else ""))
        for path in draft.carried.empty:
            session.reporter.advice(f"next: ./inv esc.set {name.short} '{shown_path(path)}' (nothing is set there yet)")


@task(positional=["env"], help={"env": ENV, "service": "Whose project pulumi runs in; by default the one it is for."})
def run(c: Any, env: str, service: str = "") -> None:
    """Run a reading command with an environment's variables, masked.

    Example: ./inv esc.run stitch/prod -- pulumi preview
    """
    from runbooks.run import open_session
    from runbooks.stacks import environment_commands, environments
    from runbooks.stacks.preparation import open_checked

    words = environment_commands.words_after_dashes(sys.argv, c.remainder)
    environment_commands.refuse_changing(words)
    with open_session(c, "esc.run") as session:
        name = environments.read_name(session, env)
        session.reporter.announce(f"Running {words[0]} with the variables of {name.short}; its output is masked.")
        opened = open_checked(session, name)
        stack = environment_commands.stack_of(session, name, service, words)
        environment_commands.run_with(session, name, opened, words, stack)


@task(positional=["env"], help={"env": ENV, "service": "The service to bind it to; by default the one it is for."})
def bind(c: Any, env: str, service: str = "") -> None:
    """Bind an environment to a service's stack, once: it opens, it provides what is required, then a preview.

    stitch/prod@7 binds that revision, stitch/prod the newest or the one that is bound already.

    Example: ./inv esc.bind stitch/prod
    """
    from runbooks.run import open_session
    from runbooks.stacks import environments, wiring

    with open_session(c, "esc.bind") as session:
        bare, _, version = env.partition("@")
        name = replace(environments.read_name(session, bare), version=version)
        wiring.bind(session, name, wiring.consumer_of(session, name, service))


@task(positional=["env"], help={"env": ENV, "service": "The service to unbind it from; by default the one it is for."})
def unbind(c: Any, env: str, service: str = "") -> None:
    """Take an environment out of a service's stack config, every occurrence; comments stay. Nothing else is changed.

    Example: ./inv esc.unbind stitch/prod
    """
    from runbooks.run import open_session
    from runbooks.stacks.preparation import config_file_of
    from runbooks.stacks.wiring import consumer_of
    from runbooks.tools import esc, stack_config

    with open_session(c, "esc.unbind", cluster=False) as session:
        name = esc.read_name(env, session.target.organization)
        consumer = consumer_of(session, name, service, task="esc.unbind")
        path = config_file_of(session, consumer)
        count = stack_config.unbind(path, name.short)
        if not count:
            session.reporter.line(f"{path.name} of {consumer.name} does not bind {name.short}; nothing to do")
            return
        session.reporter.line(f"{path.name} of {consumer.name} no longer binds {name.short} ({count} removed)")
        session.reporter.advice(f"next: ./inv preview.{consumer.name} names what its program now lacks")
