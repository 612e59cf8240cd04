"""The lab's controllers against the real API server and real PostgreSQL servers."""

from __future__ import annotations

import base64
import json
import os
import socket
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from lab import platform
from lab.operators import postgres
from tests.lab.command_line import Lab, kill
from tests.lab.objects import (
    LOAD_BALANCER_ADDRESS,
    TAILSCALE,
    Object,
    apply,
    await_available,
    condition,
    controllers_have_looked,
    definition,
    deployment,
    eventually,
    hostname,
    ingress,
    made,
    reasons,
    secret,
    service,
)

pytestmark = pytest.mark.lab

CANARY = "Canary0Password0Of0The0Superuser"
PLURALS = {"Cluster": "clusters", "Database": "databases", "DatabaseRole": "databaseroles"}
CNPG = deployment("cnpg-system", "cnpg-cloudnative-pg", {"app.kubernetes.io/name": "cloudnative-pg"})
GROUP = "postgresql.cnpg.io"


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
def operators(lab: Lab) -> Lab:
    """The lab with both operators' Deployments and CNPG's definitions, as the platform's own projects leave it."""
    for namespace in ("cnpg-system", "tailscale"):
        lab.kubectl("create", "namespace", namespace)
    kinds = [definition(GROUP, plural, kind) for kind, plural in PLURALS.items()]
    apply(lab, *kinds, CNPG, TAILSCALE, secret("tailscale", "operator-oauth", client_id="x"))
    for namespace in ("cnpg-system", "tailscale"):
        await_available(lab, namespace)
    return lab


@pytest.fixture
def ready(operators: Lab, namespace: str) -> str:
    """The namespace of a Cluster `main` that is ready, with superuser access."""
    apply(operators, cluster(namespace, enableSuperuserAccess=True))
    await_ready(operators, namespace)
    return namespace


def await_ready(lab: Lab, namespace: str, name: str = "main", seconds: float = 180.0) -> None:
    lab.kubectl("-n", namespace, "wait", f"cluster/{name}", "--for=condition=Ready", f"--timeout={seconds}s")


def await_applied(lab: Lab, namespace: str, name: str) -> None:
    """Wait until the operator has applied a Database or DatabaseRole; else show its status."""
    try:
        lab.kubectl("-n", namespace, "wait", name, "--for=jsonpath={.status.applied}=true", "--timeout=180s")
    except AssertionError as complaint:
        raise AssertionError(f"{complaint}\nit is: {lab.kubectl('-n', namespace, 'get', name, '-o', 'yaml')}") from None


def ready_message(lab: Lab, namespace: str, name: str, containing: str) -> str:
    """The message of the condition Ready of a Cluster, once it has these words."""

    def reported() -> str | None:
        message = condition(lab.get("-n", namespace, "cluster", name), "Ready").get("message", "")
        return message if containing in message else None

    return eventually(reported)


def port_of(lab: Lab, namespace: str, name: str = "main") -> int:
    pod = lab.get("-n", namespace, "pod", f"{name}-1")
    return int(pod["metadata"]["annotations"]["lab.homelab-ops/postgres-address"].rpartition(":")[2])


