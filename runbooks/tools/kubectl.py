"""kubectl: command lines that always name the kubeconfig, and readers of its JSON answers.

They only read, as a cluster changes through Pulumi. Only `repair` applies objects, as Pulumi had applied them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from runbooks.core.command import Command, Outcome
from runbooks.core.errors import NotApproved, ToolFailed

Json = Mapping[str, Any]
REQUEST_TIMEOUT = 10
"""Seconds a single request to the API server may take."""
READ_TIMEOUT = 45.0
"""Seconds after which a read is stopped (discovery and exec plug-ins come on top of the request)."""
LOGIN_TIMEOUT = 300.0
"""Seconds for a kubectl whose login plug-in may send the user to a browser first."""
ATTEMPTS = 3


class Runs(Protocol):
    """The part of `runner.Runner` that this module uses."""

    def run(self, command: Command) -> Outcome: ...


class Trouble(Enum):
    """Why kubectl failed, from its answer. The value is shown."""

    UNREACHABLE = "the API server does not answer"
    BEHIND = "something behind the API server does not answer: a webhook, or an aggregated API"
    UNTRUSTED = "the API server's certificate is not trusted"
    UNAUTHORIZED = "the API server does not accept the credentials"
    FORBIDDEN = "the credentials may not read this"
    MISSING = "the object does not exist"
    UNKNOWN_KIND = "the server does not know this kind: its CRD is not installed"
    PASSING = "the connection broke, which often passes"
    PLUGIN = "the kubeconfig's exec plug-in failed"
    OTHER = "kubectl failed"


_PATTERNS: tuple[tuple[Trouble, re.Pattern[str]], ...] = tuple(
    (trouble, re.compile(text, re.IGNORECASE))
    for trouble, text in (
        (Trouble.PLUGIN, r"getting credentials: exec"),
        (Trouble.BEHIND, r"failed calling webhook|conversion webhook for|currently unable to handle the request"),
        (
            Trouble.PASSING,
            r"TLS handshake timeout|connection reset by peer|unexpected EOF|http2: client connection lost",
        ),
        (Trouble.UNTRUSTED, r"x509:|certificate signed by unknown authority|tls: failed to verify"),
        (
            Trouble.UNKNOWN_KIND,
            r"the server doesn't have a resource type|no matches for kind|could not find the requested",
        ),
        (Trouble.MISSING, r"\(NotFound\)"),
        (Trouble.FORBIDDEN, r"\(Forbidden\)| is forbidden: "),
        (Trouble.UNAUTHORIZED, r"\bUnauthorized\b|must be logged in to the server"),
        (
            Trouble.UNREACHABLE,
            r"Unable to connect to the server|connection refused|was refused|i/o timeout|no such host|no route to host"
            r"|context deadline exceeded|Client\.Timeout exceeded|network is unreachable|EOF$|ServiceUnavailable",
        ),
    )
)


def trouble_of(outcome: Outcome) -> Trouble:
    """Why this kubectl failed; `OTHER` if its standard error matches no pattern."""
    text = outcome.stderr.strip()
    return next((trouble for trouble, pattern in _PATTERNS if pattern.search(text)), Trouble.OTHER)


class KubectlFailed(ToolFailed):
    """A read that failed; `trouble` is the reason."""

    def __init__(self, trouble: Trouble, summary: str, *, next_step: str = "") -> None:
        super().__init__(summary, next_step=next_step)
        self.trouble = trouble


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """Builds kubectl commands for one kubeconfig; KUBECONFIG of the environment is ignored."""

    program: str
    kubeconfig: Path
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    has_plugin: bool = False
    """Whether a login plug-in runs first. Its output is shown, and its time does not count as the API server's."""

    @property
    def _head(self) -> tuple[str, ...]:
        limit = "0" if self.has_plugin else f"{REQUEST_TIMEOUT}s"
        return self.program, f"--kubeconfig={self.kubeconfig}", f"--request-timeout={limit}"

    @property
    def _timeout(self) -> float:
        """Seconds for a read."""
        return LOGIN_TIMEOUT if self.has_plugin else READ_TIMEOUT

    def _read(self, *words: str, title: str, extra: float = 0.0, **options: Any) -> Command:
        argv = (*self._head, *words)
        return Command(
            argv=argv, title=title, env=self.env, timeout=self._timeout + extra, shows_stderr=self.has_plugin, **options
        )

    def get(
        self,
        kind: str,
        name: str = "",
        *,
        namespace: str = "",
        everywhere: bool = False,
        labels: str = "",
        confidential: bool = False,
        managers: bool = False,
    ) -> Command:
        """`kubectl get … -o json`. Values of Secrets, and of a `confidential` kind, are neither shown nor journalled.

        `managers` includes `managedFields`.
        """
        words = ["get", kind]
        words += [f"--namespace={namespace}"] if namespace else []
        words += ["--all-namespaces"] if everywhere else []
        words += [f"--selector={labels}"] if labels else []
        words += ["--show-managed-fields"] if managers else []
        words += ["--output=json", *(["--", name] if name else [])]
        shown = f"{namespace + '/' if namespace else ''}{name}" if name else "all" if everywhere else namespace
        hidden = confidential or kind == "secrets"
        return self._read(*words, title=f"read {kind} {shown}".rstrip(), confidential=hidden)

    def raw(self, path: str) -> Command:
        """One GET on the API server, e.g. `/apis/<group>/<version>`."""
        return self._read("get", f"--raw={path}", title=f"ask the API server for {path}")

    def proxy(self, socket_path: Path, below: str) -> Command:
        """`kubectl proxy` on a Unix socket, for GET below one path of the API only. It runs until it is interrupted."""
        argv = (
            self.program,
            f"--kubeconfig={self.kubeconfig}",
            "proxy",
            f"--unix-socket={socket_path}",
            f"--accept-paths=^{re.escape(below)}",
            "--reject-methods=^(POST|PUT|PATCH|DELETE|OPTIONS|CONNECT)$",
        )
        return Command(argv=argv, title=f"open {below}", env=self.env, serves=True, timeout=READ_TIMEOUT)

    def get_all(self, namespace: str) -> Command:
        """The handbook's `kubectl get all -n <namespace>`, as a table."""
        return self._read("get", "all", f"--namespace={namespace}", title=f"list namespace {namespace}")

    def find_all(self, objects: Sequence[Json]) -> Command:
        """Looks up these objects (`apiVersion`, `kind`, `metadata`); prints one line for each that exists."""
        wanted = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self._read(
            "get",
            "--filename=-",
            "--ignore-not-found",
            f"--output=go-template={FOUND}",
            title=f"look which of {len(objects)} objects exist already",
            stdin=json.dumps(wanted).encode(),
            extra=len(objects),  # seconds: one request for each
        )

    def apply(self, obj: Json, *, manager: str, force: bool = True, dry_run: bool = False) -> Command:
        """Server-side apply of one object as the field manager; `force` takes fields from other managers.

        The object is passed on standard input, as it may be a Secret. As with pulumi, unknown fields are not an error.
        """
        argv = (
            *self._head,
            "apply",
            "--server-side",
            f"--field-manager={manager}",
            "--filename=-",
            "--validate=ignore",
            "--output=name",
            *(["--force-conflicts"] if force else []),
            *(["--dry-run=server"] if dry_run else []),
        )
        kind, name = text_at(obj, "kind"), text_at(obj, "metadata", "name")
        return Command(
            argv=argv,
            title=f"{'try to put back' if dry_run else 'put back'} {kind} {name}",
            env=self.env,
            stdin=json.dumps(obj).encode(),
            mutates=not dry_run,
            confidential=True,
            timeout=self._timeout if dry_run else None,
        )

    def set_managers(self, obj: Json, entries: Sequence[Json], *, manager: str) -> Command:
        """Sets the field managers of an object, not its values. The server refuses if it changed since it was read."""
        facts = obj["metadata"]
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": facts["resourceVersion"]},
            {"op": "add", "path": "/metadata/managedFields", "value": list(entries)},
        ]
        argv = (
            *self._head,
            "patch",
            "--type=json",
            "--patch-file=/dev/stdin",
            f"--field-manager={manager}",
            "--output=name",
            *([f"--namespace={facts['namespace']}"] if facts.get("namespace") else []),
            "--",
            full_kind(obj),
            facts["name"],
        )
        title = f"take over fields of {text_at(obj, 'kind')} {facts['name']}"
        return Command(
            argv=argv, title=title, env=self.env, stdin=json.dumps(patch).encode(), mutates=True, confidential=True
        )

    def kinds(self) -> Command:
        """Every kind that the server has, with its version, one a line."""
        return self._read("api-resources", "--no-headers", title="list the kinds of the cluster")

    def version(self) -> Command:
        """Client and server versions, as JSON."""
        return self._read("version", "--output=json", title="ask kubectl and the server for their versions")


