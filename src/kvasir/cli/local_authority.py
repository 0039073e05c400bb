"""A certificate authority for one developer's machine, and a certificate from it for the loopback names.

Several official clients speak only https. The authority is created anew each time and its private key is discarded, so
whoever trusts its certificate trusts nothing but the one certificate signed with it.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kvasir.server import whole_file

#: Apple's systems refuse certificates that are valid for more than 825 days, and public ones may have at most 398.
DAYS = 397
HOSTS = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")
#: Allows for clocks that are behind, as in containers and virtual machines
BACKDATED = timedelta(days=1)


def write(directory: Path, now: datetime) -> tuple[Path, Path, Path]:
    """Write `ca.pem`, `cert.pem` and `key.pem` to the directory, which is created if missing; replace existing ones.

    Returns their paths. `now` must have a time zone. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    # The authority may vouch for no other host name. Addresses are not constrained: Mono refuses every certificate
    # below an authority with constraints of that kind. Nobody could use the gap, for the authority's key is discarded.
    constraints = x509.NameConstraints([x509.DNSName(host) for host in HOSTS], excluded_subtrees=None)
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kvasir development authority")])
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(constraints, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [*(x509.DNSName(host) for host in HOSTS), *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ADDRESSES)]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOSTS[0])])
    certificate = (
        _builder(subject, authority_name, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (
        _save(directory / "ca.pem", authority.public_bytes(serialization.Encoding.PEM), 0o644),
        _save(directory / "cert.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644),
        _save(directory / "key.pem", private, 0o600),
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=DAYS) - BACKDATED)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _save(path: Path, content: bytes, mode: int) -> Path:
    whole_file.write(path, content, mode)
    return path
