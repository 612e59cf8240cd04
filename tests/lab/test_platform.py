"""The control plane as a person meets it: real servers, started, broken, repaired and ended."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from lab import platform
from lab.platform import ports, processes
from lab.platform.supervisor import Record, Started
from runbooks.core.errors import OpsError, Usage
from tests.lab.command_line import Lab, kill
from tests.lab.refused_routes import refused_routes
from tests.unit.cloud.conftest import Caller

pytestmark = pytest.mark.lab

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")


def silent(_line: str) -> None:
    """Takes reports and prints nothing."""


def pids(lab: Lab) -> dict[str, int | None]:
    return {component.name: component.pid for component in platform.status(lab.state_dir)}


def component_of(lab: Lab, name: str) -> platform.ComponentStatus:
    return next(one for one in platform.status(lab.state_dir) if one.name == name)


def port_of(lab: Lab, name: str) -> int:
    port = component_of(lab, name).port
    assert port
    return port


def test_every_component_is_ready_and_all_stay_under_a_gigabyte(lab: Lab) -> None:
    components = platform.status(lab.state_dir)
    assert tuple(component.name for component in components)[: len(CONTROL_PLANE)] == CONTROL_PLANE
    seen = {(component.health, bool(component.pid), bool(component.memory)) for component in components}
    assert seen == {("ready", True, True)}
    assert platform.is_up(lab.state_dir)
    assert sum(component.memory or 0 for component in components) < 1024**3


def test_workloads_become_ready_and_have_endpoints(lab: Lab, namespace: str) -> None:
    lab.kubectl("-n", namespace, "create", "deployment", "web", "--image=web", "--replicas=3")
    lab.kubectl("-n", namespace, "expose", "deployment", "web", "--port=80")
    lab.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=180s")
    lab.kubectl(
        "-n", namespace, "wait", "endpointslice", "-l", "kubernetes.io/service-name=web", "--timeout=180s",
        "--for=jsonpath={.endpoints[2].conditions.ready}=true",
    )  # fmt: skip
    addresses = {pod["status"]["podIP"] for pod in lab.get("-n", namespace, "pods")["items"]}
    assert len(addresses) == 3


def test_jobs_complete_and_pods_are_ready_unless_held_and_deleted(lab: Lab, namespace: str) -> None:
    where = ("-n", namespace)
    lab.kubectl(*where, "create", "job", "once", "--image=job", "--", "true")
    lab.kubectl(*where, "run", "held", "--image=held", "--annotations=lab.homelab-ops/hold=true")
    lab.kubectl(*where, "run", "free", "--image=free")
    for what, condition in (("job/once", "Complete"), ("pod/free", "Ready"), ("pod/held", "PodScheduled")):
        lab.kubectl(*where, "wait", what, f"--for=condition={condition}", "--timeout=180s")
    assert lab.get(*where, "pod", "held")["status"]["phase"] == "Pending"
    lab.kubectl(*where, "delete", "pod/free", "--timeout=180s")


def test_the_target_names_this_cluster(lab: Lab) -> None:
    target = lab.target
    assert target["cluster_uid"] == lab.get("namespace", "kube-system")["metadata"]["uid"]
    assert target["ephemeral"] is True
    assert all(Path(program).is_absolute() for program in target["tools"].values())
    (only,) = lab.get("storageclasses")["items"]
    assert only["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"


def test_raw_tools_work_with_the_exported_environment(lab: Lab) -> None:
    argv, env = ["kubectl", "get", "nodes", "-o", "name"], os.environ | platform.environment(lab.state_dir)
    asked = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=30)
    assert asked.stdout.split() == ["node/lab-1", "node/lab-2"]


def test_a_second_up_changes_nothing(lab: Lab) -> None:
    before = pids(lab)
    reported: list[str] = []
    platform.up(lab.state_dir, reported.append)
    assert pids(lab) == before
    assert reported == []


@pytest.mark.parametrize("component", CONTROL_PLANE)
def test_a_killed_component_alone_is_started_anew(lab: Lab, component: str) -> None:
    before = pids(lab)
    kill(before[component] or 0)
    assert component_of(lab, component).health == "crashed"
    assert not platform.is_up(lab.state_dir)
    platform.up(lab.state_dir, silent)
    after = pids(lab)
    assert after.pop(component) != before.pop(component)
    assert after == before
    assert lab.get("namespace", "kube-system")["metadata"]["uid"] == lab.target["cluster_uid"]


def test_everything_comes_back_after_everything_was_killed(lab: Lab) -> None:
    lab.kubectl("create", "configmap", "survivor", "--from-literal=a=b")
    for process in processes.of_lab(lab.lab_dir):
        processes.send(process, signal.SIGKILL)
    assert processes.wait_until(lambda: not processes.of_lab(lab.lab_dir), 10)
    platform.up(lab.state_dir, silent)
    assert platform.is_up(lab.state_dir)
    assert lab.get("configmap", "survivor")["data"] == {"a": "b"}


def test_a_component_that_nobody_wrote_down_is_replaced(lab: Lab) -> None:
    path = lab.lab_dir / "lab.json"
    record = Record.load(path)
    forgotten = record.components.pop("kube-scheduler").process
    record.save(path)
    platform.up(lab.state_dir, silent)
    assert not processes.is_alive(forgotten)
    assert platform.is_up(lab.state_dir)


def test_a_recycled_process_number_is_not_touched(lab: Lab) -> None:
    path = lab.lab_dir / "lab.json"
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        record = Record.load(path)
        scheduler = record.components["kube-scheduler"]
        processes.end(scheduler.process, seconds=10)
        stale = processes.ProcessId(bystander.pid, scheduler.process.started)
        record.components["kube-scheduler"] = Started(stale, scheduler.fingerprint, scheduler.version)
        record.save(path)
        platform.up(lab.state_dir, silent)
        assert pids(lab)["kube-scheduler"] != bystander.pid
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_taken_port_is_an_error_that_names_the_process(lab: Lab) -> None:
    port = port_of(lab, "kube-scheduler")
    processes.end(Record.load(lab.lab_dir / "lab.json").components["kube-scheduler"].process, seconds=10)
    with socket.create_server((ports.LOOPBACK, port)), pytest.raises(OpsError) as refused:
        platform.up(lab.state_dir, silent)
    assert f"port {port} of the lab's kube-scheduler is taken by process {os.getpid()}" in refused.value.summary
    platform.up(lab.state_dir, silent)
    assert port_of(lab, "kube-scheduler") == port


def test_two_at_once_start_everything_once(lab: Lab) -> None:
    record = Record.load(lab.lab_dir / "lab.json")
    for name in ("kube-scheduler", "kwok"):
        processes.end(record.components[name].process, seconds=10)
    command = "import sys; from pathlib import Path; from lab import platform; platform.up(Path(sys.argv[1]), print)"
    both = [subprocess.Popen([sys.executable, "-c", command, str(lab.state_dir)]) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    programs = [(processes.PROC / str(one.pid) / "exe").readlink().name for one in processes.of_lab(lab.lab_dir)]
    assert programs.count("kube-scheduler") == 1
    assert sum(name.startswith("kwok") for name in programs) == 1


def test_every_server_listens_on_loopback_only(lab: Lab) -> None:
    for process in processes.of_lab(lab.lab_dir):
        sockets = psutil.Process(process.pid).net_connections()
        addresses = {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}
        assert addresses <= {ports.LOOPBACK}, processes.name_of(process.pid)


def connect(lab: Lab, component: str) -> http.client.HTTPSConnection:
    """To the component, which is known by the lab's authority; without a certificate and a token."""
    context = ssl.create_default_context(cafile=str(lab.lab_dir / "pki" / "ca.crt"))
    return http.client.HTTPSConnection("127.0.0.1", port_of(lab, component), context=context, timeout=10)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version", "/api/v1/namespaces"])
