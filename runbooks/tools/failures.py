"""Explains a tool's failure: its message → cause, next safe command and exit code.

Covers the handbook's troubleshooting lists and what a home platform meets; for anything else the tool's own last lines
are shown. Patterns are fragments of recorded answers of pulumi 3.260 that later versions kept.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from runbooks.core.command import Outcome
from runbooks.core.errors import (
    FieldConflict,
    LoginMissing,
    NotApproved,
    NotFound,
    OperatorMissing,
    OpsError,
    Refused,
    ToolFailed,
    UnexpectedChanges,
    Usage,
)
from runbooks.core.search_path import INSTALL
from runbooks.tools.pulumi import read_events
from runbooks.tools.stack import Stack

KEPT_LINES = 12
"""Lines of a failing answer that are shown; the journal has the rest."""
KEPT_AT_THE_START = 4
"""Of these, lines from the beginning, which names the failure; the rest are from the end, the tool's conclusion."""


@dataclass(frozen=True)
class KnownFailure:
    """A failure with an explanation. The texts may use the pattern's groups and the facts that the caller adds."""

    regex: str
    cause: str
    expected: str
    next_step: str
    error: type[OpsError] = ToolFailed

    def explain(self, text: str, facts: Mapping[str, str]) -> OpsError | None:
        """The error, if the pattern matches. A group that did not match is `?`; `rest` and `more` are then empty."""
        found = re.search(self.regex, text, re.DOTALL)
        if found is None:
            return None
        groups = found.groupdict()
        known = {key: " ".join(value.split()) if value else "?" for key, value in groups.items()}
        known |= {key: (groups.get(key) or "").rstrip() for key in ("rest", "more")}
        known |= {"object": _object_of(groups["urn"] or "")} if "urn" in groups else {}
        known |= facts
        return self.error(
            self.cause.format(**known),
            expected=self.expected.format(**known),
            next_step=self.next_step.format(**known),
        )


def _object_of(urn: str) -> str:
    """`Deployment glance` of a URN; `an object` where the tool named none."""
    kind, _, name = urn.rpartition("::")
    return f"{kind.rpartition(':')[2]} {name}" if kind else "an object"


RESOURCE = r"(?:resource \"(?P<urn>[^\"\n]+)\"[^\n]*?)?"
"""How pulumi names the resource before the API server's answer about it."""

UNREACHABLE = r"\b(?:Get|Head|Post|Put|Patch|Delete) \"(?P<url>https?://[^/\"\s]+)[^\"]*\": (?P<why>[^\n]*)"
"""How every Go program reports an address that does not answer (net/url.Error)."""

UNKNOWN_KIND = (
    "the cluster does not know the kind {kind} ({version}): the operator that brings it is not applied",
    "the CustomResourceDefinitions of that operator",
    "./inv deploy.{service} without --only applies what it needs first; ./inv preview.{service} --diff shows more",
    OperatorMissing,
)

