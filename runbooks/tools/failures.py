"""What pulumi's failures mean: the tool's own sentence → cause, next safe command and exit code.

The handbook's troubleshooting lists as code. Texts come from recorded answers of pulumi 3.260; they are matched on
fragments that later versions kept.
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
    OpsError,
    Refused,
    ToolFailed,
    UnexpectedChanges,
    Usage,
)
from runbooks.tools.pulumi import Diagnostic, read_events
from runbooks.tools.stack import Stack

KEPT_LINES = 12
"""Lines of a failing answer that are shown; the journal has the rest."""
KEPT_AT_THE_START = 4
"""Of these: what failed stands first, details after it, and the last words at the end."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A failure we can explain. The texts may use the pattern's groups, `{service}` and `{login}`."""

    pattern: re.Pattern[str]
    error: type[OpsError]
    cause: str
    expected: str = ""
    next_step: str = ""


def _known(pattern: str, error: type[OpsError], cause: str, expected: str = "", next_step: str = "") -> Known:
    return Known(
        pattern=re.compile(pattern, re.DOTALL), error=error, cause=cause, expected=expected, next_step=next_step
    )


UNREACHABLE = r"\b(?:Get|Head|Post|Put|Patch|Delete) \"(?P<url>https?://[^/\"\s]+)[^\"]*\": (?P<why>[^\n]*)"
"""How every Go program says that an address does not answer (net/url.Error)."""

UNKNOWN_KIND = (
    ToolFailed,
    "the cluster does not know the kind {kind} ({version}): the operator that brings it is not applied",
    "the CustomResourceDefinitions of that operator",
    "./inv deploy.{service} without --only applies what it needs first; ./inv preview.{service} --diff shows more",
)

