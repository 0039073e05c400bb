"""`kvasir application …`: the applications of the Voximplant API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kvasir.cli.common import Database, Where, date_text, located
from kvasir.cli.terminal import Json, Yes, print_json, print_table
from kvasir.model import Space

app = typer.Typer(help="Create, list and delete applications of the Voximplant API.", no_args_is_help=True)


@app.command("create")
@located
def create(
    name: Annotated[str, typer.Option("--name", help="Unique name: a letter, then up to 64 letters, digits, - or _.")],
    where: Where,
    id: Annotated[
        int | None, typer.Option("--id", metavar="N", help="Its application_id. [default: one more than the highest]")
    ] = None,
    json: Json = False,
) -> None:
    """Create an application and print its application_id."""
    from kvasir.control import applications

    async def work(database: Database) -> applications.Application:
        return await applications.create(database.store, database.operator, name, id)

    made = where.administer(work, act=("space.create", ""))
    if json:
        print_json(_shown(made))
    else:
        typer.echo(str(made.application_id))


@app.command("list")
@located
def list_(
    where: Where,
    json: Json = False,
) -> None:
    """List the applications, oldest first."""
    from kvasir.control import applications

    async def work(database: Database) -> list[tuple[applications.Application, int]]:
        found = await applications.list_all(database.store, database.operator)
        return [(application, await database.engine.count(application.space.number)) for application in found]

    found = where.administer(work, writes=False)
    if json:
        print_json([_shown(application) | {"entries": entries} for application, entries in found])
    else:
        rows = [
            (
                str(each.application_id),
                each.space.name,
                each.space.id,
                str(entries),
                str(date_text(each.space.created_at)),
            )
            for each, entries in found
        ]
        print_table(("ID", "NAME", "ULID", "ENTRIES", "CREATED"), rows)


@app.command("delete")
@located
def delete(
    application: Annotated[str, typer.Argument(help="Its application_id or name.")],
    where: Where,
    yes: Yes = False,
) -> None:
    """Delete an application and everything in it. This cannot be undone."""
    from kvasir.control import applications

    async def find(database: Database) -> Space:
        return (await applications.find(database.store, database.operator, application)).space

    def question(space: Space, entries: int) -> str:
        return f"Delete the application {space.name!r} with {entries:,} entries?"

    space = where.end(find, question, yes=yes)
    typer.echo(f"deleted {applications.of_space(space).application_id} ({space.name})", err=True)


def _shown(application: Any) -> dict[str, Any]:
    return {
        "application_id": application.application_id,
        "application_name": application.space.name,
        "id": application.space.id,
        "organisation": application.space.organisation,
        "created_at": date_text(application.space.created_at),
    }
