"""`kvasir db` against a real PostgreSQL server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvasir.engines.postgres.schema import MIGRATIONS
from tests.support.cli import run
from tests.support.lab import Schema
from tests.support.serving import KVASIR, environment


@pytest.fixture
def schema() -> Iterator[Schema]:
    """An empty schema of the server that all tests share."""
    schema = Schema()
    yield schema
    schema.drop()


def test_tables_are_made_once_and_shown(tmp_path: Path, schema: Schema) -> None:
    before = json.loads(run("db", "status", "--json", cwd=tmp_path, KVASIR_ENGINE=schema.url).stdout)
    assert (before["version"], before["tables"], before["spaces"]) == (0, {}, {})
    assert set(before) == {
        "server_version", "database", "schema", "version", "newest", "pooled", "spaces", "tables", "nodes",
        "away", "direct", "shards",
    }  # fmt: skip
    assert not schema.query("select relname from pg_class where relnamespace = current_schema()::regnamespace")
    for _ in range(2):
        made = json.loads(run("db", "init", "--json", cwd=tmp_path, KVASIR_ENGINE=schema.url).stdout)
        assert made["version"] == made["newest"] == len(MIGRATIONS)
        assert (made["schema"], made["nodes"], made["pooled"]) == (schema.name, None, False)
        assert set(made["tables"]) == {"kvasir_entry", "kvasir_head", "kvasir_space", "kvasir_alias"}
    schema.query("insert into kvasir_space values (7, 'X', '', 'store', '', 0, null, null, '{}')")
    shown = run("db", "status", cwd=tmp_path, KVASIR_ENGINE=schema.url).stdout
    assert f"version {len(MIGRATIONS)} of {len(MIGRATIONS)}" in shown
    assert "stores" in shown
    assert f"schema {schema.name}" in shown


def test_hosts_that_begin_together_make_one_schema(tmp_path: Path, schema: Schema) -> None:
    environ = environment(KVASIR_ENGINE=schema.url)
    running = [
        subprocess.Popen([KVASIR, "db", "init"], cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL) for _ in range(3)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert schema.query("select count(*) from kvasir_schema")[0][0] == len(MIGRATIONS)


def test_what_cannot_be_done_is_said_without_the_password(tmp_path: Path) -> None:
    away = run("db", "status", cwd=tmp_path, KVASIR_ENGINE="postgresql://somebody:topsecret@127.0.0.1:1/x", status=1)
    assert "cannot be reached" in away.stderr
    wrong = run("db", "init", cwd=tmp_path, KVASIR_ENGINE="postgresql://somebody:topsecret@h/x?requirepeer=y", status=2)
    assert "requirepeer" in wrong.stderr
    assert "topsecret" not in away.stdout + away.stderr + wrong.stdout + wrong.stderr
    assert "postgresql://" in run("db", "status", cwd=tmp_path, KVASIR_ENGINE="sqlite:", status=2).stderr
