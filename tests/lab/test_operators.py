"""The lab's controllers of claims, CloudNativePG and the tailnet against the real API server and real PostgreSQL."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest

from lab import platform
from lab.operators import postgres
from tests.lab.command_line import Lab, kill, until
from tests.lab.objects import (
    Object,
    apply,
    await_available,
    condition,
    controllers_have_looked,
    definition,
    deployment,
    hostname,
    ingress,
    made,
    reasons,
    secret,
    service,
    temporary_namespace,
)

pytestmark = pytest.mark.lab

CANARY = "Canary0Password0Of0The0Superuser"
PLURALS = {"Cluster": "clusters", "Database": "databases", "DatabaseRole": "databaseroles"}
CNPG = deployment("cnpg-system", "cnpg-cloudnative-pg", {"app.kubernetes.io/name": "cloudnative-pg"})
TAILSCALE = deployment("tailscale", "operator", {"app": "operator"})
GROUP = "postgresql.cnpg.io"
SUPERUSER = {"enableSuperuserAccess": True}


def cluster(namespace: str, name: str = "main", **spec: Any) -> Object:
    wanted = {"instances": 1, "storage": {"size": "1Gi"}, **spec}
    return made(f"{GROUP}/v1", "Cluster", namespace, name, spec=wanted)


def database(namespace: str, name: str, **spec: Any) -> Object:
    wanted = {"cluster": {"name": "main"}, "name": name, "owner": "app", **spec}
    return made(f"{GROUP}/v1", "Database", namespace, name, spec=wanted)


def exposed(namespace: str, name: str, **annotations: str) -> Object:
    marks = {f"tailscale.com/{key}": value for key, value in ({"expose": "true"} | annotations).items()}
    return service(namespace, name, marks)


@pytest.fixture(scope="module")
def operators(lab: Lab) -> Iterator[Lab]:
    """The lab with both operators' Deployments and CNPG's definitions, as the platform's own projects leave it."""
    for namespace in ("cnpg-system", "tailscale"):
        lab.kubectl("create", "namespace", namespace)
    kinds = [definition(GROUP, plural, kind) for kind, plural in PLURALS.items()]
    apply(lab, *kinds, CNPG, TAILSCALE, secret("tailscale", "operator-oauth", client_id="x"))
    for namespace in ("cnpg-system", "tailscale"):
        await_available(lab, namespace)
    yield lab
    assert "Traceback" not in (lab.lab_dir / "logs" / "operators.log").read_text()


@pytest.fixture(scope="module")
def shared(operators: Lab) -> Iterator[str]:
    """The namespace of a Cluster `main` with superuser access, which is there after every test."""
    with temporary_namespace(operators, "shared") as namespace:
        start_cluster(operators, namespace, **SUPERUSER)
        yield namespace


def start_cluster(lab: Lab, namespace: str, name: str = "main", **spec: Any) -> None:
    apply(lab, cluster(namespace, name, **spec))
    await_ready(lab, namespace, name)


def await_ready(lab: Lab, namespace: str, name: str = "main") -> None:
    lab.kubectl("-n", namespace, "wait", f"cluster/{name}", "--for=condition=Ready", "--timeout=180s")


def start_object(lab: Lab, thing: Object) -> None:
    """A Database or DatabaseRole, applied by the operator too; else an AssertionError with its status."""
    where = ("-n", thing["metadata"]["namespace"])
    name = f"{thing['kind'].lower()}/{thing['metadata']['name']}"
    apply(lab, thing)
    try:
        lab.kubectl(*where, "wait", name, "--for=jsonpath={.status.applied}=true", "--timeout=180s")
    except AssertionError as complaint:
        raise AssertionError(f"{complaint}\nit is: {lab.kubectl(*where, 'get', name, '-o', 'yaml')}") from None


def ready_message(lab: Lab, namespace: str, name: str, containing: str) -> str:
    """The message of the condition Ready of a Cluster, once it has these words."""

    def reported() -> str | None:
        message = condition(lab.get("-n", namespace, "cluster", name), "Ready").get("message", "")
        return message if containing in message else None

    return until(reported)


