"""The controllers of the tunnel, cert-manager, ClickHouse and Prometheus against the real API server."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from tests.lab.command_line import ROOT, Lab, until
from tests.lab.objects import (
    Object,
    apply,
    await_available,
    backend,
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
)

pytestmark = pytest.mark.lab

TUNNEL_HOME, MANAGER_HOME = "m-tunnel", "m-cert-manager"
CLICKHOUSE_HOME, PROMETHEUS_HOME = "m-clickhouse", "m-prometheus"
ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "Canary0Token0Of0The0Cloudflare0Account"
PRODUCTION = "https://acme-v02.api.letsencrypt.org/directory"
LONG_AGO = "2020-01-01T00:00:00Z"


@contextmanager
def stopped(lab: Lab, home: str, name: str) -> Iterator[None]:
    """The Deployment without a single pod."""
    lab.kubectl("-n", home, "scale", f"deployment/{name}", "--replicas=0")
    path = "--output=jsonpath={.status.availableReplicas}"
    until(lambda: lab.kubectl("-n", home, "get", "deployment", name, path) in ("", "0"))
    try:
        yield
    finally:
        lab.kubectl("-n", home, "scale", f"deployment/{name}", "--replicas=1")
        lab.kubectl("-n", home, "rollout", "status", f"deployment/{name}", "--timeout=180s")


# -- the Cloudflare tunnel ------------------------------------------------------------------------------------------


CONTROLLER = "cloudflare-tunnel-ingress-controller"
LOGIN = {"api-token": TOKEN, "cloudflare-account-id": ACCOUNT, "cloudflare-tunnel-name": "homelab"}
CLASS = made(
    "networking.k8s.io/v1", "IngressClass", "", "cloudflare-tunnel", spec={"controller": f"strrl.dev/{CONTROLLER}"}
)


def controller() -> Object:
    """The controller's Deployment, as its chart makes it."""
    keys = {"API_TOKEN": "api-token", "ACCOUNT_ID": "cloudflare-account-id", "TUNNEL_NAME": "cloudflare-tunnel-name"}
    env: list[Object] = [
        {"name": f"CLOUDFLARE_{name}", "valueFrom": {"secretKeyRef": {"name": "cloudflare-api", "key": key}}}
        for name, key in keys.items()
    ]
    plain = {"CLOUDFLARED_IMAGE": "cloudflare/cloudflared:2026.7.0", "CLOUDFLARED_REPLICA_COUNT": "2"}
    env += [{"name": name, "value": value} for name, value in plain.items()]
    flags = {
        "ingress-class": "cloudflare-tunnel", "controller-class": f"strrl.dev/{CONTROLLER}",
        "cloudflared-protocol": "quic", "cluster-domain": "cluster.local",
    }  # fmt: skip
    command = [CONTROLLER, *(f"--{name}={value}" for name, value in flags.items())]
    return deployment(TUNNEL_HOME, CONTROLLER, {"app.kubernetes.io/name": CONTROLLER}, command=command, env=env)


@pytest.fixture(scope="module")
def tunnel(lab: Lab) -> Lab:
    login = secret(TUNNEL_HOME, "cloudflare-api", **LOGIN)
    apply(lab, made("v1", "Namespace", "", TUNNEL_HOME), CLASS, login, controller())
    await_available(lab, TUNNEL_HOME)
    return lab


def public(namespace: str, host: str = "hooks.example.org", tls: str = "", **path: Any) -> Object:
    return ingress(namespace, "cloudflare-tunnel", host, tls, **path)


def test_a_public_ingress_gets_the_tunnels_address_and_is_cleaned_up(tunnel: Lab, namespace: str) -> None:
    apply(tunnel, service(namespace, "web"), public(namespace, tls="hooks.example.org"))
    address = until(lambda: hostname(tunnel, namespace))
    assert re.fullmatch(r"[0-9a-f-]{36}\.cfargotunnel\.com", address)
    reported = reasons(tunnel, namespace, "CloudflareSynced")
    # The API server may report on the Service's address beside it.
    assert reported["CloudflareSynced"] == "cloudflare tunnel config and DNS records are up to date"
    assert "will be ignored" in reported["TLSIgnored"]
    found = tunnel.get("-n", namespace, "ingress", "web")
    assert found["metadata"]["finalizers"] == ["strrl.dev/cloudflare-tunnel-ingress-controller-controlled"]
    assert found["status"]["loadBalancer"]["ingress"][0]["ports"] == [{"port": 443, "protocol": "TCP"}]
    with stopped(tunnel, TUNNEL_HOME, CONTROLLER):
        tunnel.kubectl("-n", namespace, "delete", "ingress", "web", "--wait=false")
        assert tunnel.get("-n", namespace, "ingress", "web")["metadata"]["deletionTimestamp"]
    until(lambda: not tunnel.get("-n", namespace, "ingress")["items"])


