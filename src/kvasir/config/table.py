"""Every setting, one row each: command line options, variables, kvasir.toml and docs/settings.md are made of these.

A row is the only thing a new setting needs; what a setting means together with others is checked in `loading`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from kvasir.config.parsers import (
    OFF,
    SECRET_CHARACTERS,
    address,
    algorithms,
    engine_url,
    flag,
    one_of,
    path,
    seconds,
    secret,
    text,
    ulid,
    whole,
    words,
)
from kvasir.limits import EXPLAINED, Limits

PREFIX = "KVASIR_"


class Setting(msgspec.Struct, frozen=True):
    """One row of the table."""

    #: With underscores: the field of `Config`, or "limit_" and the field of `Limits`
    name: str
    #: As text, like every source gives it; None: not set
    default: str | None
    #: Text -> value. Raises ValueError with words that complete "must be …".
    parse: Callable[[str], Any]
    help: str
    #: What the text looks like, for help and documents: "HOST:PORT", "seconds"
    unit: str
    group: str
    secret: bool = False

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def key(self) -> str:
        """Its place in the file: `data_dir`, or `limits.value_bytes` for one of the table [limits]."""
        return self.name.replace("limit_", "limits.", 1) if self.name.startswith("limit_") else self.name

    @property
    def is_flag(self) -> bool:
        return self.parse is flag

    @property
    def can_be_off(self) -> bool:
        return self.parse is address


# -- the table ------------------------------------------------------------------------------------------------


def row(
    group: str, default: str | None, parse: Callable[[str], Any], unit: str, help: str, *, secret: bool = False
) -> Any:
    """A field of `Config`: where it is listed, default and parser, what its text looks like and what it is for."""
    value = None if default is None else parse(default)
    return dataclasses.field(default=value, metadata={"row": (default, parse, help, unit, group, secret)})


STORAGE, LISTENERS, ACCESS, RUNNING = "Storage", "Listeners", "Access", "Running"
NEMESIS, VOXIMPLANT, LIMITS = "NemesisDB API", "Voximplant API", "Limits"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings in force, checked."""

    data_dir: Path = row(STORAGE, "kvasir-data", path, "DIR", "Directory of everything Kvasir keeps; made if missing.")
    engine: str = row(
        STORAGE,
        "sqlite:",
        engine_url,
        "URL",
        "Where entries are kept: `sqlite:` (the file kvasir.db in the data directory), `sqlite:PATH`, "
        "`postgresql://USER@HOST/DATABASE` (a URL as libpq has it), or `memory:`, which forgets everything when the "
        "server stops. Give a URL with a password as a variable: other users of the machine can read options.",
    )
    postgres_connections: int = row(
        STORAGE, "10", whole(2, 1_000), "count", "Most connections of one server process to PostgreSQL."
    )
    durability: str = row(
        STORAGE,
        "full",
        one_of("full", "relaxed"),
        "full|relaxed",
        "full: an acknowledged write survives a power loss. relaxed: it survives the end of the process, "
        "but the last moments before a power loss may be gone.",
    )

    http: str | None = row(LISTENERS, "127.0.0.1:8901", address, "HOST:PORT", "Address of plain HTTP/1.1 and HTTP/2.")
    https: str | None = row(
        LISTENERS, OFF, address, "HOST:PORT", "Address of HTTP over TLS, beside or instead of plain HTTP."
    )
    tls_cert: Path | None = row(LISTENERS, None, path, "FILE", "Certificate chain (PEM) for --https.")
    tls_key: Path | None = row(LISTENERS, None, path, "FILE", "Private key (PEM) for --https.")
    workers: int = row(LISTENERS, "1", whole(1, 256), "count", "Server processes that share the ports and the data.")

    admin_key: str | None = row(
        ACCESS,
        None,
        secret,
        "TEXT",
        f"Secret of the first organisation's owner key, {SECRET_CHARACTERS} characters or more. A new value "
        "replaces the former key at the next start. Without it the first start makes a key and shows it once. "
        "Give it as a variable: other users of the machine can read options.",
        secret=True,
    )
    organisation_id: str | None = row(
        ACCESS, None, ulid, "ULID", "ULID of the first organisation, for containers and tests; otherwise random."
    )
    jwks: str | None = row(
        ACCESS, None, text, "FILE|URL", "Key set (JWKS) of an identity provider whose tokens are accepted."
    )
    jwt_issuer: str | None = row(ACCESS, None, text, "TEXT", "The tokens' `iss`. Needed with --jwks.")
    jwt_audience: str | None = row(ACCESS, None, text, "TEXT", "What the tokens' `aud` must hold. Needed with --jwks.")
    jwt_algorithms: tuple[str, ...] = row(
        ACCESS,
        "RS256,ES256",
        algorithms,
        "LIST",
        "Accepted signature algorithms: asymmetric ones (RS…, PS…, ES…, EdDSA), with commas between them.",
    )
    jwt_organisation_claim: str = row(
        ACCESS, "organisation", text, "CLAIM", "Claim with the organisation's ULID. Dots lead into nested claims."
    )
    jwt_role_claim: str = row(
        ACCESS,
        "role",
        text,
        "CLAIM",
        "Claim with the role (owner, admin, developer or viewer), or a list with one of them.",
    )

    drain_seconds: float = row(
        RUNNING, "20", seconds, "seconds", "How long a stopping server waits for the requests it has begun."
    )
    log_level: str = row(
        RUNNING, "info", one_of("debug", "info", "warning", "error"), "LEVEL", "debug, info, warning or error."
    )
    log_format: str = row(
        RUNNING,
        "text",
        one_of("text", "json"),
        "text|json",
        "One line of text or one JSON object an event, on standard error.",
    )
    access_log: bool = row(RUNNING, "false", flag, "flag", "One line a request: never a secret, a key or a value.")

    nemesis: str | None = row(
        NEMESIS, "127.0.0.1:1987", address, "HOST:PORT", "Address of the WebSocket listener of the NemesisDB API."
    )
    nemesis_auth: str = row(
        NEMESIS,
        "local",
        one_of("local", "key", "none"),
        "local|key|none",
        "The API has no login. local: only loopback addresses may be listened on. key: the upgrade carries an access "
        "key (Authorization header or `key` parameter). none: anyone who reaches the port may do everything.",
    )
    nemesis_profile: str = row(
        NEMESIS,
        "session",
        one_of("session", "0.9"),
        "session|0.9",
        "Commands of a connection whose path is neither /session nor /0.9.",
    )
    nemesis_max_payload: int = row(
        NEMESIS, "1_048_576", whole(64, 2**30), "bytes", "Longest message a client may send; its own default was 1,024."
    )
    nemesis_origins: tuple[str, ...] = row(
        NEMESIS,
        "",
        words,
        "LIST",
        "Origins of the web pages that may connect, such as https://app.example.org, with commas between them.",
    )
    nemesis_save_dir: Path | None = row(
        NEMESIS,
        None,
        path,
        "DIR",
        "Where SH_SAVE writes and SH_LOAD reads; unless given, `saves` in the data directory.",
    )

    voximplant_missing_key_code: int = row(
        VOXIMPLANT, "496", whole(1, 9_999), "code", "Error code for a key that is not there; none is documented."
    )
    voximplant_unknown_application_code: int = row(
        VOXIMPLANT,
        "116",
        whole(1, 9_999),
        "code",
        "Error code for an unknown application_id; 558 is the other candidate.",
    )
    voximplant_unknown_key_id_code: int = row(
        VOXIMPLANT,
        "433",
        whole(1, 9_999),
        "code",
        "Error code for a token whose key id is unknown; 100 does not tell strangers which key ids exist.",
    )
    voximplant_pattern: str = row(
        VOXIMPLANT,
        "prefix",
        one_of("prefix", "namespace"),
        "prefix|namespace",
        "What the pattern `test` finds: every key that begins so, or only `test` and those that begin with `test:`.",
    )
    voximplant_key_characters: int = row(VOXIMPLANT, "200", whole(1, 1_000), "characters", "Longest key.")
    voximplant_value_characters: int = row(VOXIMPLANT, "2_000", whole(1, 1_000_000), "characters", "Longest value.")
    voximplant_ttl_default_seconds: int = row(
        VOXIMPLANT, "2_592_000", whole(0, 10**10), "seconds", "Life of an item set without ttl and expires_at: 30 days."
    )
    voximplant_ttl_maximum_seconds: int = row(
        VOXIMPLANT, "7_776_000", whole(0, 10**10), "seconds", "Longest life of an item: 90 days."
    )
    voximplant_page_default: int = row(VOXIMPLANT, "10", whole(1, 1_000), "count", "Items of a list without count.")
    voximplant_page_maximum: int = row(VOXIMPLANT, "50", whole(1, 1_000), "count", "Most items of a list.")
    voximplant_form_bytes: int = row(
        VOXIMPLANT,
        "65_536",
        whole(1_024, 2**30),
        "bytes",
        "Longest urlencoded or multipart body. With longer values, raise it too: 12 bytes a character, and 4,096.",
    )
    voximplant_json_bytes: int = row(
        VOXIMPLANT, "262_144", whole(1_024, 2**30), "bytes", "Longest JSON body; bulk methods need more than a form."
    )

    limits: Limits = dataclasses.field(default_factory=Limits)

    @property
    def engine_name(self) -> str:
        """sqlite, postgresql or memory"""
        scheme = self.engine.partition(":")[0]
        return "postgresql" if scheme == "postgres" else scheme

    @property
    def database(self) -> Path | None:
        """The file of the engine sqlite:; None: the engine keeps no file."""
        _, _, rest = self.engine.partition(":")
        if self.engine_name != "sqlite":
            return None
        return Path(rest).expanduser() if rest else self.data_dir / "kvasir.db"


def _rows() -> Iterator[Setting]:
    for field in dataclasses.fields(Config):
        if "row" in field.metadata:
            yield Setting(field.name, *field.metadata["row"])
    hints = typing.get_type_hints(Limits, include_extras=True)
    for limit in msgspec.structs.fields(Limits):
        unit = hints[limit.name].__metadata__[0].description
        parse = seconds if unit == "seconds" else whole()
        default = f"{limit.default:_}" if isinstance(limit.default, int) else f"{limit.default:g}"
        yield Setting(f"limit_{limit.name}", default, parse, EXPLAINED[limit.name], unit, LIMITS)


#: All rows, in the order of `--help` and docs/settings.md.
SETTINGS: tuple[Setting, ...] = tuple(_rows())