KNOWN: tuple[Known, ...] = (
    _known(
        r"no stack named '(?P<stack>[^']*)' found",
        NotFound,
        "there is no stack {stack!r} of {service} on this backend",
        "a stack that was created once; nothing creates one by itself, so that a typo cannot",
        "./inv stack.init {service}",
    ),
    _known(
        r"incorrect passphrase",
        Usage,
        "the passphrase does not fit the stack of {service}",
        "the passphrase the stack was created with",
        "correct passphrase_file of the target in targets.yaml, then ./inv doctor",
    ),
    _known(
        r"passphrase must be set",
        Usage,
        "no passphrase was given for the stack of {service}",
        "PULUMI_CONFIG_PASSPHRASE, or passphrase_file of the target in targets.yaml",
        "./inv target.show",
    ),
    _known(
        r"currently locked by \d+ lock"
        r".*?(?:created by (?P<holder>\S+) \(pid (?P<pid>\S+?)\) at (?P<since>\S+)|$)",
        Refused,
        "another run holds the stack of {service}: {holder}, process {pid}, since {since}",
        "a stack that nobody is changing; wait for that run to end",
        "./inv cancel.{service} looks whether that process still lives",
    ),
    _known(
        r"Another update is currently in progress|\[409\] Conflict",
        Refused,
        "another update of {service} is going on",
        "a stack that nobody is changing; wait for that run to end",
        "./inv cancel.{service} shows who and since when",
    ),
    _known(
        # pulumi ends with 3 here, as if a login were missing.
        r"\[403\] (?:Forbidden: )?(?:The provided update token has expired|The update was cancelled)",
        ToolFailed,
        "the update of {service} lost its stack: it was cancelled from elsewhere, or silent for minutes",
        "an update that runs to its end",
        "./inv cancel.{service} lists what is unknown, then ./inv deploy.{service} goes on",
    ),
    _known(
        r"does not support (?:Pulumi ESC|environments)",
        Usage,
        "this target's backend does not support Pulumi ESC, but the stack of {service} is bound to an environment",
        "a Pulumi Cloud backend, or a stack file without `environment:`",
        "use `esc env ls` and `esc open` for the environment itself, or a target on the cloud (`pulumi login --cloud`)",
    ),
    _known(
        r"PULUMI_ACCESS_TOKEN must be set|\[401\] Unauthorized|invalid access token",
        LoginMissing,
        "pulumi is not logged in to this target's backend",
        "a login, or PULUMI_ACCESS_TOKEN in the environment",
        "{login}, then ./inv doctor",
    ),
    _known(
        r"credentials file '(?P<file>[^']+)' is encrypted but",
        LoginMissing,
        "pulumi's stored login cannot be opened here: {file} is encrypted with a key of the system's key ring",
        "an unlocked key ring, or PULUMI_ACCESS_TOKEN in the environment",
        "unlock it, or export PULUMI_ACCESS_TOKEN, then ./inv doctor",
    ),
    _known(
        r"unable to open state directory \"(?:file://)?(?P<folder>[^\"]+)\".*?no such file or directory",
        Usage,
        "the backend's folder {folder} is not there",
        "a folder that exists: pulumi makes none, so that a typo cannot become a backend",
        "mkdir -p {folder}, then ./inv doctor",
    ),
    _known(
        r"\b(?:open|openat|write|mkdir|mkdirat|rename|sync|close|copy_file_range) (?P<file>/[^\n:\"]+): "
        r"(?P<why>no space left on device|disk quota exceeded|file too large|read-only file system)",
        ToolFailed,
        "a file could not be written while {service} was worked on: {file}: {why}",
        "a disk with free space, on this machine or on the node that says so",
        "free space there, then ./inv preview.{service} shows what is left to do",
    ),
    _known(
        r"Could not find `uv` executable",
        ToolFailed,
        "pulumi cannot find uv, with which it starts the program of {service}",
        "uv on PATH",
        "start it as ./inv, which brings uv along, or install uv: https://docs.astral.sh/uv",
    ),
    _known(
        r"error (?:creating virtual environment|installing dependencies)(?P<rest>[^\n]*)",
        ToolFailed,
        "uv could not bring the Python environment of {service} up to date{rest}",
        "the environment that uv.lock describes; pulumi's own look at it is offline",
        "uv sync --frozen in the repository's folder, then ./inv preview.{service}",
    ),
    _known(
        r"Missing required configuration variable '(?P<key>[^']+)'\s+please set a value using the command"
        r" `pulumi config set --secret",
        Usage,
        "{service} lacks its secret setting {key}",
        "every required secret of the stack to be set once",
        "./inv secrets.set {service} {key}",
    ),
    _known(
        r"Missing required configuration variable '(?P<key>[^']+)'",
        Usage,
        "{service} lacks its setting {key}",
        "every required setting in the stack config",
        "pulumi config set {key} VALUE in the project's folder, or `./inv secrets.set {service} {key}` if it is secret",
    ),
    _known(
        r"config value for '(?P<key>[^']+)' looks like a secret",
        Usage,
        "the value of {key} looks like a secret",
        "secrets to be set encrypted",
        "./inv secrets.set {service} {key}",
    ),
    _known(
        r"unknown stack \"(?P<stack>[^\"]+)\"",
        NotFound,
        "{service} refers to the stack {stack}, which does not exist",
        "the producer's stack, deployed, under that name",
        "deploy the producer first, and check the reference in the settings of {service}",
    ),
    _known(
        r"Kubernetes cluster is unreachable"
        r".*?(?P<why>dial [^\n\"]*|context \S+ does not exist|no configuration[^\n\"]*|$)",
        ToolFailed,
        "the cluster did not answer while {service} was being worked on: {why}",
        "the cluster that answered the check before this step",
        "./inv doctor",
    ),
    _known(
        r"Resource operation was cancelled for \"(?P<name>[^\"]+)\"",
        NotApproved,
        "the update of {service} was stopped by a signal while it waited for {name}",
        "an update that runs to its end",
        "./inv deploy.{service} goes on from there",
    ),
    _known(
        r"\^C received|SIGTERM received|update canceled",
        NotApproved,
        "the update of {service} was stopped by a signal",
        "an update that runs to its end",
        "./inv deploy.{service} goes on from there",
    ),
    _known(
        r"environment ['\"](?P<environment>[^'\"]+)['\"] not found",
        NotFound,
        "there is no environment {environment}, which the stack of {service} or its environment refers to",
        "an ESC environment that exists on this backend",
        "./inv esc.list",
    ),
    _known(
        # The provider's own sentences, then the API server's list of managers and fields.
        r"server reported that \"(?P<object>[^\"]+)\" failed[^\n]*: Server-[Ss]ide [Aa]pply field conflict detected"
        r".*?(?P<holders>conflicts? with \"[^\"]+\".*?)(?:\n\s*\n|\s*$)",
        FieldConflict,
        "another field manager changed {object} of {service} and holds what the program sets: {holders}",
        "fields that the stack's own field manager holds",
        "./inv repair.{service} shows who holds what, takes it back once you agree, and applies the program",
    ),
    _known(r"no matches for kind \"(?P<kind>[^\"]+)\" in version \"(?P<version>[^\"]+)\"", *UNKNOWN_KIND),
    # The same of an object that comes out of a chart, from a provider before 4.32.
    _known(r"if the following GVK is namespaced: (?P<version>[^\s,]+), Kind=(?P<kind>\w+)", *UNKNOWN_KIND),
    _known(
        r"(?P<object>[a-z]+(?:\.[a-z0-9.-]+)? \"[^\"]+\") already exists",
        ToolFailed,
        "{object} exists in the cluster already, and the stack of {service} does not know it",
        "an object that this stack created, or none of that name",
        "find out whose it is (kubectl get … -o yaml); then `pulumi import` it or remove it yourself",
    ),
    _known(
        r"resource \"(?P<urn>[^\"]+)\" cannot be deleted\s+because it is protected",
        Refused,
        "the change would delete what is protected: {urn}",
        "a change that keeps it",
        "look at ./inv preview.{service} --diff; only if you mean it, turn its protection off in the settings first",
    ),
    _known(
        r"password authentication failed for user \"(?P<user>[^\"]+)\"",
        ToolFailed,
        "Postgres refused the password of {user}",
        "provider and server to agree: ts_hostname, service endpoints, and the host and port the provider connects to",
        "check the outputs of the Postgres stack, then its verify",
    ),
    _known(
        r"error connecting to PostgreSQL server (?P<host>\S+).*?: (?P<why>[^:\n]+(?:: connect: [^:\n]+)?): provider=",
        ToolFailed,
        "the postgresql provider cannot reach {host}: {why}",
        "a name and port that lead to the server from this machine (ts_hostname, not the in-cluster name)",
        "verify the Postgres service",
    ),
    _known(
        r"extension \"(?P<name>[^\"]+)\" is not available",
        ToolFailed,
        "the Postgres server has no extension {name}",
        "a server image that ships it",
        "set the image of the Postgres stack, or leave the extension out",
    ),
    _known(
        r"(?:failed to (?:pull|fetch|download|locate) chart|chart \"?[^\"\n]*\"? (?:not found|version [^\n]* not found)"
        r"|looks like \"[^\"]*\" is not a valid chart repository|(?:path|repo) \"[^\"]*\" not found"
        r"|(?P<file>\S*Chart\.yaml) (?:file is missing|is missing))(?P<rest>[^\n]*)",
        ToolFailed,
        "a chart of {service} cannot be read{rest}",
        "the repository, name and version in charts.yaml to exist and the network to reach them",
        "check charts.yaml, or point the setting charts:source at a folder or mirror",
    ),
    _known(
        r"unable to load the chart: (?P<why>[^\n]*)",
        ToolFailed,
        "a chart of {service} cannot be read: {why}",
        "a complete chart: Chart.yaml, templates and values that helm can read",
        "look at the folder or mirror that charts:source names; without that setting the published chart is taken",
    ),
    _known(
        r"charts:source is (?P<source>'[^'\n]*'), and that folder does not have the chart (?P<chart>\S+)"
        r".*?expected +(?P<path>[^\n]+)\n *next +(?P<fix>[^\n]+)",
        Usage,
        "a chart of {service} cannot be read: charts:source is {source}, and that folder does not have {chart}",
        "{path}",
        "{fix}",
    ),
    _known(
        r"no changes were expected",
        UnexpectedChanges,
        "{service} would change",
        "no change",
        "./inv preview.{service} --diff",
    ),
    _known(
        r"Could not automatically download and install resource plugin 'pulumi-resource-(?P<name>[\w-]+)'"
        r"(?: at version(?P<rest> v[\w.+-]+))?, install the plugin using `[^`]*`: "
        r"(?:error downloading provider [^:\n]*: )?(?:failed to download plugin: [^:\n]*: )?(?P<why>[^\n]*)",
        ToolFailed,
        "pulumi could not download the plugin {name}{rest}, which {service} needs: {why}",
        "the plugin in pulumi's plugin folder or on PATH, or a network that leads to it",
        "pulumi plugin install resource {name}{rest}, where there is a network; ./inv doctor says where pulumi looks",
    ),
    _known(
        r"no resource plugin 'pulumi-resource-(?P<name>[\w-]+)' found in the workspace"
        r"(?: at version(?P<rest> v[\w.+-]+))?",
        ToolFailed,
        "pulumi lacks the plugin {name}{rest}, which {service} needs",
        "the plugin in pulumi's plugin folder or on PATH",
        "pulumi plugin install resource {name}{rest}, then ./inv doctor",
    ),
    _known(
        r"\bplugin (?P<name>[\w-]+)(?P<rest> v?\d[\w.+-]*) not installed",
        ToolFailed,
        "pulumi lacks the plugin {name}{rest}, and it was told to download none",
        "the plugin in pulumi's plugin folder or on PATH",
        "pulumi plugin install resource {name}{rest}, then ./inv doctor",
    ),
    _known(
        r"[\w-]+ plugin[^\n]*(?:not found|could not find)|no resource plugin '[^']+'",
        ToolFailed,
        "pulumi lacks a provider plugin for {service}",
        "the plugins that the programs ask for",
        "pulumi install in the project's folder, then ./inv doctor",
    ),
    _known(
        UNREACHABLE,
        ToolFailed,
        "{url} did not answer pulumi: {why}",
        "the backend, or whatever is at that address, to be up, and a network that leads to it",
        "./inv doctor, then the same command again",
    ),
    _known(
        r"(?:timed out waiting|context deadline exceeded)(?P<rest>[^\n]*)",
        ToolFailed,
        "something of {service} did not become ready in time{rest}",
        "its pods, CustomResourceDefinitions and operator to be healthy",
        "kubectl get all in its namespace; ./inv preview.{service} --diff shows what is pending",
    ),
)
PENDING = _known(
    r"(?P<count>\d+) pending operations? from previous deployment",
    ToolFailed,
    "an earlier update of {service} was killed and left {count} operations of unknown result",
    "a state that says what exists",
    "./inv cancel.{service} lists them; `pulumi refresh` reads what is really there",
)
"""Only a warning: it explains a failure of which pulumi says nothing else."""

