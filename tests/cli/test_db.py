"""`kvasir db` against a real PostgreSQL server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvasir.engines.postgres.schema import MIGRATIONS
from tests.support.lab import Schema
from tests.support.serving import KVASIR


@pytest.fixture
def schema() -> Iterator[Schema]:
    """An empty schema of the server that all tests share."""
    schema = Schema()
    yield schema
    schema.drop()


def kvasir_db(folder: Path, *arguments: str, engine: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "KVASIR_ENGINE": engine}
    done = subprocess.run(
        [KVASIR, "db", *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_tables_are_made_once_and_shown(tmp_path: Path, schema: Schema) -> None:
    before = json.loads(kvasir_db(tmp_path, "status", "--json", engine=schema.url).stdout)
    assert (before["version"], before["tables"], before["spaces"]) == (0, {}, {})
    assert not schema.query("select relname from pg_class where relnamespace = current_schema()::regnamespace")
    for _ in range(2):
        made = json.loads(kvasir_db(tmp_path, "init", "--json", engine=schema.url).stdout)
        assert made["version"] == made["newest"] == len(MIGRATIONS)
        assert (made["schema"], made["nodes"], made["pooled"]) == (schema.name, None, False)
        assert set(made["tables"]) == {"kvasir_entry", "kvasir_head", "kvasir_space", "kvasir_alias"}
    schema.query("insert into kvasir_space values (7, 'X', '', 'store', '', 0, null, null, '{}')")
    shown = kvasir_db(tmp_path, "status", engine=schema.url).stdout
    assert f"version {len(MIGRATIONS)} of {len(MIGRATIONS)}" in shown
    assert "stores" in shown
    assert f"schema {schema.name}" in shown


def test_hosts_that_begin_together_make_one_schema(tmp_path: Path, schema: Schema) -> None:
    environ = {"PATH": os.environ["PATH"], "KVASIR_ENGINE": schema.url}
    running = [
        subprocess.Popen([KVASIR, "db", "init"], cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL) for _ in range(3)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert schema.query("select count(*) from kvasir_schema")[0][0] == len(MIGRATIONS)


def test_what_cannot_be_done_is_said_without_the_password(tmp_path: Path) -> None:
    away = kvasir_db(tmp_path, "status", engine="postgresql://somebody:topsecret@127.0.0.1:1/x", status=1)
    assert "cannot be reached" in away.stderr
    wrong = kvasir_db(tmp_path, "init", engine="postgresql://somebody:topsecret@h/x?requirepeer=y", status=2)
    assert "requirepeer" in wrong.stderr
    assert "topsecret" not in away.stdout + away.stderr + wrong.stdout + wrong.stderr
    assert "postgresql://" in kvasir_db(tmp_path, "status", engine="sqlite:", status=2).stderr
