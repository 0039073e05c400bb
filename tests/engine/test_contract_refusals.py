"""Databases that a durable engine refuses to open: it says why in one sentence, and leaves them as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from kvasir.engine import Engine
from kvasir.engines.postgres import schema as postgres
from kvasir.engines.sqlite import SqliteEngine
from kvasir.engines.sqlite import schema as sqlite
from kvasir.errors import Unavailable
from tests.support.cli import run
from tests.support.lab import Lab, commit, k, new_space, one, put
from tests.support.serving import KEY, free_ports

#: The schema versions of the present program
KNOWN = {"sqlite": len(sqlite.MIGRATIONS), "postgres": len(postgres.MIGRATIONS)}
NEWER = 99
REFUSAL = f"the database has schema version {NEWER}, made by a newer Kvasir"


class Newer:
    """A database with one entry, which a later version has migrated."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.lab = Lab(kind, folder)
        self.folder = folder

        async def fill(engine: Engine) -> None:
            await commit(engine, (await new_space(engine)).number, put(k("a")))

        self.lab.run(fill)
        self.version = NEWER

    @property
    def version(self) -> int:
        if self.lab.schema:
            return int(self.lab.schema.query("select max(version) from kvasir_schema")[0][0])
        with closing(apsw.Connection(str(self.lab.file))) as connection:
            return int(str(connection.pragma("user_version")))

    @version.setter
    def version(self, version: int) -> None:
        if self.lab.schema:
            self.lab.schema.query("update kvasir_schema set version = $1 where version = $2", version, self.version)
        else:
            with closing(apsw.Connection(str(self.lab.file))) as connection:
                connection.pragma("user_version", version)

    def options(self) -> list[str]:
        """By which a command finds it."""
        return ["--data-dir", str(self.folder), *(["--engine", self.lab.schema.url] if self.lab.schema else [])]


@pytest.fixture(params=KNOWN)
def newer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Newer]:
    newer = Newer(request.param, tmp_path)
    yield newer
    newer.lab.close()


def test_a_newer_schema_is_refused_and_left_alone(newer: Newer) -> None:
    with pytest.raises(Unavailable, match=REFUSAL):
        asyncio.run(newer.lab.engine().open())
    assert newer.version == NEWER
    newer.version = KNOWN[newer.lab.kind]

    async def look(engine: Engine) -> None:
        (space,) = await engine.list_spaces(kind="store")
        assert await one(engine, space.number, k("a")) is not None

    newer.lab.run(look)


@pytest.mark.parametrize("command", [["check"], ["serve"], ["serve", "--workers", "2"]], ids=" ".join)
def test_commands_refuse_a_newer_schema_in_one_line(newer: Newer, command: list[str]) -> None:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    listeners = (
        ["--http", addresses[0], "--nemesis", addresses[1], "--log-level", "error"] if command[0] == "serve" else []
    )
    done = run(*command, *newer.options(), *listeners, status=1, KVASIR_ADMIN_KEY=KEY)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"kvasir: {REFUSAL}")


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "kvasir.db").write_bytes(b"no database at all" * 1_000)
    with pytest.raises(Unavailable, match="cannot be opened"):
        asyncio.run(SqliteEngine(tmp_path / "kvasir.db").open())
    (line,) = run("check", "--data-dir", str(tmp_path), status=1).stderr.splitlines()
    assert line.startswith(f"kvasir: {tmp_path / 'kvasir.db'} is no SQLite database")
