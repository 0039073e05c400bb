"""`kvasir store …`: the stores of an organisation."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kvasir.cli import session
from kvasir.cli.common import Database, Where, date_text, located
from kvasir.cli.terminal import Json, Yes, print_json, print_table
from kvasir.control import stores
from kvasir.errors import NotFound
from kvasir.model import Space

app = typer.Typer(help="Create, list, delete and share stores.", no_args_is_help=True)
app.command("share")(session.share)
app.command("unshare")(session.unshare)


@app.command("create")
@located
def create(
    name: Annotated[str, typer.Argument(help="Name, unique in the organisation.")],
    where: Where,
    json: Json = False,
) -> None:
    """Create a store, unless there is one with this name already, and print its ULID."""

    async def work(database: Database) -> Space:
        return await stores.create(database.store, database.operator, name)

    space = where.administer(work, act=("space.create", ""))
    if json:
        print_json(_shown(space))
    else:
        typer.echo(space.id)


@app.command("list")
@located
def list_(
    where: Where,
    json: Json = False,
) -> None:
    """List the stores with their numbers of entries, oldest first."""

    async def work(database: Database) -> list[tuple[Space, int]]:
        spaces = await database.store.list_spaces(database.operator, "store")
        return [(space, await database.engine.count(space.number)) for space in spaces]

    found = where.administer(work, writes=False)
    if json:
        print_json([_shown(space) | {"entries": entries} for space, entries in found])
    else:
        rows = [(space.id, space.name, str(entries), str(date_text(space.created_at))) for space, entries in found]
        print_table(("ULID", "NAME", "ENTRIES", "CREATED"), rows)


@app.command("delete")
@located
def delete(
    store: Annotated[str, typer.Argument(help="Name or ULID of the store.")],
    where: Where,
    yes: Yes = False,
) -> None:
    """Delete a store and everything in it. This cannot be undone."""

    async def find(database: Database) -> Space:
        space = await stores.find(database.store, database.operator, store)
        if space.kind != "store":
            ends = {"application": "`kvasir application delete` deletes it", "session": "`kvasir session end` ends it"}
            raise NotFound(f"{store!r} is no store but the {space.kind} {space.name!r}; {ends[space.kind]}")
        return space

    def question(space: Space, entries: int) -> str:
        return f"Delete the store {space.name!r} ({space.id}) with {entries:,} entries?"

    space = where.end(find, question, yes=yes)
    typer.echo(f"deleted {space.id}", err=True)


def _shown(space: Space) -> dict[str, Any]:
    return {
        "id": space.id,
        "name": space.name,
        "organisation": space.organisation,
        "created_at": date_text(space.created_at),
    }
