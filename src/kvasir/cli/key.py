"""`kvasir key …`: the access keys of an organisation."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from kvasir.cli.common import ConfigFile, Database, DataDir, EngineUrl, Where, date_text, duration_ms, located
from kvasir.cli.terminal import Json, print_json, print_table
from kvasir.errors import Invalid
from kvasir.printable import printable

app = typer.Typer(help="Create, list and revoke access keys.", no_args_is_help=True)


_Name = Annotated[str, typer.Option("--name", help="What the key is for.")]
_Role = Annotated[str, typer.Option("--role", help="owner, admin, developer (reads and writes) or viewer (reads).")]
_Stores = Annotated[
    list[str] | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help="Limit it to the store with this name or ULID; may be repeated. [default: all stores]",
    ),
]
_Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        metavar="KEY",
        help="Limit it to keys that begin with these parts: `a/b`, "
        'or a JSON array such as ["a/b", "c"] for parts that contain a slash.',
    ),
]
_ExpiresIn = Annotated[
    str | None,
    typer.Option(
        "--expires-in",
        metavar="DURATION",
        help="How long it is valid, for example 90s, 15m, 12h or 30d. [default: for ever]",
    ),
]


@app.command("create")
@located
def create(
    name: _Name,
    role: _Role,
    where: Where,
    store: _Stores = None,
    prefix: _Prefix = None,
    expires_in: _ExpiresIn = None,
    json: Json = False,
) -> None:
    """Create an access key and print it, once: only a hash of it is kept."""
    from ulid import ULID

    from kvasir.control import access_keys, stores

    secret = access_keys.new_secret()
    parts = None if prefix is None else parse_prefix(prefix)
    life = None if expires_in is None else duration_ms(expires_in)

    async def work(database: Database) -> access_keys.AccessKey:
        now = database.store.clock()
        key = access_keys.AccessKey(
            id=str(ULID.from_timestamp(now / 1_000)),
            organisation=database.operator.organisation,
            role=role,
            name=name,
            digest=access_keys.digest_of(secret),
            created_at=now,
            spaces=tuple([(await stores.find(database.store, database.operator, named)).id for named in store])
            if store
            else None,
            prefix=parts,
            expires_at=None if life is None else now + life,
        )
        await access_keys.create_key(database.engine, key)
        return key

    key = where.administer(work, act=("key.create", ""))
    if json:
        print_json(_shown(key) | {"key": secret})
    else:
        typer.echo(f"access key {key.id}, shown only this once:", err=True)
        typer.echo(secret)


@app.command("list")
@located
def list_(
    where: Where,
    json: Json = False,
) -> None:
    """List the access keys, oldest first, including expired ones. Their secrets are not kept and cannot be shown."""
    from kvasir.control import access_keys

    async def work(database: Database) -> list[access_keys.AccessKey]:
        return await access_keys.list_keys(database.engine, database.operator.organisation)

    keys = where.administer(work, writes=False)
    if json:
        print_json([_shown(key) for key in keys])
    else:
        rows = [
            (
                key.id,
                key.role,
                key.name,
                "all" if key.spaces is None else " ".join(key.spaces),
                "any" if key.prefix is None else msgspec.json.encode(key.prefix).decode(),
                date_text(key.expires_at) or "never",
            )
            for key in keys
        ]
        print_table(("ID", "ROLE", "NAME", "STORES", "PREFIX", "EXPIRES"), rows)


@app.command("revoke")
def revoke(
    id: Annotated[str, typer.Argument(help="Id of the key, as `kvasir key list` shows it.")],
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
) -> None:
    """Revoke an access key. Running servers refuse it from the next request on."""
    from kvasir.control import access_keys

    async def work(database: Database) -> access_keys.AccessKey:
        return await access_keys.revoke_key(database.engine, id)

    key = Where(data_dir, engine, config).administer(work, act=("key.revoke", id))
    typer.echo(f"revoked {key.id} ({printable(key.name)})", err=True)


def parse_prefix(text: str) -> tuple[str, ...]:
    """The parts of `a/b` or of a JSON array. Raises `Invalid`."""
    try:
        parts = msgspec.json.decode(text, type=tuple[str, ...]) if text.startswith("[") else tuple(text.split("/"))
    except msgspec.MsgspecError as error:
        raise Invalid(f"--prefix is not a JSON array of strings: {error}") from None
    if not parts or (not text.startswith("[") and "" in parts):
        raise Invalid("--prefix needs at least one part; empty parts are allowed only in a JSON array")
    return parts


def _shown(key: Any) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "organisation": key.organisation,
        "stores": key.spaces,
        "prefix": key.prefix,
        "created_at": date_text(key.created_at),
        "expires_at": date_text(key.expires_at),
    }
