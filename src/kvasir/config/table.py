"""Every setting, one row each, from which the command line, the variables, kvasir.toml and docs/settings.md are made.

A new setting needs nothing but its row; the rows of limits are in `kvasir.limits`. Whether settings make sense together
is checked in `kvasir.config.loading`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from kvasir.config.parsers import (
    OFF,
    SECRET_CHARACTERS,
    address,
    algorithms,
    engine_url,
    flag,
    one_of,
    origins,
    path,
    seconds,
    secret,
    text,
    ulid,
    whole,
    words,
)
from kvasir.limits import Limit, Limits, NemesisLimits, VoximplantLimits, WebSocketLimits

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PREFIX = "KVASIR_"

#: In place of a file: none.
SETTING_OFF = OFF

#: The file of the engine `sqlite:` in the data directory.
DATABASE = "kvasir.db"


class Setting(msgspec.Struct, frozen=True):
    """One row of the table."""

    #: With underscores, for example `data_dir` or `limit_value_bytes`
    name: str
    #: As text, as in every source; None: not set
    default: str | None
    #: Text -> value. Raises ValueError with words that complete "must be …".
    parse: Callable[[str], Any]
    help: str
    #: What the text looks like, for help and documents: "HOST:PORT", "seconds"
    unit: str
    group: str
    #: Where the value is: a field of `Config`, and for a limit the field in there
    place: tuple[str, ...]
    limit: Limit | None = None

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def key(self) -> str:
        """Its key in the file: `data_dir`, or `limits.value_bytes` for one in the table [limits]."""
        return self.name.replace("limit_", "limits.", 1) if self.name.startswith("limit_") else self.name

    @property
    def is_flag(self) -> bool:
        return self.parse is flag

    @property
    def is_repeatable(self) -> bool:
        return self.parse is origins

    @property
    def can_be_off(self) -> bool:
        return self.parse is address


# -- the table ------------------------------------------------------------------------------------------------


def row(group: str, default: str | None, parse: Callable[[str], Any], unit: str, help: str) -> Any:
    """A field of `Config`: its group, default and parser, what its text looks like and what it is for."""
    value = None if default is None else parse(default)
    return dataclasses.field(default=value, metadata={"row": (default, parse, help, unit, group)})


def limit_rows(group: str, prefix: str, kind: type[DataclassInstance]) -> Any:
    """A field of `Config` with limits, which have rows of their own: the group and the prefix of their settings."""
    return dataclasses.field(default_factory=kind, metadata={"limits": (group, prefix, kind)})


STORAGE, LISTENERS, ACCESS, RUNNING = "Storage", "Listeners", "Access", "Running"
NEMESIS, VOXIMPLANT, LIMITS = "NemesisDB API", "Voximplant API", "Limits"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings in force, checked."""

    data_dir: Path = row(
        STORAGE, "kvasir-data", path, "DIR", "Directory for everything Kvasir keeps; created if missing."
    )
    engine: str = row(
        STORAGE,
        "sqlite:",
        engine_url,
        "URL",
        f"Where entries are kept: `sqlite:` (the file {DATABASE} in the data directory), `sqlite:PATH`, "
        "`postgresql://USER@HOST/DATABASE` (a libpq URL), or `memory:`, which forgets everything when the server "
        "stops. Give a URL that contains a password as a variable: other users of the machine can read options.",
    )
    postgres_connections: int = row(
        STORAGE,
        "10",
        whole(2, 1_000),
        "count",
        "Maximum number of connections of one server process to PostgreSQL; to each node of Citus, half as many more.",
    )
    durability: str = row(
        STORAGE,
        "full",
        one_of("full", "relaxed"),
        "full|relaxed",
        "full: an acknowledged write survives a power failure. relaxed: it survives a crash of the process, but a "
        "power failure may lose the last moments.",
    )

    http: str | None = row(
        LISTENERS,
        "127.0.0.1:8901",
        address,
        "HOST:PORT",
        "Address for plain HTTP/1.1 and HTTP/2. Port 0, here and for the other listeners, is any free one.",
    )
    https: str | None = row(
        LISTENERS, OFF, address, "HOST:PORT", "Address for HTTP over TLS, alongside or instead of plain HTTP."
    )
    tls_cert: Path | None = row(LISTENERS, None, path, "FILE", "Certificate chain (PEM) for --https and --nemesis-tls.")
    tls_key: Path | None = row(LISTENERS, None, path, "FILE", "Private key (PEM) for --https and --nemesis-tls.")
    workers: int = row(
        LISTENERS, "1", whole(1, 256), "count", "Number of server processes, which share the ports and the data."
    )

    admin_key: str | None = row(
        ACCESS,
        None,
        secret,
        "TEXT",
        f"Secret of the first organisation's owner key, at least {SECRET_CHARACTERS} characters. A new value replaces "
        "the previous key at the next start. If it is not set, the first start generates a key and shows it once. "
        "Give it as a variable: other users of the machine can read options.",
    )
    organisation_id: str | None = row(
        ACCESS, None, ulid, "ULID", "ULID of the first organisation, for containers and tests; random if not set."
    )
    jwks: str | None = row(
        ACCESS, None, text, "FILE|URL", "Key set (JWKS) of an identity provider whose tokens are accepted."
    )
    jwt_issuer: str | None = row(ACCESS, None, text, "TEXT", "The `iss` that tokens must have. Required with --jwks.")
    jwt_audience: str | None = row(
        ACCESS, None, text, "TEXT", "What the `aud` of tokens must contain. Required with --jwks."
    )
    jwt_algorithms: tuple[str, ...] = row(
        ACCESS,
        "RS256,ES256",
        algorithms,
        "LIST",
        "Accepted signature algorithms, separated by commas; asymmetric ones only (RS…, PS…, ES…, EdDSA).",
    )
    jwt_organisation_claim: str = row(
        ACCESS,
        "organisation",
        text,
        "CLAIM",
        "Claim that holds the organisation's ULID. Dots separate the names of nested claims.",
    )
    jwt_role_claim: str = row(
        ACCESS,
        "role",
        text,
        "CLAIM",
        "Claim that holds the role (owner, admin, developer or viewer), or a list with one of them.",
    )

    cors_origin: tuple[str, ...] = row(
        ACCESS,
        "",
        origins,
        "LIST",
        "Origins of the web pages that may use `/v1` and the Versori API, such as https://app.example.org: exact ones, "
        "separated by commas; the option may be given several times.",
    )

    console: str = row(
        ACCESS,
        "auto",
        one_of("on", "off", "auto"),
        "on|off|auto",
        "The page for people at `/console/`. auto: only if every address for HTTP is a loopback one. It has no rights "
        "of its own: whoever opens it signs in with an access key.",
    )

    drain_seconds: float = row(
        RUNNING, "20", seconds, "seconds", "How long a stopping server waits for requests in progress."
    )
    ready_file: Path | None = row(
        RUNNING,
        None,
        path,
        "FILE",
        "Where to write, once the server serves, its addresses, the first organisation's ULID and its process id, as "
        "JSON; removed when it ends.",
    )
    log_level: str = row(
        RUNNING, "info", one_of("debug", "info", "warning", "error"), "LEVEL", "debug, info, warning or error."
    )
    log_format: str = row(
        RUNNING,
        "text",
        one_of("text", "json"),
        "text|json",
        "How events are logged on standard error: each as a line of text or as a JSON object.",
    )
    strict_requests: bool = row(
        RUNNING,
        "false",
        flag,
        "flag",
        "Refuse what the services silently ignore: members and parameters that an operation does not know, or not at "
        "this place. Without it, the header `Kvasir-Warning` and the log name them. For tests.",
    )
    access_log: bool = row(
        RUNNING, "false", flag, "flag", "Log a line for each request; it never contains a secret, a key or a value."
    )

    slow_ms: int | None = row(
        RUNNING,
        None,
        whole(1, 86_400_000),
        "ms",
        "Log a line for each request that took longer, with what it spent its time on and a hash of its key; off if "
        "not set.",
    )

    audit: str | None = row(
        RUNNING,
        None,
        text,
        "FILE|off",
        "File to which administrative acts are appended, by servers and commands alike. The choice is kept in the data "
        "directory and holds until another is made; off ends it.",
    )
    audit_full: str = row(
        RUNNING,
        "refuse",
        one_of("refuse", "allow"),
        "refuse|allow",
        "What happens to administrative acts that cannot be recorded, for example because the disk of --audit is full. "
        "allow: they are done, logged and counted in `kvasir_audit_unrecorded_total`. Kept with --audit.",
    )

    nemesis: str | None = row(
        NEMESIS, "127.0.0.1:1987", address, "HOST:PORT", "Address of the WebSocket listener of the NemesisDB API."
    )
    nemesis_tls: bool = row(
        NEMESIS,
        "false",
        flag,
        "flag",
        "Speak TLS on the WebSocket listener (wss://), with --tls-cert and --tls-key. Pages from https:// need it.",
    )
    nemesis_auth: str = row(
        NEMESIS,
        "local",
        one_of("local", "key", "none"),
        "local|key|none",
        "The API has no login. local: only a loopback address may be used. key: the upgrade request carries an access "
        "key (Authorization header or `key` parameter). none: anyone who reaches the port may do everything.",
    )
    nemesis_profile: str = row(
        NEMESIS,
        "session",
        one_of("session", "0.9"),
        "session|0.9",
        "Which commands a connection has whose path is neither /session nor /0.9.",
    )
    nemesis_origins: tuple[str, ...] = row(
        NEMESIS,
        "",
        words,
        "LIST",
        "Origins of the web pages that may connect, such as https://app.example.org, separated by commas.",
    )
    nemesis_save_dir: Path | None = row(
        NEMESIS,
        None,
        path,
        "DIR",
        "Where SH_SAVE writes and SH_LOAD reads; if not set, `saves` in the data directory.",
    )
    websocket_limits: WebSocketLimits = limit_rows(NEMESIS, "nemesis_", WebSocketLimits)
    nemesis_limits: NemesisLimits = limit_rows(NEMESIS, "nemesis_", NemesisLimits)

    voximplant_missing_key_code: int = row(
        VOXIMPLANT, "496", whole(1, 9_999), "code", "Error code for a key that does not exist; none is documented."
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
        "Error code for a token whose key id is unknown; 100 does not reveal to strangers which key ids exist.",
    )
    voximplant_pattern: str = row(
        VOXIMPLANT,
        "prefix",
        one_of("prefix", "namespace"),
        "prefix|namespace",
        "What the pattern `test` matches: every key that starts with it, or only `test` and keys that start with "
        "`test:`.",
    )
    voximplant_ttl_default_seconds: int = row(
        VOXIMPLANT,
        "2_592_000",
        whole(0, 10**10),
        "seconds",
        "Time to live of an item that is set without ttl and expires_at: 30 days.",
    )
    voximplant_page_default: int = row(
        VOXIMPLANT, "10", whole(1, 1_000), "count", "Number of items in a list that is requested without count."
    )
    voximplant_limits: VoximplantLimits = limit_rows(VOXIMPLANT, "voximplant_", VoximplantLimits)

    limits: Limits = limit_rows(LIMITS, "limit_", Limits)

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
        return Path(rest).expanduser() if rest else self.data_dir / DATABASE


def _rows() -> Iterator[Setting]:
    for field in dataclasses.fields(Config):
        if "row" in field.metadata:
            default, parse, help, unit, group = field.metadata["row"]
            yield Setting(field.name, default, parse, help, unit, group, (field.name,))
        else:
            yield from _rows_of_limits(field.name, *field.metadata["limits"])


def _rows_of_limits(holder: str, group: str, prefix: str, kind: type[DataclassInstance]) -> Iterator[Setting]:
    for field in dataclasses.fields(kind):
        limit: Limit = field.metadata["limit"]
        is_whole = isinstance(field.default, int)
        yield Setting(
            name=prefix + field.name,
            default=f"{field.default:_}" if is_whole else f"{field.default:g}",
            parse=whole(limit.least, limit.most) if is_whole else seconds,
            help=f"{limit.what}.",
            unit=limit.unit,
            group=group,
            place=(holder, field.name),
            limit=limit,
        )


#: All rows, in the order of `--help` and docs/settings.md.
SETTINGS: tuple[Setting, ...] = tuple(_rows())