BY_EXIT_CODE: dict[int, type[OpsError]] = {
    2: Usage,
    3: LoginMissing,
    6: NotFound,
    7: UnexpectedChanges,
    8: NotApproved,
}
"""pulumi's own exit codes (3.227 and newer); older ones end with 1 or 255 and only the text tells."""


def explain(outcome: Outcome, stack: Stack) -> OpsError:
    """The error for a pulumi command that failed, from what may be shown of its answer."""
    if outcome.interrupted:
        return NotApproved(
            f"pulumi was interrupted while it worked on {stack.service}",
            expected="the run to go on to its end",
            next_step=f"./inv cancel.{stack.service} says what was left behind, ./inv deploy.{stack.service} goes on",
        )
    if outcome.exit_code < 0:
        return ToolFailed(
            f"pulumi was ended by {_signal_name(-outcome.exit_code)} while it worked on {stack.service}",
            expected="a pulumi that ends by itself",
            next_step=f"./inv cancel.{stack.service} removes the lock it may have left and lists what is unknown",
        )
    text = failure_text(outcome)
    for known in KNOWN:
        found = known.pattern.search(text)
        if found is not None:
            return _explained(known, found, stack)
    pending = PENDING.pattern.search(text)
    if pending is not None and not telling_lines("\n".join(_errors(outcome))):
        return _explained(PENDING, pending, stack)
    return _unexplained(outcome, text, stack)


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def login_command(backend: str) -> str:
    """How a person logs in to the backend at that address: without one that is the public cloud."""
    parts = urlsplit(backend)
    if parts.scheme not in {"http", "https"}:
        return "pulumi login"
    return f"pulumi login {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _explained(known: Known, found: re.Match[str], stack: Stack) -> OpsError:
    facts = {key: " ".join(value.split()) if value else "?" for key, value in found.groupdict().items()}
    facts["service"] = stack.service
    facts["login"] = login_command(stack.env.get("PULUMI_BACKEND_URL", ""))
    facts["rest"] = (found.groupdict().get("rest") or "").rstrip()
    facts["key"] = facts.get("key", "").removeprefix(f"{stack.project}:")
    return known.error(
        known.cause.format(**facts),
        expected=known.expected.format(**facts),
        next_step=known.next_step.format(**facts),
    )


