"""cert-manager: issuers, and certificates that are real but trusted nowhere outside the lab.

Works only while every Deployment of its release is available. An ACME issuer registers nowhere; only the Secrets of
its solvers are checked. Conditions, reasons and their texts as cert-manager 1.21.
Source: cert-manager/cert-manager, pkg/issuer, pkg/controller/certificates, internal/controller/certificates/policies.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from lab import certificates
from lab.certificates import Pair
from lab.operators import objects
from lab.operators.api import Api
from lab.operators.objects import Kind, Object
from lab.operators.work import Controller, Work

MANAGER = "cert-manager"
GROUP = "cert-manager.io"
PROGRAM = {"app.kubernetes.io/name": "cert-manager", "app.kubernetes.io/component": "controller"}
RELEASE = "app.kubernetes.io/instance"
INJECT_FROM_SECRET = "cert-manager.io/inject-ca-from-secret"  # noqa: S105 - an annotation
MAY_BE_INJECTED = "cert-manager.io/allow-direct-injection"
KEEP = {"controller.cert-manager.io/fao": "true"}
OLD_SERVERS = {
    f"https://{old}.api.letsencrypt.org/directory": f"https://{new}.api.letsencrypt.org/directory"
    for old, new in (("acme-staging", "acme-staging-v02"), ("acme-v01", "acme-v02"))
}
READY = "Ready"
ISSUING = "Issuing"
ON_DEMAND = "ManuallyTriggered"
"""The reason that `cmctl renew` sets on the condition `Issuing`."""
RETRY = 2.0
LONGEST = 3600.0
"""The most seconds until a certificate is looked at again."""


Reason = tuple[str, str]
"""Reason and message of a condition."""


class NotReadyError(Exception):
    """An issuer that cannot issue; `reason` and the text are cert-manager's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def controllers(api: Api, work: Work) -> dict[str, Controller]:
    manager = CertManager(api.acting_as(MANAGER), work)
    return {
        "issuer": lambda namespace, name: manager.reconcile_issuer(objects.ISSUER, namespace, name),
        "cluster-issuer": lambda _, name: manager.reconcile_issuer(objects.CLUSTER_ISSUER, "", name),
        "issuers": manager.reconcile_all,
        "certificate": manager.reconcile_certificate,
        "certificate-secret": manager.reconcile_users_of_secret,
        "webhooks": manager.reconcile_webhooks,
    }


