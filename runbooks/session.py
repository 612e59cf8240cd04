"""One run, opened once: where it goes, what it may show, which tools it uses. Tasks on a target start here."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from runbooks import preparation, states
from runbooks.lib.environment import back_end_variables, key_service_variables, plugin_variables, secret_variables
from runbooks.lib.errors import NotFound, Usage
from runbooks.lib.files import make_folder
from runbooks.lib.graph import by_name
from runbooks.lib.guard import Cluster, check_cluster, check_stack_settings, plain_settings, private_kubeconfig
from runbooks.lib.journal import Journal, JournalUnwritable
from runbooks.lib.kubeconfig import KubeContext
from runbooks.lib.kubectl import Kubectl
from runbooks.lib.mask import Masker
from runbooks.lib.plugins import NO_AMBIENT, NO_DOWNLOADS
from runbooks.lib.pulumi_home import made_private, user_credentials
from runbooks.lib.render import Reporter, make_reporter
from runbooks.lib.runner import Runner, child_environment
from runbooks.lib.search_path import persons_path
from runbooks.lib.stackfile import StackFile, secrets_provider_of
from runbooks.lib.stacks import Stack
from runbooks.lib.target import LAB, Target, chosen_name, load_target, load_targets
from runbooks.lib.toolbox import Tools, choose_pulumi, find_kubectl, find_tools
from runbooks.program import BUG, ROOT, as_known, state_dir
from runbooks.services import SERVICES, Service

SECRET_NAME = re.compile(r"pass|secret|token|key|sig", re.IGNORECASE)
"""Of a field in the query of a back end's address."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """Everything a task works with. Made by `open_session`; nothing in it is looked up a second time."""

    root: Path
    state_dir: Path
    target: Target
    runner: Runner
    journal: Journal
    masker: Masker
    reporter: Reporter
    context: KubeContext
    kubeconfig: Path
    """The run's own, with the checked context alone (0600, gone when the run ends)."""
    kubectl: Kubectl
    tools: Tools
    env: Mapping[str, str] = field(repr=False)
    """What a pulumi child gets on top of the allow-listed environment."""
    prepared: dict[str, Stack] = field(default_factory=dict, repr=False)
    known: states.Known = field(default_factory=states.Known, repr=False)
    """What the back end said of the stacks."""

    def guard(self) -> Cluster:
        """Ask the cluster again who it is. Raises `Refused` unless it is the pinned one."""
        return check_cluster(self.target, self.context, self.kubectl, self.runner)

    def stack(self, service: Service) -> Stack:
        """The service's stack on this target; prepares and checks nothing."""
        folder = self.root / "pulumi" / service.folder
        settings = self.target.settings_dir
        own = settings / service.project_name if settings else None
        return Stack(
            service=service.name,
            project=service.project_name,
            name=self.target.stack,
            organization=self.target.organization,
            folder=folder,
            config_file=own / f"Pulumi.{self.target.stack}.yaml" if own else None,
            init_folder=own,
            program=self.tools.pulumi,
            env=self.env if self.target.ephemeral else {**self.env, **self._key_services(service)},
        )

    def _key_services(self, service: Service) -> dict[str, str]:
        """The logins of the key services that hold the keys of its stack, and of those whose outputs it reads."""
        read = (service, *(by_name(SERVICES)[name] for name in service.reads_outputs_of))
        files = (self.root / "pulumi" / each.folder / f"Pulumi.{self.target.stack}.yaml" for each in read)
        found: dict[str, str] = {}
        for file in files:
            found |= key_service_variables(secrets_provider_of(file), os.environ)
        return found

    def prepare(self, service: Service) -> Stack:
        """The service's stack, ready for its first command.

        On the lab its settings are brought up to date, and stack and secrets made where they are missing. On a real
        target stack and secrets must be there: raises `NotFound` or `Usage` with the command that makes them. On both
        its secrets are registered with the masker, and settings that lead to another cluster are refused.
        """
        done = self.prepared.get(service.name)
        if done is None:
            done = self.prepared[service.name] = preparation.prepare(self, service)
        return done

    def set_up(self, service: Service) -> Stack:
        """The service's stack, which is there with its own settings; no environment is opened, no secret asked for."""
        return preparation.set_up(self, service)

    def check_settings(self, stack: Stack) -> StackFile:
        """The stack's settings file. Raises `Refused` when it points pulumi at another cluster than the target's."""
        file = StackFile.read(stack.settings_file)
        check_stack_settings(plain_settings(file.config), self.target, source=str(stack.settings_file))
        return file

    def has_stack(self, stack: Stack) -> bool:
        """Whether the back end holds the stack; on a file back end this starts no process."""
        return states.has_stack(self, stack)

    def is_deployed(self, stack: Stack) -> bool:
        """Whether the stack exists and its state holds resources: a preview on the lab leaves an empty one."""
        return self.has_stack(stack) and bool(states.state_of(self, stack).own_resources)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a run needs before, or without, a target."""

    state_dir: Path
    masker: Masker
    reporter: Reporter
    journal: Journal
    runner: Runner


@contextlib.contextmanager
def open_bench(c: Any, task: str, *, argv: Sequence[str] | None = None, show_children: bool = False) -> Iterator[Bench]:
    """Display, record and runner of a run of `task`; what the environment holds of secrets is registered first.

    `show_children` shows what children print while they print it.
    """
    masker = Masker(secret_variables(os.environ), platform_words=platform_words())
    names = [service.name for service in SERVICES]
    chosen = str(c.config.ops.target or "")
    reporter = make_reporter(as_json=bool(c.config.ops.json), masker=masker, names=names, target=chosen)
    state = made_state_dir()
    journal = Journal.open(state, task, list(sys.argv if argv is None else argv), masker=masker)
    with _recorded(journal), contextlib.ExitStack() as closing:
        closing.callback(reporter.close)
        # What `lab.env` put into a shell is for that shell.
        environment = child_environment({**os.environ, "PATH": persons_path()})
        show = (lambda _, text: reporter.quote(text.rstrip("\n"))) if show_children else None
        runner = Runner(masker=masker, journal=journal, base_env=environment, show=show, tell=reporter.line)
        closing.enter_context(runner)
        yield Bench(state_dir=state, masker=masker, reporter=reporter, journal=journal, runner=runner)


@contextlib.contextmanager
def open_session(
    c: Any, task: str, *, argv: Sequence[str] | None = None, cluster: bool = True, start_lab: bool = True
) -> Iterator[Session]:
    """Open a run of `task` on the chosen target, announced in one line, and close it whatever happens.

    `cluster=False` leaves the guard out, for what touches settings alone; without `start_lab` a lab that is not
    running is `NotFound`. Every secret known by now is registered with the masker before anything is shown.
    """
    with open_bench(c, task, argv=argv) as bench, contextlib.ExitStack() as closing:
        name = chosen_name(c.config.ops.target or None, os.environ, load_targets(ROOT))
        starts_lab = name == LAB and not lab_is_up(bench.state_dir)
        if starts_lab:
            bring_up_lab(bench, may_start=start_lab)
        target = load_target(name, root=ROOT, state_dir=bench.state_dir)
        session = opened(target, bench, closing)
        found = session.guard() if cluster else None
        facts = header_facts(session, found)
        bench.reporter.line(header(facts))
        bench.reporter.event("target", **facts)
        bench.journal.write("target", **facts)
        if starts_lab:
            apply_environments_on_lab(session)
        yield session


def lab_is_up(state: Path) -> bool:
    from lab import platform

    return platform.is_up(state)


def apply_environments_on_lab(session: Session) -> None:
    """A lab that was just started gets every definition of `environments/`, so that a fresh one can be bound to."""
    from runbooks import environments

    if not session.target.has_diy_backend:
        environments.apply_definitions(session)


@contextlib.contextmanager
def _recorded(journal: Journal) -> Iterator[None]:
    """Close the journal with the exit code the run ends with."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(JournalUnwritable):  # the run has failed already, and says why
            journal.finish(exit_code_of(error))
        raise
    else:
        journal.finish(0)
    finally:
        journal.close()


