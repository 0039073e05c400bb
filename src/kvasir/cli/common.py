"""What the administrative commands share: their options, opening the database, and how they write times."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer

from kvasir.cli.terminal import confirm
from kvasir.config import loading, parsers
from kvasir.config.table import Config
from kvasir.engine import Engine
from kvasir.errors import Invalid, NotFound
from kvasir.model import Principal, Space
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
    typer.Option(
        "--organisation", metavar="ULID", help="Organisation to work on. [default: the one created at the first start]"
    ),
]

#: The last millisecond of the year 9999, the last year that RFC 3339 and Python can express.
LAST_MS = 253_402_300_799_999

_DURATIONS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Where(NamedTuple):
    """The database of a server and an organisation in it, as the options of a command name them."""

    data_dir: DataDir = None
    engine: EngineUrl = None
    config: ConfigFile = None
    organisation: Organisation = None

    def settings(self) -> Config:
        """Those of the server. Raises `Invalid`."""
        return loading.load({"data_dir": self.data_dir, "engine": self.engine}, os.environ, self.config)

    def administer(
        self, work: Callable[[Database], Awaitable[T]], *, writes: bool = True, act: tuple[str, str] | None = None
    ) -> T:
        """Do some work on the database of a server, which may be running. Raises any `KvasirError`.

        Work that writes begins the use of a copy, as the start of a server does: otherwise the next `kvasir copy` or
        `load` would remove what it writes. Read-only work (`writes=False`) does not. An incomplete copy is refused.
        `act`: what the audit file calls it, and the id of what it is done to, "" for what is made.
        """
        chosen = self.settings()
        refuse_memory(chosen, "--engine")
        if chosen.database is not None and not chosen.database.is_file():
            raise NotFound(
                f"there is no database at {chosen.database}; `kvasir serve` creates one, --data-dir says where it is"
            )
        return asyncio.run(_administer(work, chosen, self.organisation, act, writes=writes))

    def end(
        self, find: Callable[[Database], Awaitable[Space]], question: Callable[[Space, int], str], *, yes: bool
    ) -> Space:
        """End the space that `find` finds and delete what is in it, when `question` about it and its number of entries
        was answered with yes. Raises any `KvasirError`."""

        async def look(database: Database) -> tuple[Space, int]:
            space = await find(database)
            return space, await database.engine.count(space.number)

        space, entries = self.administer(look, writes=False)
        confirm(question(space, entries), yes=yes)

        async def end(database: Database) -> bool:
            return await database.store.end(database.operator, space)

        self.administer(end, act=("space.end", space.id))
        return space


def located(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which database and organisation, as its argument `where`."""
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(where=Where(*map(given.pop, Where._fields)), **given)

    listed = [each for each in own.parameters.values() if each.name != "where"]
    listed += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in get_type_hints(Where, include_extras=True).items()
    ]
    run.__signature__ = own.replace(  # type: ignore[attr-defined]  # it is where typer looks for options
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in listed]
    )
    run.__annotations__ = {each.name: each.annotation for each in listed}
    return run


class Database(NamedTuple):
    """An open database and the operator who works on it, with all rights in one organisation."""

    engine: Engine
    store: Store
    operator: Principal


async def _administer(
    work: Callable[[Database], Awaitable[T]],
    chosen: Config,
    organisation: str | None,
    act: tuple[str, str] | None,
    *,
    writes: bool,
) -> T:
    from kvasir.control import audit
    from kvasir.control.copy_mark import begin_use, refuse_incomplete
    from kvasir.control.organisation import first_organisation

    async with opened(chosen) as engine:
        # First: to whoever asks for its organisation, a database that is being filled looks empty.
        await (begin_use if writes else refuse_incomplete)(engine)
        owner = _organisation_id(organisation) if organisation else await first_organisation(engine)
        operator = Principal(owner, "owner", audit.COMMAND_LINE)
        database = Database(engine, Store(engine, chosen.limits, engine.clock), operator)
        if act is None:
            return await work(database)
        async with audit.recorded(audit.of(chosen), operator, *act) as recorded:
            result = await work(database)
            if not recorded.subject:
                of_space = getattr(result, "space", result)
                recorded.subject = getattr(result, "key_id", "") or getattr(of_space, "id", "")
        return result


@contextlib.asynccontextmanager
async def opened(chosen: Config) -> AsyncIterator[Engine]:
    """The engine that the settings name, open."""
    from kvasir.server.create_engine import create_engine

    engine = create_engine(chosen)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


def database_config(url: str | None, data_dir: str | None, file: Path | None, option: str) -> Config:
    """The settings for one database that is dealt with as a whole; `option` gave its URL. Raises `Invalid`."""
    scheme, _, path = (url or "").partition(":")
    if scheme == "sqlite" and path:
        # The folder of the file, so that no data directory is created elsewhere.
        data_dir = str(Path(path).expanduser().parent)
    chosen = loading.load({"engine": url, "data_dir": data_dir}, os.environ, file)
    refuse_memory(chosen, option)
    return chosen


def require_file(chosen: Config) -> None:
    """Raise `NotFound` if the settings name a file that is not there."""
    if chosen.database is not None and not chosen.database.is_file():
        raise NotFound(f"there is no database at {chosen.database}")


@contextlib.asynccontextmanager
async def recording(chosen: Config, act: str) -> AsyncIterator[None]:
    """Have what a command does to a whole database in the audit file of its data directory, if there is one."""
    from kvasir.control import audit

    async with audit.recorded(audit.of(chosen), Principal("", "owner", audit.COMMAND_LINE), act):
        yield


def refuse_memory(chosen: Config, option: str) -> None:
    """Raise `Invalid`, blaming an option, if the entries are kept in the memory of another process."""
    if chosen.engine_name == "memory":
        raise Invalid(f"{option}: the engine memory: exists only inside its server; no command can reach it")


def _organisation_id(text: str) -> str:
    try:
        return parsers.ulid(text)
    except ValueError as error:
        raise Invalid(f"--organisation must be {error}") from None


def duration_ms(text: str) -> int:
    """Milliseconds of "90s", "15m", "12h" or "30d". Raises `Invalid`."""
    number, unit = text[:-1], text[-1:]
    if unit not in _DURATIONS or not number.isascii() or not number.isdigit() or len(number) > 9 or int(number) == 0:
        raise Invalid(f"{text!r} is not a duration: write a whole number and s, m, h or d, for example 30d")
    milliseconds = int(number) * _DURATIONS[unit] * 1_000
    if time.time() * 1_000 + milliseconds > LAST_MS:
        raise Invalid(f"{text!r} from now is after the year 9999: choose a shorter duration, or none for no expiry")
    return milliseconds


def date_text(milliseconds: int | None) -> str | None:
    """RFC 3339 in UTC; times after the year 9999, which old keys may have, are shown as its last moment."""
    if milliseconds is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(milliseconds, LAST_MS))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
