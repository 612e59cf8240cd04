"""Real X.509 certificates, made here instead of by an authority somebody trusts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

DURATION = timedelta(days=90)
CURVES: Mapping[int, ec.EllipticCurve] = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
_UNITS = {"h": "hours", "m": "minutes", "s": "seconds"}


@dataclass(frozen=True)
class Wanted:
    """What a certificate is to say; defaults as in cert-manager."""

    common_name: str = ""
    dns_names: tuple[str, ...] = ()
    duration: timedelta = DURATION
    is_authority: bool = False
    algorithm: str = "RSA"
    size: int = 0


@dataclass(frozen=True)
class Pair:
    """A certificate, with its chain, and its private key, as PEM."""

    certificate: str
    key: str = field(repr=False)
    authority: str = ""
    """The certificate to trust for this one, where whoever uses it has to be told."""


@dataclass(frozen=True)
class Found:
    """What a certificate says."""

    common_name: str
    dns_names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_authority: bool
    public_key: bytes = field(repr=False)


def wanted_of(spec: Mapping[str, Any]) -> Wanted:
    """From the `spec` of a cert-manager Certificate. Raises ValueError for what the lab does not know."""
    unknown = sorted({"ipAddresses", "uris", "emailAddresses", "otherNames", "literalSubject"} & spec.keys())
    if unknown:
        raise ValueError(f"the lab does not know {', '.join(unknown)}")
    private_key = spec.get("privateKey") or {}
    return Wanted(
        common_name=str(spec.get("commonName") or ""),
        dns_names=tuple(spec.get("dnsNames") or ()),
        duration=read_duration(spec.get("duration")) or DURATION,
        is_authority=bool(spec.get("isCA")),
        algorithm=str(private_key.get("algorithm") or "RSA"),
        size=int(private_key.get("size") or 0),
    )


def read_duration(text: str | None) -> timedelta | None:
    """Go's `2160h0m0s`; None when there is none. Raises ValueError for anything else."""
    if not text:
        return None
    if not re.fullmatch(r"(\d+(\.\d+)?[hms])+", text):
        raise ValueError(f"not a duration: {text}")
    parts = {_UNITS[unit]: float(number) for number, _, unit in re.findall(r"(\d+(\.\d+)?)([hms])", text)}
    return timedelta(**parts)


def authority(common_name: str) -> Pair:
    """A new root, valid for ten years."""
    return self_signed(Wanted(common_name=common_name, duration=timedelta(days=3650), is_authority=True))


def self_signed(wanted: Wanted) -> Pair:
    key = _new_key(wanted)
    certificate = _pem(_builder(wanted, key, _name(wanted)), key)
    return Pair(certificate, _key_pem(key), certificate)


def signed_by(wanted: Wanted, issuer: Pair) -> Pair:
    """A certificate of an authority, with the authority's own behind it. Raises ValueError for a pair that is none."""
    issuing = x509.load_pem_x509_certificate(issuer.certificate.encode())
    issuing_key = _load_key(issuer.key)
    key = _new_key(wanted)
    certificate = _pem(_builder(wanted, key, issuing.subject), issuing_key)
    return Pair(certificate + issuer.certificate, _key_pem(key), issuer.certificate)


def read(pem: str) -> Found:
    """Raises ValueError for a text that is no certificate."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Found(
        common_name=str(names[0].value) if names else "",
        dns_names=_dns_names(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_authority=_is_authority(certificate),
        public_key=certificate.public_key().public_bytes(*_SPKI),
    )


def belongs_to(found: Found, key: str) -> bool:
    """Whether this private key is the certificate's. Raises ValueError for a text that is no key."""
    return _load_key(key).public_key().public_bytes(*_SPKI) == found.public_key


_SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def new_account_key() -> str:
    """An RSA key in the form in which cert-manager keeps those of ACME accounts."""
    return _key_pem(rsa.generate_private_key(65537, 2048))


def _new_key(wanted: Wanted) -> Key:
    if wanted.algorithm == "RSA":
        return rsa.generate_private_key(65537, wanted.size or 2048)
    if wanted.algorithm == "ECDSA" and (wanted.size or 256) in CURVES:
        return ec.generate_private_key(CURVES[wanted.size or 256])
    if wanted.algorithm == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(f"the lab makes no private key of {wanted.algorithm} {wanted.size}".rstrip(" 0"))


def _name(wanted: Wanted) -> x509.Name:
    """Empty where no common name is asked for: the alternative names are what counts."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)] if wanted.common_name else [])


def _builder(wanted: Wanted, key: Key, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(wanted))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + wanted.duration)
        .add_extension(x509.BasicConstraints(ca=wanted.is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if wanted.dns_names:
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in wanted.dns_names])
        builder = builder.add_extension(names, critical=not wanted.common_name)
    if not wanted.is_authority:
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return builder


def _pem(builder: x509.CertificateBuilder, key: Key) -> str:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode("ascii")


def _key_pem(key: Key) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    if isinstance(key, ed25519.Ed25519PrivateKey):
        form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode("ascii")


def _load_key(pem: str) -> Key:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, Key):
        raise ValueError("a private key of a kind that the lab does not know")  # noqa: TRY004 - as for unreadable ones
    return key


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.DNSName))


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