def exit_code_of(error: BaseException) -> int:
    """The exit code a run ends with: `program.py` gives it to the shell, the journal keeps it."""
    known = as_known(error)
    return known.exit_code if known is not None else BUG


def platform_words() -> Iterator[str]:
    """The platform's own names: a secret that is one of them is masked as a whole word only."""
    for service in SERVICES:
        yield from (service.name, service.project_name, service.namespace)


def made_state_dir() -> Path:
    """The state folder, absolute, made with mode 0700 when new. Raises `Unwritable`."""
    state = state_dir().absolute()
    make_folder(state, "the state folder")
    return state


def bring_up_lab(bench: Bench, *, may_start: bool) -> None:
    """Start the lab, and say so first. Raises `NotFound` where a task only looks at one that runs."""
    from lab import platform

    if not may_start:
        raise NotFound("the lab is not running", expected="a running lab", next_step="./inv lab.up")
    bench.reporter.announce("This works on the lab, a throw-away platform on this machine. It is started first.")
    with bench.reporter.step("start the lab") as progress:
        platform.up(bench.state_dir, progress.note)


def kubectl_for(target: Target, context: KubeContext, kubeconfig: Path, state: Path) -> Kubectl:
    """kubectl for a target, with a cache of its own: after a reset of the lab another one answers on the same port."""
    cache = state / "cache" / f"kube-{target.cluster_uid[:8] or target.name}"
    env = cluster_login(context) | {"KUBECACHEDIR": str(cache)}
    return Kubectl(program=find_kubectl(target), kubeconfig=kubeconfig, env=env)


def cluster_login(context: KubeContext) -> dict[str, str]:
    """The variables that the kubeconfig's login plug-in may need; without one there are none."""
    return plugin_variables(os.environ) if context.starts_plugin else {}


