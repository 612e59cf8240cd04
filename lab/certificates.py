"""Real X.509 certificates, for the lab's own servers and for cert-manager's objects."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

DURATION = timedelta(days=90)
CURVES: Mapping[int, ec.EllipticCurve] = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
_UNITS = {"h": "hours", "m": "minutes", "s": "seconds"}


@dataclass(frozen=True)
class Wanted:
    """The contents of a new certificate; defaults as in cert-manager."""

    common_name: str = ""
    organizations: tuple[str, ...] = ()
    """Kubernetes reads them as groups."""
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    duration: timedelta = DURATION
    backdated: timedelta = timedelta()
    """Valid from this long ago, for clocks that are set back."""
    is_authority: bool = False
    algorithm: str = "RSA"
    size: int = 0


@dataclass(frozen=True)
class Pair:
    """A certificate, with its chain, and its private key, as PEM."""

    certificate: str
    key: str = field(repr=False)
    authority: str = ""
    """The certificate to trust for this one, where its users must be given it."""


@dataclass(frozen=True)
class Found:
    """What a certificate contains."""

    common_name: str
    dns_names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_authority: bool
    public_key: CertificatePublicKeyTypes = field(repr=False)


def wanted_of(spec: Mapping[str, Any]) -> Wanted:
    """Read the `spec` of a cert-manager Certificate. Raises ValueError for fields that the lab does not support."""
    unknown = sorted({"ipAddresses", "uris", "emailAddresses", "otherNames", "literalSubject"} & spec.keys())
    if unknown:
        raise ValueError(f"the lab does not support {', '.join(unknown)}")
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
    """Read a duration of Go, `2160h0m0s`; None for an empty one. Raises ValueError for anything else."""
    if not text:
        return None
    if not re.fullmatch(r"(\d+(\.\d+)?[hms])+", text):
        raise ValueError(f"not a duration: {text}")
    parts = {_UNITS[unit]: float(number) for number, _, unit in re.findall(r"(\d+(\.\d+)?)([hms])", text)}
    return timedelta(**parts)


def authority(common_name: str) -> Pair:
    """Make a new root, valid for ten years."""
    return self_signed(Wanted(common_name=common_name, duration=timedelta(days=3650), is_authority=True))


def self_signed(wanted: Wanted) -> Pair:
    key = new_key(wanted.algorithm, wanted.size)
    certificate = _sign(wanted, key, _name(wanted), key)
    return Pair(certificate, private_pem(key), certificate)


def signed_by(wanted: Wanted, issuer: Pair) -> Pair:
    """Make a certificate that the authority signs, followed by its own. Raises ValueError for an invalid pair."""
    issuing = x509.load_pem_x509_certificate(issuer.certificate.encode())
    issuing_key = _load_key(issuer.key)
    key = new_key(wanted.algorithm, wanted.size)
    certificate = _sign(wanted, key, issuing.subject, issuing_key)
    return Pair(certificate + issuer.certificate, private_pem(key), issuer.certificate)


def read(pem: str) -> Found:
    """Read a certificate. Raises ValueError for a text that is not one."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    extensions = {type(one.value): one.value for one in certificate.extensions}
    alternative = extensions.get(x509.SubjectAlternativeName)
    constraints = extensions.get(x509.BasicConstraints)
    return Found(
        common_name=str(names[0].value) if names else "",
        dns_names=tuple(alternative.get_values_for_type(x509.DNSName)) if alternative else (),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_authority=bool(constraints and constraints.ca),
        public_key=certificate.public_key(),
    )


def belongs_to(found: Found, key: str) -> bool:
    """Whether this private key is the certificate's. Raises ValueError for a text that is not a key."""
    return _load_key(key).public_key() == found.public_key


def new_key(algorithm: str = "RSA", size: int = 0) -> Key:
    """Make a private key. Raises ValueError for a kind that the lab does not support."""
    if algorithm == "RSA":
        return rsa.generate_private_key(65537, size or 2048)
    if algorithm == "ECDSA" and (size or 256) in CURVES:
        return ec.generate_private_key(CURVES[size or 256])
    if algorithm == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(f"the lab makes no private key of {algorithm} {size}".rstrip(" 0"))


def private_pem(key: Key) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    if isinstance(key, ed25519.Ed25519PrivateKey):
        form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode("ascii")


def public_pem(key: Key) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode("ascii")


def _load_key(pem: str) -> Key:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, Key):
        raise ValueError("a private key of a kind that the lab does not support")  # noqa: TRY004 - as for unreadable ones
    return key


def _name(wanted: Wanted) -> x509.Name:
    """The subject; empty without a common name, as only the alternative names count."""
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in wanted.organizations]
    common = [x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)] if wanted.common_name else []
    return x509.Name([*groups, *common])


def _sign(wanted: Wanted, key: Key, issuer: x509.Name, issuing_key: Key) -> str:
    now = datetime.now(UTC).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(wanted))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - wanted.backdated)
        .not_valid_after(now + wanted.duration)
        .add_extension(x509.BasicConstraints(ca=wanted.is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in wanted.dns_names]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in wanted.addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not wanted.common_name)
    if not wanted.is_authority:
        # A client's as well: etcd's own gateway dials back with the server's certificate.
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    algorithm = None if isinstance(issuing_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuing_key, algorithm).public_bytes(serialization.Encoding.PEM).decode("ascii")
