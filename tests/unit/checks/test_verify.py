"""The checks of tailscale, cnpg and postgres on fakes: what they say when something is right, wrong or missing."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from runbooks.checks import cnpg, postgres, sql, tailscale
from runbooks.checks.cluster import STACK_DEPLOYED
from runbooks.checks.of_service import verify_service
from runbooks.checks.tailscale import API_AS_SET
from runbooks.core.errors import VerificationFailed
from runbooks.core.findings import State, Verdict, not_tried
from runbooks.run import open_session
from runbooks.services import find_service
from runbooks.stacks.service import Service
from runbooks.tasks import verify
from runbooks.tools import network
from tests.fixtures import Repo, checkpoint, deployment, exported, listing, secret, secret_value, slices

PASSWORD = "hunter2-hunter2-hunter2"
FQDN = "postgresql.tail1234.ts.net"
VERSION = "PostgreSQL 18.4 on x86_64-pc-linux-gnu"
ASKS_THE_SERVER = sql.select_version
ADDRESS = "100.64.0.7"


OUTPUTS = {
    "host": "postgresql-cluster-rw.postgresql.svc.cluster.local",
    "port": 5432,
    "username": secret_value("postgres"),
    "user": secret_value("postgres"),
    "password": secret_value(PASSWORD),
    "ts_hostname": "postgresql",
    "k8s_namespace": "postgresql",
}


def cluster(*, ready: str = "True", phase: str = "Cluster in healthy state", instances: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": "postgresql-cluster", "namespace": "postgresql"},
        "spec": {"instances": instances},
        "status": {"phase": phase, "readyInstances": 1, "conditions": [{"type": "Ready", "status": ready}]},
    }


def exposed(**changes: Any) -> dict[str, Any]:
    annotations = {"tailscale.com/expose": "true", "tailscale.com/hostname": "postgresql"}
    return {
        "kind": "Service",
        "metadata": {"name": "postgresql-cluster-rw-ext", "namespace": "postgresql", "annotations": annotations},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 5432}]},
        "status": {"conditions": [{"type": "TailscaleProxyReady", "status": "True", "reason": "ProxyCreated"}]},
    } | changes


STATE_SECRETS = ["get", "secrets", "--selector=tailscale.com/managed=true"]


def state_secret(fqdn: str, name: str = "postgresql-cluster-rw-ext", **where: str) -> dict[str, Any]:
    """What the operator records about the device of an object, by default the exposed Service."""
    parent = "tailscale.com/parent-resource"
    labels = {parent: name, f"{parent}-ns": where.get("ns", "postgresql"), f"{parent}-type": where.get("type", "svc")}
    return secret("ts-x-0", "tailscale", {"device_fqdn": fqdn, "device_ips": json.dumps([ADDRESS])}, labels)


GROUP = {
    "groupVersion": "postgresql.cnpg.io/v1",
    "resources": [{"name": name} for name in ("clusters", "databases", "backups", "scheduledbackups", "poolers")],
}


@pytest.fixture
def repo(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    """The platform is deployed, this machine is on the tailnet, and time stands still."""
    answer = repo.answer
    answer("kubectl", ["get", "all", "--namespace="], "NAME  READY\n")
    operator = deployment("operator", "tailscale")
    manager = deployment("cnpg-cloudnative-pg", "cnpg-system")
    answer("kubectl", ["get", "deployments.apps", "tailscale", "operator"], operator)
    answer("kubectl", ["get", "deployments.apps", "cnpg-system"], listing(manager))
    answer("kubectl", ["get", "deployments.apps,stat", "tailscale"], listing(operator))
    answer("kubectl", ["get", "deployments.apps,stat", "cnpg-system"], listing(manager))
    answer(
        "kubectl",
        ["get", "secrets", "operator-oauth"],
        secret("operator-oauth", "tailscale", {"client_id": "i", "client_secret": "s"}),
    )
    answer(
        "kubectl",
        ["get", "ingressclasses"],
        {"metadata": {"name": "tailscale"}, "spec": {"controller": "tailscale.com/ts-ingress"}},
    )
    answer("kubectl", ["get", "--raw=/apis/postgresql.cnpg.io/v1"], GROUP)
    answer("kubectl", ["get", "endpointslices", "cnpg-webhook-service"], slices("10.0.0.3", port=9443))
    answer("kubectl", ["get", "endpointslices", "postgresql-cluster-rw"], slices("10.0.0.4"))
    answer("kubectl", ["get", "clusters.postgresql.cnpg.io"], cluster())
    superuser = secret("postgresql-cluster-superuser", "postgresql", {"username": "postgres", "password": PASSWORD})
    answer("kubectl", ["get", "secrets", "postgresql-cluster-superuser"], superuser)
    answer("kubectl", ["get", "services", "postgresql-cluster-rw-ext"], exposed())
    answer("kubectl", ["get", "services", "--all-namespaces"], listing(exposed()))
    answer("kubectl", ["get", "ingresses", "--all-namespaces"], listing())
    answer("kubectl", ["get", "tailscale.com", "--all-namespaces"], listing())
    answer("kubectl", STATE_SECRETS, listing(state_secret(f"{FQDN}."), state_secret(f"{FQDN}.", "nas", ns="people")))
    answer("pulumi", ["stack", "export"], exported(OUTPUTS))
    repo.has_stacks("tailscale", "cnpg")
    repo.has_stacks("postgresql", outputs=OUTPUTS)
    monkeypatch.setattr("runbooks.tools.network.resolve", lambda _: [ADDRESS])
    monkeypatch.setattr("runbooks.tools.network.connect", lambda *_: None)
    monkeypatch.setattr("runbooks.tools.network.tailscale_status", lambda _: None)
    monkeypatch.setattr(sql, "select_version", lambda _: VERSION)
    monkeypatch.setattr("runbooks.core.findings.LOOK_AGAIN", 0.0)
    monkeypatch.setattr("runbooks.checks.cluster.patience", lambda *_: 0.0)

    yield repo


def verified(repo: Repo, name: str) -> Verdict:
    with open_session(repo.c, f"verify.{name}") as session:
        return verify_service(session, find_service(name))


def states(verdict: Verdict) -> dict[str, State]:
    return {finding.check: finding.state for finding in verdict.findings}


def test_operators_are_looked_for_where_their_stacks_say_they_are(repo: Repo) -> None:
    for project, moved in (("tailscale", "net"), ("cnpg", "operators")):
        repo.has_stacks(project, outputs={"k8s_namespace": moved})
    operator, manager = deployment("operator", "net"), deployment("cnpg-cloudnative-pg", "operators")
    repo.answer("kubectl", ["get", "deployments.apps", "=net", "operator"], operator)
    repo.answer("kubectl", ["get", "deployments.apps,stat", "=net"], listing(operator))
    repo.answer("kubectl", ["get", "deployments.apps", "=operators"], listing(manager))
    repo.answer("kubectl", ["get", "deployments.apps,stat", "=operators"], listing(manager))
    for name in ("tailscale", "cnpg", "postgres"):
        assert verified(repo, name).ok
    asked = repo.argvs("kubectl")
    assert not [line for line in asked if "--namespace=tailscale" in line or "--namespace=cnpg-system" in line]


@pytest.mark.parametrize(
    ("runs_with", "says", "state", "told"),
    [
        ("true", "true", State.PASSED, "is true; who may use it is up to the tailnet's ACLs"),
        ("", "false", State.PASSED, "tailscale:api_server_proxy_mode is false"),
        ("noauth", "noauth", State.PASSED, "is noauth; who"),
        ("true", "false", State.FAILED, "the operator runs with APISERVER_PROXY=true, its stack exports false"),
        ("true", "", State.NOT_TRIED, "does not export"),
    ],
)
def test_the_api_server_on_the_tailnet_is_as_it_was_set(
    repo: Repo, runs_with: str, says: str, state: State, told: str
) -> None:
    operator = deployment("operator", "tailscale")
    env = [{"name": "APISERVER_PROXY", "value": runs_with}] if runs_with else []
    operator["spec"]["template"] = {"spec": {"containers": [{"name": "operator", "env": env}]}}
    repo.answer("kubectl", ["get", "deployments.apps", "tailscale", "operator"], operator)
    repo.has_stacks("tailscale", outputs={"api_server_proxy_mode": says} if says else {})
    (found,) = [one for one in verified(repo, "tailscale").findings if one.check == API_AS_SET]
    assert (found.state, told in found.evidence) == (state, True)
    assert state is not State.FAILED or (found.cause and found.next_step == "./inv repair.tailscale")


@pytest.mark.parametrize("name", ["tailscale", "cnpg", "postgres"])
def test_a_healthy_platform_is_verified(repo: Repo, name: str) -> None:
    verdict = verified(repo, name)
    assert verdict.ok, verdict
    untried = [finding for finding in verdict.findings if finding.state is State.NOT_TRIED]
    assert all(not finding.deciding for finding in untried)


def test_the_version_is_the_evidence_and_the_password_is_nowhere(repo: Repo) -> None:
    verdict = verified(repo, "postgres")
    told = repo.printed()
    assert verdict.findings[-1].evidence == VERSION
    assert VERSION in told
    assert PASSWORD not in told + repo.everything_written() + "".join(repo.argvs("pulumi") + repo.argvs("kubectl"))


def test_every_kubectl_goes_through_the_private_kubeconfig(repo: Repo) -> None:
    verified(repo, "postgres")
    for call in repo.calls("kubectl"):
        assert call["argv"][0].startswith(f"--kubeconfig={repo.state}/runs/")


def test_exposures_are_one_table(repo: Repo) -> None:
    verified(repo, "tailscale")
    lines = [line.split() for line in repo.printed().splitlines()]
    row = next(words for words in lines if words and words[0] == "postgresql/postgresql-cluster-rw-ext")
    assert row == ["postgresql/postgresql-cluster-rw-ext", "postgresql", "ok", "ok", "ok", "--", "ok", "ok"]


def test_the_objects_of_its_namespace_are_shown(repo: Repo) -> None:
    repo.answer("kubectl", ["get", "all", "--namespace=postgresql"], "NAME  READY\npod/postgresql-cluster-1  1/1\n")
    verified(repo, "postgres")
    assert "    pod/postgresql-cluster-1  1/1" in repo.printed().splitlines()


def test_what_has_nothing_exposed_is_still_verified(repo: Repo) -> None:
    repo.answer("kubectl", ["get", "services", "--all-namespaces"], listing())
    assert verified(repo, "tailscale").ok


def renamed(repo: Repo) -> None:
    """Somebody annotated the Service with another name, and the operator named its device so."""
    other = exposed()
    other["metadata"]["annotations"]["tailscale.com/hostname"] = "other"
    repo.answer("kubectl", ["get", "services", "postgresql-cluster-rw-ext"], other)
    repo.answer("kubectl", ["get", "services", "--all-namespaces"], listing(other))
    repo.answer("kubectl", STATE_SECRETS, listing(state_secret("other.tail1234.ts.net.")))


@pytest.mark.parametrize("name", ["tailscale", "postgres"])
@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ("", State.PASSED),
        (checkpoint(OUTPUTS | {"ts_hostname": "POSTGRESQL.tail1234.ts.net"}), State.PASSED),
        (checkpoint(OUTPUTS | {"ts_hostname": "db"}), State.FAILED),
        (checkpoint({"k8s_namespace": "postgresql"}), State.NOT_TRIED),
        ("{oops", State.NOT_TRIED),
    ],
)
def test_a_name_is_right_when_its_stack_exports_it(repo: Repo, name: str, state: str, wanted: State) -> None:
    if state:
        repo.has_stacks("postgresql", state=state)
    (found,) = [one for one in verified(repo, name).findings if one.check == tailscale.NAME_AS_EXPORTED]
    assert found.state is wanted, found
    assert wanted is not State.FAILED or ("db" in found.evidence and found.next_step == "./inv repair.postgres")
    # What cannot be read is not proven; what an older program did not export yet decides nothing.
    assert wanted is not State.NOT_TRIED or found.deciding is (state == "{oops")


@pytest.mark.parametrize("name", ["tailscale", "postgres"])
def test_a_name_changed_by_hand_is_no_success(repo: Repo, name: str) -> None:
    renamed(repo)
    verdict = verified(repo, name)
    assert [problem.check for problem in verdict.failures] == [tailscale.NAME_AS_EXPORTED]
    assert "other" in verdict.failures[0].evidence


def test_a_service_of_no_stack_has_no_exported_name(repo: Repo) -> None:
    own = exposed(metadata={"name": "nas", "namespace": "people", "annotations": exposed()["metadata"]["annotations"]})
    repo.answer("kubectl", ["get", "services", "--all-namespaces"], listing(own))
    repo.answer("kubectl", ["get", "services", "--namespace=people", "nas"], own)
    verdict = verified(repo, "tailscale")
    assert verdict.ok
    assert tailscale.NAME_AS_EXPORTED not in states(verdict)


MISSING = (1, "", "Error from server (NotFound): it is not found")
NO_KIND = (1, "", 'error: the server doesn\'t have a resource type "clusters"')


def kubectl(words: list[str], reply: Any) -> Callable[[Repo], None]:
    return lambda repo: repo.answer("kubectl", ["get", *words], reply)


def pulumi(reply: Any) -> Callable[[Repo], None]:
    return lambda repo: repo.answer("pulumi", ["stack", "export"], reply)


def without(name: str) -> Callable[[Repo], None]:
    return pulumi(exported({key: value for key, value in OUTPUTS.items() if key != name}))


BROKEN: dict[str, tuple[str, Callable[[Repo], None], str, str, str]] = {
    "no cnpg operator": ("cnpg", kubectl(["deployments.apps", "cnpg-system"], listing()), cnpg.OPERATOR_READY,
        "not found", "deleted by hand"),
    "cnpg operator down": (
        "postgres",
        kubectl(
            ["deployments.apps", "cnpg-system"],
            listing(deployment("cnpg-cloudnative-pg", "cnpg-system", ready=0, available="False")),
        ),
        cnpg.OPERATOR_READY,
        "0 of 1 ready",
        "Pod",
    ),
    "no CRDs": ("cnpg", kubectl(["--raw"], NO_KIND), cnpg.KINDS_SERVED, "CRD is not installed", "CRDs not found"),
    "no webhook": ("cnpg", kubectl(["endpointslices", "cnpg-webhook"], slices()),
        "the operator's webhook has an endpoint", "no ready endpoint", "Pods"),
    "never deployed": ("postgres", lambda repo: (repo.backend / ".pulumi/stacks/postgresql/mx.json").unlink(),
        postgres.OUTPUTS_THERE, "no output host", "not deployed"),
    "output missing": ("postgres", without("password"), postgres.OUTPUTS_THERE, "password", "did not finish"),
    "no cluster": ("postgres", kubectl(["clusters.postgresql"], MISSING), postgres.CLUSTER_READY,
        "postgresql/postgresql-cluster not found", "deleted by hand"),
    "cluster setting up": ("postgres",
        kubectl(["clusters.postgresql"], cluster(ready="False", phase="Setting up primary")), postgres.CLUSTER_READY,
        "Setting up primary", "first instance"),
    "no superuser secret": ("postgres", kubectl(["secrets", "postgresql-cluster-superuser"], MISSING),
        "the Secret postgresql-cluster-superuser is there", "postgresql/postgresql-cluster-superuser not found",
        "superuser access is off"),
    "no primary": ("postgres", kubectl(["endpointslices", "postgresql-cluster-rw"], slices("10.0.0.4", ready=False)),
        "the Service postgresql-cluster-rw has an endpoint", "1 not ready", "no primary is ready"),
    "not exposed": ("postgres",
        kubectl(["services", "postgresql-cluster-rw-ext"], exposed(metadata={"name": "x", "namespace": "y"})),
        "the Service postgresql-cluster-rw-ext asks to be on the tailnet", "lacks tailscale.com/expose",
        "annotations are present"),
    "service gone": ("postgres", kubectl(["services", "postgresql-cluster-rw-ext"], MISSING),
        "the Service postgresql-cluster-rw-ext asks to be on the tailnet",
        "postgresql/postgresql-cluster-rw-ext not found", "deleted by hand"),
    "tailscale operator down": (
        "postgres",
        kubectl(
            ["deployments.apps", "tailscale", "operator"],
            deployment("operator", "tailscale", ready=0, available="False"),
        ),
        tailscale.OPERATOR_AVAILABLE,
        "0 of 1 ready",
        "TS_CLIENT_ID",
    ),
    "no oauth client": ("tailscale", kubectl(["secrets", "operator-oauth"], MISSING),
        "the operator has its OAuth client", "tailscale/operator-oauth not found", "did not create"),
    "class of another": ("tailscale", kubectl(["ingressclasses"], {"spec": {"controller": "somebody/else"}}),
        "the ingress class `tailscale` belongs to the operator", "somebody/else", "Ingress not reachable"),
    "no class": ("tailscale", kubectl(["ingressclasses"], MISSING),
        "the ingress class `tailscale` belongs to the operator", "tailscale not found", "Ingress not reachable"),
    "ready but not joined": ("postgres",
        lambda repo: repo.answer("kubectl", STATE_SECRETS, listing(state_secret(""))),
        "its device joined the tailnet under the wanted name", "no device_fqdn", "OAuth"),
    "services cannot be listed": ("tailscale",
        kubectl(["services", "--all-namespaces"], (1, "", "(Forbidden) is forbidden: ")),
        "exposed Services and Ingresses can be listed", "may not read", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_cause_and_next_step(repo: Repo, name: str) -> None:
    service, break_it, check, evidence, cause = BROKEN[name]
    break_it(repo)
    verdict = verified(repo, service)
    (problem,) = [finding for finding in verdict.failures if finding.check == check]
    assert not verdict.ok
    assert evidence in problem.evidence
    assert cause in problem.cause
    assert problem.next_step
    told = repo.printed()
    assert f"FAIL {check}" in told
    assert "NOT verified" in told


def trouble(error: OSError) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise error

    return call


@pytest.mark.parametrize(
    ("what", "replacement", "check", "evidence"),
    [
        ("resolve", trouble(socket.gaierror(-2, "not known")), tailscale.NAME_RESOLVES, "not known"),
        ("resolve", lambda _: ["10.6.6.6"], tailscale.NAME_RESOLVES, "the device is 100.64.0.7"),
        ("connect", trouble(TimeoutError("timed out")), postgres.EXPORTED_CONNECTS, "timed out"),
        ("tailscale_status", lambda _: {"BackendState": "Stopped"}, tailscale.DEVICE_IS_PEER, "Stopped"),
        ("tailscale_status", trouble(OSError("no JSON")), tailscale.DEVICE_IS_PEER, "no JSON"),
        ("tailscale_status", lambda _: {"BackendState": "Running"}, tailscale.DEVICE_IS_PEER, "0 peers"),
    ],
)  # fmt: skip
def test_half_working_tailnets(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, what: str, replacement: Any, check: str, evidence: str
) -> None:
    monkeypatch.setattr(f"runbooks.tools.network.{what}", replacement)
    verdict = verified(repo, "postgres")
    (problem,) = verdict.failures
    assert problem.check == check
    assert evidence in problem.evidence
    assert states(verdict)[postgres.SQL_ANSWERS] is State.NOT_TRIED


def test_a_server_that_refuses_the_password(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(login: sql.Login) -> Any:
        raise psycopg.OperationalError(f'FATAL:  password authentication failed for user "{login.user}"')

    monkeypatch.setattr(sql, "connect", refuse)
    monkeypatch.setattr(sql, "select_version", ASKS_THE_SERVER)
    verdict = verified(repo, "postgres")
    (problem,) = verdict.failures
    assert problem.check == postgres.SQL_ANSWERS
    assert "Postgres auth error" in problem.cause


def test_all_of_it_ends_with_one_line_that_counts_and_records_each_verdict(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    verify.verify(repo.c, ("tailscale", "cnpg"))
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"verify\.all: all 2 verified: \d+ passed, 0 failed, \d+ not tried", last)
    assert repo.everything_written().count('"verdict"') == 2


def test_the_task_ends_with_exit_4_and_the_first_problem(repo: Repo) -> None:
    kubectl(["clusters.postgresql"], MISSING)(repo)
    with pytest.raises(VerificationFailed) as caught:
        verify.verify(repo.c, ("tailscale", "cnpg", "postgres"))
    assert caught.value.exit_code == 4
    assert "postgres" in caught.value.summary
    assert "describe clusters.postgresql.cnpg.io" in caught.value.next_step


def test_all_looks_at_what_is_deployed_and_names_the_rest(repo: Repo) -> None:
    repo.has_stacks("n8n", state='{"checkpoint": {}}')
    (repo.backend / ".pulumi/stacks/tailscale/mx.json").unlink()
    verify.verify(repo.c, ("tailscale", "cnpg", "postgres", "n8n"))
    told = repo.printed()
    assert "Not deployed here, so not checked: tailscale, n8n." in told
    assert "verify.postgres: verified" in told


def test_all_of_nothing_is_no_success(repo: Repo) -> None:
    shutil.rmtree(repo.backend / ".pulumi")
    with pytest.raises(VerificationFailed, match="nothing is deployed"):
        verify.verify(repo.c, ("tailscale", "cnpg"))


def test_an_untried_deciding_check_on_a_real_target_is_no_success(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    unread = not_tried(tailscale.NAME_AS_EXPORTED, "its stack cannot be read")
    monkeypatch.setattr(tailscale, "asks_for_exported_name", lambda *_: unread)
    with pytest.raises(VerificationFailed):
        verify.verify(repo.c, ("postgres",))
    assert "decides, and was not tried" in repo.printed()


# --- the checks of services without checks of their own ------------------------------------------------------

APP = Service(name="app", folder="apps/app", about="an app", namespace="app", exposed={"ingress/web": "url"})


def web(
    *, hostname: str = "app.tail1234.ts.net", ingress_class: str = "tailscale", name: str = "web"
) -> dict[str, Any]:
    return {
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "app"},
        "spec": {
            "ingressClassName": ingress_class,
            "tls": [{"hosts": ["app"]}],
            "defaultBackend": {"service": {"name": "app"}},
        },
        "status": {"loadBalancer": {"ingress": [{"hostname": hostname}] if hostname else []}},
    }


@pytest.fixture
def app(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    repo.has_stacks("app")
    repo.answer("kubectl", ["get", "deployments.apps,stat", "=app"], listing(deployment("app", "app")))
    repo.answer("kubectl", ["get", "services", "--namespace=app"], listing())
    ingresses(repo, web(), web(name="hooks", ingress_class="nginx", hostname="x.example.org"))
    state = state_secret("app.tail1234.ts.net.", "web", ns="app", type="ingress")
    repo.answer("kubectl", STATE_SECRETS, listing(state))
    monkeypatch.setattr("runbooks.tools.network.fetch", lambda _: network.Answer(status=200, body=""))
    return repo


def ingresses(repo: Repo, *objects: dict[str, Any]) -> None:
    repo.answer("kubectl", ["get", "ingresses", "--namespace=app", "--output"], listing(*objects))
    repo.answer("kubectl", ["get", "ingresses", "--namespace=app", "web"], web())


def verified_app(repo: Repo, service: Service = APP) -> Verdict:
    with open_session(repo.c, "verify.app") as session:
        return verify_service(session, service)


def test_an_app_is_verified_up_to_its_answer(app: Repo) -> None:
    verdict = verified_app(app)
    assert verdict.ok, verdict
    assert states(verdict)[tailscale.HTTP_ANSWERS] is State.PASSED
    told = app.printed()
    assert "hooks: x.example.org" in told
    assert "app/web" in told


GENERIC: dict[str, tuple[Callable[[Repo], None], str, str]] = {
    "previewed only": (lambda repo: repo.has_stacks("app", state='{"checkpoint": {"latest": {}}}'), STACK_DEPLOYED,
        "is empty"),
    "nothing runs": (kubectl(["deployments.apps,stat", "=app"], listing()), "everything in its namespace is ready",
        "holds no"),
    "ingress of another class": (lambda repo: ingresses(repo, web(ingress_class="nginx")), tailscale.ALL_EXPOSED,
        "not exposed: ingress/web"),
}  # fmt: skip


@pytest.mark.parametrize("name", GENERIC)
def test_an_app_that_is_broken(app: Repo, name: str) -> None:
    break_it, check, evidence = GENERIC[name]
    break_it(app)
    verdict = verified_app(app)
    (problem,) = verdict.failures
    assert problem.check == check
    assert evidence in problem.evidence
    assert problem.cause
    assert problem.next_step


def test_an_app_that_answers_with_an_error(app: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runbooks.tools.network.fetch", lambda _: network.Answer(status=502, body=""))
    (problem,) = verified_app(app).failures
    assert problem.check == tailscale.HTTP_ANSWERS
    assert problem.subject == "app/web"


def test_an_app_that_is_not_exposed_has_fewer_checks(app: Repo) -> None:
    verdict = verified_app(app, replace(APP, exposed={}))
    assert verdict.ok
    assert tailscale.DEVICE_HAS_NAME not in states(verdict)


# --- the listener, before the password is sent ----------------------------------------------------------------------


def test_only_the_labs_own_server_gets_the_password(repo: Repo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, open_session(repo.c, "verify.postgres") as session:
        found = postgres.listener_is_ours(session, server.getsockname()[1])
    assert found.state is State.FAILED
    assert "another program holds the lab's port" in found.cause


def test_a_port_without_a_listener_gets_no_password(repo: Repo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with open_session(repo.c, "verify.postgres") as session:
        found = postgres.listener_is_ours(session, port)
    assert found.state is State.FAILED
    assert "no process listens on port" in found.evidence
