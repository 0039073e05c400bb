"""Options, variables and kvasir.toml -> `Config`, checked once, at start. Nothing else reads the environment.

An option wins over a variable, a variable over the file, the file over the default. Each source gives text and one
parser a row reads it, so that all mean the same.
"""

from __future__ import annotations

import ssl
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kvasir.config import PREFIX, SETTINGS, Config
from kvasir.errors import Invalid
from kvasir.limits import Limits
from kvasir.values import is_loopback, split_address

#: Read from the working directory when no other file is named.
FILE = "kvasir.toml"

#: A row of an index has room for 2,704 bytes; a space's number and two lengths are among them, with the name of a
#: store the kind of its door and the ULID of an organisation.
POSTGRES_KEY_BYTES = 2_600
#: A character may take four bytes.
POSTGRES_NAME_CHARACTERS = POSTGRES_KEY_BYTES // 4

#: What libpq knows, from none to the strictest.
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: Parameters that name files, and the mode from which on they are used.
SSL_FILES = {"sslcert": "allow", "sslkey": "allow", "sslrootcert": "require", "sslcrl": "require"}


def load(options: Mapping[str, str | None], environ: Mapping[str, str], file: Path | None = None) -> Config:
    """The settings in force, from options (by name; None: not given), variables and the file.

    Raises `Invalid`, with a field for every setting that is wrong, named the way it was given. An empty variable
    is not set, and one without a row is left alone: orchestrators set their own KVASIR_….
    """
    file = file or (Path(environ[f"{PREFIX}CONFIG"]) if environ.get(f"{PREFIX}CONFIG") else None)
    filed, faults = _read(file)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        sources = (
            (setting.option, options.get(setting.name)),
            (setting.variable, environ.get(setting.variable) or None),
            (setting.key, filed.get(setting.key)),
        )
        named, given = next(((named, given) for named, given in sources if given is not None), (None, None))
        if named is None or given is None:
            continue
        try:
            values[setting.name] = setting.parse(given)
        except ValueError as error:
            faults.append((named, f"must be {error}"))
    if not faults:
        config = _made(values)
        faults = list(_contradictions(config))
        if not faults:
            return config
    raise Invalid("\n".join(f"{named}: {fault}" for named, fault in faults), fields=tuple(faults))


def _made(values: dict[str, Any]) -> Config:
    limits = {name.removeprefix("limit_"): value for name, value in values.items() if name.startswith("limit_")}
    fields = {name: value for name, value in values.items() if not name.startswith("limit_")}
    return Config(**fields, limits=Limits(**limits))


