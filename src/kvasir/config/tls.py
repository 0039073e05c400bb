"""Files of certificates and keys, examined before anything is started: the message names the setting and the file."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path


def holds_certificates(file: Path) -> bool:
    """Certificates of authorities, or a list of revoked ones."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return False
    return True


def wrong_tls(cert: Path | None, key: Path | None) -> Iterator[tuple[str, str]]:
    """What keeps TLS from starting. Found out here, since the listener's own words name neither file nor setting."""
    faults = []
    for name, file in (("tls_cert", cert), ("tls_key", key)):
        if file is None:
            faults.append((name, "is needed with --https; `kvasir dev-cert DIR` makes a certificate for this machine"))
        elif fault := unreadable(file):
            faults.append((name, fault))
    if cert and key and not faults:
        faults.extend(_wrong_chain(cert, key))
    yield from faults


def _wrong_chain(cert: Path, key: Path) -> Iterator[tuple[str, str]]:
    if not holds_certificates(cert):
        yield "tls_cert", f"must be a certificate chain (PEM), the server's own first; {cert} holds none"
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_pass_phrase)
    except _PassPhraseError:
        yield (
            "tls_key",
            f"must be a private key without a pass phrase, which {key} has; "
            "`openssl pkey -in FILE -out PLAIN` writes one without",
        )
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield "tls_key", f"must be the private key of the certificate in {cert}; {key} is another one's"
        elif error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            yield "tls_cert", f"must be stronger; {cert} is refused: {error.reason}"
        else:
            yield "tls_key", f"must be a private key (PEM); {key} holds none that can be used"

    else:
        if not _can_be_served(cert):
            yield "tls_cert", f"must be of a key of RSA, Ed25519 or ECDSA on P-256 or P-384; that of {cert} is of none"


def _can_be_served(cert: Path) -> bool:
    """Whether the listener's own TLS, which would end the process, takes keys of this kind."""
    # Only who serves TLS waits for them.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    try:
        key = x509.load_pem_x509_certificates(cert.read_bytes())[0].public_key()
    except UnsupportedAlgorithm:
        return False
    except ValueError:  # a stricter reader than those that have taken it
        return True
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    return isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey)


class _PassPhraseError(Exception):
    """A private key is encrypted; nobody can be asked at every start."""


def _no_pass_phrase() -> str:
    raise _PassPhraseError


def unreadable(file: Path) -> str | None:
    """Why this file is of no use; None: it can be read."""
    try:
        if not file.is_file():
            return f"must be a file that can be read; there is none at {file}"
        file.open("rb").close()
    except OSError as error:
        return f"must be a file that can be read; {file} cannot be: {error.strerror}"
    return None
