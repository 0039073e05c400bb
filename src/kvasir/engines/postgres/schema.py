"""The tables and how they came about. Migrations are append-only: number N brings a database from version N to N + 1.

Every data table is keyed by its space first, so that Citus can distribute the tables over machines by space: no
foreign keys, sequences or triggers. `@` stands for the schema: functions name it, wherever and for whomever they run.

Migrations hold tables only. The functions are compared at every start, and renewed if the database has others:

* After a migration all are dropped and created, since no server of an older version may go on.
* Otherwise they are replaced and none is dropped, since other servers may be calling them. `create or replace` keeps
  the identity by which prepared statements, and Citus, know a function. So the name, arguments and result of a function
  change only together with a migration.
* Functions of a higher `REVISION` are left alone. When servers of two versions start in turns on one database, as in a
  rolling upgrade, the newer functions stay; the older servers work with them, as they must while they are running.
* Functions of the same revision whose text differs are replaced: they are a developer's, or the schema was renamed,
  whose name is part of the text.
"""

from __future__ import annotations

import hashlib
from typing import Any

from kvasir.engines.postgres import changelog, cluster, loading, shards, sweeping, write_function
from kvasir.engines.postgres.functions import FUNCTIONS, MOVE_EPOCH, REVISION, SET_FUNCTION, SET_SPACES_FUNCTION
from kvasir.engines.postgres.pool import Pool
from kvasir.errors import Unavailable

#: While a migration waits for a table, everyone else waits behind it: at most this long.
LOCK_MILLISECONDS = 3_000

TABLES = """
    -- One row a space. Whoever holds its lock is the space's only writer until his commit.
    create table @kvasir_head (
        space bigint primary key,
        last bigint not null,   -- the last sequence or versionstamp handed out; of the system space: the epoch
        latest bigint not null, -- the latest created_at given
        expires_at bigint,
        ended boolean not null default false -- its entries await the sweep
    ) with (fillfactor = 50);
    create index kvasir_head_ended on @kvasir_head (space) where ended;

    create table @kvasir_entry (
        space bigint not null,
        key bytea not null,
        value bytea not null,
        versionstamp bigint not null,
        sequence bigint not null,
        created_at bigint not null,
        expires_at bigint,
        refresh bigint,
        metadata bytea,
        primary key (space, key)
    ) with (fillfactor = 90);
    create unique index kvasir_entry_order on @kvasir_entry (space, sequence);
    create index kvasir_entry_expiry on @kvasir_entry (expires_at) where expires_at is not null;

    -- Texts that people choose are bytes, since the type text has no room for U+0000.
    create table @kvasir_space (
        number bigint primary key,
        id text collate "C" not null unique,
        organisation text collate "C" not null,
        kind text collate "C" not null,
        name bytea not null,
        created_at bigint not null,
        expires_at bigint,
        clear_every bigint,
        attributes bytea not null
    );
    create index kvasir_space_expiry on @kvasir_space (expires_at) where expires_at is not null;

    create table @kvasir_door (
        kind text collate "C" not null,
        organisation text collate "C" not null,
        handle bytea not null,
        space bigint not null,
        primary key (kind, organisation, handle)
    );
    create index kvasir_door_space on @kvasir_door (space);

    insert into @kvasir_head (space, last, latest) values (1, 1, 0);
"""

#: Entries whose sequence says an earlier instant than their `created_at`: loaded from another database, or from before
#: the second migration. Listings by age look here for them; most databases have none.
LAGGING = """
    create index kvasir_entry_lagging on @kvasir_entry (space, created_at, sequence)
        where created_at > sequence >> 20;
"""

ALIASES = """
    alter table @kvasir_door rename to kvasir_alias;
    alter index @kvasir_door_space rename to kvasir_alias_space;
    alter index @kvasir_door_pkey rename to kvasir_alias_pkey;
"""

#: What writes have changed, while somebody watches (see `changelog`).
CHANGES = """
    alter table @kvasir_head
        add column previous bigint,      -- what `last` was before the last write
        add column watched_until bigint; -- writes are logged until then
    create table @kvasir_change (
        space bigint not null,
        upto bigint not null,       -- the last number handed out when the transaction ended
        since bigint not null,      -- and when it began
        made_at bigint not null,
        kinds smallint[] not null,
        stamps bigint[] not null,
        keys bytea[] not null,
        ends bytea[],               -- of ranges; null where there is none
        primary key (space, upto)
    );
    create index kvasir_change_age on @kvasir_change (made_at);
"""

#: The tables of the system space where the database is spread over machines (see `cluster`); empty elsewhere.
SYSTEM = "".join(
    f"create table @kvasir_system_{name} (like @kvasir_{name} including all);\n" for name in ("head", "entry", "change")
)

MIGRATIONS: tuple[str, ...] = (TABLES, LAGGING, ALIASES, CHANGES, SYSTEM)

#: What servers of earlier versions call with every request: those before version 3, and of version 3. They take 57P03,
#: the state of a database that is starting or stopping, for "unavailable".
RETIRED = "".join(
    f"""
    create or replace function @{name}() returns bigint language plpgsql volatile as $$
    begin
        raise exception 'this database belongs to a newer Kvasir: stop this server and start the newer one'
            using errcode = '57P03';
    end $$;
"""
    for name in ("kvasir_now", "kvasir_clock")
)

_OF_SPACE = write_function.FUNCTION + loading.FUNCTION + changelog.FUNCTION
#: Every function that a database has at this version.
ALL_FUNCTIONS = FUNCTIONS + _OF_SPACE + sweeping.FUNCTION + RETIRED
#: Says which functions a database has: their revision and a hash of their text.
MARK = """
    create or replace function @kvasir_functions() returns text language sql immutable as $$ select '{mark}' $$;
"""
INSTALLED = "select substring(prosrc from '''(.*)''') from pg_proc where oid = to_regprocedure($1)"

