"""`kvasir service-account …`: the service accounts that may use the Voximplant API."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from kvasir.cli.common import ConfigFile, Database, DataDir, EngineUrl, Where, date_text, located
from kvasir.cli.terminal import Json, print_json, print_table

app = typer.Typer(help="Create, list and revoke service accounts of the Voximplant API.", no_args_is_help=True)


@app.command("create")
@located
def create(
    role: Annotated[
        list[str],
        typer.Option(
            "--role",
            help="Owner, Admin or Developer (which read and write), KV Reader (which reads), or another of "
            "Voximplant's roles, which allow nothing here; may be repeated.",
        ),
    ],
    where: Where,
    application: Annotated[
        list[str] | None,
        typer.Option(
            "--application",
            metavar="APPLICATION",
            help="Limit it to the application with this id or name; may be repeated. [default: all applications]",
        ),
    ] = None,
    description: Annotated[str, typer.Option("--description", help="What the account is for.")] = "",
    json: Json = False,  # noqa: ARG001  # the credentials are JSON anyway, but scripts may ask for it
) -> None:
    """Create a service account and print its credentials.json, once: the private key is not kept."""
    from kvasir.control import applications, service_accounts

    async def work(database: Database) -> service_accounts.Credentials:
        scope = None
        if application:
            found = [await applications.find(database.store, database.operator, named) for named in application]
            scope = [each.space.id for each in found]
        return await service_accounts.create(
            database.engine, database.store.clock, database.operator.organisation, role, scope, description
        )

    credentials = where.administer(work, act=("service-account.create", ""))
    print_json(credentials)
    typer.echo(f"service account {credentials.key_id}, shown only this once: save it as credentials.json", err=True)


@app.command("list")
@located
def list_(
    where: Where,
    json: Json = False,
) -> None:
    """List the service accounts, oldest first. Their private keys are not kept and cannot be shown."""
    from kvasir.control import service_accounts

    async def work(database: Database) -> list[service_accounts.ServiceAccount]:
        return await service_accounts.accounts(database.engine, database.operator.organisation)

    accounts = where.administer(work, writes=False)
    if json:
        print_json([_shown(account) for account in accounts])
    else:
        rows = [
            (
                account.key_id,
                str(account.account_id),
                ", ".join(account.roles),
                "all" if account.applications is None else " ".join(account.applications),
                account.description,
            )
            for account in accounts
        ]
        print_table(("KEY ID", "ACCOUNT", "ROLES", "APPLICATIONS", "DESCRIPTION"), rows)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="Key id of the account, as `kvasir service-account list` shows it.")],
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
) -> None:
    """Revoke a service account. Running servers refuse its tokens from the next request on."""
    from kvasir.control import service_accounts

    async def work(database: Database) -> None:
        await service_accounts.revoke(database.engine, key_id)

    Where(data_dir, engine, config).administer(work, act=("service-account.revoke", key_id))
    typer.echo(f"revoked {key_id}", err=True)


def _shown(account: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(account) | {"created_at": date_text(account.created_at)}