@dataclass(frozen=True)
class CertManager:
    """Issuers and ClusterIssuers, Certificates, and the authority in the webhook configurations."""

    api: Api
    work: Work
    _acme: dict[str, Pair] = field(default_factory=dict)
    """ACME server → the authority that replaces it, for the life of this process."""
    _making: threading.Lock = field(default_factory=threading.Lock)

    def reconcile_all(self, _namespace: str = "", _name: str = "") -> None:
        """Ask for a look at every issuer and certificate, when cert-manager starts or stops."""
        self.work.add_each("issuer", self.api.list(objects.ISSUER))
        self.work.add_each("cluster-issuer", self.api.list(objects.CLUSTER_ISSUER))
        self.work.add_each("certificate", self.api.list(objects.CERTIFICATE))
        self.work.add("webhooks")

    def reconcile_users_of_secret(self, namespace: str, name: str) -> None:
        """Ask for a look at the Certificates kept in a Secret."""
        found = self.api.list(objects.CERTIFICATE, namespace)
        self.work.add_each("certificate", (one for one in found if one["spec"].get("secretName") == name))

    def _home(self) -> str:
        """The namespace of a ClusterIssuer's Secrets while the whole release runs; empty otherwise."""
        for found in self.api.list(objects.DEPLOYMENT, labels=PROGRAM):
            meta = found["metadata"]
            release = {RELEASE: meta["labels"].get(RELEASE, "")}
            programs = self.api.list(objects.DEPLOYMENT, meta["namespace"], release)
            if all(objects.runs(program) for program in programs):
                named = argument_of(found, "cluster-resource-namespace")
                return meta["namespace"] if named in ("", "$(POD_NAMESPACE)") else named
        return ""

    # -- issuers ------------------------------------------------------------------------------------------------------

    def reconcile_issuer(self, kind: Kind, namespace: str, name: str) -> float | None:
        issuer = self.api.get(kind, namespace, name)
        home = self._home()
        if issuer is None or objects.is_leaving(issuer) or not home:
            return None
        try:
            reason, message, acme = self._set_up(issuer, namespace or home)
            is_ready = True
        except NotReadyError as problem:
            reason, message, acme = problem.reason, str(problem), {}
            is_ready = False
        ready = objects.condition(issuer, READY, is_ready, reason=reason, message=message)
        conditions = {"conditions": objects.with_conditions(issuer, ready)}
        self.api.update_status(issuer, conditions | ({"acme": acme} if acme else {}))
        return None if is_ready else RETRY

    def _set_up(self, issuer: Object, namespace: str) -> tuple[str, str, Object]:
        """Reason, message and status of the ACME account. Raises `NotReadyError`."""
        spec = issuer["spec"]
        if "acme" in spec:
            return self._set_up_acme(spec["acme"], namespace)
        if "ca" in spec:
            signing_pair(self.api, namespace, spec["ca"].get("secretName", ""))
            return "KeyPairVerified", "Signing CA verified", {}
        if "selfSigned" in spec:
            return "IsReady", "", {}
        seen = ", ".join(spec) or "none"
        raise NotReadyError("ErrInitIssuer", f"the lab supports acme, ca and selfSigned, not {seen}")

    def _set_up_acme(self, acme: Mapping[str, Any], namespace: str) -> tuple[str, str, Object]:
        server = str(acme.get("server", ""))
        newer = OLD_SERVERS.get(server.rstrip("/"))
        if newer:
            seen = f"Your ACME server URL is set to a v1 endpoint ({server})."
            raise NotReadyError("InvalidConfig", f'{seen} You should update the spec.acme.server field to "{newer}"')
        key = self._account_key(acme["privateKeySecretRef"], namespace)
        missing = list(
            filter(None, (self._explain_missing(reference, namespace) for reference in solver_secrets(acme)))
        )
        if missing:
            raise NotReadyError("InvalidSolver", "; ".join(missing))
        digest = hashlib.sha256(key.encode()).digest()
        account = {
            "uri": f"https://{urlsplit(server).hostname}/acme/acct/{int.from_bytes(digest[:4], 'big')}",
            "lastRegisteredEmail": acme.get("email", ""),
            "lastPrivateKeyHash": base64.b64encode(digest).decode("ascii"),
        }
        return "ACMEAccountRegistered", "The ACME account was registered with the ACME server", account

    def _account_key(self, reference: Mapping[str, Any], namespace: str) -> str:
        name, key = reference["name"], reference.get("key") or "tls.key"
        found = self.api.get(objects.SECRET, namespace, name)
        if found is None:
            meta = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "cert-manager"}}
            data = objects.encode({key: certificates.private_pem(certificates.new_key())})
            found = self.api.apply(objects.SECRET.new(meta, data=data))
        value = objects.decode(found).get(key, "")
        if not value:
            message = f"Account private key is invalid: no data for \"{key}\" in secret '{namespace}/{name}'"
            raise NotReadyError("ErrVerifyACMEAccount", message)
        return value

    def _explain_missing(self, reference: Mapping[str, Any], namespace: str) -> str:
        name, key = reference.get("name", ""), reference.get("key", "")
        found = self.api.get(objects.SECRET, namespace, name)
        if found is None:
            return f'failed to get secret "{name}": secrets "{name}" not found'
        return "" if not key or key in (found.get("data") or {}) else f'the secret "{name}" does not have key "{key}"'

    # -- certificates -------------------------------------------------------------------------------------------------

    def reconcile_certificate(self, namespace: str, name: str) -> float | None:
        certificate = self.api.get(objects.CERTIFICATE, namespace, name)
        home = self._home()
        if certificate is None or objects.is_leaving(certificate) or not home:
            return None
        secret = self.api.get(objects.SECRET, namespace, certificate["spec"]["secretName"])
        why = self._why_issue(certificate, secret)
        if why is None:
            self._report(certificate, secret, issued=objects.is_true(certificate, ISSUING))
            return _until_renewal(certificate, secret)
        if not objects.is_true(certificate, ISSUING):
            certificate = self._report(certificate, secret, issuing=why)
        try:
            pair = self._issue(certificate, home)
        except (NotReadyError, ValueError) as problem:
            reason = problem.reason if isinstance(problem, NotReadyError) else "Failed"
            self.api.warn(certificate, reason, str(problem))
            return RETRY
        secret = self._keep(certificate, pair)
        done = "The certificate has been successfully issued"
        self.api.warn(certificate, ISSUING, done, normal=True)
        self._report(certificate, secret, issued=True)
        return _until_renewal(certificate, secret)

    def _why_issue(self, certificate: Object, secret: Object | None) -> Reason | None:
        """Reason and message of an issuance that is due; None while the Secret is valid."""
        for asked in objects.conditions(certificate):
            if (asked["type"], asked["status"], asked.get("reason")) == (ISSUING, "True", ON_DEMAND):
                return ON_DEMAND, str(asked.get("message", ""))
        wrong = violation(certificate, secret)
        if wrong:
            return wrong
        renewal = renewal_time(certificate["spec"], _found(secret))
        if renewal <= datetime.now(UTC):
            return "Renewing", f"Renewing certificate as renewal was scheduled at {renewal:%Y-%m-%d %H:%M:%S} +0000 UTC"
        return None

    def _issue(self, certificate: Object, home: str) -> Pair:
        """Issue a certificate into the Secret. Raises `NotReadyError`, ValueError."""
        namespace, reference = certificate["metadata"]["namespace"], certificate["spec"]["issuerRef"]
        kind = objects.CLUSTER_ISSUER if reference.get("kind") == "ClusterIssuer" else objects.ISSUER
        issuer = self.api.get(kind, namespace if kind.namespaced else "", reference["name"])
        if issuer is None:
            name = f'{kind.kind.lower()}.{GROUP} "{reference["name"]}"'
            raise NotReadyError("IssuerNotFound", f'Referenced "{kind.kind}" not found: {name} not found')
        if not objects.is_true(issuer, READY):
            raise NotReadyError("IssuerNotReady", "Referenced issuer does not have a Ready status condition")
        wanted, spec = certificates.wanted_of(certificate["spec"]), issuer["spec"]
        if "selfSigned" in spec:
            return certificates.self_signed(wanted)
        if "ca" in spec:
            where = namespace if kind.namespaced else home
            return certificates.signed_by(wanted, signing_pair(self.api, where, spec["ca"]["secretName"]))
        # An ACME server's authority is trusted everywhere, so the Secret has no ca.crt.
        return replace(certificates.signed_by(wanted, self._authority(spec["acme"]["server"])), authority="")

    def _authority(self, server: str) -> Pair:
        with self._making:
            if server not in self._acme:
                self._acme[server] = certificates.authority(f"lab instead of {urlsplit(server).hostname}")
            return self._acme[server]

    def _keep(self, certificate: Object, pair: Pair) -> Object:
        meta, spec = certificate["metadata"], certificate["spec"]
        template = spec.get("secretTemplate") or {}
        trusted = {"ca.crt": pair.authority} if pair.authority else {}
        wanted = {
            "name": spec["secretName"],
            "namespace": meta["namespace"],
            "labels": KEEP | (template.get("labels") or {}),
            "annotations": annotations_of(certificate) | (template.get("annotations") or {}),
        }
        data = objects.encode({"tls.crt": pair.certificate, "tls.key": pair.key} | trusted)
        return self.api.apply(objects.SECRET.new(wanted, type="kubernetes.io/tls", data=data))

    def _report(self, certificate: Object, secret: Object | None, **change: Any) -> Object:
        return self.api.update_status(certificate, status_of(certificate, secret, **change))

    # -- webhooks -----------------------------------------------------------------------------------------------------

    def reconcile_webhooks(self, _namespace: str, _name: str) -> None:
        """Make the webhook's authority and write it into the webhook configurations that ask for it."""
        if not self._home():
            return
        for found in self.api.list(objects.DEPLOYMENT, labels={"app.kubernetes.io/component": "webhook"}):
            name = argument_of(found, "dynamic-serving-ca-secret-name")
            if name and objects.runs(found):
                self._keep_authority(found["metadata"]["namespace"], name)
        for kind in (objects.VALIDATING_WEBHOOKS, objects.MUTATING_WEBHOOKS):
            for configuration in self.api.list(kind):
                self._inject(configuration)

    def _keep_authority(self, namespace: str, name: str) -> None:
        if self.api.get(objects.SECRET, namespace, name) is not None:
            return
        pair = certificates.authority("cert-manager-webhook-ca")
        meta = {"name": name, "namespace": namespace, "annotations": {MAY_BE_INJECTED: "true"}}
        data = objects.encode({"ca.crt": pair.certificate, "tls.crt": pair.certificate, "tls.key": pair.key})
        self.api.create(objects.SECRET.new(meta, data=data))

    def _inject(self, configuration: Object) -> None:
        namespace, _, name = objects.annotation(configuration, INJECT_FROM_SECRET).partition("/")
        secret = self.api.get(objects.SECRET, namespace, name) if name else None
        if secret is None or objects.annotation(secret, MAY_BE_INJECTED) != "true":
            return
        bundle = (secret.get("data") or {}).get("ca.crt")
        hooks = configuration.get("webhooks") or []
        trusting = [hook | {"clientConfig": hook["clientConfig"] | {"caBundle": bundle}} for hook in hooks]
        if bundle and trusting != hooks:
            self.api.patch(configuration, {"webhooks": trusting})


