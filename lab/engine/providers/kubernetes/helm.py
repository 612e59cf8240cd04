"""Renders a chart with the ``helm`` program. Values travel on standard input, credentials in private files."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab.engine.cancellation import CancellationToken, Cancelled
from lab.engine.guard import lab_folder
from lab.engine.providers import ProviderError

POLL_SECONDS = 0.2
_NOT_LOCATED = ("path ", "looks like ", "failed to perform ", "chart ", "repo ")
DEPRECATED = "This chart is deprecated"
_LOOKUP = re.compile(rb"\blookup\b")


@dataclass(frozen=True)
class Repository:
    """Where a chart comes from; all empty for folders, archives and OCI references without credentials."""

    url: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True)
class ChartRequest:
    """Arguments of one rendering. ``folder`` is where relative chart folders start."""

    release: str
    chart: str
    namespace: str
    folder: str
    version: str = ""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    repository: Repository = Repository()
    include_definitions: bool = True
    dependency_update: bool = False
    devel: bool = False
    verify: bool = False
    plain_http: bool = False
    keyring: str = ""
    post_renderer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Capabilities:
    """What templates may ask of the cluster, and how ``lookup`` reaches it."""

    kube_version: str
    api_versions: Sequence[str]
    kubeconfig: str = ""
    context: str = ""


@dataclass(frozen=True)
class Rendered:
    """``has_blind_lookup``: the chart looks objects up, and could not be shown the cluster."""

    manifests: str
    is_deprecated: bool
    has_blind_lookup: bool = False


def find_helm(environment: Mapping[str, str]) -> str:
    """``OPS_LAB_HELM``, else the lab's own, else the first on PATH. Raises ``ProviderError``."""
    given = environment.get("OPS_LAB_HELM")
    if given:
        return given
    target = lab_folder(environment) / "target.json"
    try:
        recorded = json.loads(target.read_text(encoding="utf-8"))["tools"]["helm"]
    except (OSError, ValueError, KeyError):
        recorded = ""
    if recorded and Path(recorded).is_file():
        return str(recorded)
    found = shutil.which("helm", path=environment.get("PATH"))
    if found is None:
        raise ProviderError(
            "unable to render the chart: no helm program. Looked at OPS_LAB_HELM, tools.helm in "
            f"{target}, and PATH; `./inv lab.up` provides one"
        )
    return found


def render(
    request: ChartRequest,
    capabilities: Capabilities,
    cancellation: CancellationToken,
    environment: Mapping[str, str],
) -> Rendered:
    """What ``helm template`` prints, hooks left out. Raises ``ProviderError`` with helm's reason, and ``Cancelled``."""
    variables = dict(environment)
    with tempfile.TemporaryDirectory(prefix="helm-") as private:
        # Without it the Kubernetes libraries in helm keep their cache below HOME, or in the folder they run in.
        variables.setdefault("KUBECACHEDIR", private)
        helm = _Helm(find_helm(variables), request.folder, variables, cancellation)
        chart = _located(request, helm, Path(private))
        return _template(request, chart, capabilities, helm)


@dataclass(frozen=True)
class _Helm:
    """The program and how it runs."""

    program: str
    folder: str
    environment: Mapping[str, str]
    cancellation: CancellationToken

    def run(self, arguments: Sequence[str], stdin: str = "") -> tuple[str, str]:
        return _run([self.program, *arguments], stdin, self.folder, self.environment, self.cancellation)


def _template(request: ChartRequest, chart: Path, capabilities: Capabilities, helm: _Helm) -> Rendered:
    values = json.dumps(request.values)
    command = ["template", request.release, str(chart), *_arguments(request)]
    offline = [*command, "--dry-run=client", *_capability_arguments(capabilities)]
    if not uses_lookup(chart):
        output, errors = helm.run(offline, values)
        return Rendered(output, DEPRECATED in errors)
    # Only in this mode does ``lookup`` see the cluster. It also wants every kind to be served and, without the flags,
    # every object to be new: the real provider renders with helm 3, which asks for neither.
    online = [*command, "--dry-run=server", "--take-ownership", "--disable-openapi-validation"]
    try:
        output, errors = helm.run([*online, *_cluster_arguments(capabilities)], values)
        return Rendered(output, DEPRECATED in errors)
    except ProviderError as error:
        if "no matches for kind" not in str(error):
            raise
        output, errors = helm.run(offline, values)
        return Rendered(output, DEPRECATED in errors, has_blind_lookup=True)


def uses_lookup(chart: Path) -> bool:
    """Whether a template of the chart, or of a chart in it, calls ``lookup``."""
    if chart.is_file():
        with tarfile.open(chart) as archive:
            members = [one for one in archive.getmembers() if one.isfile() and "/templates/" in one.name]
            streams = (archive.extractfile(one) for one in members)
            return any(stream is not None and _LOOKUP.search(stream.read()) for stream in streams)
    archives = sorted(chart.glob("charts/*.tgz"))
    files = (path for path in chart.rglob("templates/**/*") if path.is_file())
    return any(_LOOKUP.search(path.read_bytes()) for path in files) or any(uses_lookup(one) for one in archives)