def test_the_api_server_answers_nobody_without_a_token(lab: Lab, path: str) -> None:
    with contextlib.closing(connect(lab, "kube-apiserver")) as connection:
        connection.request("GET", path)
        assert connection.getresponse().status == 401


def test_etcd_answers_nobody_without_a_certificate(lab: Lab) -> None:
    with (
        contextlib.closing(connect(lab, "etcd")) as connection,
        pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)),
    ):
        connection.request("GET", "/health")
        connection.getresponse()


def test_only_the_user_can_read_the_lab_and_no_secret_is_in_a_command_line(lab: Lab) -> None:
    assert stat.S_IMODE(lab.lab_dir.stat().st_mode) == 0o700
    files = [path for path in lab.lab_dir.rglob("*") if not path.is_symlink()]
    assert [path for path in files if path.stat().st_mode & 0o077] == []
    token = (lab.lab_dir / "pki" / "tokens.csv").read_text("ascii").split(",")[0]
    for process in processes.of_lab(lab.lab_dir):
        assert token.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()


def test_down_leaves_no_process_and_up_finds_everything_again(lab: Lab) -> None:
    logs = lab.lab_dir / "pulumi" / "logs"
    logs.mkdir(exist_ok=True)
    lab.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    ports_before = {component.name: component.port for component in platform.status(lab.state_dir)}
    platform.down(lab.state_dir, silent)
    assert processes.of_lab(lab.lab_dir) == set()
    assert not logs.exists()
    assert {component.health for component in platform.status(lab.state_dir)} == {"stopped"}
    platform.down(lab.state_dir, silent)
    platform.up(lab.state_dir, silent)
    assert lab.get("configmap", "kept")["data"] == {"a": "b"}
    assert {component.name: component.port for component in platform.status(lab.state_dir)} == ports_before


