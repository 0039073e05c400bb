"""What the administrative commands share: their options, the open database, and how they print."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import typer

from kvasir.config import loading, parsers
from kvasir.config.table import Config
from kvasir.engine import Engine
from kvasir.errors import Invalid, NotFound
from kvasir.model import Principal
from kvasir.store.store import Store

T = TypeVar("T")

DataDir = Annotated[
    str | None, typer.Option("--data-dir", metavar="DIR", help="Data directory of the server. [default: kvasir-data]")
]
EngineUrl = Annotated[
    str | None, typer.Option("--engine", metavar="URL", help="Where entries are kept, as for `kvasir serve`.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file, as for `kvasir serve`.")
]
Organisation = Annotated[
    str | None,
    typer.Option("--organisation", metavar="ULID", help="Organisation it is about. [default: that of the first start]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

#: The last millisecond of the year 9999, after which RFC 3339 and Python have no dates.
LAST_MS = 253_402_300_799_999

_DURATIONS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Database(NamedTuple):
    """An open database and who works on it: the operator, with all rights in one organisation."""

    engine: Engine
    store: Store
    operator: Principal


def administer(
    work: Callable[[Database], Awaitable[T]],
    data_dir: str | None,
    engine: str | None,
    config_file: Path | None,
    organisation: str | None = None,
    *,
    writes: bool = True,
) -> T:
    """Do some work on the database of a server, which may be running. Raises any `KvasirError`.

    Unless it only looks (`writes=False`), it makes a copy a database of its own, as the start of a server does: what it
    writes would be removed by the next `kvasir copy` or `load`. A copy that is not complete is refused.
    """
    chosen = loading.load({"data_dir": data_dir, "engine": engine}, os.environ, config_file)
    if chosen.engine_name == "memory":
        raise Invalid("the engine memory: lives inside its server; nothing else can reach it")
    if chosen.database is not None and not chosen.database.is_file():
        raise NotFound(
            f"there is no database at {chosen.database}; `kvasir serve` makes it, --data-dir says where it is"
        )
    return asyncio.run(_administer(work, chosen, organisation, writes=writes))


async def _administer(
    work: Callable[[Database], Awaitable[T]], chosen: Config, organisation: str | None, *, writes: bool
) -> T:
    from kvasir.control.copy_mark import begin_use
    from kvasir.control.organisation import first_organisation
    from kvasir.server.create_engine import create_engine

    engine = create_engine(chosen)
    await engine.open()
    try:
        if writes:
            await begin_use(engine)
        owner = _ulid(organisation) if organisation else await first_organisation(engine)
        operator = Principal(owner, "owner", "command line")
        return await work(Database(engine, Store(engine, chosen.limits, engine.clock), operator))
    finally:
        await engine.close()


def _ulid(given: str) -> str:
    try:
        return parsers.ulid(given)
    except ValueError as error:
        raise Invalid(f"--organisation must be {error}") from None


def duration_ms(given: str) -> int:
    """Milliseconds of "90s", "15m", "12h" or "30d". Raises `Invalid`."""
    number, unit = given[:-1], given[-1:]
    if unit not in _DURATIONS or not number.isascii() or not number.isdigit() or len(number) > 9 or int(number) == 0:
        raise Invalid(f"{given!r} is no duration: write a whole number and s, m, h or d, for example 30d")
    milliseconds = int(number) * _DURATIONS[unit] * 1_000
    if time.time() * 1_000 + milliseconds > LAST_MS:
        raise Invalid(
            f"{given!r} from now is after the year 9999, which no date can say: choose less, or no end at all"
        )
    return milliseconds


def date_text(milliseconds: int | None) -> str | None:
    """RFC 3339 in UTC; a time after its last year, which a key of before has perhaps, is shown as its last moment."""
    if milliseconds is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(milliseconds, LAST_MS))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_texts(arguments: Sequence[str]) -> None:
    """Refuse bytes that are no UTF-8, which could be neither stored nor shown. Raises `Invalid`."""
    for place, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            # Not shown: it may be a secret, and a terminal cannot show it as it is.
            raise Invalid(f"argument {place} is no UTF-8 text") from None


def print_json(value: Any) -> None:
    """One JSON text on standard output."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for line in [head, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; ends the command if the answer is no. Raises `Invalid`."""
    if not yes:
        if not sys.stdin.isatty():
            raise Invalid("nobody can be asked here: add --yes to do it without asking")
        typer.confirm(question, abort=True, err=True)
