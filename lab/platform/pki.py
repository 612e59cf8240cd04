"""Makes the lab's certificates: one authority, server and client certificates, the key of service account tokens."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.platform.keys import Pki
from lab.platform.paths import write_private

LIFETIME = datetime.timedelta(days=3650)
SERVER_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
SERVER_ADDRESSES = ("127.0.0.1", "10.96.0.1")


@dataclass(frozen=True)
class Client:
    """Who a client certificate speaks for."""

    file: str
    user: str
    groups: tuple[str, ...] = ()


CLIENTS = (
    Client("apiserver-etcd", "lab:apiserver"),
    # Its controllers act with this one identity; a service account for each would cost seconds and memory.
    Client("controller-manager", "system:kube-controller-manager", ("system:masters",)),
    Client("scheduler", "system:kube-scheduler"),
    Client("kwok", "lab:kwok"),
)


def make(folder: Path) -> None:
    """Fills a folder that is not there yet with all keys and certificates, all or nothing."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _make(Pki(unfinished))
    unfinished.rename(folder)


def _make(pki: Pki) -> None:
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate(_name("lab-ca"), authority_key, issuer=None, issuer_key=authority_key)
    write_private(pki.ca, authority.public_bytes(serialization.Encoding.PEM))
    # The authority's key is not kept: nothing has to be signed later, and what is not there cannot leak.
    _issue(pki, "server", _name("lab"), authority, authority_key)
    for client in CLIENTS:
        _issue(pki, client.file, _name(client.user, client.groups), authority, authority_key, is_server=False)
    account_key = ec.generate_private_key(ec.SECP256R1())
    write_private(pki.service_account_key, _private_pem(account_key))
    write_private(pki.service_account_public_key, _public_pem(account_key.public_key()))
    write_private(pki.tokens, f'{secrets.token_urlsafe(32)},lab-admin,lab-admin,"system:masters"\n')


def _issue(
    pki: Pki,
    name: str,
    subject: x509.Name,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    *,
    is_server: bool = True,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(subject, key, issuer=authority, issuer_key=authority_key, is_server=is_server)
    write_private(pki.key(name), _private_pem(key))
    write_private(pki.certificate(name), certificate.public_bytes(serialization.Encoding.PEM))


def _name(common_name: str, organizations: tuple[str, ...] = ()) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    is_server: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A little in the past, for clocks that are set back.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=issuer is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if issuer is not None:
        # etcd's own gateway dials back with the server's certificate, so that one is a client's as well.
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if is_server else [])]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if is_server:
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in SERVER_NAMES]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in SERVER_ADDRESSES]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