def _unexplained(outcome: Outcome, text: str, stack: Stack) -> OpsError:
    error = Usage if SETTINGS.search(text) else BY_EXIT_CODE.get(outcome.exit_code, ToolFailed)
    lines = telling_lines(text)
    what = outcome.command.title or "pulumi"
    said = ":\n  " + "\n  ".join(lines) if lines else ", and said nothing"
    return error(
        f"pulumi could not {what} (exit {outcome.exit_code}){said}",
        expected="a program that runs to its end" if PROGRAM_FAILED in text else "",
        next_step=f"correct the cause and run ./inv preview.{stack.service}",
    )


def failure_text(outcome: Outcome) -> str:
    """Everything of a failing answer that a person would read: standard error, and the messages inside JSON."""
    return "\n".join(part for part in (outcome.shown_stderr, "\n".join(_messages(outcome.shown_stdout))) if part)


def _errors(outcome: Outcome) -> Iterator[str]:
    """What a failing answer calls an error, warnings left out."""
    yield from (line for line in outcome.shown_stderr.splitlines() if line.startswith("error:"))
    events = [event.diagnostic for event in read_events(outcome.shown_stdout) if event.diagnostic is not None]
    yield from (told.message for told in events if told.severity == "error")
    if not events:
        yield from _messages(outcome.shown_stdout)