#: Every function of Kvasir in the schema, in the form that `drop function` takes.
OF_KVASIR = """
    select oid::regprocedure::text from pg_proc
    where pronamespace = quote_ident(current_schema())::regnamespace and proname like 'kvasir\\_%'"""

VERSION_TABLE = "create table if not exists @kvasir_schema (version integer primary key)"


async def migrate(pool: Pool, now: int | None) -> None:
    """Bring the schema that `search_path` leads to up to date, and distribute its tables where there is Citus.

    Idempotent; of two that do it at once, one waits for the other. `now`: Unix milliseconds, None: the database's.
    Raises `Unavailable` for a database that is newer than this program, and whatever asyncpg raises.
    """
    async with pool.dedicated() as connection:
        schema = await _schema(connection)
        if not pool.spread:
            await _migrate(connection, schema, now, spread=False)
            return
        cluster.check_schema(schema)
        if await _is_current(connection, schema):
            return
    # Only the coordinator can change tables.
    async with pool.coordinator() as connection:
        await _migrate(connection, schema, now, spread=True)


async def _schema(connection: Any) -> str:
    """The name of the schema, as in SQL."""
    schema = await connection.fetchval("select quote_ident(current_schema())")
    if schema is None:
        raise Unavailable("the search_path of this PostgreSQL user leads to no schema; create it first")
    if "'" in schema or "$$" in schema:
        # The functions have it inside quoted texts.
        raise Unavailable(f"the schema {schema} cannot be used: choose one without ' and $$ in its name")
    return str(schema)


async def _is_current(connection: Any, schema: str) -> bool:
    """Whether a database that is spread over machines is as this program wants it, as far as one node knows."""
    if await connection.fetchval("select to_regclass($1)", f"{schema}.kvasir_schema") is None:
        return False
    if await connection.fetchval("select coalesce(max(version), 0) from kvasir_schema") != len(MIGRATIONS):
        return False
    if await _is_newer(connection, schema, _mark(schema, spread=True)) is None:
        return False
    return await cluster.is_distributed(connection, schema) and await shards.all_have_functions(connection, schema)


async def _migrate(connection: Any, schema: str, now: int | None, *, spread: bool) -> None:
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock(hashtextextended('kvasir_schema', 0))")
        await connection.execute(f"set local lock_timeout = {LOCK_MILLISECONDS}")
        if spread:
            await connection.execute(cluster.SEQUENTIALLY)
            await connection.execute(cluster.SEE_ALL.replace("set ", "set local "))
        await connection.execute(VERSION_TABLE.replace("@", f"{schema}."))
        version = await connection.fetchval("select coalesce(max(version), 0) from kvasir_schema")
        if version > len(MIGRATIONS):
            raise Unavailable(
                f"the database has schema version {version}, made by a newer Kvasir;"
                f" this one knows up to {len(MIGRATIONS)}: run the newer one"
            )
        for number in range(version, len(MIGRATIONS)):
            await _execute(connection, schema, MIGRATIONS[number])
            await connection.execute("insert into kvasir_schema values ($1)", number + 1)
        renewed = await _renew_functions(connection, schema, migrated=version < len(MIGRATIONS), spread=spread)
        if version == 0:
            # Even if the clock is set back, nothing in it may seem older than the database itself.
            started = now if now is not None else await connection.fetchval("select kvasir_time()")
            await connection.execute("update kvasir_head set latest = $1", started)
        if spread:
            await cluster.distribute_tables(connection, schema)
            await shards.make_functions(connection, schema, renew=renewed)
            await cluster.distribute_functions(connection, schema)


async def _execute(connection: Any, schema: str, text: str) -> None:
    """Run statements one by one: Citus takes no two of them in one text."""
    for statement in cluster.statements(text):
        await connection.execute(statement.replace("@", f"{schema}."))


def _functions(*, spread: bool) -> str:
    if not spread:
        return ALL_FUNCTIONS
    text = ALL_FUNCTIONS.replace(MOVE_EPOCH, cluster.of_system_space(MOVE_EPOCH))
    for plain, own in (
        (SET_FUNCTION, cluster.SET_FUNCTION),
        (write_function.FUNCTION, write_function.FUNCTION),
        (loading.FUNCTION, loading.FUNCTION),
    ):
        text = text.replace(plain, shards.direct(own))
    text = text.replace(SET_SPACES_FUNCTION, shards.SET_SPACES)
    return shards.HERE + text + cluster.of_system_space(_OF_SPACE)


def _mark(schema: str, *, spread: bool) -> str:
    text = _functions(spread=spread).replace("@", f"{schema}.") + "".join(
        (*shards.FUNCTIONS, shards.SET_AT, shards.GET) if spread else ()
    )
    return f"{REVISION} {hashlib.sha256(text.encode()).hexdigest()}"


async def _is_newer(connection: Any, schema: str, mark: str) -> bool | None:
    """Whether the database has functions of a higher revision; false: just these, None: others."""
    installed = await connection.fetchval(INSTALLED, f"{schema}.kvasir_functions()")
    if installed and int(installed.partition(" ")[0]) > REVISION:
        return True
    return False if installed == mark else None


async def _renew_functions(connection: Any, schema: str, *, migrated: bool, spread: bool) -> bool:
    """Put this program's functions in place if the database has others (see the top of this module). Whether it had."""
    mark = _mark(schema, spread=spread)
    if migrated:
        for row in await connection.fetch(OF_KVASIR):
            await connection.execute(f"drop function {row[0]}")
    elif await _is_newer(connection, schema, mark) is not None:
        return False
    await _execute(connection, schema, _functions(spread=spread) + MARK.format(mark=mark))
    return True
