"""Options, variables and kvasir.toml -> `Config`, checked once, at start. Nothing else reads the environment.

An option wins over a variable, a variable over the file, the file over the default. Every source gives text, and the
row's one parser reads it, so that a setting means the same wherever it is given.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kvasir.config.database_url import database_fault, too_long_for_postgres
from kvasir.config.parsers import is_loopback, split_address
from kvasir.config.table import PREFIX, SETTINGS, Config
from kvasir.config.tls import unreadable, wrong_tls
from kvasir.errors import Invalid

#: Read from the working directory if no other file is named.
FILE = "kvasir.toml"


def load(options: Mapping[str, str | None], environ: Mapping[str, str], file: Path | None = None) -> Config:
    """The settings in force, from options (by name; None: not given), variables and the file.

    Raises `Invalid` with a field for every wrong setting, named the way it was given. An empty variable counts as not
    set, and an unknown one is ignored: orchestrators set their own KVASIR_….
    """
    file = file or (Path(environ[f"{PREFIX}CONFIG"]) if environ.get(f"{PREFIX}CONFIG") else None)
    in_file, faults = _read(file)
    values: dict[tuple[str, ...], Any] = {}
    for setting in SETTINGS:
        sources = (
            (setting.option, options.get(setting.name)),
            (setting.variable, environ.get(setting.variable) or None),
            (setting.key, in_file.get(setting.key)),
        )
        for source, given in sources:
            if given is not None:
                try:
                    values[setting.place] = setting.parse(given)
                except ValueError as error:
                    faults.append((source, f"must be {error}"))
                break
    if not faults:
        config = _assemble(values)
        faults = list(_contradictions(config))
        if not faults:
            return config
    raise Invalid("\n".join(f"{source}: {fault}" for source, fault in faults), fields=tuple(faults))


def _assemble(values: Mapping[tuple[str, ...], Any]) -> Config:
    """The settings with these values, by `Setting.place`, and defaults for the rest."""
    fields: dict[str, Any] = {}
    limits: dict[str, dict[str, Any]] = defaultdict(dict)
    for (field, *limit), value in values.items():
        if limit:
            limits[field][limit[0]] = value
        else:
            fields[field] = value
    config = Config(**fields)
    changed = {field: dataclasses.replace(getattr(config, field), **given) for field, given in limits.items()}
    return dataclasses.replace(config, **changed)


def _read(file: Path | None) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The values in the file, as text by `Setting.key`, and what is wrong with it."""
    wanted = file or Path(FILE)
    if file is None and not wanted.is_file():
        return {}, []
    try:
        tables = tomllib.loads(wanted.read_text(encoding="utf-8-sig"))
    except OSError as error:
        return {}, [(str(wanted), f"cannot be read: {error.strerror}")]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, [(str(wanted), f"is not valid TOML: {error}")]
    known = {setting.key for setting in SETTINGS}
    values: dict[str, str] = {}
    faults: list[tuple[str, str]] = []
    for key, value in _flattened(tables):
        if key not in known:
            faults.append(
                (f"{wanted}: {key}", "is not a setting; `kvasir serve --help` and docs/settings.md list them all")
            )
        elif (text := _as_text(value)) is None:
            faults.append((f"{wanted}: {key}", "must be a string, a number, true, false or a list of strings"))
        else:
            values[key] = text
    return values, faults


def _flattened(tables: dict[str, Any]) -> Iterator[tuple[str, Any]]:
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
        if fault := database_fault(config.engine):
            yield "engine", fault
    if config.jwks:
        if not config.jwt_issuer or not config.jwt_audience:
            yield "jwks", "requires jwt_issuer and jwt_audience: without them, tokens for other services would be valid"
        if fault := _wrong_key_set(config.jwks):
            yield "jwks", fault


def _wrong_key_set(source: str) -> str | None:
    try:
        url = urlsplit(source)
        _ = url.port  # raises ValueError, too
    except ValueError:
        return "must be an https: URL or a file; this is not a valid URL"
    if not url.netloc:
        fault = unreadable(Path(source))
        return fault and f"{fault}; an https: URL is possible, too"
    if url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or "")):
        return None
    return "must be an https: URL; otherwise, anyone on the network path could add a key"


def _wrong_listeners(config: Config) -> Iterator[tuple[str, str]]:
    used = [address for address in (config.http, config.https, config.nemesis) if address]
    if not used:
        yield "http", "must be an address if https and nemesis are off, too: nothing would be served"
    fixed = [address for address in used if split_address(address)[1]]
    if len(set(fixed)) < len(fixed):
        yield "http", "must differ from the addresses of the other listeners"
    if config.https or config.nemesis_tls:
        yield from wrong_tls(config.tls_cert, config.tls_key)
    if config.nemesis and config.nemesis_auth == "local" and not is_loopback(split_address(config.nemesis)[0]):
        yield (
            "nemesis",
            "is not a loopback address, and the API has no login: choose --nemesis-auth key (clients send an access "
            "key) or --nemesis-auth none (anyone who reaches the port may do everything)",
        )
    if config.websocket_limits.ping_seconds >= config.websocket_limits.idle_seconds:
        yield "nemesis_ping_seconds", "must be less than nemesis_idle_seconds, or no client would ever get a ping"
