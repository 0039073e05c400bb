"""Checks the files of certificates and keys at start, so that the message names the setting and the file."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path


def holds_certificates(file: Path) -> bool:
    """Whether a file contains certificates, or a list of revoked ones, in PEM."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return False
    return True


def wrong_tls(cert: Path | None, key: Path | None) -> Iterator[tuple[str, str]]:
    """Why TLS could not be served: pairs of setting and fault. The listener itself would name neither of them."""
    faults = []
    for name, file in (("tls_cert", cert), ("tls_key", key)):
        if file is None:
            faults.append(
                (name, "is required with --https and --nemesis-tls; `kvasir dev-cert DIR` creates one for this machine")
            )
        elif fault := unreadable(file):
            faults.append((name, fault))
    if cert and key and not faults:
        faults.extend(_wrong_chain(cert, key))
    yield from faults


def _wrong_chain(cert: Path, key: Path) -> Iterator[tuple[str, str]]:
    if not holds_certificates(cert):
        yield "tls_cert", f"must be a certificate chain (PEM), the server's own certificate first; {cert} contains none"
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_passphrase)
    except _PassphraseError:
        yield (
            "tls_key",
            f"must be a private key without a passphrase, but {key} has one; "
            "`openssl pkey -in FILE -out PLAIN` removes it",
        )
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield "tls_key", f"must be the private key of the certificate in {cert}; {key} belongs to another one"
        elif error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            yield "tls_cert", f"must be stronger; {cert} is rejected: {error.reason}"
        else:
            yield "tls_key", f"must be a private key (PEM); {key} contains none that can be used"
    else:
        if not _can_be_served(cert):
            yield "tls_cert", f"must have a key of RSA, Ed25519, or ECDSA on P-256 or P-384; {cert} has another kind"


def _can_be_served(cert: Path) -> bool:
    """Whether the listener accepts keys of this kind; otherwise it would end the process."""
    # Imported here because it takes time, and only servers with TLS need it.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    try:
        key = x509.load_pem_x509_certificates(cert.read_bytes())[0].public_key()
    except UnsupportedAlgorithm:
        return False
    except ValueError:  # this parser is stricter than OpenSSL, which has just accepted the file
        return True
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    return isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey)


class _PassphraseError(Exception):
    """The private key is encrypted. Nobody can be asked for a passphrase at every start."""


def _no_passphrase() -> str:
    raise _PassphraseError


def unreadable(file: Path) -> str | None:
    """Why this file cannot be read; None if it can."""
    try:
        if not file.is_file():
            return f"must be a readable file; there is none at {file}"
        file.open("rb").close()
    except OSError as error:
        return f"must be a readable file; {file} cannot be read: {error.strerror}"
    return None
