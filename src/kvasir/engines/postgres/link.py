"""The connections of this process: a bounded pool that mends itself, and what a failure on them means.

Behind PgBouncer in transaction mode every statement may meet another server process. So nothing is ever kept in a
session: no SET, no session lock, no LISTEN, and there no prepared statement either.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from kvasir.engines.postgres import failures
from kvasir.engines.postgres.address import connect_arguments, each_host
from kvasir.errors import Unavailable, UnknownOutcome

T = TypeVar("T")

#: How long a request waits for one of the connections.
BUSY_SECONDS = 10.0
#: How long one statement may take before the server counts as gone.
COMMAND_SECONDS = 30.0
#: After a connection could not be made, the next attempt comes after this long at first, and at most.
BACK_OFF_SECONDS = (0.1, 2.0)

#: The planner is told that tables are large (see `functions`), and what the functions rely on.
SESSION = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "default_transaction_isolation": "read committed",
}
_BEGIN = "begin isolation level read committed; " + "".join(
    f"set local {name} = {value}; " for name, value in SESSION.items() if name != "default_transaction_isolation"
)

ABOUT = """
    select pg_backend_pid() as pid, pg_is_in_recovery() as recovering, current_setting('fsync') = 'on' as fsync,
        current_setting('server_version') as version, current_setting('server_version_num')::int as number"""

OLDEST_SERVER = 130_000

CANNOT_CONNECT = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """One that always ends: from a server that does not see it off it goes without a farewell."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncpg has it
        # The pool ends the connections it no longer wants in tasks of their own, whose failure nobody waits for.
        with contextlib.suppress(*CANNOT_CONNECT):
            await super().close(timeout=timeout)