BEHIND_THE_API_SERVER = (
    KnownFailure(
        # Why it failed quotes the address, with the webhook's Service in it.
        RESOURCE
        + r"(?P<webhook>failed calling webhook \"[^\"]+\"|conversion webhook for [^\n:]+? failed): (?P<why>[^\n]+)",
        "{object} of {service} was refused, as the API server cannot ask a webhook: {webhook}: {why}",
        "a webhook whose Service (NAME.NAMESPACE.svc) has ready pods and whose certificate the API server trusts",
        "kubectl get pods,endpointslices in that namespace; repair or remove the owner of the webhook (kubectl get "
        "validatingwebhookconfigurations,mutatingwebhookconfigurations,crds shows it), then ./inv deploy.{service}",
    ),
    KnownFailure(
        RESOURCE + r"(?P<rule>admission webhook \"[^\"]+\" denied the request|exceeded quota: [^,\n]+"
        r"|ValidatingAdmissionPolicy '[^']+' with binding '[^']*' denied request|violates PodSecurity \"[^\"]+\")"
        # Kyverno names the rule some lines below.
        r"[:,]\s+(?P<why>[^\n]*following policies\s+[^\n]+(?:\n[ \t]+[^\n]+){0,6}|[^\n]+)",
        "{object} of {service} was refused by a rule of the cluster: {rule}: {why}",
        "an object that the cluster's policies and the namespace's quota and Pod Security level allow",
        "change the program or that rule, then ./inv preview.{service}",
        error=Refused,
    ),
    KnownFailure(
        RESOURCE + r"(?:object is being deleted: namespaces \"|unable to create new content in namespace )"
        r"(?P<namespace>[\w.-]+)\"? (?:already exists|because it is being terminated)",
        "{object} of {service} cannot be created: the namespace {namespace} is still being deleted",
        "a namespace that exists, or one whose deletion has finished",
        "kubectl get namespace {namespace} -o yaml shows in its conditions what blocks it; wait, then "
        "./inv deploy.{service}",
    ),
    KnownFailure(
        RESOURCE + r"object is being deleted: (?P<kind>\S+) \"(?P<name>[^\"]+)\" already exists",
        "{object} of {service} cannot be created: {kind} {name} is still being deleted",
        "an object that does not exist, or one whose deletion has finished",
        "kubectl get {kind} {name} -o yaml in its namespace shows which finalizer holds it; wait, then "
        "./inv deploy.{service}",
    ),
    KnownFailure(
        # Deleted after the state recorded it, as after an interrupted destroy: every deploy would fail alike.
        RESOURCE + r"namespaces \"(?P<namespace>[^\"]+)\" not found",
        "{object} of {service} cannot be created: the namespace {namespace} is not there",
        "a namespace of this stack, or of one that is deployed before it",
        "./inv drift.{service} shows what is gone; ./inv repair.{service} creates it again",
    ),
    KnownFailure(
        RESOURCE + r"API server ?: (?P<why>[^\n]*(?:[Ff]orbidden: updates to \w+ spec for fields"
        r"|[Ff]orbidden: spec is immutable after creation|[Ff]orbidden: field can not be less than"
        r"|field is immutable)[^\n]*)",
        "{object} of {service} cannot be changed in place: {why}",
        "the fields as they are in the cluster, or another object under another name",
        "undo the change; to replace the object, save its data and remove it yourself, then ./inv deploy.{service}",
        error=Refused,
    ),
    KnownFailure(
        RESOURCE + r"(?P<what>\S+(?: \"[^\"\n]+\")?) is forbidden: User \"(?P<user>[^\"]+)\" (?P<why>cannot [^\n]+)",
        "{object} of {service} was refused: the kubeconfig's user {user} {why}",
        "a user whose roles allow it",
        "./inv target.show names the context; kubectl auth can-i --list shows what its user may do",
        error=Refused,
    ),
    KnownFailure(
        r"(?:unable to retrieve the complete list of server APIs"
        r"|[Ff]ailed to (?:get|retrieve) API [Gg]roup-[Rr]esources"
        r"|couldn't get resource list for (?P<api>[\w./-]+)):? ?(?P<rest>[^\n]*?(?:unable to handle the request"
        r"|stale GroupVersion discovery|not ready)[^\n]*)",
        "an aggregated API of the cluster does not answer, so not all kinds are known: {rest}",
        "every APIService to be Available",
        "kubectl get apiservices shows which one is not; repair or remove it, then ./inv preview.{service}",
    ),
)
"""Failures behind an API server that itself answers. They are tried first, as they quote other failures."""