def ask(port: int, user: str, password: str, statement: str, dbname: str = "postgres") -> Any:
    """The first value of an answer, or None when the statement has none."""
    login = {"host": "127.0.0.1", "port": port, "user": user, "password": password, "dbname": dbname}
    with psycopg.connect(**login, connect_timeout=5, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def postmaster(lab: Lab, namespace: str, name: str = "main") -> postgres.Postmaster | None:
    return postgres.read_postmaster(postgres.folder_of(lab.lab_dir, namespace, name) / "data")


# -- claims and load balancers --------------------------------------------------------------------------------------


def test_claims_are_bound_and_their_volumes_go_with_them(lab: Lab, namespace: str) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    apply(lab, made("v1", "PersistentVolumeClaim", namespace, "data", spec=spec))
    lab.kubectl("-n", namespace, "wait", "pvc/data", "--for=jsonpath={.status.phase}=Bound", "--timeout=180s")
    volume = lab.get("-n", namespace, "pvc", "data")["spec"]["volumeName"]
    lab.kubectl("-n", namespace, "delete", "pvc", "data")
    eventually(lambda: not lab.kubectl("get", "pv", volume, "--ignore-not-found"))


def test_claims_of_a_stateful_set_are_bound(lab: Lab, namespace: str) -> None:
    template = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    container = {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}
    labels = {"app": "s"}
    spec = {
        "serviceName": "s",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        "volumeClaimTemplates": [template],
    }
    apply(lab, made("apps/v1", "StatefulSet", namespace, "s", spec=spec))
    lab.kubectl("-n", namespace, "rollout", "status", "statefulset/s", "--timeout=180s")


def test_load_balancers_get_an_address(lab: Lab, namespace: str) -> None:
    apply(lab, service(namespace, "web", type="LoadBalancer"))
    words = ("-n", namespace, "get", "service", "web", LOAD_BALANCER_ADDRESS)
    assert eventually(lambda: lab.kubectl(*words)) == "127.0.0.1"


# -- clusters -------------------------------------------------------------------------------------------------------


def test_a_cluster_becomes_ready_and_answers(ready: str, operators: Lab) -> None:
    login = operators.secret(ready, "main-superuser")
    assert ask(port_of(operators, ready), "postgres", login["password"], "select version()").startswith("PostgreSQL 18")
    app = operators.secret(ready, "main-app")
    assert ask(port_of(operators, ready), "app", app["password"], "select current_database()", "app") == "app"


def test_a_cluster_has_the_operators_objects(ready: str, operators: Lab) -> None:
    found = operators.get("-n", ready, "cluster", "main")
    status = found["status"]
    assert status["phase"] == "Cluster in healthy state"
    assert condition(found, "Ready")["reason"] == "ClusterIsReady"
    assert (status["instances"], status["readyInstances"], status["currentPrimary"]) == (1, 1, "main-1")
    assert (status["writeService"], status["readService"]) == ("main-rw", "main-r")
    names = {item["metadata"]["name"] for item in operators.get("-n", ready, "service")["items"]}
    assert names == {"main-rw", "main-ro", "main-r"}
    assert operators.get("-n", ready, "pvc", "main-1")["status"]["phase"] == "Bound"
    slices = operators.get("-n", ready, "endpointslices", "-l", "kubernetes.io/service-name=main-rw")
    assert eventually(lambda: slices["items"][0]["endpoints"][0]["conditions"]["ready"])


def test_generated_secrets_have_every_key(ready: str, operators: Lab) -> None:
    login = operators.secret(ready, "main-superuser")
    keys = {"username", "user", "password", "dbname", "host", "port", "pgpass"}
    assert set(login) == keys | {"uri", "jdbc-uri", "fqdn-uri", "fqdn-jdbc-uri"}
    assert (login["username"], login["dbname"], login["host"], login["port"]) == ("postgres", "*", "main-rw", "5432")
    app = operators.secret(ready, "main-app")
    assert app["uri"] == f"postgresql://app:{app['password']}@main-rw.{ready}:5432/app"


def test_controllers_leave_no_mark_of_their_library(ready: str, operators: Lab) -> None:
    listed = operators.kubectl("-n", ready, "get", "cluster,service,secret,pod,pvc", "-o", "yaml")
    assert "kopf" not in listed


def test_the_given_superuser_secret_rules(operators: Lab, namespace: str) -> None:
    wanted = cluster(namespace, enableSuperuserAccess=True, superuserSecret={"name": "login"})
    apply(operators, wanted)
    waits = ready_message(operators, namespace, "main", containing="Secret login")
    assert waits == f"Secret login in namespace {namespace} is not there"
    apply(operators, secret(namespace, "login", username="postgres", password=CANARY))
    await_ready(operators, namespace)
    port = port_of(operators, namespace)
    assert ask(port, "postgres", CANARY, "select 1") == 1
    apply(operators, secret(namespace, "login", username="postgres", password=CANARY[::-1]))

    def changed() -> bool:
        try:
            return ask(port, "postgres", CANARY[::-1], "select 1") == 1
        except psycopg.OperationalError:
            return False

    assert eventually(changed)
    with pytest.raises(psycopg.OperationalError):
        ask(port, "postgres", CANARY, "select 1")
    written = (operators.lab_dir / "logs" / "operators.log").read_text() + (
        postgres.folder_of(operators.lab_dir, namespace, "main") / "postgres.log"
    ).read_text()
    assert CANARY not in written
    assert CANARY[::-1] not in written


def test_without_superuser_access_nobody_gets_the_password(operators: Lab, namespace: str) -> None:
    apply(operators, cluster(namespace))
    await_ready(operators, namespace)
    assert "main-superuser" not in operators.kubectl("-n", namespace, "get", "secret", "-o", "name")


def test_bootstrap_settings_are_followed(operators: Lab, namespace: str) -> None:
    initdb = {
        "database": "shop",
        "owner": "keeper",
        "secret": {"name": "keeper"},
        "postInitApplicationSQL": ["create table marks (n int)", "insert into marks values (7)"],
    }
    apply(operators, secret(namespace, "keeper", username="keeper", password="keepers-password"))
    apply(operators, cluster(namespace, bootstrap={"initdb": initdb}, enableSuperuserAccess=True))
    await_ready(operators, namespace)
    port = port_of(operators, namespace)
    assert ask(port, "keeper", "keepers-password", "select current_user", "shop") == "keeper"
    login = operators.secret(namespace, "main-superuser")
    assert ask(port, "postgres", login["password"], "select n from marks", "shop") == 7


def test_a_statement_that_fails_at_bootstrap_is_reported_and_goes_on_when_mended(
    operators: Lab, namespace: str
) -> None:
    statements = ["create table once (n int)", "insert into missing values (1)"]
    apply(operators, cluster(namespace, bootstrap={"initdb": {"postInitApplicationSQL": statements}}))
    reported = ready_message(operators, namespace, "main", containing="postInit")
    assert reported == 'spec.bootstrap.initdb.postInitApplicationSQL[1]: relation "missing" does not exist'
    statements[1] = "insert into once values (1)"
    apply(operators, cluster(namespace, bootstrap={"initdb": {"postInitApplicationSQL": statements}}))
    await_ready(operators, namespace)


def test_storage_grows_and_never_shrinks(operators: Lab, namespace: str) -> None:
    apply(operators, cluster(namespace))
    await_ready(operators, namespace)
    apply(operators, cluster(namespace, storage={"size": "3Gi"}))
    path = "--output=jsonpath={.status.capacity.storage}"
    eventually(lambda: operators.kubectl("-n", namespace, "get", "pvc", "main-1", path) == "3Gi")
    apply(operators, cluster(namespace, storage={"size": "2Gi"}))
    reported = ready_message(operators, namespace, "main", containing="storage")
    assert reported == "can't change existing storage of main-1 from 3Gi to 2Gi"


def test_parameters_are_taken_or_reported(operators: Lab, namespace: str) -> None:
    asked = {"parameters": {"max_connections": "33", "work_mem": "a lot"}, "shared_preload_libraries": ["vchord.so"]}
    apply(operators, cluster(namespace, postgresql=asked, enableSuperuserAccess=True))
    await_ready(operators, namespace)
    reported = condition(operators.get("-n", namespace, "cluster", "main"), "ParametersApplied")
    assert reported["status"] == "False"
    assert "no vchord.so" in reported["message"]
    assert 'invalid value for parameter "work_mem"' in reported["message"]
    login = operators.secret(namespace, "main-superuser")
    assert ask(port_of(operators, namespace), "postgres", login["password"], "show max_connections") == "33"
    asked["parameters"] = {"max_connections": "44"}
    apply(operators, cluster(namespace, postgresql=asked, enableSuperuserAccess=True))

    def changed() -> bool:
        try:
            return ask(port_of(operators, namespace), "postgres", login["password"], "show max_connections") == "44"
        except psycopg.OperationalError:
            return False

    assert eventually(changed)


def test_managed_services_and_roles(operators: Lab, namespace: str) -> None:
    template = {"metadata": {"name": "main-rw-ext", "annotations": {"tailscale.com/expose": "true"}}}
    managed = {
        "services": {"additional": [{"selectorType": "rw", "serviceTemplate": template}]},
        "roles": [{"name": "reader", "login": True, "passwordSecret": {"name": "reader"}}],
    }
    apply(operators, secret(namespace, "reader", username="reader", password="readers-password"))
    apply(operators, cluster(namespace, managed=managed))
    await_ready(operators, namespace)
    assert ask(port_of(operators, namespace), "reader", "readers-password", "select 1") == 1
    selector = operators.get("-n", namespace, "service", "main-rw-ext")["spec"]["selector"]
    assert selector == {"cnpg.io/cluster": "main", "cnpg.io/instanceRole": "primary"}


def test_three_instances_are_three_pods_and_shrink_again(operators: Lab, namespace: str) -> None:
    apply(operators, cluster(namespace, instances=3))
    await_ready(operators, namespace)
    pods = {
        item["metadata"]["name"]: item["metadata"]["labels"]["cnpg.io/instanceRole"]
        for item in operators.get("-n", namespace, "pod")["items"]
    }
    assert pods == {"main-1": "primary", "main-2": "replica", "main-3": "replica"}
    apply(operators, cluster(namespace, instances=1))
    eventually(lambda: len(operators.get("-n", namespace, "pod")["items"]) == 1)


def test_a_dead_server_is_started_again(ready: str, operators: Lab) -> None:
    before = postmaster(operators, ready)
    kill(before.pid)
    after = eventually(
        lambda: (found := postmaster(operators, ready)) and found.pid != before.pid and found.ready and found
    )
    assert after.port == before.port


def test_a_deleted_cluster_takes_its_server_and_data_along(ready: str, operators: Lab) -> None:
    pid = postmaster(operators, ready).pid
    operators.kubectl("-n", ready, "delete", "cluster", "main")
    eventually(lambda: not postgres.folder_of(operators.lab_dir, ready, "main").exists())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    eventually(lambda: not operators.get("-n", ready, "pod")["items"])


def test_a_new_cluster_of_the_same_name_starts_empty(ready: str, operators: Lab) -> None:
    login = operators.secret(ready, "main-superuser")
    ask(port_of(operators, ready), "postgres", login["password"], "create database old")
    operators.kubectl("-n", ready, "delete", "cluster", "main")
    apply(operators, cluster(ready, enableSuperuserAccess=True))
    await_ready(operators, ready)
    login = operators.secret(ready, "main-superuser")
    count = "select count(*) from pg_database where datname = 'old'"
    assert ask(port_of(operators, ready), "postgres", login["password"], count) == 0


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


def test_a_database_is_made_with_what_it_asks_for(ready: str, operators: Lab) -> None:
    extensions = [{"name": name} for name in ("vector", "cube", "earthdistance")]
    wanted = database(ready, "immich", extensions=extensions, schemas=[{"name": "extra", "owner": "app"}])
    apply(operators, wanted)
    await_applied(operators, ready, "database/immich")
    status = operators.get("-n", ready, "database", "immich")["status"]
    assert [entry["applied"] for entry in status["extensions"]] == [True, True, True]
    assert status["observedGeneration"] == 1
    app = operators.secret(ready, "main-app")
    count = "select count(*) from pg_extension where extname in ('vector', 'cube', 'earthdistance')"
    assert ask(port_of(operators, ready), "app", app["password"], count, "immich") == 3


def test_a_missing_extension_is_reported(ready: str, operators: Lab) -> None:
    apply(operators, database(ready, "photos", extensions=[{"name": "vector"}, {"name": "vchord"}]))
    status = eventually(lambda: operators.get("-n", ready, "database", "photos").get("status"))
    assert status["applied"] is False
    assert 'extension "vchord" is not available' in status["message"]
    assert [entry["applied"] for entry in status["extensions"]] == [True, False]


@pytest.mark.parametrize(("policy", "left"), [("delete", 0), ("retain", 1)])
def test_a_database_goes_by_its_policy(ready: str, operators: Lab, policy: str, left: int) -> None:
    apply(operators, database(ready, "brief", databaseReclaimPolicy=policy))
    await_applied(operators, ready, "database/brief")
    operators.kubectl("-n", ready, "delete", "database", "brief", "--timeout=180s")
    login = operators.secret(ready, "main-superuser")
    count = "select count(*) from pg_database where datname = 'brief'"
    assert ask(port_of(operators, ready), "postgres", login["password"], count) == left


def test_a_second_object_for_one_database_is_refused(ready: str, operators: Lab) -> None:
    apply(operators, database(ready, "one"))
    await_applied(operators, ready, "database/one")
    apply(operators, {**database(ready, "two"), "spec": {"cluster": {"name": "main"}, "name": "one", "owner": "app"}})
    reported = eventually(lambda: operators.get("-n", ready, "database", "two").get("status", {}).get("message"))
    assert reported == 'reconciliation error: database "one" is already managed by Database object "one"'


def test_a_database_role_logs_in(ready: str, operators: Lab) -> None:
    spec = {"cluster": {"name": "main"}, "name": "n8n", "login": True, "passwordSecret": {"name": "n8n"}}
    role = made(f"{GROUP}/v1", "DatabaseRole", ready, "n8n", spec=spec)
    apply(operators, secret(ready, "n8n", username="n8n", password="n8n-password"), role)
    await_applied(operators, ready, "databaserole/n8n")
    assert ask(port_of(operators, ready), "n8n", "n8n-password", "select current_user") == "n8n"


# -- the tailnet ----------------------------------------------------------------------------------------------------


def state_of(lab: Lab, namespace: str, name: str, kind: str = "svc") -> dict[str, str]:
    """The state Secret of an exposure once its device has joined, found by the labels of its parent."""
    parent = "tailscale.com/parent-resource"
    labels = f"{parent}={name},{parent}-ns={namespace},{parent}-type={kind}"

    def joined() -> dict[str, str] | None:
        items = lab.get("-n", "tailscale", "secret", "-l", labels)["items"]
        data = items[0].get("data") or {} if items else {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()} if "device_fqdn" in data else None

    return eventually(joined)


def test_an_exposed_service_gets_a_device(operators: Lab, namespace: str) -> None:
    apply(operators, exposed(namespace, "web", hostname="localhost"))
    operators.kubectl("-n", namespace, "wait", "service/web", "--for=condition=TailscaleProxyReady", "--timeout=180s")
    state = state_of(operators, namespace, "web")
    assert state["device_fqdn"] == "localhost.lab.ts.net."
    assert json.loads(state["device_ips"]) == ["127.0.0.1"]
    assert {"device_id", "https_endpoint", "tailscale_capver", "pod_uid"} <= set(state)
    found = operators.get("-n", namespace, "service", "web")
    assert found["metadata"]["finalizers"] == ["tailscale.com/finalizer"]
    assert condition(found, "TailscaleProxyReady")["reason"] == "ProxyCreated"
    assert operators.get("-n", "tailscale", "statefulset", "-l", "tailscale.com/parent-resource-ns=" + namespace)[
        "items"
    ]


def test_a_taken_name_gets_a_number(operators: Lab, namespace: str) -> None:
    apply(operators, exposed(namespace, "first", hostname="twin"))
    assert state_of(operators, namespace, "first")["device_fqdn"] == "twin.lab.ts.net."
    apply(operators, exposed(namespace, "second", hostname="twin"))
    assert state_of(operators, namespace, "second")["device_fqdn"] == "twin-1.lab.ts.net."


@pytest.mark.parametrize("how", ["delete", "unexpose"])
def test_an_exposure_that_ends_is_cleaned_up(operators: Lab, namespace: str, how: str) -> None:
    apply(operators, exposed(namespace, "web"))
    assert state_of(operators, namespace, "web")["device_fqdn"] == f"{namespace}-web.lab.ts.net."
    if how == "delete":
        operators.kubectl("-n", namespace, "delete", "service", "web", "--timeout=180s")
    else:
        operators.kubectl("-n", namespace, "annotate", "service", "web", "tailscale.com/expose-")
    label = f"tailscale.com/parent-resource-ns={namespace}"
    eventually(lambda: not operators.get("-n", "tailscale", "statefulset,service,secret", "-l", label)["items"])
    if how == "unexpose":
        eventually(lambda: "finalizers" not in operators.get("-n", namespace, "service", "web")["metadata"])
        eventually(lambda: not condition(operators.get("-n", namespace, "service", "web"), "TailscaleProxyReady"))


def test_a_headless_service_is_refused(operators: Lab, namespace: str) -> None:
    wanted = exposed(namespace, "web")
    wanted["spec"]["clusterIP"] = "None"
    apply(operators, wanted)
    reported = eventually(lambda: condition(operators.get("-n", namespace, "service", "web"), "TailscaleProxyReady"))
    assert (reported["status"], reported["reason"]) == ("False", "ProxyInvalid")
    assert reported["message"].endswith("invalid Service: headless Services are not supported.")


def test_a_load_balancer_of_the_class_gets_the_devices_address(operators: Lab, namespace: str) -> None:
    apply(operators, service(namespace, "web", type="LoadBalancer", loadBalancerClass="tailscale"))
    status = eventually(
        lambda: operators.get("-n", namespace, "service", "web")["status"]["loadBalancer"].get("ingress")
    )
    assert [entry.get("hostname") or entry.get("ip") for entry in status] == [
        f"{namespace}-web.lab.ts.net",
        "127.0.0.1",
    ]


def test_an_ingress_takes_its_name_from_tls(operators: Lab, namespace: str) -> None:
    apply(operators, service(namespace, "web"), ingress(namespace, "tailscale", tls="photos.example.org"))
    assert eventually(lambda: hostname(operators, namespace)) == "photos.lab.ts.net"
    assert state_of(operators, namespace, "web", "ingress")["https_endpoint"] == "photos.lab.ts.net"
    operators.kubectl("-n", namespace, "delete", "ingress", "web", "--timeout=180s")


def test_an_ingress_without_a_valid_rule_gets_nothing(operators: Lab, namespace: str) -> None:
    apply(
        operators, service(namespace, "web"), ingress(namespace, "tailscale", host="photos.example.org", tls="photos")
    )
    reported = reasons(operators, namespace, "NoValidBackends")
    assert reported["InvalidIngressBackend"] == 'rule with host "photos.example.org" ignored, unsupported'
    assert "ingress" not in operators.get("-n", namespace, "ingress", "web")["status"].get("loadBalancer", {})
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
    operators.kubectl("-n", namespace, "wait", "service/web", "--for=condition=TailscaleProxyReady", "--timeout=180s")


def pid_of(lab: Lab, name: str) -> int:
    (pid,) = [component.pid for component in platform.status(lab.state_dir) if component.name == name]
    assert pid
    return pid


def test_a_running_server_is_adopted_after_a_crash_of_the_controllers(ready: str, operators: Lab) -> None:
    before = postmaster(operators, ready)
    killed = pid_of(operators, "operators")
    kill(killed)
    platform.up(operators.state_dir, lambda _line: None)
    assert pid_of(operators, "operators") != killed
    apply(operators, database(ready, "after"))
    await_applied(operators, ready, "database/after")
    assert postmaster(operators, ready) == before


def test_what_was_deleted_during_a_crash_is_cleaned_up(ready: str, operators: Lab) -> None:
    kill(pid_of(operators, "operators"))
    operators.kubectl("-n", ready, "delete", "cluster", "main")
    assert postmaster(operators, ready) is not None
    platform.up(operators.state_dir, lambda _line: None)
    eventually(lambda: not postgres.folder_of(operators.lab_dir, ready, "main").exists())


def test_controllers_outlive_the_api_servers_restart(ready: str, operators: Lab) -> None:
    before, server = pid_of(operators, "operators"), postmaster(operators, ready)
    kill(pid_of(operators, "kube-apiserver"))
    platform.up(operators.state_dir, lambda _line: None)
    apply(operators, database(ready, "after"))
    await_applied(operators, ready, "database/after")
    assert (pid_of(operators, "operators"), postmaster(operators, ready)) == (before, server)


def test_definitions_may_go_and_come_back(operators: Lab, namespace: str) -> None:
    apply(operators, cluster(namespace))
    await_ready(operators, namespace)
    before = pid_of(operators, "operators")
    operators.kubectl("delete", "crd", "clusters.postgresql.cnpg.io", "--timeout=180s")
    eventually(lambda: not postgres.folder_of(operators.lab_dir, namespace, "main").exists())
    apply(operators, definition(GROUP, "clusters", "Cluster"))
    operators.kubectl("wait", "crd/clusters.postgresql.cnpg.io", "--for=condition=Established", "--timeout=180s")
    eventually(lambda: apply(operators, cluster(namespace)) is None)
    await_ready(operators, namespace)
    assert pid_of(operators, "operators") == before


def test_logs_hold_no_password_and_no_bug(operators: Lab) -> None:
    log = Path(operators.lab_dir / "logs" / "operators.log").read_text()
    assert "Traceback" not in log
    assert CANARY not in log