def _messages(stdout: str) -> Iterable[str]:
    stripped = stdout.lstrip()
    if not stripped.startswith("{"):
        return stdout.splitlines()
    told = [event.diagnostic for event in read_events(stdout) if event.diagnostic is not None]
    if told:
        return [diagnostic.message for diagnostic in told if _explains(diagnostic)]
    items = _diagnostics_of(stripped)
    errors = [str(item.get("message", "")) for item in items if item.get("severity") == "error"]
    if telling_lines("\n".join(errors)):
        return errors
    # A program that ends by itself (sys.exit) says why on its standard error, and pulumi only that it failed.
    return errors + [str(item.get("message", "")) for item in items if item.get("severity") == "info#err"]


def _diagnostics_of(document: str) -> Sequence[Mapping[str, Any]]:
    """The diagnostics of `preview --json`. They come after the steps: of a long answer that was cut they are left."""
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


def _explains(diagnostic: Diagnostic) -> bool:
    return diagnostic.severity in {"error", "warning"} and not diagnostic.ephemeral


PROGRAM_FAILED = "Program failed with an unhandled exception"
SETTINGS = re.compile(r"\d+ settings? (?:is|are) missing or wrong for stack ")
"""How a program of this repository begins to name its settings; none of the list is left out."""
EMPTY_WORDS = re.compile(
    r"^Logging in using access token from PULUMI_ACCESS_TOKEN$"
    r"|^(?:error: )?(?:(?:update|preview|refresh|destroy) failed"
    r"|an unhandled error occurred: program exited with non-zero exit code: \d+)$|^\s*\^+\s*$"
)
TRACEBACK = re.compile(r"^\s*Traceback \(most recent call last\):$")
FRAME = re.compile(r"^\s*File \"(?P<file>[^\"]+)\", line (?P<line>\d+)")


def telling_lines(text: str) -> list[str]:
    """The lines that say what happened: without repeats, without `update failed`, tracebacks cut to their end."""
    lines: list[str] = []
    for line in without_tracebacks(text.splitlines()):
        bare = line.rstrip()
        if bare.strip() and not EMPTY_WORDS.match(bare) and bare not in lines:
            lines.append(bare)
    if len(lines) <= KEPT_LINES or SETTINGS.search(text):
        return lines
    return [*lines[:KEPT_AT_THE_START], "…", *lines[KEPT_AT_THE_START - KEPT_LINES :]]


def without_tracebacks(lines: Iterable[str]) -> Iterator[str]:
    """The lines with each traceback replaced by the exception's own and the last place in somebody's own code."""
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