KNOWN = (
    *BEHIND_THE_API_SERVER,
    KnownFailure(
        r"no stack named '(?P<stack>[^']*)' found",
        "there is no stack {stack!r} of {service} on this backend",
        "a stack that was created once; only stack.init creates one, so that a typo cannot",
        "./inv stack.init {service}",
        error=NotFound,
    ),
    KnownFailure(
        r"(?P<why>incorrect passphrase|passphrase must be set)",
        "the stack of {service} cannot be opened: {why}",
        "the passphrase it was created with, in passphrase_file of the target or in PULUMI_CONFIG_PASSPHRASE",
        "./inv target.show names the source; correct it in targets.yaml, then ./inv doctor",
        error=Usage,
    ),
    KnownFailure(
        r"invalid ciphertext|cipher: message authentication failed",
        "a secret in the config or state of {service} was encrypted with the key of another stack",
        "values that were encrypted for this stack",
        "./inv secrets.set {service} KEY for each secret that was copied from elsewhere",
        error=Usage,
    ),
    KnownFailure(
        r"currently locked by \d+ lock"
        r".*?(?:created by (?P<holder>\S+) \(pid (?P<pid>\S+?)\) at (?P<since>\S+)|$)",
        "another run holds the stack of {service}: {holder}, process {pid}, since {since}",
        "a stack that no other run is changing; wait for that run",
        "./inv cancel.{service} checks whether that process is still running",
        error=Refused,
    ),
    KnownFailure(
        r"Another update is currently in progress|\[409\] Conflict",
        "another update of {service} is in progress",
        "a stack that no other run is changing; wait for that run",
        "./inv cancel.{service} shows who started it and when",
        error=Refused,
    ),
    KnownFailure(
        # pulumi exits with 3 here, as if a login were missing.
        r"\[403\] (?:Forbidden: )?(?:The provided update token has expired|The update was cancelled)",
        "the update of {service} lost its stack: it was cancelled from elsewhere, or silent for minutes",
        "an update that completes",
        "./inv cancel.{service} settles what is unknown, then ./inv deploy.{service} continues",
    ),
    KnownFailure(
        r"does not support (?:Pulumi ESC|environments)",
        "this target's backend does not support Pulumi ESC, but the stack of {service} is bound to an environment",
        "a Pulumi Cloud backend, or a stack config without `environment:`",
        "use `esc env ls` and `esc open` for the environment itself, or a target on the cloud (`pulumi login --cloud`)",
        error=Usage,
    ),
    KnownFailure(
        r"PULUMI_ACCESS_TOKEN must be set|\[401\] Unauthorized|invalid access token",
        "pulumi is not logged in to this target's backend",
        "a login, or PULUMI_ACCESS_TOKEN in the environment",
        "{login}, then ./inv doctor",
        error=LoginMissing,
    ),
    KnownFailure(
        r"credentials file '(?P<file>[^']+)' is encrypted but",
        "pulumi's stored login cannot be read here: {file} is encrypted with a key of the system's key ring",
        "an unlocked key ring, or PULUMI_ACCESS_TOKEN in the environment",
        "unlock it, or export PULUMI_ACCESS_TOKEN, then ./inv doctor",
        error=LoginMissing,
    ),
    KnownFailure(
        r"unable to open state directory \"(?:file://)?(?P<folder>[^\"]+)\".*?no such file or directory",
        "the backend's folder {folder} does not exist",
        "a folder that exists: pulumi creates none, so that a typo cannot become a backend",
        "mkdir -p {folder}, then ./inv doctor",
        error=Usage,
    ),
    KnownFailure(
        r"\b(?:open|openat|write|mkdir|mkdirat|rename|sync|close|copy_file_range) (?P<file>/[^\n:\"]+): "
        r"(?P<why>no space left on device|disk quota exceeded|file too large|read-only file system)",
        "a file could not be written during the run on {service}: {file}: {why}",
        "a disk with free space, on this machine or on the node that reports it",
        "free space there, then ./inv preview.{service} shows what is left to do",
    ),
    KnownFailure(
        r"Missing required configuration variable '(?P<key>[^']+)'\s+please set a value using the command"
        r" `pulumi config set --secret",
        "{service} lacks the secret config value {key}",
        "every required secret of the stack to be set once",
        "./inv secrets.set {service} {key}",
        error=Usage,
    ),
    KnownFailure(
        r"Missing required configuration variable '(?P<key>[^']+)'",
        "{service} lacks the config value {key}",
        "every required value in the stack config",
        "pulumi config set {key} VALUE in the project's folder, or `./inv secrets.set {service} {key}` if it is secret",
        error=Usage,
    ),
    KnownFailure(
        r"config value for '(?P<key>[^']+)' looks like a secret",
        "the value of {key} looks like a secret",
        "secrets to be set encrypted",
        "./inv secrets.set {service} {key}",
        error=Usage,
    ),
    KnownFailure(
        r"unknown stack \"(?P<stack>[^\"]+)\"",
        "{service} refers to the stack {stack}, which does not exist",
        "the producer's stack, deployed, under that name",
        "deploy the producer first, and check the reference in the stack config of {service}",
        error=NotFound,
    ),
    KnownFailure(
        r"getting credentials: exec: (?P<why>[^\n]+)",
        "the login plug-in of the kubeconfig failed during the run on {service}: {why}",
        "the plug-in that the kubeconfig names on PATH, and a login that it can use",
        "kubectl get namespaces with the same context shows it alone; then ./inv doctor",
        error=LoginMissing,
    ),
    KnownFailure(
        r"Kubernetes cluster is unreachable"
        r".*?(?P<why>dial [^\n\"]*|context \S+ does not exist|no configuration[^\n\"]*|$)",
        "the cluster did not answer during the run on {service}: {why}",
        "the cluster that answered the check before this step",
        "./inv doctor",
    ),
    KnownFailure(
        # The resource that was waited for stands behind the signal.
        r"(?:\^C received|SIGTERM received|update canceled|Resource operation was cancelled(?= for))"
        r"(?:.*?Resource operation was cancelled|)(?P<rest> for \"[^\"]+\"|)",
        "the update of {service} was stopped by a signal{rest}",
        "an update that completes",
        "./inv deploy.{service} continues from there",
        error=NotApproved,
    ),
    KnownFailure(
        r"environment ['\"](?P<environment>[^'\"]+)['\"] not found",
        "there is no environment {environment}, which the stack of {service} or its environment refers to",
        "an ESC environment that exists on this backend",
        "./inv esc.list",
        error=NotFound,
    ),
    KnownFailure(
        r"server reported that \"(?P<object>[^\"]+)\" failed[^\n]*: Server-[Ss]ide [Aa]pply field conflict detected"
        r".*?conflict with \"(?P<manager>kube-controller-manager|[^\"]*autoscaler[^\"]*|keda[^\"]*)\" with subresource"
        r" \"scale\"[^\n]*\.spec\.replicas",
        "an autoscaler ({manager}) sets the replicas of {object} of {service}, and the program sets them too",
        "only one of the two: an autoscaler would change the replicas again",
        "leave `replicas` out of the program, or remove the autoscaler; then ./inv preview.{service}",
    ),
    KnownFailure(
        # The provider's own sentences, then the API server's list of managers and fields.
        r"server reported that \"(?P<object>[^\"]+)\" failed[^\n]*: Server-[Ss]ide [Aa]pply field conflict detected"
        r".*?(?P<holders>conflicts? with \"[^\"]+\".*?)(?:\n\s*\n|\s*$)",
        "another field manager changed {object} of {service} and owns fields that the program sets: {holders}",
        "fields that the stack's own field manager holds",
        "./inv repair.{service} shows the owners, asks, takes the fields back and applies the program",
        error=FieldConflict,
    ),
    KnownFailure(r"no matches for kind \"(?P<kind>[^\"]+)\" in version \"(?P<version>[^\"]+)\"", *UNKNOWN_KIND),
    # The same of an object that comes out of a chart, from a provider before 4.32.
    KnownFailure(r"if the following GVK is namespaced: (?P<version>[^\s,]+), Kind=(?P<kind>\w+)", *UNKNOWN_KIND),
    KnownFailure(
        r"pq: (?P<why>(?:role \"[^\"]+\" cannot be dropped because some objects depend on it"
        r"|database \"[^\"]+\" is being accessed by other users)[^\n]*?)(?:: provider=[^\n]*)?(?:\n|$)",
        "Postgres did not drop what {service} made: {why}",
        "no other session in that database, and no object of that role outside of it",
        "stop the pods that use it; REASSIGN OWNED and DROP OWNED in psql; then run the same command again",
    ),
    KnownFailure(
        r"(?P<why>permission denied to create extension \"[^\"]+\"|must be owner of extension [^\s:]+"
        r"|\S+ must be loaded via shared_preload_libraries|extension \"[^\"]+\" is not available)",
        "Postgres did not create an extension of {service}: {why}",
        "a superuser that creates and updates extensions, an image that has them, and their libraries preloaded",
        "let the superuser run it once in psql, or set image and shared_preload_libraries of the Postgres stack",
    ),
    KnownFailure(
        r"(?P<object>[a-z]+(?:\.[a-z0-9.-]+)? \"[^\"]+\") already exists",
        "{object} exists already, and the stack of {service} does not manage it",
        "an object that this stack created, or none of that name",
        "if it belongs to this service, `pulumi import` it; if not, use another name: others may need it and its data",
    ),
    KnownFailure(
        r"resource \"(?P<urn>[^\"]+)\" cannot be deleted\s+because it is protected",
        "the change would delete a protected resource: {urn}",
        "a change that keeps it",
        "see ./inv preview.{service} --diff; if the deletion is intended, turn its protection off in the config first",
        error=Refused,
    ),
    KnownFailure(
        r"password authentication failed for user \"(?P<user>[^\"]+)\"",
        "Postgres refused the password of {user}",
        "provider and server to agree: ts_hostname, service endpoints, and the host and port the provider connects to",
        "./inv outputs.postgres and ./inv verify.postgres; if both are right, ./inv deploy.{service} gives its "
        "provider the current password",
    ),
    KnownFailure(
        r"error connecting to PostgreSQL server (?P<host>\S+).*?: (?P<why>[^:\n]+(?:: connect: [^:\n]+)?): provider=",
        "the postgresql provider cannot use the server at {host}: {why}",
        "a server that is up, with free connections and that sslmode, at a name and port that lead there from this "
        "machine (ts_hostname, not the in-cluster name)",
        "./inv verify.postgres",
    ),
    KnownFailure(
        r"(?:unable to load the chart|failed to (?:pull|fetch|download|locate) chart"
        r"|chart \"?[^\"\n]*\"? (?:not found|version [^\n]* not found)|(?:path|repo) \"[^\"]*\" not found"
        r"|looks like \"[^\"]*\" is not a valid chart repository|\S*Chart\.yaml (?:file )?is missing)(?P<rest>[^\n]*)",
        "a chart of {service} cannot be read{rest}",
        "the repository, name and version in charts.yaml to exist, the network to reach them, and a complete chart",
        "check charts.yaml, and the folder or mirror that the config value charts:source names",
    ),
    KnownFailure(
        r"(?:Could not find `uv`|(?:error creating virtual environment|installing dependencies)[^\n]*)(?P<rest>[^\n]*)",
        "the Python environment of {service} cannot be set up by pulumi: uv is missing, or has no network and no cache",
        "the environment that ./inv makes, which all programs share",
        "uv sync --frozen in the repository's folder, then ./inv preview.{service}",
    ),
    KnownFailure(
        r"no language plugin '(?P<name>[^']+)' found in the workspace",
        "pulumi cannot run the program of {service}: its language host {name} is missing",
        "the language host beside pulumi, as the vendor ships it, or on PATH",
        f"{INSTALL['pulumi']}; then ./inv doctor",
    ),
    KnownFailure(
        r"\bplugin '?(?:pulumi-resource-)?(?P<name>[\w-]+)'?(?: found in the workspace)?(?: at version)?"
        r"(?P<rest> v?\d[\w.+-]*)?(?: or on your \$PATH| not installed|, install the plugin using `[^`]*`"
        r"(?P<more>: [^\n]*))",
        "pulumi lacks the plugin {name}{rest}, which {service} needs{more}",
        "the plugin in pulumi's plugin folder or on PATH, or a network that reaches its source",
        "pulumi plugin install resource {name}{rest}, on a network; ./inv doctor shows where pulumi looks",
    ),
    KnownFailure(
        r"no changes were expected",
        "{service} would change",
        "no change",
        "./inv preview.{service} --diff",
        error=UnexpectedChanges,
    ),
    KnownFailure(
        UNREACHABLE,
        "{url} did not answer pulumi: {why}",
        "the backend or other server at that address to run, and a network that reaches it",
        "./inv doctor, then the same command again",
    ),
    KnownFailure(
        RESOURCE + r"was successfully (?:created|updated)[^\n]*failed to fully initialize or become live: "
        r"(?P<why>[^\n]*(?:\n\s+[^\n]+)*)",
        "{object} of {service} was applied and did not become ready: {why}",
        "its pods, and the controller that serves it, to be healthy",
        "kubectl describe it; ./inv verify.{service} checks what it needs",
    ),
    KnownFailure(
        r"(?:timed out waiting(?: for the condition)?|context deadline exceeded)(?P<rest>[^\n]*)",
        "an object of {service} did not become ready, or was not deleted, in time{rest}",
        "its pods, CustomResourceDefinitions and operator to be healthy, and no finalizer to hold what is deleted",
        "kubectl get all in its namespace; ./inv preview.{service} --diff shows what is pending",
    ),
)
PENDING = KnownFailure(
    r"(?P<count>\d+) pending operations? from previous deployment",
    "an earlier update of {service} was killed and left {count} operations with unknown results",
    "a state that matches what exists",
    "./inv cancel.{service} finds out which of them happened and settles them",
)
"""A mere warning, which explains a failure only if pulumi gives no other reason."""