def opened(target: Target, bench: Bench, closing: contextlib.ExitStack) -> Session:
    """A session on a target that was resolved before, not yet guarded; `closing` takes away what it leaves on disk."""
    folder = bench.journal.folder
    context, kubeconfig = private_kubeconfig(target, folder)
    closing.callback(kubeconfig.unlink, missing_ok=True)
    bench.masker.register_all([*context.secrets(), *passphrases(target), *tokens(target), *back_end_passwords(target)])
    home = closing.enter_context(made_private(folder, os.environ))
    explicit = pulumi_environment(target, os.environ, home=home, kubeconfig=kubeconfig, state=bench.state_dir)
    env = cluster_login(context) | explicit
    program, version = choose_pulumi(target, env, bench.runner)
    return Session(
        root=ROOT,
        state_dir=bench.state_dir,
        target=target,
        runner=bench.runner,
        journal=bench.journal,
        masker=bench.masker,
        reporter=bench.reporter,
        context=context,
        kubeconfig=kubeconfig,
        kubectl=kubectl_for(target, context, kubeconfig, bench.state_dir),
        tools=find_tools(target, program, version=version),
        env=env,
    )


def back_end_passwords(target: Target) -> list[str]:
    """The passwords in a back end's address, as they stand there and as they are."""
    parts = urlsplit(target.backend)
    fields = (field.partition("=") for field in parts.query.split("&"))
    written = [parts.password or "", *(value for name, _, value in fields if SECRET_NAME.search(name))]
    return [text for password in written if password for text in (password, unquote(password))]


def passphrases(target: Target) -> list[str]:
    """What the target's passphrase file holds. Raises `Usage` when it cannot be read."""
    return [held(target, target.passphrase_file, "passphrase")] if target.passphrase_file else []


def tokens(target: Target) -> list[str]:
    """The access token of the lab's own cloud. Raises `Usage` when it cannot be read."""
    return [held(target, target.token_file, "token")] if target.token_file else []


def held(target: Target, path: Path, what: str) -> str:
    """What a file of one secret holds. Raises `Usage` when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(
            f"the {what} file {path} of target {target.name!r} cannot be read",
            expected=f"a readable text file that holds the {what}",
            next_step="./inv lab.up" if target.ephemeral else f"./inv --target {target.name} target.show",
        ) from error


def pulumi_environment(
    target: Target, environ: Mapping[str, str], *, home: Path, kubeconfig: Path, state: Path
) -> dict[str, str]:
    """Everything that decides where pulumi goes, set explicitly for each child."""
    credentials = target.credentials_dir or user_credentials(environ)
    if environ.get("PULUMI_ACCESS_TOKEN") and not target.ephemeral and not target.has_diy_backend:
        # pulumi writes a token of the environment down, and makes its back end the person's current one.
        credentials = home
    made = {
        "PULUMI_BACKEND_URL": target.backend,
        "PULUMI_HOME": str(home),
        "PULUMI_CREDENTIALS_PATH": str(credentials.absolute()),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "KUBECONFIG": str(kubeconfig),
        "UV_FROZEN": "1",
        "UV_OFFLINE": "1",
        "NO_COLOR": "1",
        "PATH": persons_path(environ),
    }
    if target.passphrase_file is not None:
        made["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(target.passphrase_file)
    if target.ephemeral:
        made |= {"PULUMI_ACCESS_TOKEN": tokens(target)[0]} if target.token_file else {}
        tools = os.pathsep.join((str(state / "lab" / "bin"), made["PATH"]))
        return made | {"OPS_STATE": str(state), "PATH": tools, NO_DOWNLOADS: "true", NO_AMBIENT: "false"}
    if made["PATH"] != environ.get("PATH", os.defpath):  # `lab.env` was here, and said this for the lab
        made[NO_DOWNLOADS] = "false"
    passed_on = ["PULUMI_ACCESS_TOKEN"] + ([] if target.passphrase_file else ["PULUMI_CONFIG_PASSPHRASE"])
    of_back_end = back_end_variables(urlsplit(target.backend).scheme, environ)
    return made | of_back_end | {name: environ[name] for name in passed_on if name in environ}


def header(facts: Mapping[str, str]) -> str:
    """`target lab · stack lab · back end file://… · cluster 1f2e3d4c · pulumi v3.274.1`."""
    return " · ".join(
        (
            f"target {facts['target']}",
            f"stack {facts['stack']}",
            f"back end {facts['backend']}",
            f"cluster {facts['cluster'][:8] or 'not asked'}",
            f"pulumi {facts['pulumi']}",
        )
    )


def header_facts(session: Session, cluster: Cluster | None) -> dict[str, str]:
    target, tools = session.target, session.tools
    return {
        "target": target.name,
        "stack": target.stack,
        "backend": target.shown_backend,
        "cluster": cluster.uid if cluster else "",
        "pulumi": tools.pulumi_version,
    }
