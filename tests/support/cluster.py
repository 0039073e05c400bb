"""A database on the cluster that `KVASIR_TEST_CITUS` names, and ways to its nodes that can fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.support.postgres import ClusterServer


class Cluster:
    """One database of the cluster."""

    def __init__(self, server: ClusterServer, name: str) -> None:
        self.server = server
        self.name = name
        self.url = server.url(name)
        self.nodes = server.nodes()

    def door(self, group: int) -> str:
        """The URL of the database by way of one node."""
        ((host, port),) = [(host, port) for host, port, number in self.nodes if number == group]
        return f"{self.url}&host={host}&port={port}"

    async def ask(self, sql: str, *arguments: object, group: int = 0) -> list[Any]:
        """The rows of a statement on one node."""
        ((host, port),) = [(host, port) for host, port, number in self.nodes if number == group]
        connection = await asyncpg.connect(self.url, host=host, port=port)
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    async def group_of(self, space: int) -> int:
        """The node that has a space."""
        rows = await self.ask(
            "select groupid from pg_dist_placement"
            " where shardid = get_shard_id_for_distribution_column('kvasir_entry', $1::bigint)",
            space,
        )
        return int(rows[0][0])

    @contextlib.asynccontextmanager
    async def way_to(self, group: int) -> AsyncIterator[Way]:
        """All others reach a node by this way meanwhile. Skips the test if they speak TLS, which it cannot read."""
        ((conninfo,),) = await self.ask("show citus.node_conninfo")
        if "sslmode=disable" not in conninfo:
            pytest.skip("the nodes encrypt what they say: set citus.node_conninfo = 'sslmode=disable'")
        ((host, port),) = [(host, port) for host, port, number in self.nodes if number == group]
        way = Way(host, port)
        await way.open()
        ((node,),) = await self.ask(
            "select nodeid from pg_dist_node where groupid = $1 and noderole = 'primary'", group
        )
        await self.ask("select citus_update_node($1, '127.0.0.1', $2)", node, way.port)
        await self._agreed()
        try:
            yield way
        finally:
            await way.mend()
            await self.ask("select citus_update_node($1, $2, $3)", node, host, port)
            await self._agreed()
            await way.close()

    async def _agreed(self) -> None:
        """Wait until all nodes know it."""
        while not (await self.ask("select bool_and(metadatasynced) from pg_dist_node where hasmetadata"))[0][0]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


class Way:
    """Passes bytes on to a node, as long as it is not told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        #: What is held up when it is to be passed on, until `released`
        self.held: bytes | None = None
        self.holds = asyncio.Event()
        self.released = asyncio.Event()
        #: Cut the connection instead of holding it up
        self.cuts = False

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """The node cannot be reached any more."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def mend(self) -> None:
        """It can be reached again."""
        self.held, self.cuts = None, False
        self.released.set()
        if self._server is None or not self._server.is_serving():
            await self.open()

    async def close(self) -> None:
        await self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there[1]}
        await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer), return_exceptions=True)
        for each in (writer, there[1]):
            each.transport.abort()
            self._writers.discard(each)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self.held is not None and self.held in data:
                self.holds.set()
                if self.cuts:
                    break
                await self.released.wait()
            writer.write(data)
        writer.close()