BY_EXIT_CODE: dict[int, type[OpsError]] = {
    2: Usage,
    3: LoginMissing,
    6: NotFound,
    7: UnexpectedChanges,
    8: NotApproved,
}
"""pulumi's own exit codes (3.227 and newer); older ones exit with 1 or 255, and only the text shows the cause."""


def explain(outcome: Outcome, stack: Stack) -> OpsError:
    """Make the error for a failed pulumi command, from the masked part of its answer."""
    if outcome.interrupted:
        return NotApproved(
            f"pulumi was interrupted during the run on {stack.service}",
            expected="a run that completes",
            next_step="run the same command again",
        )
    if outcome.exit_code < 0:
        number = -outcome.exit_code
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return ToolFailed(
            f"pulumi was killed by {name} during the run on {stack.service}",
            expected="a pulumi that exits by itself",
            next_step=f"./inv cancel.{stack.service} removes the lock it may have left and settles what is unknown",
        )
    # Commands take a key of the project's own namespace without it.
    text = failure_text(outcome).replace(f"'{stack.project}:", "'")
    facts = {"service": stack.service, "login": login_command(stack.env.get("PULUMI_BACKEND_URL", ""))}
    for known in KNOWN:
        if error := known.explain(text, facts):
            return error
    if not explaining_lines("\n".join(_errors(outcome))) and (error := PENDING.explain(text, facts)):
        return error
    return _unexplained(outcome, text, stack)