def port_of(lab: Lab, namespace: str, name: str = "main") -> int:
    pod = lab.get("-n", namespace, "pod", f"{name}-1")
    return int(pod["metadata"]["annotations"]["lab.homelab-ops/postgres-address"].rpartition(":")[2])


def ask(
    lab: Lab, namespace: str, statement: str, user: str = "postgres", password: str = "", dbname: str = "postgres"
) -> Any:
    """The first value that the Cluster `main` answers, or None; with the password of its superuser unless given one."""
    password = password or lab.secret(namespace, "main-superuser")["password"]
    login = {"host": "127.0.0.1", "port": port_of(lab, namespace), "user": user, "password": password}
    with psycopg.connect(**login, dbname=dbname, connect_timeout=5, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def postmaster(lab: Lab, namespace: str) -> postgres.Postmaster | None:
    return postgres.read_postmaster(postgres.folder_of(lab.lab_dir, namespace, "main") / "data")


def test_a_claim_is_bound_and_its_volume_goes_with_it(lab: Lab, namespace: str) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    apply(lab, made("v1", "PersistentVolumeClaim", namespace, "data", spec=spec))
    lab.kubectl("-n", namespace, "wait", "pvc/data", "--for=jsonpath={.status.phase}=Bound", "--timeout=180s")
    volume = lab.get("-n", namespace, "pvc", "data")["spec"]["volumeName"]
    lab.kubectl("-n", namespace, "delete", "pvc", "data")
    until(lambda: not lab.kubectl("get", "pv", volume, "--ignore-not-found"))


# -- clusters -------------------------------------------------------------------------------------------------------


def test_a_cluster_is_ready_and_has_the_operators_objects(shared: str, operators: Lab) -> None:
    found = operators.get("-n", shared, "cluster", "main")
    status = found["status"]
    assert status["phase"] == "Cluster in healthy state"
    assert condition(found, "Ready")["reason"] == "ClusterIsReady"
    assert (status["instances"], status["readyInstances"], status["currentPrimary"]) == (1, 1, "main-1")
    assert (status["writeService"], status["readService"]) == ("main-rw", "main-r")
    names = {item["metadata"]["name"] for item in operators.get("-n", shared, "service")["items"]}
    assert names == {"main-rw", "main-ro", "main-r"}
    assert operators.get("-n", shared, "pvc", "main-1")["status"]["phase"] == "Bound"
    slices = operators.get("-n", shared, "endpointslices", "-l", "kubernetes.io/service-name=main-rw")
    assert slices["items"][0]["endpoints"][0]["conditions"]["ready"]
    listed = operators.kubectl("-n", shared, "get", "cluster,service,secret,pod,pvc", "-o", "yaml")
    assert "kopf" not in listed, "controllers leave no mark of their library"


def test_generated_secrets_have_every_key_and_let_in(shared: str, operators: Lab) -> None:
    login = operators.secret(shared, "main-superuser")
    keys = {"username", "user", "password", "dbname", "host", "port", "pgpass"}
    assert set(login) == keys | {"uri", "jdbc-uri", "fqdn-uri", "fqdn-jdbc-uri"}
    assert (login["username"], login["dbname"], login["host"], login["port"]) == ("postgres", "*", "main-rw", "5432")
    assert ask(operators, shared, "select version()").startswith("PostgreSQL 18")
    app = operators.secret(shared, "main-app")
    assert app["uri"] == f"postgresql://app:{app['password']}@main-rw.{shared}:5432/app"
    assert ask(operators, shared, "select current_database()", "app", app["password"], "app") == "app"


def test_the_given_superuser_secret_rules(operators: Lab, namespace: str) -> None:
    apply(operators, cluster(namespace, **SUPERUSER, superuserSecret={"name": "login"}))
    waits = ready_message(operators, namespace, "main", containing="Secret login")
    assert waits == f"Secret login in namespace {namespace} is not there"
    apply(operators, secret(namespace, "login", username="postgres", password=CANARY))
    await_ready(operators, namespace)
    assert ask(operators, namespace, "select 1", password=CANARY) == 1
    other = CANARY[::-1]
    apply(operators, secret(namespace, "login", username="postgres", password=other))
    until(lambda: ask(operators, namespace, "select 1", password=other) == 1, ignoring=psycopg.OperationalError)
    with pytest.raises(psycopg.OperationalError):
        ask(operators, namespace, "select 1", password=CANARY)
    server = postgres.folder_of(operators.lab_dir, namespace, "main")
    for log in (operators.lab_dir / "logs" / "operators.log", server / "postgres.log"):
        assert CANARY not in log.read_text() and other not in log.read_text()


def test_without_superuser_access_there_is_no_password_and_storage_only_grows(operators: Lab, namespace: str) -> None:
    start_cluster(operators, namespace)
    assert "main-superuser" not in operators.kubectl("-n", namespace, "get", "secret", "-o", "name")
    apply(operators, cluster(namespace, storage={"size": "3Gi"}))
    path = "--output=jsonpath={.status.capacity.storage}"
    until(lambda: operators.kubectl("-n", namespace, "get", "pvc", "main-1", path) == "3Gi")
    apply(operators, cluster(namespace, storage={"size": "2Gi"}))
    reported = ready_message(operators, namespace, "main", containing="storage")
    assert reported == "can't change existing storage of main-1 from 3Gi to 2Gi"


def test_bootstrap_settings_are_followed_and_failures_reported(operators: Lab, namespace: str) -> None:
    initdb: Object = {"database": "shop", "owner": "keeper", "secret": {"name": "keeper"}}
    initdb["postInitApplicationSQL"] = ["create table marks (n int)", "insert into missing values (1)"]
    wanted = cluster(namespace, bootstrap={"initdb": initdb}, **SUPERUSER)
    apply(operators, secret(namespace, "keeper", username="keeper", password="keepers-password"), wanted)
    reported = ready_message(operators, namespace, "main", containing="postInit")
    assert reported == 'spec.bootstrap.initdb.postInitApplicationSQL[1]: relation "missing" does not exist'
    initdb["postInitApplicationSQL"][1] = "insert into marks values (7)"
    apply(operators, wanted)
    await_ready(operators, namespace)
    assert ask(operators, namespace, "select current_user", "keeper", "keepers-password", "shop") == "keeper"
    assert ask(operators, namespace, "select n from marks", dbname="shop") == 7


def test_parameters_are_taken_or_reported(operators: Lab, namespace: str) -> None:
    asked = {"parameters": {"max_connections": "33", "work_mem": "a lot"}, "shared_preload_libraries": ["vchord.so"]}
    start_cluster(operators, namespace, postgresql=asked, **SUPERUSER)
    reported = condition(operators.get("-n", namespace, "cluster", "main"), "ParametersApplied")
    assert reported["status"] == "False"
    assert "no vchord.so" in reported["message"]
    assert 'invalid value for parameter "work_mem"' in reported["message"]
    assert ask(operators, namespace, "show max_connections") == "33"
    apply(operators, cluster(namespace, postgresql=asked | {"parameters": {"max_connections": "44"}}, **SUPERUSER))
    until(lambda: ask(operators, namespace, "show max_connections") == "44", ignoring=psycopg.OperationalError)


def test_managed_services_and_roles_and_three_instances_that_shrink_again(operators: Lab, namespace: str) -> None:
    template = {"metadata": {"name": "main-rw-ext", "annotations": {"tailscale.com/expose": "true"}}}
    managed = {
        "services": {"additional": [{"selectorType": "rw", "serviceTemplate": template}]},
        "roles": [{"name": "reader", "login": True, "passwordSecret": {"name": "reader"}}],
    }
    apply(operators, secret(namespace, "reader", username="reader", password="readers-password"))
    start_cluster(operators, namespace, managed=managed, instances=3)
    assert ask(operators, namespace, "select 1", "reader", "readers-password") == 1
    selector = operators.get("-n", namespace, "service", "main-rw-ext")["spec"]["selector"]
    assert selector == {"cnpg.io/cluster": "main", "cnpg.io/instanceRole": "primary"}
    pods = {
        item["metadata"]["name"]: item["metadata"]["labels"]["cnpg.io/instanceRole"]
        for item in operators.get("-n", namespace, "pod")["items"]
    }
    assert pods == {"main-1": "primary", "main-2": "replica", "main-3": "replica"}
    apply(operators, cluster(namespace, managed=managed, instances=1))
    until(lambda: len(operators.get("-n", namespace, "pod")["items"]) == 1)


def test_a_dead_server_is_started_again(shared: str, operators: Lab) -> None:
    before = postmaster(operators, shared)
    kill(before.pid)
    after = until(
        lambda: (found := postmaster(operators, shared)) and found.pid != before.pid and found.ready and found
    )
    assert after.port == before.port


def test_a_deleted_cluster_takes_its_server_and_data_along(operators: Lab, namespace: str) -> None:
    start_cluster(operators, namespace, **SUPERUSER)
    ask(operators, namespace, "create database old")
    pid, folder = postmaster(operators, namespace).pid, postgres.folder_of(operators.lab_dir, namespace, "main")
    operators.kubectl("-n", namespace, "delete", "cluster", "main")
    until(lambda: not folder.exists())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    until(lambda: not operators.get("-n", namespace, "pod")["items"])

    start_cluster(operators, namespace, **SUPERUSER)
    assert ask(operators, namespace, "select count(*) from pg_database where datname = 'old'") == 0

    kill(pid_of(operators, "operators"))
    operators.kubectl("-n", namespace, "delete", "cluster", "main")
    assert postmaster(operators, namespace) is not None, "nobody ends it while the controllers are gone"
    platform.up(operators.state_dir, print)
    until(lambda: not folder.exists())


def test_a_taken_port_names_its_holder(operators: Lab) -> None:
    port = operators.postgres_port
    operators.kubectl("create", "namespace", "postgresql")
    with socket.create_server(("127.0.0.1", port)):
        apply(operators, cluster("postgresql", "postgresql-cluster"))
        reported = ready_message(operators, "postgresql", "postgresql-cluster", containing="taken")
        assert f"port {port} of the lab's postgres is taken by process {os.getpid()}" in reported
    await_ready(operators, "postgresql", "postgresql-cluster")
    assert port_of(operators, "postgresql", "postgresql-cluster") == port
    operators.kubectl("delete", "namespace", "postgresql")


# -- databases and roles --------------------------------------------------------------------------------------------


def test_a_database_is_made_with_what_it_asks_for(shared: str, operators: Lab) -> None:
    extensions = [{"name": name} for name in ("vector", "cube", "earthdistance")]
    schemas = [{"name": "extra", "owner": "app"}]
    start_object(operators, database(shared, "immich", extensions=extensions, schemas=schemas))
    status = operators.get("-n", shared, "database", "immich")["status"]
    assert [entry["applied"] for entry in status["extensions"]] == [True, True, True]
    assert status["observedGeneration"] == 1
    count = "select count(*) from pg_extension where extname in ('vector', 'cube', 'earthdistance')"
    assert ask(operators, shared, count, "app", operators.secret(shared, "main-app")["password"], "immich") == 3


def test_a_missing_extension_is_reported(shared: str, operators: Lab) -> None:
    apply(operators, database(shared, "photos", extensions=[{"name": "vector"}, {"name": "vchord"}]))
    status = until(lambda: operators.get("-n", shared, "database", "photos").get("status"))
    assert status["applied"] is False
    assert 'extension "vchord" is not available' in status["message"]
    assert [entry["applied"] for entry in status["extensions"]] == [True, False]


@pytest.mark.parametrize(("policy", "left"), [("delete", 0), ("retain", 1)])
def test_a_database_goes_by_its_policy(shared: str, operators: Lab, policy: str, left: int) -> None:
    start_object(operators, database(shared, policy, databaseReclaimPolicy=policy))
    operators.kubectl("-n", shared, "delete", "database", policy, "--timeout=180s")
    assert ask(operators, shared, f"select count(*) from pg_database where datname = '{policy}'") == left


def test_a_second_object_for_one_database_is_refused(shared: str, operators: Lab) -> None:
    start_object(operators, database(shared, "one"))
    apply(operators, {**database(shared, "two"), "spec": database(shared, "one")["spec"]})
    reported = until(lambda: operators.get("-n", shared, "database", "two").get("status", {}).get("message"))
    assert reported == 'reconciliation error: database "one" is already managed by Database object "one"'


def test_a_database_role_logs_in(shared: str, operators: Lab) -> None:
    spec = {"cluster": {"name": "main"}, "name": "n8n", "login": True, "passwordSecret": {"name": "n8n"}}
    apply(operators, secret(shared, "n8n", username="n8n", password="n8n-password"))
    start_object(operators, made(f"{GROUP}/v1", "DatabaseRole", shared, "n8n", spec=spec))
    assert ask(operators, shared, "select current_user", "n8n", "n8n-password") == "n8n"


# -- the tailnet ----------------------------------------------------------------------------------------------------


def state_of(lab: Lab, namespace: str, name: str, kind: str = "svc") -> dict[str, str]:
    """The state Secret of an exposure once its device has joined, found by the labels of its parent."""
    parent = "tailscale.com/parent-resource"
    labels = f"{parent}={name},{parent}-ns={namespace},{parent}-type={kind}"

    def joined() -> dict[str, str] | None:
        items = lab.get("-n", "tailscale", "secret", "-l", labels)["items"]
        data = items[0].get("data") or {} if items else {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()} if "device_fqdn" in data else None

    return until(joined)


def await_proxy(lab: Lab, namespace: str) -> None:
    lab.kubectl("-n", namespace, "wait", "service/web", "--for=condition=TailscaleProxyReady", "--timeout=180s")


def test_an_exposed_service_gets_a_device(operators: Lab, namespace: str) -> None:
    apply(operators, exposed(namespace, "web", hostname="localhost"))
    await_proxy(operators, namespace)
    state = state_of(operators, namespace, "web")
    assert state["device_fqdn"] == "localhost.lab.ts.net."
    assert json.loads(state["device_ips"]) == ["127.0.0.1"]
    assert {"device_id", "https_endpoint", "tailscale_capver", "pod_uid"} <= set(state)
    found = operators.get("-n", namespace, "service", "web")
    assert found["metadata"]["finalizers"] == ["tailscale.com/finalizer"]
    assert condition(found, "TailscaleProxyReady")["reason"] == "ProxyCreated"
    label = f"tailscale.com/parent-resource-ns={namespace}"
    assert operators.get("-n", "tailscale", "statefulset", "-l", label)["items"]


def test_a_taken_name_gets_a_number(operators: Lab, namespace: str) -> None:
    for name, device in (("first", "twin"), ("second", "twin-1")):
        apply(operators, exposed(namespace, name, hostname="twin"))
        assert state_of(operators, namespace, name)["device_fqdn"] == f"{device}.lab.ts.net."


@pytest.mark.parametrize("how", ["delete", "unexpose"])
def test_an_exposure_that_ends_is_cleaned_up(operators: Lab, namespace: str, how: str) -> None:
    apply(operators, exposed(namespace, "web"))
    assert state_of(operators, namespace, "web")["device_fqdn"] == f"{namespace}-web.lab.ts.net."
    if how == "delete":
        operators.kubectl("-n", namespace, "delete", "service", "web", "--timeout=180s")
    else:
        operators.kubectl("-n", namespace, "annotate", "service", "web", "tailscale.com/expose-")
    label = f"tailscale.com/parent-resource-ns={namespace}"
    until(lambda: not operators.get("-n", "tailscale", "statefulset,service,secret", "-l", label)["items"])
    if how == "unexpose":
        until(lambda: "finalizers" not in operators.get("-n", namespace, "service", "web")["metadata"])
        until(lambda: not condition(operators.get("-n", namespace, "service", "web"), "TailscaleProxyReady"))


def test_a_headless_service_is_refused(operators: Lab, namespace: str) -> None:
    wanted = exposed(namespace, "web")
    wanted["spec"]["clusterIP"] = "None"
    apply(operators, wanted)
    reported = until(lambda: condition(operators.get("-n", namespace, "service", "web"), "TailscaleProxyReady"))
    assert (reported["status"], reported["reason"]) == ("False", "ProxyInvalid")
    assert reported["message"].endswith("invalid Service: headless Services are not supported.")


def test_a_load_balancer_of_the_class_gets_the_devices_address(operators: Lab, namespace: str) -> None:
    apply(operators, service(namespace, "web", type="LoadBalancer", loadBalancerClass="tailscale"))
    status = until(lambda: operators.get("-n", namespace, "service", "web")["status"]["loadBalancer"].get("ingress"))
    addresses = [entry.get("hostname") or entry.get("ip") for entry in status]
    assert addresses == [f"{namespace}-web.lab.ts.net", "127.0.0.1"]


def test_an_ingress_takes_its_name_from_tls(operators: Lab, namespace: str) -> None:
    apply(operators, service(namespace, "web"), ingress(namespace, "tailscale", tls="photos.example.org"))
    assert until(lambda: hostname(operators, namespace)) == "photos.lab.ts.net"
    assert state_of(operators, namespace, "web", "ingress")["https_endpoint"] == "photos.lab.ts.net"
    operators.kubectl("-n", namespace, "delete", "ingress", "web", "--timeout=180s")


@pytest.mark.parametrize(
    ("backend", "host", "reason"),
    [
        ({}, "photos.example.org", 'rule with host "photos.example.org" ignored, unsupported'),
        ({"clusterIP": "None"}, "", 'backend for path "/" has invalid ClusterIP'),
    ],
    ids=["a host", "a headless backend"],
)
def test_an_ingress_without_a_valid_rule_gets_nothing(
    operators: Lab, namespace: str, backend: Object, host: str, reason: str
) -> None:
    apply(operators, service(namespace, "web", **backend), ingress(namespace, "tailscale", host=host, tls="photos"))
    assert reasons(operators, namespace, "NoValidBackends")["InvalidIngressBackend"] == reason
    assert not hostname(operators, namespace)
    operators.kubectl("-n", namespace, "delete", "ingress", "web", "--timeout=180s")


# -- operators and definitions that come and go ---------------------------------------------------------------------


def test_nothing_happens_without_the_operators(operators: Lab, namespace: str) -> None:
    operators.kubectl("-n", "cnpg-system", "delete", "deployment", "cnpg-cloudnative-pg")
    operators.kubectl("-n", "tailscale", "delete", "deployment", "operator")
    try:
        apply(operators, cluster(namespace), exposed(namespace, "web"))
        controllers_have_looked(operators, namespace)
        assert "status" not in operators.get("-n", namespace, "cluster", "main")
        assert not condition(operators.get("-n", namespace, "service", "web"), "TailscaleProxyReady")
    finally:
        apply(operators, CNPG, TAILSCALE)
    await_ready(operators, namespace)
    await_proxy(operators, namespace)


def pid_of(lab: Lab, name: str) -> int:
    (pid,) = [component.pid for component in platform.status(lab.state_dir) if component.name == name]
    assert pid
    return pid


@pytest.mark.parametrize("component", ["operators", "kube-apiserver"])
def test_a_running_server_is_adopted_after_a_crash(shared: str, operators: Lab, component: str) -> None:
    server, controllers = postmaster(operators, shared), pid_of(operators, "operators")
    kill(pid_of(operators, component))
    platform.up(operators.state_dir, print)
    assert (pid_of(operators, "operators") == controllers) is (component != "operators")
    start_object(operators, database(shared, f"after-{component}"))
    assert postmaster(operators, shared) == server


def test_definitions_may_go_and_come_back(shared: str, operators: Lab) -> None:
    before = pid_of(operators, "operators")
    operators.kubectl("delete", "crd", "clusters.postgresql.cnpg.io", "--timeout=180s")
    until(lambda: not postgres.folder_of(operators.lab_dir, shared, "main").exists())
    apply(operators, definition(GROUP, "clusters", "Cluster"))
    operators.kubectl("wait", "crd/clusters.postgresql.cnpg.io", "--for=condition=Established", "--timeout=180s")
    # Under another name: the garbage collector may need minutes to remove the Services of the first.
    until(lambda: apply(operators, cluster(shared, "again")) is None)
    await_ready(operators, shared, "again")
    assert pid_of(operators, "operators") == before
