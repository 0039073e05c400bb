"""`kvasir session …`: the sessions of the NemesisDB API; and `kvasir store share`, which makes a store one of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kvasir.cli.common import Database, Where, date_text, located
from kvasir.cli.terminal import Json, Yes, print_json, print_table
from kvasir.control import applications, sessions, stores
from kvasir.control.sessions import attributes_of
from kvasir.errors import NotFound
from kvasir.model import Space

app = typer.Typer(help="List, show and end sessions of the NemesisDB API.", no_args_is_help=True)

_Session = Annotated[str, typer.Argument(help="ULID, token, or name of a shared session.")]
_Store = Annotated[str, typer.Argument(help="Name or ULID of a store, or name of an application.")]
_Name = Annotated[str, typer.Option("--session", help="Name under which SH_OPEN finds it.")]


@app.command("list")
@located
def list_(
    where: Where,
    json: Json = False,
) -> None:
    """List the sessions with their numbers of keys, oldest first. Only `session show` shows tokens."""

    async def work(database: Database) -> list[tuple[Space, int]]:
        spaces = await database.store.list_spaces(database.operator, "session")
        return [(space, await database.engine.count(space.number)) for space in spaces]

    found = where.administer(work, writes=False)
    if json:
        print_json([_shown(space) | {"keys": keys} for space, keys in found])
        return
    rows = [
        (space.id, space.name, "yes" if attributes_of(space).shared else "no", str(keys), _end_of(space))
        for space, keys in found
    ]
    print_table(("ULID", "NAME", "SHARED", "KEYS", "ENDS"), rows)


@app.command("show")
@located
def show(
    session: _Session,
    where: Where,
) -> None:
    """Show a session with its token, which is all a client needs in order to use it."""

    async def work(database: Database) -> tuple[Space, int]:
        space = await sessions.find(database.engine, database.operator.organisation, session)
        return space, await database.engine.count(space.number)

    space, keys = where.administer(work, writes=False)
    print_json(_shown(space) | {"keys": keys, "token": attributes_of(space).token})


@app.command("end")
@located
def end(
    session: _Session,
    where: Where,
    yes: Yes = False,
) -> None:
    """End a session and delete its keys. This cannot be undone."""

    async def find(database: Database) -> Space:
        return await sessions.find(database.engine, database.operator.organisation, session)

    def question(space: Space, keys: int) -> str:
        return f"End the session {space.name!r} ({space.id}) with {keys:,} keys?"

    space = where.end(find, question, yes=yes)
    typer.echo(f"ended {space.id}", err=True)


@located
def share(
    store: _Store,
    session: _Name,
    where: Where,
) -> None:
    """Let clients of the NemesisDB API open a store or an application as a shared session, and print its token."""

    space = _find_shareable(where, store)

    async def work(database: Database) -> str:
        return await sessions.share(database.engine, database.store.limits, space, session)

    typer.echo(where.administer(work, act=("space.share", space.id)))


@located
def unshare(
    store: _Store,
    session: _Name,
    where: Where,
) -> None:
    """Undo `store share`. The last name takes the token with it; the store stays."""

    space = _find_shareable(where, store)

    async def work(database: Database) -> None:
        await sessions.unshare(database.engine, space, session)

    where.administer(work, act=("space.unshare", space.id))
    typer.echo(f"{space.id} is no longer shared as {session!r}", err=True)


def _find_shareable(where: Where, name_or_id: str) -> Space:
    async def find(database: Database) -> Space:
        application = await database.engine.resolve(applications.by_name(database.operator.organisation, name_or_id))
        space = application or await stores.find(database.store, database.operator, name_or_id)
        if space.kind == "session":
            raise NotFound(f"{name_or_id!r} is a session; only stores and applications can be shared")
        return space

    return where.administer(find, writes=False)


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