def login_command(backend: str) -> str:
    """The command that logs in to the backend at that address; without an address, to the public cloud."""
    parts = urlsplit(backend)
    if parts.scheme not in {"http", "https"}:
        return "pulumi login"
    return f"pulumi login {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _unexplained(outcome: Outcome, text: str, stack: Stack) -> OpsError:
    error = Usage if CONFIG.search(text) else BY_EXIT_CODE.get(outcome.exit_code, ToolFailed)
    message = "\n  ".join(["", *explaining_lines(text)]) or " no message"
    return error(
        f"pulumi could not {outcome.command.title or 'do it'} (exit {outcome.exit_code}):{message}",
        expected="a program that completes" if PROGRAM_FAILED in text else "",
        next_step=f"correct the cause and run ./inv preview.{stack.service}",
    )


def failure_text(outcome: Outcome) -> str:
    """The readable part of a failing answer: standard error, and the messages inside JSON."""
    return "\n".join(part for part in (outcome.shown_stderr, "\n".join(_messages(outcome.shown_stdout))) if part)


def _errors(outcome: Outcome) -> Iterator[str]:
    """The errors of a failing answer, without warnings."""
    yield from (line for line in outcome.shown_stderr.splitlines() if line.startswith("error:"))
    events = [event.diagnostic for event in read_events(outcome.shown_stdout) if event.diagnostic is not None]
    yield from (event.message for event in events if event.severity == "error")
    if not events:
        yield from _messages(outcome.shown_stdout)


