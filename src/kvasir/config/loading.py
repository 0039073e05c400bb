"""Options, variables and kvasir.toml -> `Config`, checked once, at start. Nothing else reads the environment.

An option wins over a variable, a variable over the file, the file over the default. Each source gives text and one
parser a row reads it, so that all mean the same.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kvasir.config.database_url import too_long_for_postgres, wrong_database
from kvasir.config.parsers import is_loopback, split_address
from kvasir.config.table import PREFIX, SETTINGS, Config
from kvasir.config.tls import unreadable, wrong_tls
from kvasir.errors import Invalid
from kvasir.limits import Limits

#: Read from the working directory when no other file is named.
FILE = "kvasir.toml"


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


def _contradictions(config: Config) -> Iterator[tuple[str, str]]:
    yield from _wrong_listeners(config)
    if config.engine == "memory:" and config.workers > 1:
        yield "workers", "must be 1 with the engine memory:, which processes cannot share"
    if config.engine_name == "postgresql":
        yield from too_long_for_postgres(config.limits)
        if fault := wrong_database(config.engine):
            yield "engine", fault
    if config.jwks:
        if not config.jwt_issuer or not config.jwt_audience:
            yield "jwks", "needs jwt_issuer and jwt_audience, or tokens meant for other services would be accepted"
        if fault := _wrong_key_set(config.jwks):
            yield "jwks", fault


def _wrong_key_set(source: str) -> str | None:
    try:
        url = urlsplit(source)
        _ = url.port  # says so too
    except ValueError:
        return "must be an https: address or a file; this is no address that can be understood"
    if not url.netloc:
        fault = unreadable(Path(source))
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
        yield from wrong_tls(config.tls_cert, config.tls_key)
    if config.nemesis and config.nemesis_auth == "local" and not is_loopback(split_address(config.nemesis)[0]):
        yield (
            "nemesis",
            "is not a loopback address, and the API has no login: choose --nemesis-auth key (clients send an access "
            "key) or --nemesis-auth none (everyone who reaches the port may do everything)",
        )