HEADLESS = "has None for cluster ip, headless service is not supported"
REFUSED: dict[str, tuple[Object, str]] = {
    "no-host": ({"host": ""}, "host in ingress {0}/web is empty"),
    "exact": ({"pathType": "Exact"}, "path type in ingress {0}/web is Exact, which is not supported"),
    "no-port": ({"backend": backend(name="http")}, "service {0}/web has no port named http"),
    "headless": ({"backend": backend("bare")}, f"service {{0}}/bare {HEADLESS}"),
    "no-service": ({"backend": backend("gone")}, 'fetch service {0}/gone: Service "gone" not found'),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_tunnel_cannot_route_is_reported(tunnel: Lab, namespace: str, what: str) -> None:
    """And has an address all the same."""
    changes, reported = REFUSED[what]
    apply(tunnel, service(namespace, "web"), service(namespace, "bare", clusterIP="None"))
    apply(tunnel, public(namespace, **changes))
    assert reasons(tunnel, namespace, "TransformFailed")["TransformFailed"] == reported.format(namespace)
    assert until(lambda: hostname(tunnel, namespace))


def test_connectors_run_with_a_token_of_the_tunnel(tunnel: Lab, namespace: str) -> None:
    tunnel.kubectl("-n", TUNNEL_HOME, "rollout", "status", "deployment/controlled-cloudflared-connector")
    found = tunnel.get("-n", TUNNEL_HOME, "deployment", "controlled-cloudflared-connector")
    assert found["spec"]["replicas"] == 2
    assert found["metadata"]["ownerReferences"][0]["name"] == CONTROLLER
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "cloudflare/cloudflared:2026.7.0"
    assert container["command"][-2:] == ["0.0.0.0:44483", "run"]
    written = tunnel.secret(TUNNEL_HOME, "controlled-cloudflared-token")["tunnel-token"]
    token = json.loads(base64.b64decode(written))
    assert token["a"] == ACCOUNT
    apply(tunnel, service(namespace, "web"), public(namespace))
    assert until(lambda: hostname(tunnel, namespace)) == f"{token['t']}.cfargotunnel.com"
    log = (tunnel.lab_dir / "logs" / "operators.log").read_text()
    assert TOKEN not in log and written not in log


def test_nothing_is_routed_without_the_controller_and_its_login(tunnel: Lab, namespace: str) -> None:
    with stopped(tunnel, TUNNEL_HOME, CONTROLLER):
        apply(tunnel, service(namespace, "web"), public(namespace))
        controllers_have_looked(tunnel, namespace)
        assert not hostname(tunnel, namespace)
    tunnel.kubectl("-n", TUNNEL_HOME, "delete", "secret", "cloudflare-api")
    try:
        apply(tunnel, public(namespace) | {"metadata": {"name": "other", "namespace": namespace}})
        controllers_have_looked(tunnel, namespace, "second-mark")
        assert not hostname(tunnel, namespace, "other")
    finally:
        apply(tunnel, secret(TUNNEL_HOME, "cloudflare-api", **LOGIN))
    assert until(lambda: hostname(tunnel, namespace, "other"))


# -- cert-manager ---------------------------------------------------------------------------------------------------


def programs() -> Iterator[Object]:
    arguments = {
        "controller": ["--cluster-resource-namespace=$(POD_NAMESPACE)"],
        "webhook": ["--dynamic-serving-ca-secret-name=cert-manager-webhook-ca"],
        "cainjector": [],
    }
    for component, args in arguments.items():
        name, full = component, f"cert-manager-{component}"
        if component == "controller":
            name = full = "cert-manager"
        labels = {"name": name, "component": component, "instance": "cert-manager"}
        marks = {f"app.kubernetes.io/{key}": value for key, value in labels.items()}
        yield deployment(MANAGER_HOME, full, marks, args=args)


KINDS = (("certificates", "Certificate"), ("issuers", "Issuer"), ("clusterissuers", "ClusterIssuer"))


@pytest.fixture(scope="module")
def manager(lab: Lab) -> Lab:
    kinds = [
        definition("cert-manager.io", plural, kind, "Cluster" if kind == "ClusterIssuer" else "Namespaced")
        for plural, kind in KINDS
    ]
    apply(lab, made("v1", "Namespace", "", MANAGER_HOME), *kinds, *programs())
    await_available(lab, MANAGER_HOME)
    for plural, _ in KINDS:
        lab.kubectl("wait", f"crd/{plural}.cert-manager.io", "--for=condition=Established", "--timeout=180s")
    return lab


def issuer(name: str, spec: Object, namespace: str = "") -> Object:
    return made("cert-manager.io/v1", "Issuer" if namespace else "ClusterIssuer", namespace, name, spec=spec)


def acme(name: str, token: str, server: str = PRODUCTION) -> Object:
    solver = {"dns01": {"cloudflare": {"apiTokenSecretRef": {"name": token, "key": "api-token"}}}}
    account = {"email": "me@example.org", "server": server, "privateKeySecretRef": {"name": f"{name}-account"}}
    return issuer(name, {"acme": account | {"solvers": [solver]}})


def ready(lab: Lab, *what: str, reason: str) -> Object:
    """The condition Ready, once it gives this reason."""

    def found() -> Object | None:
        reported = condition(lab.get(*what), "Ready")
        return reported if reported.get("reason") == reason else None

    return until(found)


def certificate(namespace: str, name: str = "site", issued_by: str = "", **spec: Any) -> Object:
    reference = {"name": issued_by, "kind": "ClusterIssuer"} if issued_by else {"name": "own", "kind": "Issuer"}
    wanted = {"secretName": f"{name}-tls", "dnsNames": ["site.example.org"], "issuerRef": reference} | spec
    return made("cert-manager.io/v1", "Certificate", namespace, name, spec=wanted)


def test_an_acme_issuer_is_ready_once_its_token_is_there(manager: Lab) -> None:
    apply(manager, acme("first", "first-token"))
    reported = ready(manager, "clusterissuer", "first", reason="InvalidSolver")
    assert reported["status"] == "False"
    assert reported["message"] == 'failed to get secret "first-token": secrets "first-token" not found'
    apply(manager, secret(MANAGER_HOME, "first-token", wrong="x"))
    lacks = 'the secret "first-token" does not have key "api-token"'
    until(lambda: condition(manager.get("clusterissuer", "first"), "Ready")["message"] == lacks)
    apply(manager, secret(MANAGER_HOME, "first-token", **{"api-token": TOKEN}))
    reported = ready(manager, "clusterissuer", "first", reason="ACMEAccountRegistered")
    assert (reported["status"], reported["observedGeneration"]) == ("True", 1)
    status = manager.get("clusterissuer", "first")["status"]["acme"]
    assert status["uri"].startswith("https://acme-v02.api.letsencrypt.org/acme/acct/")
    assert status["lastRegisteredEmail"] == "me@example.org"
    assert "PRIVATE KEY" in manager.secret(MANAGER_HOME, "first-account")["tls.key"]


def test_issuers_that_are_not_possible_say_so(manager: Lab, namespace: str) -> None:
    apply(manager, acme("old", "any", server="https://acme-v01.api.letsencrypt.org/directory"))
    assert PRODUCTION in ready(manager, "clusterissuer", "old", reason="InvalidConfig")["message"]
    apply(manager, issuer("vaulted", {"vault": {"server": "https://vault"}}, namespace))
    assert "vault" in ready(manager, "-n", namespace, "issuer", "vaulted", reason="ErrInitIssuer")["message"]


def test_a_certificate_is_real_and_ready(manager: Lab, namespace: str) -> None:
    apply(manager, issuer("own", {"selfSigned": {}}, namespace), certificate(namespace, commonName="site"))
    reported = ready(manager, "-n", namespace, "certificate", "site", reason="Ready")
    assert reported["message"] == "Certificate is up to date and has not expired"
    found = manager.secret(namespace, "site-tls")
    made = x509.load_pem_x509_certificate(found["tls.crt"].encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["site.example.org"]
    assert found["ca.crt"] == found["tls.crt"]
    status = manager.get("-n", namespace, "certificate", "site")["status"]
    assert status["notAfter"] == made.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert datetime.fromisoformat(status["notAfter"]) - datetime.now(UTC) > timedelta(days=89)
    renewal = datetime.fromisoformat(status["notAfter"]) - datetime.fromisoformat(status["renewalTime"])
    assert renewal == timedelta(days=30)
    assert status["revision"] == 1
    assert not condition(manager.get("-n", namespace, "certificate", "site"), "Issuing")
    assert reasons(manager, namespace, "Issuing")["Issuing"] == "The certificate has been successfully issued"


def test_a_certificate_of_an_acme_issuer_has_a_chain_and_no_authority_of_its_own(manager: Lab, namespace: str) -> None:
    apply(manager, acme("second", "second-token"), secret(MANAGER_HOME, "second-token", **{"api-token": TOKEN}))
    apply(manager, certificate(namespace, issued_by="second"))
    ready(manager, "-n", namespace, "certificate", "site", reason="Ready")
    found = manager.secret(namespace, "site-tls")
    assert found["tls.crt"].count("BEGIN CERTIFICATE") == 2
    assert "ca.crt" not in found
    marks = manager.get("-n", namespace, "secret", "site-tls")["metadata"]["annotations"]
    assert marks["cert-manager.io/issuer-name"] == "second"
    assert marks["cert-manager.io/issuer-kind"] == "ClusterIssuer"


def test_a_certificate_waits_for_its_issuer_and_says_why(manager: Lab, namespace: str) -> None:
    apply(manager, certificate(namespace))
    reported = ready(manager, "-n", namespace, "certificate", "site", reason="DoesNotExist")
    assert reported["message"] == "Issuing certificate as Secret does not exist"
    missing = reasons(manager, namespace, "IssuerNotFound")["IssuerNotFound"]
    assert missing == 'Referenced "Issuer" not found: issuer.cert-manager.io "own" not found'
    apply(manager, issuer("own", {"ca": {"secretName": "authority"}}, namespace))
    assert reasons(manager, namespace, "IssuerNotReady")
    authority = certificate(namespace, "authority", isCA=True, commonName="lab", dnsNames=[], secretName="authority")
    authority["spec"]["issuerRef"]["name"] = "root"
    apply(manager, issuer("root", {"selfSigned": {}}, namespace), authority)
    ready(manager, "-n", namespace, "certificate", "site", reason="Ready")
    signed = x509.load_pem_x509_certificate(manager.secret(namespace, "site-tls")["tls.crt"].encode())
    signed.verify_directly_issued_by(
        x509.load_pem_x509_certificate(manager.secret(namespace, "authority")["tls.crt"].encode())
    )


def renew_by_hand(lab: Lab, namespace: str) -> None:
    """What `cmctl renew` does."""
    due = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "lastTransitionTime": LONG_AGO}
    conditions = lab.get("-n", namespace, "certificate", "site")["status"]["conditions"]
    change = {"status": {"conditions": [*conditions, due]}}
    words = ("patch", "certificate", "site", "--subresource=status", "--type=merge", "-p", json.dumps(change))
    lab.kubectl("-n", namespace, *words)


def test_a_certificate_is_made_anew(manager: Lab, namespace: str) -> None:
    apply(manager, issuer("own", {"selfSigned": {}}, namespace), certificate(namespace))
    ready(manager, "-n", namespace, "certificate", "site", reason="Ready")
    renewals = (
        lambda: renew_by_hand(manager, namespace),
        lambda: manager.kubectl("-n", namespace, "delete", "secret", "site-tls"),
        lambda: apply(manager, certificate(namespace, dnsNames=["other.example.org"])),
    )
    for revision, renew in enumerate(renewals, start=2):
        before = manager.secret(namespace, "site-tls")["tls.crt"]
        renew()
        until(lambda before=before: manager.secret(namespace, "site-tls").get("tls.crt", before) != before)
        path = "--for=jsonpath={.status.revision}="
        manager.kubectl("-n", namespace, "wait", "certificate/site", f"{path}{revision}", "--timeout=180s")
        assert not condition(manager.get("-n", namespace, "certificate", "site"), "Issuing")


def test_the_webhooks_authority_is_injected(manager: Lab) -> None:
    hook = {
        "name": "webhook.cert-manager.io",
        "clientConfig": {"service": {"name": "cert-manager-webhook", "namespace": MANAGER_HOME, "path": "/validate"}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "rules": [{"apiGroups": ["nobody.example"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["*"]}],
    }
    marks = {"cert-manager.io/inject-ca-from-secret": f"{MANAGER_HOME}/cert-manager-webhook-ca"}
    configuration = made("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "", "m-webhook")
    configuration["metadata"]["annotations"] = marks
    apply(manager, configuration | {"webhooks": [hook]})
    path = "--output=jsonpath={.webhooks[0].clientConfig.caBundle}"
    bundle = until(lambda: manager.kubectl("get", "validatingwebhookconfiguration", "m-webhook", path))
    authority = manager.secret(MANAGER_HOME, "cert-manager-webhook-ca")["ca.crt"]
    assert base64.b64decode(bundle).decode() == authority
    manager.kubectl("delete", "validatingwebhookconfiguration", "m-webhook")


def test_nothing_is_issued_without_cert_manager(manager: Lab, namespace: str) -> None:
    with stopped(manager, MANAGER_HOME, "cert-manager-webhook"):
        apply(manager, issuer("own", {"selfSigned": {}}, namespace))
        controllers_have_looked(manager, namespace)
        assert "status" not in manager.get("-n", namespace, "issuer", "own")
    ready(manager, "-n", namespace, "issuer", "own", reason="IsReady")


# -- ClickHouse -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clickhouse(lab: Lab) -> Lab:
    name, group = "altinity-clickhouse-operator", "clickhouse.altinity.com"
    operator = deployment(CLICKHOUSE_HOME, name, {"app.kubernetes.io/name": name})
    kind = definition(group, "clickhouseinstallations", "ClickHouseInstallation", short="chi")
    apply(lab, made("v1", "Namespace", "", CLICKHOUSE_HOME), kind, operator)
    await_available(lab, CLICKHOUSE_HOME)
    lab.kubectl("wait", f"crd/clickhouseinstallations.{group}", "--for=condition=Established", "--timeout=180s")
    return lab


def installation(namespace: str, *, replicas: int = 1, size: str = "1Gi", policy: str = "Retain") -> Object:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    ports = [{"name": "http", "port": 8123, "targetPort": 8123}, {"name": "tcp", "port": 9000, "targetPort": 9000}]
    login = {"valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}}
    names = {"serviceTemplate": "service", "podTemplate": "pod", "dataVolumeClaimTemplate": "data"}
    container = {"name": "clickhouse", "image": "altinity/clickhouse-server:lab"}
    spec = {
        "defaults": {"templates": names},
        "templates": {
            "podTemplates": [{"name": "pod", "spec": {"containers": [container]}}],
            "serviceTemplates": [{"name": "service", "spec": {"type": "ClusterIP", "ports": ports}}],
            "volumeClaimTemplates": [{"name": "data", "reclaimPolicy": policy, "spec": claim}],
        },
        "configuration": {
            "users": {"apps/password": login, "apps/networks/ip": ["10.0.0.0/8"]},
            "clusters": [{"name": "all", "layout": {"shardsCount": 1, "replicasCount": replicas}}],
        },
    }
    return made("clickhouse.altinity.com/v1", "ClickHouseInstallation", namespace, "main", spec=spec)


def completed(lab: Lab, namespace: str, hosts: int) -> Object:
    def found() -> Object | None:
        status = lab.get("-n", namespace, "chi", "main").get("status", {})
        return status if (status.get("status"), status.get("hostsCompleted")) == ("Completed", hosts) else None

    return until(found)


def test_an_installation_is_completed_once_its_login_is_there(clickhouse: Lab, namespace: str) -> None:
    apply(clickhouse, installation(namespace))
    status = until(lambda: clickhouse.get("-n", namespace, "chi", "main").get("status"))
    assert status["status"] == "InProgress"
    assert status["errors"] == [f"apps/password: no key password in Secret {namespace}/login"]
    apply(clickhouse, secret(namespace, "login", password="x"))
    status = completed(clickhouse, namespace, hosts=1)
    assert status["endpoint"] == f"clickhouse-main.{namespace}.svc.cluster.local"
    assert status["fqdns"] == [f"chi-main-all-0-0.{namespace}.svc.cluster.local"]
    assert "errors" not in status
    names = {item["metadata"]["name"] for item in clickhouse.get("-n", namespace, "service")["items"]}
    assert names == {"clickhouse-main", "chi-main-all-0-0"}
    slices = clickhouse.get("-n", namespace, "endpointslices", "-l", "kubernetes.io/service-name=clickhouse-main")
    assert slices["items"][0]["endpoints"][0]["conditions"]["ready"]
    assert {port["port"] for port in slices["items"][0]["ports"]} == {8123, 9000}


def test_an_installation_grows_and_shrinks_and_is_deleted(clickhouse: Lab, namespace: str) -> None:
    apply(clickhouse, secret(namespace, "login", password="x"), installation(namespace))
    completed(clickhouse, namespace, hosts=1)
    apply(clickhouse, installation(namespace, replicas=2, size="2Gi"))
    completed(clickhouse, namespace, hosts=2)
    size = "--output=jsonpath={.spec.resources.requests.storage}"
    until(lambda: clickhouse.kubectl("-n", namespace, "get", "pvc", "data-chi-main-all-0-0-0", size) == "2Gi")
    apply(clickhouse, installation(namespace, size="2Gi"))
    completed(clickhouse, namespace, hosts=1)
    until(lambda: len(clickhouse.get("-n", namespace, "statefulset")["items"]) == 1)
    with stopped(clickhouse, CLICKHOUSE_HOME, "altinity-clickhouse-operator"):
        clickhouse.kubectl("-n", namespace, "delete", "chi", "main", "--wait=false")
        assert clickhouse.get("-n", namespace, "chi", "main")["metadata"]["deletionTimestamp"]
    until(lambda: not clickhouse.get("-n", namespace, "chi")["items"])


@pytest.mark.parametrize(("policy", "left"), [("Retain", 1), ("Delete", 0)])
def test_a_deleted_installation_leaves_claims(clickhouse: Lab, namespace: str, policy: str, left: int) -> None:
    apply(clickhouse, secret(namespace, "login", password="x"), installation(namespace, policy=policy))
    completed(clickhouse, namespace, hosts=1)
    clickhouse.kubectl("-n", namespace, "delete", "chi", "main", "--timeout=180s")
    assert not clickhouse.get("-n", namespace, "statefulset,service")["items"]
    until(lambda: len(clickhouse.get("-n", namespace, "pvc")["items"]) == left)


# -- Prometheus -----------------------------------------------------------------------------------------------------

CRDS = ROOT / "lab/charts/kube-prometheus-stack/charts/crds/crds"


def watcher(kind: str, storage: Object | None = None) -> Object:
    spec = {"replicas": 1} | ({"storage": storage} if storage else {})
    return made("monitoring.coreos.com/v1", kind, PROMETHEUS_HOME, "main", spec=spec)


def conditions(lab: Lab, kind: str) -> dict[str, str]:
    status = lab.get(kind, "main", f"--namespace={PROMETHEUS_HOME}").get("status", {})
    return {entry["type"]: entry["status"] for entry in status.get("conditions", [])}


def stateful_sets(lab: Lab) -> list[str]:
    return [item["metadata"]["name"] for item in lab.get("statefulset", f"--namespace={PROMETHEUS_HOME}")["items"]]


@pytest.fixture
def watching(lab: Lab) -> Iterator[Lab]:
    lab.kubectl("apply", "--server-side", f"--filename={CRDS}")
    lab.kubectl("wait", "--for=condition=Established", f"--filename={CRDS}", "--timeout=180s")
    lab.kubectl("create", "namespace", PROMETHEUS_HOME)
    yield lab
    lab.kubectl("delete", "namespace", PROMETHEUS_HOME, "--timeout=180s")


def test_they_become_pods_with_their_claims_once_the_operator_is_there(watching: Lab) -> None:
    template = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    storage = {"volumeClaimTemplate": template}
    apply(watching, watcher("Prometheus", storage), watcher("Alertmanager"))
    assert stateful_sets(watching) == []

    apply(watching, deployment(PROMETHEUS_HOME, "operator", {"app.kubernetes.io/component": "prometheus-operator"}))
    for kind in ("prometheus", "alertmanager"):
        assert until(lambda kind=kind: conditions(watching, kind).get("Available") == "True")
        assert conditions(watching, kind)["Reconciled"] == "True"
    labels = watching.get("pod", "prometheus-main-0", f"--namespace={PROMETHEUS_HOME}")["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "prometheus"
    assert labels["operator.prometheus.io/name"] == "main"
    claim = watching.get("pvc", "prometheus-main-db-prometheus-main-0", f"--namespace={PROMETHEUS_HOME}")
    assert claim["status"]["phase"] == "Bound"

    watching.kubectl("delete", "alertmanager", "main", f"--namespace={PROMETHEUS_HOME}")
    until(lambda: stateful_sets(watching) == ["prometheus-main"])