def _located(request: ChartRequest, helm: _Helm, private: Path) -> Path:
    """The chart on this machine: its folder or archive, downloaded when it is a remote one."""
    for name in (request.chart, request.release):
        if name.startswith("-"):
            raise ProviderError(f"a chart or release name cannot begin with a dash: {name!r}")
    local = Path(request.folder) / request.chart
    if local.exists():
        return local
    if request.chart.startswith((".", "/")):
        raise ProviderError(f'unable to locate the chart: path "{request.chart}" not found')
    arguments = ["pull", *_source_arguments(request, private, helm), "--destination", str(private / "pulled")]
    arguments += ["--version", request.version] if request.version else []
    arguments += ["--keyring", request.keyring] if request.keyring else []
    flags = {"--devel": request.devel, "--verify": request.verify, "--plain-http": request.plain_http}
    arguments += [flag for flag, is_set in flags.items() if is_set]
    (private / "pulled").mkdir()
    helm.run(arguments)
    return next((private / "pulled").glob("*.tgz"))


def _arguments(request: ChartRequest) -> list[str]:
    arguments = ["--namespace", request.namespace, "--no-hooks", "--values", "-"]
    arguments.append("--include-crds" if request.include_definitions else "--skip-crds")
    if request.dependency_update:
        arguments.append("--dependency-update")
    if request.post_renderer:
        arguments += ["--post-renderer", request.post_renderer[0]]
        arguments += [part for one in request.post_renderer[1:] for part in ("--post-renderer-args", one)]
    return arguments


def _capability_arguments(capabilities: Capabilities) -> list[str]:
    arguments = ["--kube-version", capabilities.kube_version] if capabilities.kube_version else []
    if capabilities.api_versions:
        arguments += ["--api-versions", ",".join(capabilities.api_versions)]
    return arguments


def _cluster_arguments(capabilities: Capabilities) -> list[str]:
    arguments = ["--kubeconfig", capabilities.kubeconfig] if capabilities.kubeconfig else []
    return [*arguments, "--kube-context", capabilities.context] if capabilities.context else arguments


def _source_arguments(request: ChartRequest, private: Path, helm: _Helm) -> list[str]:
    repository = request.repository
    tls = {"--ca-file": repository.ca_file, "--cert-file": repository.cert_file, "--key-file": repository.key_file}
    arguments = [part for option, value in tls.items() if value for part in (option, value)]
    if not repository.password:
        return [request.chart, *(["--repo", repository.url] if repository.url else []), *arguments]
    if request.chart.startswith("oci://"):
        return [request.chart, "--registry-config", str(_registry_file(private, request)), *arguments]
    file = _repository_file(private, repository)
    cache = ["--repository-config", str(file), "--repository-cache", str(private / "cache")]
    helm.run(["repo", "update", *cache])
    return [f"chart-source/{request.chart}", *cache, *arguments]


def _registry_file(private: Path, request: ChartRequest) -> Path:
    repository = request.repository
    login = base64.b64encode(f"{repository.username}:{repository.password}".encode()).decode()
    host = urlsplit(request.chart).netloc
    return _private_file(private / "registry.json", json.dumps({"auths": {host: {"auth": login}}}))


def _repository_file(private: Path, repository: Repository) -> Path:
    entry = {
        "name": "chart-source",
        "url": repository.url,
        "username": repository.username,
        "password": repository.password,
        "caFile": repository.ca_file,
        "certFile": repository.cert_file,
        "keyFile": repository.key_file,
    }
    return _private_file(private / "repositories.yaml", json.dumps({"apiVersion": "", "repositories": [entry]}))


def _private_file(path: Path, content: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(content, encoding="utf-8")
    return path


def _run(
    command: Sequence[str], stdin: str, folder: str, environment: Mapping[str, str], cancellation: CancellationToken
) -> tuple[str, str]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=folder or None,
        env=dict(environment),
        start_new_session=True,
    )
    remaining: str | None = stdin
    while True:
        try:
            output, errors = process.communicate(remaining, timeout=POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            remaining = None
            if cancellation.is_cancelled:
                process.terminate()
                process.communicate()
                raise Cancelled from None
    if process.returncode != 0:
        raise ProviderError(_failure(errors))
    return output, errors


def _failure(errors: str) -> str:
    """helm's reason, with the words the real provider puts before it."""
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith(("WARNING:", "level="))]
    text = "\n".join(lines).removeprefix("Error: ").strip() or "helm gave no reason"
    if text.startswith(_NOT_LOCATED) or any(part in text for part in ("failed to download", "non-absolute URLs")):
        return f"unable to locate the chart: {text}"
    if any(part in text for part in ("Chart.yaml file is missing", "cannot load Chart.yaml", "unable to detect chart")):
        return f"unable to load the chart: {text}"
    return text
