"""One visit of the clock to the future: what never goes back stays there, and everybody is told until when."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from kvasir.engines.postgres.functions import _NOW
from tests.support import serving as servers
from tests.support.cli import run
from tests.support.faults import wall_clock
from tests.support.raw_http import Client
from tests.support.serving import Server, serving, wait_until

FIFTY_YEARS = 50 * 365 * 86_400_000


@pytest.fixture
def set_ahead(each_engine: None, tmp_path: Path) -> Callable[[int], None]:
    """Sets the clock that counts: the server's own, or that of its database."""
    if servers.databases is None:
        return lambda milliseconds: wall_clock.set_ahead(tmp_path, milliseconds)
    url = servers.databases.url(tmp_path / "data")

    def set_clock(milliseconds: int) -> None:
        query(url, _NOW.replace("@", "").replace("* 1000", f"* 1000 + {milliseconds}"))

    return set_clock


def query(url: str, sql: str) -> None:
    async def ask() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(ask())


def created_at(client: Client, key: str) -> datetime:
    return datetime.fromisoformat(client.get(key).json()["createdAt"])


def readiness(server: Server) -> Any:
    with urllib.request.urlopen(f"{server.url}/readyz") as answer:
        assert answer.status == 200
        return json.load(answer)


def test_a_visit_of_the_clock_to_the_future(tmp_path: Path, set_ahead: Callable[[int], None]) -> None:
    environment = wall_clock.environment_of(tmp_path)
    with serving(tmp_path, env=environment) as server:
        store = server.store
        with Client(server, store) as client:
            stamps = [client.put("before", 1).json()["versionstamp"]]
            assert readiness(server) == {"status": "ready"}
            set_ahead(FIFTY_YEARS)
            stamps.append(client.put("in-the-future", 1).json()["versionstamp"])
            set_ahead(0)
            stamps.append(client.put("after", 1).json()["versionstamp"])
            stamps.append(client.put("fleeting", 1, expireIn=300).json()["versionstamp"])
            assert stamps == sorted(set(stamps))
            assert created_at(client, "before") < created_at(client, "in-the-future") <= created_at(client, "after")
            assert (created_at(client, "after") - datetime.now(UTC)).days in (18_249, 18_250)
            until = created_at(client, "after")
            if servers.databases is None:  # PostgreSQL is asked every ten seconds
                assert "ahead of the clock" in readiness(server)["warnings"][0]
            wait_until(lambda: client.get("fleeting").status == 404, "expiry goes by the clock")
        assert server.stop() == 0
        assert "ahead of the clock" not in server.log

    with serving(tmp_path, env=environment) as server:
        (warning,) = readiness(server)["warnings"]
        assert f"by 18,249 days, until {until:%Y-%m-%dT%H:}" in warning
        wait_until(lambda: f"WARNING kvasir: {warning[:60]}" in server.log, "the log says so")
        checked = run("check", *server.database_options)
        assert checked.stderr.startswith("warning: the database is ahead of the clock by 18,249 days")
        found = json.loads(run("check", "--json", *server.database_options).stdout)
        assert found["sound"]
        assert found["warnings"][0][:60] == warning[:60]
        set_ahead(FIFTY_YEARS)
        assert server.stop() == 0

    with serving(tmp_path, env=environment) as server:
        assert readiness(server) == {"status": "ready"}, "the clock has caught up"
        set_ahead(0)