def test_a_second_lab_lives_beside_it_and_goes_without_trace(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path)
    try:
        thread = threading.Thread(target=platform.up, args=(tmp_path, silent))
        thread.start()
        thread.join(120)
        assert platform.is_up(tmp_path)
        assert other.target["cluster_uid"] != lab.target["cluster_uid"]
        # Even a lab whose memory is damaged can be reset.
        (other.lab_dir / "lab.json").write_text("{")
        with pytest.raises(Usage, match="cannot be read"):
            platform.down(tmp_path, silent)
    finally:
        platform.reset(tmp_path, silent)
    assert processes.of_lab(other.lab_dir) == set()
    assert not other.lab_dir.exists()
    assert platform.is_up(lab.state_dir)


ENVIRONMENT = "/api/esc/environments/organization/tried/lab"


def caller(lab: Lab) -> Caller:
    return Caller(lab.target["backend"], Path(lab.target["token_file"]).read_text())


def test_the_target_leads_to_the_cloud(lab: Lab) -> None:
    assert caller(lab).get("/api/user")["githubLogin"] == "lab"
    token = Path(lab.target["token_file"])
    assert token == lab.lab_dir / "cloud" / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert caller(lab).url == f"http://127.0.0.1:{port_of(lab, 'cloud')}"


def test_the_cloud_comes_back_with_everything_after_a_crash_and_is_small(lab: Lab) -> None:
    account = caller(lab)
    account.post("/api/esc/environments/organization", {"project": "tried", "name": "lab"})
    assert account.send("PATCH", ENVIRONMENT, b"values: {a: {fn::secret: kept-secret}}").status == 200
    before = component_of(lab, "cloud")
    assert before.pid is not None
    kill(before.pid)
    platform.up(lab.state_dir, silent)
    after = component_of(lab, "cloud")
    assert after.ready
    assert (after.port, after.pid != before.pid) == (before.port, True)
    again = caller(lab)
    assert again.token == account.token
    session = again.post(f"{ENVIRONMENT}/open")["id"]
    assert again.get(f"{ENVIRONMENT}/open/{session}")["properties"]["a"]["value"] == "kept-secret"
    # With its evaluator, which the request has started.
    assert (component_of(lab, "cloud").memory or 0) < 60 * 1024 * 1024


def test_a_refused_request_is_found_in_its_log(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert caller(lab).send("GET", "/api/none").status == 404
    (found,) = refused_routes(tmp_path_factory.getbasetemp())
    assert found.endswith("GET '/api/none': no such route")