def _read(file: Path | None) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The file's members as text by `Setting.key`, and what is wrong with it."""
    wanted = file or Path(FILE)
    if file is None and not wanted.is_file():
        return {}, []
    try:
        tables = tomllib.loads(wanted.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [(str(wanted), f"cannot be read: {error.strerror}")]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, [(str(wanted), f"is not TOML: {error}")]
    known = {setting.key for setting in SETTINGS}
    found: dict[str, str] = {}
    faults: list[tuple[str, str]] = []
    for key, value in _members(tables):
        if key not in known:
            faults.append(
                (f"{wanted}: {key}", "is no setting; `kvasir serve --help` lists them all, and docs/settings.md")
            )
        elif (said := _as_text(value)) is None:
            faults.append((f"{wanted}: {key}", "must be a text, a number, true, false or a list of texts"))
        else:
            found[key] = said
    return found, faults


def _members(tables: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        if key == "limits" and isinstance(value, dict):
            yield from ((f"limits.{name}", limit) for name, limit in value.items())
        else:
            yield key, value


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return None


# -- what one setting alone cannot know -------------------------------------------------------------------------


def _contradictions(config: Config) -> Iterator[tuple[str, str]]:
    yield from _wrong_listeners(config)
    if config.engine == "memory:" and config.workers > 1:
        yield "workers", "must be 1 with the engine memory:, which processes cannot share"
    if config.engine_name == "postgresql":
        yield from _too_long_for_postgres(config.limits)
        if fault := _wrong_database(config.engine):
            yield "engine", fault
    if config.jwks:
        if not config.jwt_issuer or not config.jwt_audience:
            yield "jwks", "needs jwt_issuer and jwt_audience, or tokens meant for other services would be accepted"
        if fault := _wrong_key_set(config.jwks):
            yield "jwks", fault


def _too_long_for_postgres(limits: Limits) -> Iterator[tuple[str, str]]:
    for name, most in (("key_bytes", POSTGRES_KEY_BYTES), ("store_name_characters", POSTGRES_NAME_CHARACTERS)):
        if getattr(limits, name) > most:
            yield f"limit_{name}", f"must be {most:,} or less with PostgreSQL, whose indexes hold no more"


def _wrong_database(address: str) -> str | None:
    """What in a URL of PostgreSQL can never work. Shows no part of it that could be of the password."""
    try:
        url = urlsplit(address)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
    except ValueError:
        return (
            "must be a URL; `/`, `?`, `#`, `@`, `[` and `]` in a password are written as %2F, %3F, %23, %40, %5B, %5D"
        )
    hosts = url.netloc.rpartition("@")[2].split(",")
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts] + query.get("port", "").split(",")
    if not all(
        port == "" or (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65_536) for port in ports
    ):
        return (
            "must have a number from 1 to 65,535 as port; "
            "`/`, `?`, `#` and `@` in a password are written as %2F, %3F, %23 and %40"
        )
    return _wrong_database_tls(query)


def _wrong_database_tls(query: Mapping[str, str]) -> str | None:
    mode = query.get("sslmode", "prefer").replace("_", "-")
    if mode not in SSL_MODES:
        return f"must have as sslmode one of: {', '.join(SSL_MODES)}"
    for name, since in SSL_FILES.items():
        if query.get(name) and SSL_MODES.index(mode) >= SSL_MODES.index(since):
            file = Path(query[name])
            fault = _unreadable(file)
            if fault is None and since == "require" and not _holds_certificates(file):
                fault = f"must be a file of certificates (PEM); {file} holds none"
            if fault:
                return f"{name} {fault}"
    return None


def _holds_certificates(file: Path) -> bool:
    """Certificates of authorities, or a list of revoked ones."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return False
    return True


def _wrong_key_set(source: str) -> str | None:
    try:
        url = urlsplit(source)
        _ = url.port  # says so too
    except ValueError:
        return "must be an https: address or a file; this is no address that can be understood"
    if not url.netloc:
        fault = _unreadable(Path(source))
        return fault and f"{fault}; or an https: address"
    if url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or "")):
        return None
    return "must be an https: address; otherwise anyone on the way could add a key"


def _wrong_listeners(config: Config) -> Iterator[tuple[str, str]]:
    listeners = {name: getattr(config, name) for name in ("http", "https", "nemesis")}
    used = [given for given in listeners.values() if given]
    if not used:
        yield "http", "must be an address when https and nemesis are off too: nothing would be served"
    if len(set(used)) < len(used):
        yield "http", "must differ from the addresses of the other listeners"
    if config.https:
        yield from _wrong_tls(config.tls_cert, config.tls_key)
    if config.nemesis and config.nemesis_auth == "local" and not is_loopback(split_address(config.nemesis)[0]):
        yield (
            "nemesis",
            "is not a loopback address, and the API has no login: choose --nemesis-auth key (clients send an access "
            "key) or --nemesis-auth none (everyone who reaches the port may do everything)",
        )


def _wrong_tls(cert: Path | None, key: Path | None) -> Iterator[tuple[str, str]]:
    """What keeps TLS from starting. Found out here, since the listener's own words name neither file nor setting."""
    faults = []
    for name, file in (("tls_cert", cert), ("tls_key", key)):
        if file is None:
            faults.append((name, "is needed with --https; `kvasir dev-cert DIR` makes a certificate for this machine"))
        elif fault := _unreadable(file):
            faults.append((name, fault))
    if cert and key and not faults:
        faults.extend(_wrong_chain(cert, key))
    yield from faults


def _wrong_chain(cert: Path, key: Path) -> Iterator[tuple[str, str]]:
    if not _holds_certificates(cert):
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


def _unreadable(file: Path) -> str | None:
    """Why this file is of no use; None: it can be read."""
    try:
        if not file.is_file():
            return f"must be a file that can be read; there is none at {file}"
        file.open("rb").close()
    except OSError as error:
        return f"must be a file that can be read; {file} cannot be: {error.strerror}"
    return None
