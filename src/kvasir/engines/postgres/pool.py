"""The connections of this process: a bounded pool that mends itself, and what a failure on them means.

Behind PgBouncer in transaction mode every transaction may meet another server process. So nothing is ever kept in a
session: no SET, no session lock, no LISTEN, and, behind PgBouncer, no prepared statement either.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import asyncpg

from kvasir.engines.postgres import cluster, failures
from kvasir.engines.postgres.address import Host, connect_arguments, hosts
from kvasir.engines.postgres.connection import CANNOT_CONNECT, Connection
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.limits import refused
from kvasir.model import SYSTEM_SPACE

T = TypeVar("T")

#: How long a request waits for a free connection.
BUSY_SECONDS = 10.0
#: How long one statement may take before the server counts as gone.
COMMAND_SECONDS = 30.0
#: How long to wait before the next attempt after a failure to connect: at first, and at most.
BACK_OFF_SECONDS = (0.1, 2.0)

#: What the functions rely on; the planner is to believe that tables are large (see `functions`).
SESSION = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "default_transaction_isolation": "read committed",
}

ABOUT = f"""
    select pg_backend_pid() as pid, pg_is_in_recovery() as recovering, current_setting('fsync') = 'on' as fsync,
        current_setting('server_version') as version, current_setting('server_version_num')::int as number,
        {cluster.HAS_CITUS} as spread"""

OLDEST_SERVER = 130_000


class Pool:
    """Connections to one database, at most `max_connections` at a time. `parameters`: see `address`."""

    #: What it leads to, in words
    what = "the database"

    def __init__(self, parameters: Mapping[str, str], *, max_connections: int, durable: bool) -> None:
        self._arguments = connect_arguments(parameters)
        #: In the order in which to try them.
        self._hosts = hosts(parameters)
        self._max_connections = max_connections
        self._durable = durable
        #: Whether a pooler in between lends server processes by the transaction.
        self.behind_pgbouncer = False
        #: Whether Citus spreads the database over machines (see `cluster`)
        self.spread = False
        self._session = SESSION
        self._pool: Any = None
        self._failures = 0
        self._back_off_until = 0.0

    # -- its life -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Look at the server once, then be ready to connect. Raises `Unavailable`."""
        async with self.dedicated() as connection:
            async with connection.transaction():
                about = await connection.fetchrow(ABOUT)
            # PgBouncer makes up the process id that it shows to its clients.
            self.behind_pgbouncer = about["pid"] != connection.get_server_pid()
            self.spread = about["spread"]
            self._session = SESSION | cluster.SESSION if self.spread else SESSION
        if about["recovering"]:
            raise Unavailable("the database is a read-only standby; name its primary too, in one URL with both hosts")
        if about["number"] < OLDEST_SERVER:
            raise Unavailable(f"the database is PostgreSQL {about['version']}; Kvasir needs 13 or newer")
        if self._durable and not about["fsync"]:
            raise Unavailable(
                "the database runs with fsync=off and would lose acknowledged writes in a power loss:"
                " turn it on, or choose --durability relaxed"
            )
        await self._make_pool()

    async def _make_pool(self) -> None:
        arguments = dict(self._arguments)
        if self.behind_pgbouncer:
            arguments["statement_cache_size"] = 0
        else:
            arguments["server_settings"] = arguments["server_settings"] | self._session
        self._pool = await asyncpg.create_pool(
            **arguments,
            connect=self._connect,
            connection_class=Connection,
            min_size=0,
            max_size=self._max_connections,
            max_queries=1 << 40,
            max_inactive_connection_lifetime=300.0,
            command_timeout=COMMAND_SECONDS,
            init=self._check,
            reset=_no_reset,
        )

    async def close(self) -> None:
        """Close all connections, those in use when they are free."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    def connections(self) -> tuple[int, int, int]:
        """How many are in use, how many idle, and how many there may be."""
        if self._pool is None:
            return 0, 0, self._max_connections
        idle = self._pool.get_idle_size()
        return self._pool.get_size() - idle, idle, self._max_connections

    @contextlib.asynccontextmanager
    async def dedicated(self) -> AsyncIterator[Any]:
        """A connection outside the pool, without prepared statements and without a time limit. Raises `Unavailable`."""
        try:
            connection = await self._connect(**self._arguments, connection_class=Connection, statement_cache_size=0)
        except CANNOT_CONNECT as error:
            raise failures.failed_connecting(error) from None
        try:
            await self._prepare(connection)
            yield connection
        finally:
            await connection.close(timeout=BUSY_SECONDS)

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[Any]:
        """`dedicated`, for what changes nothing: whatever fails is a `KvasirError`."""
        try:
            async with self.dedicated() as connection:
                yield connection
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise failures.failed_reading(error) from None

    async def _prepare(self, connection: Any) -> None:
        if self.spread and not self.behind_pgbouncer:
            await connection.execute(cluster.SEE_ALL)

    @contextlib.asynccontextmanager
    async def coordinator(self) -> AsyncIterator[Any]:
        """`dedicated`, to the node of the cluster that can change its tables."""
        async with self.dedicated() as connection:
            name, port, is_here = await connection.fetchrow(cluster.COORDINATOR) or (None, None, True)
            if is_here:
                yield connection
                return
        options = self._arguments | {"connection_class": Connection, "statement_cache_size": 0}
        try:
            connection = await asyncpg.connect(host=name, port=port, **options)
        except CANNOT_CONNECT as error:
            raise Unavailable(
                f"the coordinator of the cluster, {name}:{port}, cannot be reached; nothing was written, try again"
            ) from error
        try:
            await self._prepare(connection)
            yield connection
        finally:
            await connection.close(timeout=BUSY_SECONDS)

    async def _connect(self, *__: Any, **options: Any) -> Any:
        """A connection to a host that takes writes. A host that fails becomes the last one to try."""
        failure: Exception = OSError("the hosts of the database change places")
        for _ in range(len(self._hosts) + 1):
            host = self._hosts[0]
            try:
                connection = await asyncpg.connect(host=host.name, port=host.port, **options)
            except CANNOT_CONNECT as error:
                failure = error
                if self._hosts[0] == host and len(self._hosts) > 1:
                    await self._pass_over(host)
                continue
            if self._hosts[0] == host:
                return connection
            # This host hung while others found its successor, and knows nothing of what has happened since.
            connection.terminate()
        raise failure

    async def _pass_over(self, host: Host) -> None:
        self._hosts = [*self._hosts[1:], host]
        if self._pool is not None:
            # Connections must not lead to different hosts for longer than a request.
            await self._pool.expire_connections()

    async def _check(self, connection: Any) -> None:
        # A former primary that came back as a standby would answer with old data. Since version 14, servers tell what
        # they are to those who connect.
        settings = connection.get_settings()
        if hasattr(settings, "in_hot_standby") and not self.behind_pgbouncer:
            recovering = settings.in_hot_standby == "on"
        else:
            async with connection.transaction():
                recovering = await connection.fetchval("select pg_is_in_recovery()")
        if recovering:
            raise asyncpg.exceptions.TargetServerAttributeNotMatched("in recovery")

    @contextlib.asynccontextmanager
    async def _acquire(self) -> AsyncIterator[Any]:
        """A connection of the pool. Raises `Unavailable` if none is free in time."""
        pool = self._pool
        if pool is None:
            raise Unavailable("the server is stopping; nothing was written")
        idle = pool.get_idle_size()
        if not idle and time.monotonic() < self._back_off_until:
            raise self._refused()
        try:
            connection = await pool.acquire(timeout=None if idle else BUSY_SECONDS)
        except TimeoutError as error:
            if pool.get_size() - pool.get_idle_size() >= self._max_connections:
                refused("postgres_connections")
                raise Unavailable("all connections to the database are busy; nothing was written, try again") from None
            raise self._unreachable(error) from None
        except CANNOT_CONNECT as error:
            raise self._unreachable(error) from None
        if self._failures:
            self._failures = 0
            failures.log.warning("%s can be reached again", self.what)
        try:
            yield connection
        except BaseException as error:
            if failures.connection_lost(error) or self.behind_pgbouncer:
                _drop(connection)
            if failures.connection_lost(error):
                # What ended this connection has often ended them all: the others are replaced once they are free.
                await pool.expire_connections()
            raise
        finally:
            await pool.release(connection)

    def _refused(self) -> Unavailable:
        """The failure as long as no new attempt to connect is made."""
        return Unavailable("the database cannot be reached; nothing was written, try again")

    def _failure(self, error: Exception) -> Unavailable:
        return failures.failed_connecting(error)

    def _unreachable(self, error: Exception) -> Unavailable:
        failure = self._failure(error)
        if not self._failures:
            failures.log.error("%s", failure.message)
        first, longest = BACK_OFF_SECONDS
        delay = min(longest, first * 2**self._failures) * random.uniform(0.5, 1.0)  # noqa: S311
        self._back_off_until = time.monotonic() + delay
        self._failures = min(self._failures + 1, 16)
        return failure

    # -- statements ---------------------------------------------------------------------------------------

    @property
    def _set_local(self) -> str:
        """The settings of the session for one transaction."""
        settings = {name: value for name, value in self._session.items() if name != "default_transaction_isolation"}
        return "".join(f"set local {name} = {value}; " for name, value in settings.items())

    @property
    def _begin(self) -> str:
        return f"begin isolation level read committed; {self._set_local}"

    def text(self, sql: str, space: int) -> str:
        """A statement about one space, as this database has it for that space."""
        return cluster.of_system_space(sql) if self.spread and space == SYSTEM_SPACE else sql

    def least_sets(self, space: int) -> int:
        """From how many plain Sets on `kvasir_set` is the better function for a space."""
        return cluster.NEVER if self.spread and space == SYSTEM_SPACE else 1

    async def fetch_of(self, sql: str, space: int, *values: Any) -> list[Any]:
        """`fetch` for a statement about one space, the first of its values."""
        return await self.fetch(self.text(sql, space), space, *values)

    async def write_of(self, sql: str, space: int, *values: Any) -> list[Any]:
        """`write` for a statement about one space, the first of its values."""
        return await self.write(self.text(sql, space), space, *values)

    async def confirm(self) -> None:
        """Call it after a change that moved the epoch: when this returns, no node of a cluster shows an older state.

        A cluster commits node by node. A process that reads the new epoch on one of them and the old state on another
        would keep that for good, so the epoch moves once more when all have committed. That waits for those that are
        late, since they hold the row until then. Raises `UnknownOutcome`.
        """
        if not self.spread:
            return
        try:
            await self.write(cluster.MOVE_EPOCH, SYSTEM_SPACE)
        except KvasirError as error:
            failures.log.error("%s: %s", failures.NOT_EVERYWHERE, error.message)
            raise UnknownOutcome(failures.NOT_EVERYWHERE) from None

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        """The rows of a statement that changes nothing. Sent once more if the connection breaks meanwhile."""

        async def ask(connection: Any) -> list[Any]:
            if not self.behind_pgbouncer:
                return list(await connection.fetch(sql, *values))
            await connection.execute(self._begin)
            rows = list(await connection.fetch(sql, *values))
            await connection.execute("commit")
            return rows

        return await self.read(ask)

    async def read(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """What `work` returns for a connection, on which it changes nothing. It may be called twice."""
        try:
            return await self._read(work)
        except Exception as error:
            # A node's connections to another may break as well as ours to the node.
            broken = failures.connection_lost(error) or failures.node_of(error) is not None
            if isinstance(error, TimeoutError) or not broken:
                raise failures.failed_reading(error) from None
        try:
            return await self._read(work)
        except Exception as error:
            raise failures.failed_reading(error) from None

    async def _read(self, work: Callable[[Any], Awaitable[T]]) -> T:
        async with self._acquire() as connection:
            return await work(connection)

    @contextlib.asynccontextmanager
    async def snapshot(self, connection: Any) -> AsyncIterator[None]:
        """Several statements that see the same instant."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if self.behind_pgbouncer:
                await connection.execute(self._set_local)
            yield

    async def write(self, sql: str, *values: Any) -> list[Any]:
        """The rows of one statement that is a transaction, durable when this returns. Never sent twice.

        Raises `Unavailable` when certainly nothing happened, else `UnknownOutcome`.
        """
        warnings: list[str] = []

        def listen(_: Any, message: Any) -> None:
            if warning := failures.not_confirmed(message):
                warnings.append(warning)

        async with self._acquire() as connection:
            if self.behind_pgbouncer:
                try:
                    await connection.execute(self._begin)
                except Exception as error:
                    raise failures.failed_reading(error) from None
            try:
                connection.add_log_listener(listen)
            except asyncpg.InterfaceError as error:
                # The connection is already closed: nothing has been sent.
                raise failures.failed_reading(error) from None
            try:
                rows = list(await connection.fetch(sql, *values))
                if self.behind_pgbouncer:
                    await connection.execute("commit")
            except Exception as error:
                if failures.connection_lost(error):
                    _drop(connection)
                    if self._pool is not None:
                        await self._pool.expire_connections()
                raise failures.failed_writing(error) from error
            finally:
                with contextlib.suppress(asyncpg.InterfaceError):
                    connection.remove_log_listener(listen)
        if warnings:
            failures.log.error("%s", warnings[0])
            raise UnknownOutcome(warnings[0])
        return rows


def _drop(connection: Any) -> None:
    """Terminate a connection. asyncpg's pool has already released one that closed by itself, and then raises."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _no_reset(_: Any) -> None:
    """Between two requests a connection needs no clean-up: nothing was left in its session."""
