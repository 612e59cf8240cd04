"""HTTP through the API server: judged against real servers, fetched with a program that acts like `kubectl proxy`."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbooks.checks import cluster, inside
from runbooks.checks.inside import Inside, Page, answers, get_inside
from runbooks.core.errors import OutOfTime
from runbooks.core.findings import Finding, State
from runbooks.tools import network
from runbooks.tools.kubectl import Kubectl
from tests.fixtures import RealRunner, executable
from tests.local_server import Served, always, late, nobody, serving

WHERE = Inside(namespace="n8n", service="n8n-main", port=5678)
PAGE = Page(path="/healthz", marker='"ok"')
KEY = "Canary0Key0Of0The0Server"


def status(code: int, reason: str, message: str) -> str:
    """What the API server itself says."""
    return json.dumps({"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message})


def judged(server: AbstractContextManager[Served], page: Page = PAGE) -> Finding:
    with server as served:
        return answers("r", WHERE, page, lambda path: network.fetch(served.url + path), next_step="n")


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.3)


def test_the_right_answer() -> None:
    found = judged(serving(always(200, '{"status":"ok"}')))
    assert found.state is State.PASSED
    assert found.evidence == "n8n-main.n8n:5678/healthz: status 200, '\"ok\"'"
    assert judged(serving(always(204)), Page(path="/api/healthz")).state is State.PASSED, "its status is enough"


NO_ENDPOINTS = status(503, "ServiceUnavailable", 'no endpoints available for service "n8n-main"')
NO_WAY = status(503, "ServiceUnavailable", "error trying to reach service: dial tcp 10.1.2.3:5678: i/o timeout")
WRONG: dict[str, tuple[AbstractContextManager[Served], str, str]] = {
    "wrong body": (serving(always(200, "<title>Welcome to nginx")), "without '\"ok\"'", inside.OTHER),
    "redirect": (serving(always(302)), "status 302", inside.OTHER),
    "not found": (serving(always(404, "404 page not found")), "status 404", inside.OTHER),
    "error": (serving(always(503, '{"status":"error"}')), "status 503", inside.BROKEN),
    "no right": (serving(always(403, status(403, "Forbidden", "is forbidden"))), "is forbidden", inside.FORBIDDEN),
    "no service": (serving(always(404, status(404, "NotFound", '"x" not found'))), "not found", inside.NO_SERVICE),
    "a JSON answer of the app itself": (serving(always(404, '{"kind":"Status"}')), "status 404", inside.OTHER),
    "no endpoints": (serving(always(503, NO_ENDPOINTS)), "no endpoints available", cluster.NO_ENDPOINTS),
    "no way": (serving(always(503, NO_WAY)), "i/o timeout", inside.UNREACHABLE),
    "late": (late(), "timed out", inside.SLOW),
    "nobody": (nobody(), "refused", inside.UNREACHABLE),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_a_late_and_a_missing_answer(name: str) -> None:
    server, evidence, cause = WRONG[name]
    found = judged(server)
    assert found.state is State.FAILED
    assert evidence in found.evidence
    assert cause in found.cause
    assert found.next_step == "n"


def test_a_body_that_only_trickles_in_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(network, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with serving(always(200, "x")) as served, pytest.raises(TimeoutError, match="not complete"):
        network.fetch(served.url)


# --- a program that acts like `kubectl proxy` ---------------------------------------------------------------------

PROXY = """\
#!{python}
import http.server, os, socketserver, sys
told = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if "=" in word)
open({notes!r}, "a").write(repr(sys.argv) + "\\n")
if {mode!r} == "broken":
    sys.stderr.write("error: the server has asked for the client to provide credentials\\n"); sys.exit(1)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open({notes!r}, "a").write(self.path + " " + str(self.headers.get("X-Key")) + "\\n")
        self.send_response(200); self.end_headers(); self.wfile.write(b'{{"status":"ok"}}')
    def log_message(self, *words): pass
class Server(socketserver.UnixStreamServer):
    def get_request(self):
        return super().get_request()[0], ("unix", 0)
with Server(told["unix-socket"], Handler) as server:
    if {mode!r} != "silent":
        print("Starting to serve on " + told["unix-socket"], flush=True)
    server.serve_forever(poll_interval=0.01)
"""


@pytest.fixture
def real(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RealRunner]:
    """A runner, and a kubectl that answers in the way that the test asks for."""
    made: Any = RealRunner(tmp_path / "state", KEY)
    made.notes, mode = tmp_path / "notes", getattr(request, "param", "serving")
    text = PROXY.format(python=sys.executable, notes=str(made.notes), mode=mode)
    program = executable(tmp_path / "kubectl", text)
    made.kubectl = Kubectl(program=str(program), kubeconfig=tmp_path / "kubeconfig")
    yield made
    made.close()


def test_one_request_opens_and_closes_a_way_of_its_own(real: RealRunner) -> None:
    get = get_inside(real.runner, real.kubectl, WHERE, {"X-Key": KEY})
    assert answers("r", WHERE, PAGE, get, next_step="n").state is State.PASSED
    argv, asked = real.notes.read_text().splitlines()
    assert asked == f"/api/v1/namespaces/n8n/services/n8n-main:5678/proxy/healthz {KEY}"
    assert "--reject-methods=^(POST|PUT|PATCH|DELETE|OPTIONS|CONNECT)$" in argv
    assert r"--accept-paths=^/api/v1/namespaces/n8n/services/n8n\\-main:5678/proxy" in argv
    socket_path = Path(argv.partition("--unix-socket=")[2].partition("'")[0])
    assert not socket_path.parent.exists()
    assert KEY not in argv + real.journal.path.read_text()
    assert not real.reported and not real.runner.interrupted, "its end is no event"


@pytest.mark.parametrize("real", ["broken"], indirect=True)
def test_a_kubectl_that_fails_is_reported(real: RealRunner) -> None:
    found = answers("r", WHERE, PAGE, get_inside(real.runner, real.kubectl, WHERE), next_step="n")
    assert found.state is State.FAILED
    assert "provide credentials" in found.evidence


@pytest.mark.parametrize("real", ["silent"], indirect=True)
def test_a_kubectl_that_never_serves_is_out_of_time(real: RealRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbooks.tools.kubectl.READ_TIMEOUT", 1.0)
    with pytest.raises(OutOfTime):
        get_inside(real.runner, real.kubectl, WHERE)("/healthz")
