"""What a failing answer is cut down to before a person reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from runbooks.core.command import Command
from runbooks.core.errors import FieldConflict, LoginMissing, OperatorMissing, OpsError, Refused, ToolFailed, Usage
from runbooks.tools.failures import explain, explaining_lines
from runbooks.tools.stack import Stack
from tests.fixtures import outcome

STACK = Stack(service="app", project="app", name="mx", organization="organization", folder=Path("/p"), program="pulumi")

SIMPLE = """\
error: Program failed with an unhandled exception:
Traceback (most recent call last):
  File "<frozen runpy>", line 88, in _run_code
  File "/p/app/__main__.py", line 8, in <module>
    make()
  File "/p/app/__main__.py", line 5, in make
    raise ValueError("boom")
ValueError: boom
and its second line
"""
IN_A_LIBRARY = """\
    Traceback (most recent call last):
      File "/p/app/__main__.py", line 8, in <module>
        make()
        ^^^^^^
      File "/venv/lib/python3.11/site-packages/pulumi/config.py", line 5, in make
        raise ValueError("boom")
    ValueError: boom
error: an unhandled error occurred: program exited with non-zero exit code: 1
error: update failed
"""
CHAINED = """\
Traceback (most recent call last):
  File "/p/app/a.py", line 1, in <module>
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/p/app/b.py", line 2, in <module>
RuntimeError: y
"""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (SIMPLE, ["error: Program failed with an unhandled exception:",
                  "ValueError: boom (/p/app/__main__.py, line 5)", "and its second line"]),
        (IN_A_LIBRARY, ["    ValueError: boom (/p/app/__main__.py, line 8)"]),
        (CHAINED, ["KeyError: 'x' (/p/app/a.py, line 1)",
                   "During handling of the above exception, another exception occurred:",
                   "RuntimeError: y (/p/app/b.py, line 2)"]),
        ("Traceback (most recent call last):\n  cut off", []),
        ("no traceback\nno traceback\n\n", ["no traceback"]),
        ("a:\n  set it\n  or b\n\nc:\n  set it\n  or d\na:\n  set it\n",
         ["a:", "  set it", "  or b", "c:", "  set it", "  or d"]),
    ],
)  # fmt: skip
def test_tracebacks_are_cut_to_their_end(text: str, lines: list[str]) -> None:
    assert explaining_lines(text) == lines


def test_a_long_answer_keeps_its_beginning_and_its_end() -> None:
    lines = [f"line {number}" for number in range(30)]
    assert explaining_lines("\n".join(lines)) == [*lines[:4], "…", *lines[-8:]]
    assert explaining_lines("\n".join(lines[:12])) == lines[:12]


def explained(said: str, exit_code: int = 1) -> OpsError:
    command = Command(argv=("pulumi", "preview"), title="preview app")
    return explain(outcome(command, (exit_code, said, "")), STACK)


@pytest.mark.parametrize(("exit_code", "name"), [(-9, "SIGKILL"), (-11, "SIGSEGV"), (-40, "signal 40")])
def test_a_pulumi_that_was_killed(exit_code: int, name: str) -> None:
    error = explained("", exit_code)
    assert type(error) is ToolFailed and name in error.summary and "./inv cancel.app" in error.next_step


def test_a_program_that_leaves() -> None:
    told = [("info#err", "I go"), ("error", "an unhandled error occurred: program exited with non-zero exit code: 1")]
    answer = json.dumps({"diagnostics": [{"severity": severity, "message": text} for severity, text in told]})
    assert explained(answer).summary == "pulumi could not preview app (exit 1):\n  I go"


def test_a_chart_that_its_folder_does_not_have() -> None:
    error = explained(
        "error: charts:source is 'lab/x', and that folder does not have the chart cnpg\n  found     no chart\n"
        "  expected  /p/lab/x/cnpg/Chart.yaml\n  next      helm pull cnpg\n  or        pulumi config rm charts:source"
    )
    assert type(error) is Usage
    assert all(part in error.summary for part in ("lab/x", "/p/lab/x/cnpg/Chart.yaml", "helm pull cnpg"))


GLANCE = 'resource "urn:pulumi:mx::p::kubernetes:apps/v1:Deployment::glance" was'
URN = f"{GLANCE} not successfully created by the Kubernetes API server: "
POST = (
    f'{URN}Internal error occurred: failed calling webhook "w.example": failed to call webhook: '
    'Post "https://hook.policies.svc:443/mutate?timeout=10s": '
)
READY = (
    f"{GLANCE} successfully created, but the Kubernetes API server reported that it failed to fully initialize or "
    "become live: 'glance' timed out waiting to be Ready\n    * "
)
CONFLICT = (
    'the Kubernetes API server reported that "a/app" failed to fully initialize or become live: Server-Side Apply '
    "field conflict detected. See …\n: Apply failed with "
)
SCALE = '" with subresource "scale" using apps/v1: .spec.replicas'
SERVER = "error connecting to PostgreSQL server pg.example (scheme: postgres): pq: "
NO_PLUGIN = "could not load plugin for postgresql provider 'urn:pulumi:mx::app::pulumi:providers:postgresql::default': "
CHECK, INSTALL = "./inv doctor", "pulumi plugin install resource"
ANSWERS: list[tuple[str, type[OpsError], tuple[str, ...]]] = [
    # The handbook's troubleshooting list; more of it is in the recorded answers of tests/contract.
    ("kubernetes:helm.sh/v4:Chart resource 'cnpg' has a problem: failed to determine if the following GVK is "
     "namespaced: monitoring.coreos.com/v1, Kind=PodMonitor",
     OperatorMissing, ("the kind PodMonitor (monitoring.coreos.com/v1)", "--diff")),
    (f'{CONFLICT}2 conflicts: conflicts with "kubectl-annotate" using v1:\n- .metadata.labels\n- .metadata.b\n\n\n',
     FieldConflict, ('"kubectl-annotate"', "- .metadata.labels - .metadata.b", "./inv repair.app")),
    ("timed out waiting for the condition", ToolFailed, ("did not become ready", "--diff")),
    ("failed to complete update: [403] Forbidden: The update was cancelled.", ToolFailed, ("./inv cancel.app",)),
    ("failed to save snapshot: [403] The provided update token has expired.", ToolFailed, ("./inv cancel.app",)),
    # What a real pulumi lacks on a machine.
    ('unable to open state directory "file:///srv/state": open bucket file:///srv/state?no_tmp_dir=true: '
     "stat /srv/state: no such file or directory", Usage, ("mkdir -p /srv/state",)),
    ("saving stack config: write /p/app/Pulumi.mx.yaml: no space left on device\n",
     ToolFailed, ("/p/app/Pulumi.mx.yaml: no space left on device", "free space there")),
    ('blob (key ".pulumi/locks/x.json") (code=Unknown): open /srv/state/.pulumi/locks/x.json: read-only file system\n',
     ToolFailed, ("/srv/state/.pulumi/locks/x.json: read-only file", "free space there")),
    ("reading stored credentials: credentials file '/h/.pulumi/credentials.json' is encrypted but the credential store "
     "protecting it is not usable here: no session bus.",
     LoginMissing, ("/h/.pulumi/credentials.json", "PULUMI_ACCESS_TOKEN")),
    (f"{NO_PLUGIN}Could not automatically download and install resource plugin 'pulumi-resource-postgresql' at version "
     "v3.18.2, install the plugin using `pulumi plugin install resource postgresql v3.18.2`: error downloading "
     "provider postgresql to file: failed to download plugin: postgresql-3.18.2: failed all 5 attempts\n",
     ToolFailed, ("failed all 5 attempts", f"{INSTALL} postgresql v3.18.2")),
    (f"{NO_PLUGIN}no resource plugin 'pulumi-resource-postgresql' found in the workspace at version v3.18.2 or on your "
     "$PATH\n", ToolFailed, ("postgresql v3.18.2", f"{INSTALL} postgresql v3.18.2,")),
    ("no resource plugin 'pulumi-resource-x-y' found in the workspace or on your $PATH",
     ToolFailed, ("plugin x-y,", f"{INSTALL} x-y,")),
    ("failed to load language plugin python: no language plugin 'pulumi-language-python' found in the workspace or on "
     "your $PATH\n", ToolFailed, ("pulumi-language-python", "get.pulumi.com")),
    ("plugin kubernetes 4.34.2 not installed", ToolFailed, ("kubernetes 4.34.2", f"{INSTALL} kubernetes 4.34.2,")),
    ('could not list stacks: performing HTTP request: Get "https://api.example.com/api/user/stacks?x=1": '
     "dial tcp 192.0.2.1:443: i/o timeout\n",
     ToolFailed, ("https://api.example.com did not answer", "dial tcp 192.0.2.1:443: i/o timeout", CHECK)),
    ('Post "https://api.example.com/api/x": context deadline exceeded (Client.Timeout exceeded)\n',
     ToolFailed, ("https://api.example.com did not answer", "context deadline exceeded", CHECK)),
    ('Kubernetes cluster is unreachable: Get "https://a/openapi": getting credentials: exec: executable '
     "gke-gcloud-auth-plugin not found", LoginMissing, ("gke-gcloud-auth-plugin", CHECK)),
    # What refuses behind an API server that answers.
    (f"{POST}dial tcp 10.0.0.9:443: connect: connection refused", ToolFailed, ("Deployment glance", "w.example")),
    (f"{POST}tls: failed to verify certificate: x509: unknown authority", ToolFailed, ("Deployment glance", "x509")),
    (f"{POST}context deadline exceeded", ToolFailed, ("Deployment glance", "hook.policies.svc")),
    (f'{POST}no endpoints available for service "hook"', ToolFailed, ("Deployment glance", "no endpoints")),
    (f'{URN}Internal error occurred: failed calling webhook "w.example": service "hook" not found',
     ToolFailed, ("Deployment glance", "w.example")),
    (f'{URN}admission webhook "validate.kyverno.svc" denied the request: latest is not allowed',
     Refused, ("Deployment glance", "latest is not")),
    (f'{URN}admission webhook "validate.kyverno.svc-fail" denied the request: \n\nresource Deployment/glance was '
     "blocked due to the following policies \n\nrequire-labels:\n  team: 'validation error: label team is required'\n",
     Refused, ("Deployment glance", "require-labels", "label team is required")),
    (f"{URN}deployments.apps \"glance\" is forbidden: ValidatingAdmissionPolicy 'no-latest' with binding 'b' denied "
     "request: latest is not allowed", Refused, ("Deployment glance", "no-latest")),
    (f"{URN}conversion webhook for cert-manager.io/v1alpha2, Kind=Issuer failed: Post: refused",
     ToolFailed, ("Deployment glance", "Kind=Issuer")),
    (f'{URN}object is being deleted: namespaces "media" already exists', ToolFailed,
     ("Deployment glance", "kubectl get namespace media")),
    (f'{URN}object is being deleted: persistentvolumeclaims "data" already exists', ToolFailed,
     ("Deployment glance", "kubectl get persistentvolumeclaims data", "finalizer")),
    (f'{URN}deployments.apps "x" is forbidden: unable to create new content in namespace media because it is being '
     "terminated", ToolFailed, ("Deployment glance", "kubectl get namespace media")),
    (f'{URN}namespaces "glance" not found', ToolFailed, ("Deployment glance", "./inv repair.")),
    (f'{URN}pods "x" is forbidden: exceeded quota: small, requested: cpu=2, used: cpu=1, limited: cpu=2',
     Refused, ("Deployment glance", "small")),
    (f'{URN}pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation',
     Refused, ("Deployment glance", "restricted")),
    (f'{URN}StatefulSet.apps "glance" is invalid: spec: Forbidden: updates to statefulset spec for fields other than '
     "'replicas', 'template' are forbidden", Refused, ("Deployment glance",)),
    (f'{URN}PersistentVolumeClaim "a" is invalid: spec: Forbidden: spec is immutable after creation except',
     Refused, ("immutable",)),
    (f'{URN}Job.batch "a" is invalid: spec.template: Invalid value: field is immutable', Refused, ("spec.template",)),
    (f'{URN}namespaces is forbidden: User "me" cannot create resource "namespaces" in API group ""', Refused, ("me",)),
    ("unable to retrieve the complete list of server APIs: metrics.k8s.io/v1beta1: the server is currently unable to "
     "handle the request", ToolFailed, ("metrics.k8s.io", "apiservices")),
    # What people met on their clusters.
    (f"{READY}[Pod glance-7d]: containers with unready status: [main] -- [ImagePullBackOff] no such image",
     ToolFailed, ("ImagePullBackOff",)),
    (f"{READY}Ingress .status.loadBalancer field was not updated", ToolFailed, ("Deployment glance",)),
    (f'{CONFLICT}1 conflict: conflict with "kube-controller-manager{SCALE}', ToolFailed, ("leave `replicas` out",)),
    (f'{CONFLICT}1 conflict: conflict with "cluster-proportional-autoscaler{SCALE}',
     ToolFailed, ("cluster-proportional-autoscaler",)),
    (f'{CONFLICT}1 conflict: conflict with "kubectl{SCALE}', FieldConflict, ("./inv repair.app",)),
    (f"{SERVER}sorry, too many clients already: provider=postgresql@3", ToolFailed, ("too many clients", "verify")),
    (f"{SERVER}SSL is not enabled on the server: provider=postgresql@3", ToolFailed, ("SSL is not enabled",)),
    ('creating role app: pq: role "app" already exists: provider=postgresql@3', ToolFailed, ("pulumi import",)),
    (SERVER + 'password authentication failed for user "postgres"', ToolFailed, ("verify.postgres", "deploy.app")),
    ('pq: role "app" cannot be dropped because some objects depend on it', ToolFailed, ("REASSIGN OWNED",)),
    ('dropping database: pq: database "app" is being accessed by other users', ToolFailed, ("other users",)),
    ('creating extension: pq: permission denied to create extension "vchord"', ToolFailed, ("superuser",)),
    ("pq: vchord must be loaded via shared_preload_libraries", ToolFailed, ("shared_preload_libraries",)),
    ("could not deserialize deployment: [400] Bad Request: invalid ciphertext", Usage, ("secrets.set app",)),
    ("unable to load the chart: cannot load Chart.yaml: yaml: line 1: no\nmore",
     ToolFailed, ("cannot load Chart.yaml: yaml: line 1: no", "charts:source")),
]  # fmt: skip


@pytest.mark.parametrize(("said", "error", "words"), ANSWERS)
def test_an_answer_is_explained_with_cause_and_fix(said: str, error: type[OpsError], words: tuple[str, ...]) -> None:
    """What failed and a next step; where something behind the API server refused, never that it does not answer."""
    found = explained(f"error: {said}")
    assert type(found) is error and found.next_step and "correct the cause" not in found.next_step
    told = "\n".join(found.lines())
    assert [word for word in words if word not in told] == []
    assert "Deployment glance" not in words or "did not answer pulumi" not in told


def test_what_a_long_preview_said_is_found_behind_what_was_left_out() -> None:
    told = [{"message": "error: the chart wants a newer cluster", "severity": "error"}]
    whole = json.dumps({"steps": [{"op": "same"}], "diagnostics": told, "duration": 1}, indent=4)
    head, tail = whole[:20], whole[40:]
    for answer in (whole, f"{head}\n[… 9000000 bytes left out …]\n{tail}"):
        assert "the chart wants a newer cluster" in explained(answer).summary
    assert "deny" not in explained('{"steps": [] [… 1 bytes left out …] "diagnostics": [{"mess').summary


def test_none_of_a_programs_wrong_settings_is_left_out() -> None:
    keys = [f"stitch:key_{number}" for number in range(30)]
    problems = [f"{key}: not set\n  expected  text: What {key} is\n  set it    pulumi config set {key}" for key in keys]
    told = "\n\n".join(["30 settings are missing or wrong for stack lab of project stitch:", *problems])
    error = explained(f"error: {told}\n")
    assert isinstance(error, Usage)
    assert [key for key in keys if f"{key}: not set" not in error.summary] == []


PENDING = (
    "Attempting to deploy or update resources with 1 pending operations from previous deployment.\n"
    "  * urn:pulumi:mx::app::kubernetes:core/v1:ConfigMap::x, interrupted while creating\n"
)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("update failed", "an earlier update of app was killed and left 1 operations with unknown results"),
        ("a new kind of trouble", "a new kind of trouble"),
    ],
)
def test_pending_operations_explain_a_failure_that_says_nothing_else(error: str, cause: str) -> None:
    told = [{"severity": "warning", "message": PENDING}, {"severity": "error", "message": error}]
    summary = explained("\n".join(json.dumps({"diagnosticEvent": each}) for each in told)).summary
    assert cause in summary and ("was killed" in summary) is (error == "update failed")


@pytest.mark.parametrize(
    ("backend", "login"),
    [
        ("https://pulumi.home.example/", "pulumi login https://pulumi.home.example/"),
        ("https://me:secret@pulumi.home.example:8443", "pulumi login https://pulumi.home.example:8443"),
        ("file:///state", "pulumi login"),
    ],
)
def test_a_login_is_reported_for_the_backend_that_wants_it(backend: str, login: str) -> None:
    said = outcome(Command(argv=("pulumi",)), (3, "", "[401] Unauthorized"))
    error = explain(said, replace(STACK, env={"PULUMI_BACKEND_URL": backend}))
    assert isinstance(error, LoginMissing) and error.next_step == f"{login}, then ./inv doctor"