def _messages(stdout: str) -> Iterable[str]:
    stripped = stdout.lstrip()
    if not stripped.startswith("{"):
        return stdout.splitlines()
    diagnostics = [event.diagnostic for event in read_events(stdout) if event.diagnostic is not None]
    if diagnostics:
        shown = (item for item in diagnostics if item.severity in {"error", "warning"} and not item.ephemeral)
        return [item.message for item in shown]
    items = _diagnostics_of(stripped)
    errors = [str(item.get("message", "")) for item in items if item.get("severity") == "error"]
    if explaining_lines("\n".join(errors)):
        return errors
    # A program that exits by itself (sys.exit) prints why on standard error; pulumi reports only that it failed.
    return errors + [str(item.get("message", "")) for item in items if item.get("severity") == "info#err"]


def _diagnostics_of(document: str) -> Sequence[Mapping[str, Any]]:
    """The diagnostics of `preview --json`, also of an answer that was cut: they come after the steps."""
    try:
        return json.loads(document).get("diagnostics") or ()
    except json.JSONDecodeError:
        key = '"diagnostics": '
        at = document.rfind(key)
    try:
        found = json.JSONDecoder().raw_decode(document, at + len(key))[0] if at >= 0 else ()
    except json.JSONDecodeError:
        return ()
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else ()


