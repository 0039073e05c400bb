"""`kvasir session …`: the sessions of the NemesisDB API, and `kvasir store share`, which lets it open stores."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kvasir.cli.common import (
    ConfigFile,
    Database,
    DataDir,
    EngineUrl,
    Json,
    Organisation,
    Yes,
    administer,
    confirm,
    date_text,
    find_store,
    print_json,
    print_table,
)
from kvasir.control.sessions import NAME_ALIAS, TOKEN_ALIAS, attributes_of, new_token
from kvasir.errors import Conflicting, Invalid, NotFound
from kvasir.model import Space

app = typer.Typer(help="List, show and end sessions of the NemesisDB API.", no_args_is_help=True)

_Session = Annotated[str, typer.Argument(help="ULID, token, or name of a shared session.")]
_Store = Annotated[str, typer.Argument(help="Name or ULID of a store, or name of an application.")]
_Name = Annotated[str, typer.Option("--session", help="Name that SH_OPEN is given.")]


@app.command("list")
def list_(
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    organisation: Organisation = None,
    json: Json = False,
) -> None:
    """List the sessions with their number of keys, oldest first. Tokens are shown by `session show` only."""

    async def work(database: Database) -> list[tuple[Space, int]]:
        spaces = await database.store.list_spaces(database.operator, "session")
        return [(space, await database.engine.count(space.number)) for space in spaces]

    found = administer(work, data_dir, engine, config, organisation, writes=False)
    if json:
        print_json([_shown(space) | {"keys": keys} for space, keys in found])
        return
    rows = [
        (space.id, space.name, "yes" if attributes_of(space).shared else "no", str(keys), _end_of(space))
        for space, keys in found
    ]
    print_table(("ULID", "NAME", "SHARED", "KEYS", "ENDS"), rows)


@app.command("show")
def show(
    session: _Session,
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    organisation: Organisation = None,
) -> None:
    """Show a session with its token, which is all that a client needs to use it."""

    async def work(database: Database) -> tuple[Space, int]:
        space = await _find(database, session)
        return space, await database.engine.count(space.number)

    space, keys = administer(work, data_dir, engine, config, organisation, writes=False)
    print_json(_shown(space) | {"keys": keys, "token": attributes_of(space).token})


@app.command("end")
def end(
    session: _Session,
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    organisation: Organisation = None,
    yes: Yes = False,
) -> None:
    """End a session with its keys. This cannot be undone."""

    async def look(database: Database) -> tuple[Space, int]:
        space = await _find(database, session)
        return space, await database.engine.count(space.number)

    space, keys = administer(look, data_dir, engine, config, organisation, writes=False)
    confirm(f"End the session {space.name!r} ({space.id}) with {keys:,} keys?", yes=yes)

    async def work(database: Database) -> bool:
        return await database.store.end(database.operator, space)

    administer(work, data_dir, engine, config, organisation)
    typer.echo(f"ended {space.id}", err=True)


def share(
    store: _Store,
    session: _Name,
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    organisation: Organisation = None,
) -> None:
    """Let clients of the NemesisDB API open a store or an application as a shared session; print its token."""

    async def work(database: Database) -> str:
        most = database.store.limits.store_name_characters
        if not 0 < len(session) <= most:
            raise Invalid(f"a session's name has 1 to {most} characters")
        space = await _find_shareable(database, store)
        token = await _token_of(database, space) or new_token()
        aliases = [(NAME_ALIAS, "", session), (TOKEN_ALIAS, "", token)]
        altered = await database.engine.alter_space(space.id, add=aliases)
        if altered is None or altered.id != space.id:
            raise Conflicting(f"there is a shared session {session!r} already; choose another name")
        return token

    typer.echo(administer(work, data_dir, engine, config, organisation))


def unshare(
    store: _Store,
    session: _Name,
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    organisation: Organisation = None,
) -> None:
    """Take back `store share`. With the last name the token goes, too; the store stays."""

    async def work(database: Database) -> Space:
        space = await _find_shareable(database, store)
        aliases = await database.engine.aliases(space.id)
        named = [alias for alias in aliases if alias[0] == NAME_ALIAS]
        if (NAME_ALIAS, "", session) not in named:
            raise NotFound(f"{store!r} is not shared as {session!r}")
        tokens = [alias for alias in aliases if alias[0] == TOKEN_ALIAS] if len(named) == 1 else []
        await database.engine.alter_space(space.id, remove=[(NAME_ALIAS, "", session), *tokens])
        return space

    space = administer(work, data_dir, engine, config, organisation)
    typer.echo(f"{space.id} is no longer shared as {session!r}", err=True)


async def _find(database: Database, named: str) -> Space:
    for alias in ((TOKEN_ALIAS, "", named), (NAME_ALIAS, "", named)):
        space = await database.engine.resolve(alias)
        if _is_session(database, space):
            return space  # type: ignore[return-value]
    space = await database.engine.get_space(named.upper())
    if space is None or not _is_session(database, space):
        raise NotFound("there is no such session; `kvasir session list` shows them")
    return space


def _is_session(database: Database, space: Space | None) -> bool:
    return space is not None and space.kind == "session" and space.organisation == database.operator.organisation


async def _find_shareable(database: Database, named: str) -> Space:
    application = await database.engine.resolve(("application-name", database.operator.organisation, named))
    space = application or await find_store(database, named)
    if space.kind == "session":
        raise NotFound(f"{named!r} is a session; only stores and applications are shared this way")
    return space


async def _token_of(database: Database, space: Space) -> str | None:
    aliases = await database.engine.aliases(space.id)
    return next((handle for kind, _, handle in aliases if kind == TOKEN_ALIAS), None)


def _end_of(space: Space) -> str:
    if space.clear_every is not None:
        return f"cleared every {space.clear_every // 1000} s"
    return date_text(space.expires_at) or "never"


def _shown(space: Space) -> dict[str, Any]:
    return {
        "id": space.id,
        "name": space.name,
        "shared": attributes_of(space).shared,
        "created_at": date_text(space.created_at),
        "expires_at": date_text(space.expires_at),
        "clear_every_seconds": space.clear_every // 1000 if space.clear_every is not None else None,
    }
