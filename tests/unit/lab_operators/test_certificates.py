"""Certificates and what the lab's cert-manager derives from objects, without a server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lab.certificates import Pair, Wanted, read, read_duration, self_signed, signed_by, wanted_of
from lab.operators.certmanager import renewal_time, solver_secrets, status_of, violation
from lab.operators.objects import encode

BRIEF = Wanted(dns_names=("site.example.org",), algorithm="ECDSA")
AUTHORITY = self_signed(replace(BRIEF, common_name="lab", is_authority=True))
PAIR = signed_by(BRIEF, AUTHORITY)


@pytest.mark.parametrize(
    ("text", "hours"), [("2160h", 2160), ("2160h0m0s", 2160), ("1h30m", 1.5), ("1.5h", 1.5), ("", None), (None, None)]
)
def test_durations(text: str | None, hours: float | None) -> None:
    assert read_duration(text) == (None if hours is None else timedelta(hours=hours))
    if text:
        for wrong in (text[:-1], f"-{text}", f"{text} ", "90d"):
            with pytest.raises(ValueError, match="not a duration"):
                read_duration(wrong)


def test_wanted_has_the_defaults_of_cert_manager() -> None:
    assert wanted_of({}) == Wanted(duration=timedelta(days=90), algorithm="RSA")
    spec = {"commonName": "a", "dnsNames": ["a", "b"], "duration": "1h", "isCA": True, "privateKey": {"size": 4096}}
    given = {"common_name": "a", "dns_names": ("a", "b"), "duration": timedelta(hours=1), "is_authority": True}
    assert wanted_of(spec) == Wanted(**given, algorithm="RSA", size=4096)
    with pytest.raises(ValueError, match="ipAddresses, uris"):
        wanted_of({"uris": ["spiffe://x"], "ipAddresses": ["10.0.0.1"]})


@pytest.mark.parametrize(
    ("algorithm", "size", "kind"),
    [("ECDSA", 384, ec.EllipticCurvePublicKey), ("Ed25519", 0, ed25519.Ed25519PublicKey)],
)
def test_kinds_of_keys(algorithm: str, size: int, kind: type) -> None:
    made = self_signed(replace(BRIEF, algorithm=algorithm, size=size))
    assert isinstance(x509.load_pem_x509_certificate(made.certificate.encode()).public_key(), kind)
    with pytest.raises(ValueError, match="DSA 512"):
        self_signed(replace(BRIEF, algorithm="DSA", size=512))


def test_the_private_key_is_not_in_the_representation() -> None:
    assert PAIR.key not in repr(PAIR)


# -- the controller's judgement -------------------------------------------------------------------------------------


def certificate(**spec: Any) -> dict[str, Any]:
    wanted = {"secretName": "s", "dnsNames": ["site.example.org"], "issuerRef": {"name": "own", "kind": "Issuer"}}
    return {"metadata": {"name": "site", "namespace": "shop", "generation": 3}, "spec": wanted | spec}


def secret(pair: Pair = PAIR, issuer: str = "own", **changes: str) -> dict[str, Any]:
    marks = {"cert-manager.io/issuer-name": issuer, "cert-manager.io/issuer-kind": "Issuer"}
    data = encode({"tls.crt": pair.certificate, "tls.key": pair.key} | changes)
    return {"metadata": {"name": "s", "annotations": marks}, "data": data}


def expired() -> Pair:
    made = self_signed(replace(BRIEF, duration=timedelta(seconds=0)))
    return Pair(made.certificate, made.key)


@pytest.mark.parametrize(
    ("wanted", "found", "reason"),
    [
        (certificate(), secret(), None),
        (certificate(), None, "DoesNotExist"),
        (certificate(), secret(**{"tls.key": ""}), "MissingData"),
        (certificate(), secret(**{"tls.crt": ""}), "MissingData"),
        (certificate(), secret(**{"tls.crt": "nonsense"}), "InvalidCertificate"),
        (certificate(), secret(**{"tls.key": "nonsense"}), "InvalidKeyPair"),
        (certificate(), secret(**{"tls.key": AUTHORITY.key}), "InvalidKeyPair"),
        (certificate(), secret(issuer="other"), "IncorrectIssuer"),
        (certificate(dnsNames=["other.example.org"]), secret(), "RequestChanged"),
        (certificate(commonName="site"), secret(), "RequestChanged"),
        (certificate(), secret(expired()), "Expired"),
    ],
)
def test_violations(wanted: dict[str, Any], found: dict[str, Any] | None, reason: str | None) -> None:
    found_reason = violation(wanted, found)
    assert (found_reason[0] if found_reason else None) == reason


def test_a_renewal_is_due_after_two_thirds_or_as_asked() -> None:
    found = read(PAIR.certificate)
    assert found.not_after - renewal_time({}, found) == timedelta(days=30)
    assert found.not_after - renewal_time({"renewBefore": "240h"}, found) == timedelta(days=10)
    # More than its whole life would renew it for ever.
    assert found.not_after - renewal_time({"renewBefore": "9000h"}, found) == timedelta(days=30)


def test_the_status_says_what_is_due_and_what_was_issued() -> None:
    due = status_of(certificate(), None, issuing=("DoesNotExist", "m"), issued=False)
    seen = {entry["type"]: (entry["status"], entry["reason"]) for entry in due["conditions"]}
    assert seen == {"Ready": ("False", "DoesNotExist"), "Issuing": ("True", "DoesNotExist")}
    assert due["notAfter"] is None and "revision" not in due
    before = certificate()
    before["status"] = {"revision": 4, "conditions": [{"type": "Issuing", "status": "True", "reason": "x"}]}
    issued = status_of(before, secret(), issuing=None, issued=True)
    (ready,) = issued["conditions"]
    assert (ready["type"], ready["status"], ready["observedGeneration"]) == ("Ready", "True", 3)
    assert issued["revision"] == 5 and datetime.fromisoformat(issued["notAfter"]) > datetime.now(UTC)


def test_the_secrets_of_every_solver_are_found() -> None:
    cloudflare = {"dns01": {"cloudflare": {"apiTokenSecretRef": {"name": "a", "key": "k"}}}}
    route53 = {"dns01": {"route53": {"auth": {"x": {"secretAccessKeySecretRef": {"name": "b"}}}}}}
    http = {"http01": {"ingress": {}}}
    found = solver_secrets({"solvers": [cloudflare, route53, http]})
    assert [reference["name"] for reference in found] == ["a", "b"]