class Link:
    """Connections to one database. `connections`: the most there may be at a time."""

    def __init__(self, url: str, *, connections: int, durable: bool) -> None:
        self._arguments = connect_arguments(url)
        #: The one to be tried first comes first.
        self._hosts = each_host(self._arguments.pop("dsn"))
        self._most = connections
        self._durable = durable
        #: Whether a pooler sits in between that lends server processes by the transaction.
        self.pooled = False
        self.server_version = ""
        self._pool: Any = None
        self._failures = 0
        self._not_before = 0.0

    # -- its life -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Look at the server once, then be ready to connect. Raises `Unavailable`."""
        async with self.alone() as connection:
            async with connection.transaction():
                about = await connection.fetchrow(ABOUT)
            # PgBouncer makes up the process id that it shows to its clients.
            self.pooled = about["pid"] != connection.get_server_pid()
        if about["recovering"]:
            raise Unavailable("the database is a read-only standby; name its primary too, in one URL with both hosts")
        if about["number"] < OLDEST_SERVER:
            raise Unavailable(f"the database is PostgreSQL {about['version']}; Kvasir needs 13 or newer")
        if self._durable and not about["fsync"]:
            raise Unavailable(
                "the database runs with fsync=off and would lose acknowledged writes in a power loss:"
                " turn it on, or choose --durability relaxed"
            )
        self.server_version = about["version"]
        arguments = dict(self._arguments)
        if self.pooled:
            arguments["statement_cache_size"] = 0
        else:
            arguments["server_settings"] = arguments["server_settings"] | SESSION
        self._pool = await asyncpg.create_pool(
            **arguments,
            connect=self._connect,
            connection_class=_Connection,
            min_size=0,
            max_size=self._most,
            max_queries=1 << 40,
            max_inactive_connection_lifetime=300.0,
            command_timeout=COMMAND_SECONDS,
            init=self._examine,
            reset=_nothing,
        )

    async def close(self) -> None:
        """Let go of all connections; those in use first come to an end."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[Any]:
        """A connection beside the pool, without prepared statements and without a time limit."""
        try:
            connection = await self._connect(**self._arguments, connection_class=_Connection, statement_cache_size=0)
        except CANNOT_CONNECT as error:
            raise failures.failed_connecting(error) from None
        try:
            yield connection
        finally:
            await connection.close(timeout=BUSY_SECONDS)

    async def _connect(self, *__: Any, **options: Any) -> Any:
        """A connection to a host that takes writes. One that fails is tried last by whoever connects next."""
        failure: Exception = OSError("the hosts of the database change places")
        for _ in range(len(self._hosts) + 1):
            dsn = self._hosts[0]
            try:
                connection = await asyncpg.connect(dsn, **options)
            except CANNOT_CONNECT as error:
                failure = error
                if self._hosts[0] == dsn and len(self._hosts) > 1:
                    await self._pass_over(dsn)
                continue
            if self._hosts[0] == dsn:
                return connection
            # It hung until others had found its successor, and knows nothing of what has happened since.
            connection.terminate()
        raise failure

    async def _pass_over(self, dsn: str) -> None:
        self._hosts = [*self._hosts[1:], dsn]
        if self._pool is not None:
            # No two connections lead to different hosts for longer than a request.
            await self._pool.expire_connections()

    async def _examine(self, connection: Any) -> None:
        # A former primary that came back as a standby must not be asked, or it would answer with old data.
        async with connection.transaction():
            recovering = await connection.fetchval("select pg_is_in_recovery()")
        if recovering:
            raise asyncpg.exceptions.TargetServerAttributeNotMatched("in recovery")

    @contextlib.asynccontextmanager
    async def _lent(self) -> AsyncIterator[Any]:
        """One of the connections. Raises `Unavailable` if there is none to be had."""
        pool = self._pool
        if pool is None:
            raise Unavailable("the server is stopping; nothing was written")
        idle = pool.get_idle_size()
        if not idle and time.monotonic() < self._not_before:
            raise Unavailable("the database cannot be reached; nothing was written, try again")
        try:
            connection = await pool.acquire(timeout=None if idle else BUSY_SECONDS)
        except TimeoutError as error:
            if pool.get_size() - pool.get_idle_size() >= self._most:
                raise Unavailable("all connections to the database are busy; nothing was written, try again") from None
            raise self._unreachable(error) from None
        except CANNOT_CONNECT as error:
            raise self._unreachable(error) from None
        if self._failures:
            self._failures = 0
            failures.log.warning("the database is reached again")
        try:
            yield connection
        except BaseException as error:
            if failures.lost(error) or self.pooled:
                _drop(connection)
            if failures.lost(error):
                # What ended this connection has often ended them all: the others are made anew when they are free.
                await pool.expire_connections()
            raise
        finally:
            await pool.release(connection)

    def _unreachable(self, error: Exception) -> Unavailable:
        failure = failures.failed_connecting(error)
        if not self._failures:
            failures.log.error("%s", failure.message)
        least, most = BACK_OFF_SECONDS
        self._not_before = time.monotonic() + min(most, least * 2**self._failures) * random.uniform(0.5, 1.0)  # noqa: S311
        self._failures = min(self._failures + 1, 16)
        return failure

    # -- asking -------------------------------------------------------------------------------------------

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        """The rows of a statement that changes nothing. Asked once more if the connection broke meanwhile."""

        async def ask(connection: Any) -> list[Any]:
            if not self.pooled:
                return list(await connection.fetch(sql, *values))
            await connection.execute(_BEGIN)
            rows = list(await connection.fetch(sql, *values))
            await connection.execute("commit")
            return rows

        return await self.read(ask)

    async def read(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """What `work` makes of a connection, changing nothing. It may be called twice."""
        try:
            return await self._read(work)
        except Exception as error:
            if isinstance(error, TimeoutError) or not failures.lost(error):
                raise failures.failed_reading(error) from None
        try:
            return await self._read(work)
        except Exception as error:
            raise failures.failed_reading(error) from None

    async def _read(self, work: Callable[[Any], Awaitable[T]]) -> T:
        async with self._lent() as connection:
            return await work(connection)

    @contextlib.asynccontextmanager
    async def snapshot(self, connection: Any) -> AsyncIterator[None]:
        """Several statements that see the same instant."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if self.pooled:
                await connection.execute(_BEGIN.partition(";")[2])
            yield

    async def write(self, sql: str, *values: Any) -> list[Any]:
        """The rows of one statement that is a transaction, durable when this returns. Sent once, whatever happens.

        Raises `Unavailable` when certainly nothing happened, else `UnknownOutcome`.
        """
        warnings: list[Any] = []

        def hear(_: Any, message: Any) -> None:
            if getattr(message, "server_source_function", None) == failures.WAITS_FOR_STANDBY:
                warnings.append(message)

        async with self._lent() as connection:
            if self.pooled:
                try:
                    await connection.execute(_BEGIN)
                except Exception as error:
                    raise failures.failed_reading(error) from None
            try:
                connection.add_log_listener(hear)
            except asyncpg.InterfaceError as error:
                # It ended while it was lent: nothing has been sent.
                raise failures.failed_reading(error) from None
            try:
                rows = list(await connection.fetch(sql, *values))
                if self.pooled:
                    await connection.execute("commit")
            except Exception as error:
                if failures.lost(error):
                    _drop(connection)
                    if self._pool is not None:
                        await self._pool.expire_connections()
                raise failures.failed_writing(error) from error
            finally:
                with contextlib.suppress(asyncpg.InterfaceError):
                    connection.remove_log_listener(hear)
        if warnings:
            failures.log.error("%s", failures.NOT_REPLICATED)
            raise UnknownOutcome(failures.NOT_REPLICATED)
        return rows


def _drop(connection: Any) -> None:
    """End a connection. The pool has already let go of one that ended by itself, and refuses to hear of it again."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _nothing(_: Any) -> None:
    """Between two requests a connection needs no clean-up: nothing was left in its session."""