_FACTS = (
    "{{.apiVersion}}",
    "{{.kind}}",
    "{{with .metadata.namespace}}{{.}}{{end}}",
    "{{.metadata.name}}",
    '{{with .metadata.annotations}}{{with index . "meta.helm.sh/release-name"}}{{.}}{{end}}{{end}}',
    '{{with .metadata.annotations}}{{with index . "meta.helm.sh/release-namespace"}}{{.}}{{end}}{{end}}',
    "{{with .metadata.deletionTimestamp}}{{.}}{{end}}",
)
_ROW = '{{"\\t"}}'.join(_FACTS) + '{{"\\n"}}'
FOUND = f'{{{{define "row"}}}}{_ROW}{{{{end}}}}' + (
    '{{if .items}}{{range .items}}{{template "row" .}}{{end}}{{else}}{{template "row" .}}{{end}}'
)
"""Prints one line for each object, its facts separated by tabs. The input is a list or a single object."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """An object that exists."""

    api_version: str
    kind: str
    namespace: str
    name: str
    release: str = ""
    """The helm release that made it."""
    release_namespace: str = ""
    deleted_at: str = ""
    """When its deletion began; empty without one. A finalizer may hold it for long."""


def ask_found(runner: Runs, command: Command) -> list[Found]:
    """Which of the objects of `Kubectl.find_all` exist; none of a kind that the server does not know.

    Raises `KubectlFailed`.
    """
    outcome = _answered(runner, command)
    lines = [line for line in outcome.stderr.splitlines() if line.strip()]
    if not outcome.ok and not (lines and all("no matches for kind" in line for line in lines)):
        raise _failure(outcome)
    rows = (line.split("\t", len(_FACTS) - 1) for line in outcome.stdout.splitlines() if line)
    return [
        Found(
            api_version=version,
            kind=kind,
            namespace=namespace,
            name=name,
            release=release,
            release_namespace=within,
            deleted_at=deleted_at,
        )
        for version, kind, namespace, name, release, within, deleted_at in rows
    ]


def full_kind(obj: Json) -> str:
    """The kind with version and group, `Deployment.v1.apps`, which is unambiguous for kubectl."""
    group, _, version = text_at(obj, "apiVersion").rpartition("/")
    return f"{text_at(obj, 'kind')}.{version}.{group}" if group else text_at(obj, "kind")


def _failure(outcome: Outcome) -> KubectlFailed:
    trouble = trouble_of(outcome)
    lines = [line.strip() for line in (outcome.shown_stderr or outcome.stderr).splitlines() if line.strip()]
    # A message may go on for some lines after the one that begins with `error`.
    first = max((number for number, line in enumerate(lines) if line.startswith("error:")), default=len(lines) - 1)
    message = " ".join(lines[first:]) if lines else "no message"
    return KubectlFailed(trouble, f"{outcome.command.title}: {trouble.value}: {message}")


def ask(runner: Runs, command: Command) -> Json:
    """Run a read and parse the object or list that it prints.

    Raises `KubectlFailed`, and `NotApproved` when the user interrupted it. A connection that broke is tried again,
    three times in all.
    """
    outcome = _answered(runner, command)
    if not outcome.ok:
        raise _failure(outcome)
    try:
        answer = json.loads(outcome.stdout)
    except ValueError as error:
        raise KubectlFailed(Trouble.OTHER, f"{command.title}: the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise KubectlFailed(Trouble.OTHER, f"{command.title}: the answer is not an object")
    return answer


def _answered(runner: Runs, command: Command) -> Outcome:
    for attempt in range(1, ATTEMPTS + 1):
        outcome = runner.run(command)
        if outcome.interrupted:
            # Not a failure of the cluster: the user stopped it, for example because a login plug-in hung.
            raise NotApproved(f"{command.title} was interrupted", next_step="run the same command again")
        if outcome.ok or attempt == ATTEMPTS or trouble_of(outcome) is not Trouble.PASSING:
            break
    return outcome


def find(runner: Runs, command: Command) -> Json | None:
    """Like `ask`, but returns `None` if the object does not exist."""
    try:
        return ask(runner, command)
    except KubectlFailed as error:
        if error.trouble is Trouble.MISSING:
            return None
        raise


def items(answer: Json) -> list[Json]:
    """The objects of a list."""
    found = answer.get("items")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


# --- reading objects: every level may be missing -----------------------------------------------------------------


def dig(value: Any, *path: str | int) -> Any:
    """The value at `path` in nested mappings and lists; `None` if any level is missing."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