def argument_of(deployment: Object, name: str) -> str:
    """The value of `--name=value` of the first container; empty when it is not given."""
    words = deployment["spec"]["template"]["spec"]["containers"][0].get("args") or ()
    marks = [word.partition("=")[2] for word in words if word.startswith(f"--{name}=")]
    return marks[0] if marks else ""


def solver_secrets(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every `…SecretRef` of the DNS-01 solvers of an ACME issuer, for any provider."""
    for solver in value.get("solvers") or ():
        yield from _references(solver.get("dns01") or {})


def _references(value: Any) -> Iterator[Mapping[str, Any]]:
    for key, found in value.items():
        if key.endswith("SecretRef"):
            yield found
        elif isinstance(found, Mapping):
            yield from _references(found)


def signing_pair(api: Api, namespace: str, name: str) -> Pair:
    """The key pair of a CA issuer. Raises `NotReadyError`."""
    found = api.get(objects.SECRET, namespace, name)
    values = objects.decode(found)
    before = "Error getting keypair for CA issuer: "
    if found is None:
        raise NotReadyError("ErrGetKeyPair", f'{before}secrets "{name}" not found')
    try:
        pair = Pair(values["tls.crt"], values["tls.key"])
        if not certificates.read(pair.certificate).is_authority:
            raise NotReadyError("ErrInvalidKeyPair", f"{before}certificate is not a CA")
    except KeyError as missing:
        raise NotReadyError("ErrGetKeyPair", f"{before}no data for {missing} in secret '{namespace}/{name}'") from None
    except ValueError as problem:
        raise NotReadyError("ErrGetKeyPair", f"{before}{problem}") from None
    return pair


def status_of(
    certificate: Object, secret: Object | None, *, issuing: Reason | None = None, issued: bool = False
) -> Object:
    """The status derived from the Secret. A None removes the field."""
    status = certificate.get("status") or {}
    wrong = violation(certificate, secret)
    reason, message = wrong or (READY, "Certificate is up to date and has not expired")
    wanted = [objects.condition(certificate, READY, not wrong, reason=reason, message=message)]
    if issuing:
        wanted.append(objects.condition(certificate, ISSUING, True, reason=issuing[0], message=issuing[1]))
    conditions = objects.with_conditions(certificate, *wanted)
    if issued:
        conditions = [entry for entry in conditions if entry["type"] != ISSUING]
    dates: list[str | None] = [None, None, None]
    with contextlib.suppress(ValueError):
        found = _found(secret)
        moments = (found.not_before, found.not_after, renewal_time(certificate["spec"], found))
        dates = [f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in moments]
    return {
        "conditions": conditions,
        **dict(zip(("notBefore", "notAfter", "renewalTime"), dates, strict=True)),
        **({"revision": int(status.get("revision", 0)) + 1} if issued else {}),
    }


def _found(secret: Object | None) -> certificates.Found:
    return certificates.read(objects.decode(secret).get("tls.crt", ""))


def _until_renewal(certificate: Object, secret: Object | None) -> float:
    left = renewal_time(certificate["spec"], _found(secret)) - datetime.now(UTC)
    return min(max(left.total_seconds(), 0.0) + 0.1, LONGEST)


def renewal_time(spec: Mapping[str, Any], found: certificates.Found) -> datetime:
    """When to renew: `renewBefore` before the end, else after two thirds of the validity."""
    lasts = found.not_after - found.not_before
    before = certificates.read_duration(spec.get("renewBefore")) or timedelta()
    chosen = before if timedelta() < before < lasts else lasts / 3
    return (found.not_after - chosen).replace(microsecond=0)


def violation(certificate: Object, secret: Object | None) -> Reason | None:
    """Why the Secret does not match the Certificate, as reason and message; None if it does."""
    spec = certificate["spec"]
    if secret is None:
        return "DoesNotExist", "Issuing certificate as Secret does not exist"
    values = objects.decode(secret)
    for key, what in (("tls.key", "a private key"), ("tls.crt", "a certificate")):
        if not values.get(key):
            return "MissingData", f"Issuing certificate as Secret does not contain {what}"
    try:
        found = certificates.read(values["tls.crt"])
    except ValueError as problem:
        return "InvalidCertificate", f"Issuing certificate as Secret contains an invalid certificate: {problem}"
    try:
        own = certificates.belongs_to(found, values["tls.key"])
    except ValueError as problem:
        return "InvalidKeyPair", f"Issuing certificate as Secret contains invalid private key data: {problem}"
    if not own:
        return (
            "InvalidKeyPair",
            "Issuing certificate as Secret contains a private key that does not match the certificate",
        )
    return _other_wishes(secret, found, spec)


def _other_wishes(secret: Object, found: certificates.Found, spec: Mapping[str, Any]) -> Reason | None:
    marks, reference = secret["metadata"].get("annotations") or {}, spec["issuerRef"]
    before = (marks.get(f"{GROUP}/issuer-name"), marks.get(f"{GROUP}/issuer-kind"))
    if before != (reference["name"], reference.get("kind") or "Issuer"):
        issuer = f"{before[1]}.{GROUP}/{before[0] or ''}"
        return "IncorrectIssuer", f'Issuing certificate as Secret was previously issued by "{issuer}"'
    wanted = {"spec.commonName": spec.get("commonName") or "", "spec.dnsNames": sorted(spec.get("dnsNames") or ())}
    there = {"spec.commonName": found.common_name, "spec.dnsNames": sorted(found.dns_names)}
    changed = " ".join(name for name, value in wanted.items() if there[name] != value)
    if changed:
        return "RequestChanged", f"Fields on existing CertificateRequest resource not up to date: [{changed}]"
    if found.not_after <= datetime.now(UTC):
        return "Expired", f"Certificate expired on {found.not_after:%a, %d %b %Y %H:%M:%S UTC}"
    return None


def annotations_of(certificate: Object) -> dict[str, str]:
    spec, reference = certificate["spec"], certificate["spec"]["issuerRef"]
    return {
        f"{GROUP}/alt-names": ",".join(spec.get("dnsNames") or ()),
        f"{GROUP}/certificate-name": certificate["metadata"]["name"],
        f"{GROUP}/common-name": spec.get("commonName") or "",
        f"{GROUP}/ip-sans": "",
        f"{GROUP}/issuer-group": reference.get("group") or GROUP,
        f"{GROUP}/issuer-kind": reference.get("kind") or "Issuer",
        f"{GROUP}/issuer-name": reference["name"],
        f"{GROUP}/uri-sans": "",
    }