PROGRAM_FAILED = "Program failed with an unhandled exception"
CONFIG = re.compile(r"\d+ settings? (?:is|are) missing or wrong for stack |charts:source is '")
"""The report of wrong config values by this repository's programs. Its list is always shown whole."""
EMPTY_WORDS = re.compile(
    r"^Logging in using access token from PULUMI_ACCESS_TOKEN$"
    r"|^(?:error: )?(?:(?:update|preview|refresh|destroy) failed"
    r"|an unhandled error occurred: program exited with non-zero exit code: \d+)$|^\s*\^+\s*$"
)
TRACEBACK = re.compile(r"^\s*Traceback \(most recent call last\):$")
FRAME = re.compile(r"^\s*File \"(?P<file>[^\"]+)\", line (?P<line>\d+)")


def explaining_lines(text: str) -> list[str]:
    """The lines that explain a failure: no repeats, no `update failed`, of tracebacks only the end.

    An indented line belongs to the last line without indentation; below another one it is not a repeat.
    """
    seen: dict[tuple[str, str], str] = {}
    above = ""
    for line in without_tracebacks(text.splitlines()):
        bare = line.rstrip()
        if bare.strip() and not EMPTY_WORDS.match(bare):
            above = above if bare[0].isspace() else bare
            seen[above, bare] = bare
    lines = list(seen.values())
    if len(lines) <= KEPT_LINES or CONFIG.search(text):
        return lines
    return [*lines[:KEPT_AT_THE_START], "…", *lines[KEPT_AT_THE_START - KEPT_LINES :]]


def without_tracebacks(lines: Iterable[str]) -> Iterator[str]:
    """The lines with each traceback replaced by the exception and its last place outside of libraries."""
    margin, where = -1, ""
    for line in lines:
        if TRACEBACK.match(line):
            margin, where = _indentation(line), ""
        elif margin < 0:
            yield line
        elif frame := FRAME.match(line):
            if not where or not _is_library(frame["file"]):
                where = f" ({frame['file']}, line {frame['line']})"
        elif line.strip() and _indentation(line) <= margin:
            yield f"{line.rstrip()}{where}"
            margin = -1


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_library(file: str) -> bool:
    return file.startswith("<") or "site-packages" in file