def text_at(value: Any, *path: str | int) -> str:
    found = dig(value, *path)
    return found if isinstance(found, str) else ""


def secret_value(secret: Json, key: str) -> str:
    """A decoded value of a Secret; empty when it is missing or not text."""
    try:
        return base64.b64decode(text_at(secret, "data", key), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""


def metadata(obj: Json) -> tuple[str, str]:
    """Namespace and name."""
    return text_at(obj, "metadata", "namespace"), text_at(obj, "metadata", "name")


def annotations_of(obj: Json) -> Mapping[str, str]:
    found = dig(obj, "metadata", "annotations")
    return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One entry of `status.conditions`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""

    @property
    def is_true(self) -> bool:
        return self.status == "True"

    @property
    def why(self) -> str:
        """` (reason: message)`, once if both are the same; empty without either."""
        text = ": ".join(dict.fromkeys(part for part in (self.reason, self.message) if part))
        return f" ({text})" if text else ""

    def __str__(self) -> str:
        return f"{self.type}={self.status}{self.why}"


def conditions(obj: Json) -> list[Condition]:
    keys = ("type", "status", "reason", "message")
    return [Condition(**{key: text_at(entry, key) for key in keys}) for entry in dig(obj, "status", "conditions") or []]


def condition(obj: Json, kind: str) -> Condition | None:
    return next((each for each in conditions(obj) if each.type == kind), None)


def is_current(obj: Json) -> bool:
    """Whether the controller has seen the newest generation. Objects that record none count as current."""
    seen, newest = dig(obj, "status", "observedGeneration"), dig(obj, "metadata", "generation")
    return not isinstance(seen, int) or not isinstance(newest, int) or seen >= newest


@dataclass(frozen=True, kw_only=True)
class Versions:
    """`major.minor` numbers of client and server."""

    client: str
    server: str = ""

    @property
    def skew(self) -> int | None:
        """Minor versions between client and server; `None` when one is unknown or the majors differ."""
        found = [re.match(r"v?(\d+)\.(\d+)", version) for version in (self.client, self.server)]
        (major, minor), (its_major, its_minor) = (each.groups() if each else ("", "") for each in found)
        return abs(int(minor) - int(its_minor)) if major and major == its_major else None


def read_versions(answer: Json) -> Versions:
    return Versions(
        client=text_at(answer, "clientVersion", "gitVersion"), server=text_at(answer, "serverVersion", "gitVersion")
    )
