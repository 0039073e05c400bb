"""`kvasir copy`, `dump` and `load` as an operator runs them, on the data of real servers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import os
import pty
import signal
import stat
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import httpx
import pytest

from kvasir.config.table import Config
from kvasir.control import bootstrap
from kvasir.engines.numbering import wall_clock
from kvasir.engines.sqlite import SqliteEngine
from kvasir.keys import pack
from kvasir.model import Entry
from kvasir.transfer.source import EngineSource
from kvasir.transfer.target import fill
from tests.support.cli import run
from tests.support.lab import Schema, new_space
from tests.support.serving import KVASIR, Server, environment, serving, wait_until

#: The tests name their engines themselves.
pytestmark = pytest.mark.only_sqlite

MANY = 100_000
SECOND = 1_000


async def _many(file: Path) -> None:
    engine = SqliteEngine(file, durable=False)
    await engine.open()
    await bootstrap.bootstrap(engine, Config(), wall_clock)
    space = (await new_space(engine)).number
    now = wall_clock()
    for start in range(0, MANY, 5_000):
        entries = [
            Entry(pack(["k", str(n)]), b'"' + b"x" * 200 + b'"', now << 20, (now << 20) + n, now)
            for n in range(start, start + 5_000)
        ]
        await engine.load(space, entries)
    await engine.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 100,000 entries."""
    file = tmp_path_factory.mktemp("many") / "kvasir.db"
    asyncio.run(_many(file))
    return file


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with entries, a second store and an access key."""
    with serving(tmp_path_factory.mktemp("used")) as server:
        data = ("--data-dir", str(server.data_dir))
        run("store", "create", "cellar", *data)
        run("key", "create", "--name", "app", "--role", "developer", *data)
        for n in range(20):
            options = {"expireIn": 3_600 * SECOND} if n % 2 else {"metadata": {"n": n}}
            put(server, f"barrel/{n}", {"value": {"n": n, "of": "mead"}, "options": options})
        yield server


def put(server: Server, key: str, body: dict[str, Any]) -> dict[str, Any]:
    url = f"{server.url}/store/{server.store}/kv/{key}"
    answer = httpx.put(url, headers=server.headers, json=body, trust_env=False)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def get(server: Server, key: str) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/store/{server.store}/kv/{key}", headers=server.headers, trust_env=False)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def database(folder: Path) -> str:
    return f"sqlite:{folder}/kvasir.db"


@pytest.mark.parametrize("way", ["copy", "dump", "packed", "pipe"])
def test_a_server_carries_on_with_the_copy(used: Server, tmp_path: Path, way: str) -> None:
    old, new = database(used.data_dir), database(tmp_path / "data")
    (tmp_path / "data").mkdir()
    if way == "copy":
        run("copy", "--from", old, "--to", new)
    elif way == "pipe":
        with subprocess.Popen(
            [KVASIR, "dump", "-", "--engine", old], stdout=subprocess.PIPE, env=environment()
        ) as dumping:
            load = [str(KVASIR), "load", "-", "--engine", new]
            subprocess.run(load, stdin=dumping.stdout, check=True, timeout=60, env=environment())
        assert dumping.returncode == 0
    else:
        file = str(tmp_path / ("dump.jsonl.gz" if way == "packed" else "dump.jsonl"))
        run("dump", file, "--engine", old)
        run("load", file, "--engine", new)
    assert run("check", "--engine", new).stdout.startswith("sound")
    with serving(tmp_path) as copied:
        assert copied.store == used.store
        for n in (0, 7):
            before = get(used, f"barrel/{n}")
            assert get(copied, f"barrel/{n}") == before
        condition = {"value": "emptied", "options": {"ifVersionstamp": before["versionstamp"]}}
        after = put(copied, "barrel/7", condition)
        assert after["versionstamp"] > before["versionstamp"]
        listed = [run(what, "list", "--engine", new).stdout for what in ("store", "key")]
        assert "cellar" in listed[0]
        assert "app" in listed[1]
    # A server has started on it, so it is no longer just a copy.
    refused = run("copy", "--from", old, "--to", new, status=1).stderr
    assert "data of its own" in refused
    assert get(used, "barrel/7")["value"] == {"n": 7, "of": "mead"}


def count(file: Path) -> int:
    """The number of entries in a database file that another process is writing."""
    with contextlib.suppress(apsw.Error), contextlib.closing(apsw.Connection(str(file))) as connection:
        return int(connection.execute("SELECT count(*) FROM entry").get)
    return 0


def test_a_copy_that_was_killed_carries_on(many: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    command = ["copy", "--from", f"sqlite:{many}", "--to", f"sqlite:{target}", "--json"]
    process = subprocess.Popen([KVASIR, *command], env=environment(), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: count(target) > 1_000, "some entries are copied")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = count(target)
    assert there < MANY
    refused = run("serve", "--engine", f"sqlite:{target}", "--data-dir", str(tmp_path), status=1).stderr
    assert "run it again" in refused
    report = json.loads(run(*command).stdout)
    # One of the entries that were there is the mark of the copy.
    assert report["written"] == report["entries"] - (there - 1)
    assert report == {
        "spaces": 2, "entries": MANY + 3, "written": report["written"], "removed": 0, "same": True, "differences": []
    }  # fmt: skip
    assert json.loads(run(*command).stdout)["written"] == 0
    dumps = []
    for file in (many, target):
        dumps.append(tmp_path / f"{file.stem}.jsonl")
        run("dump", str(dumps[-1]), "--engine", f"sqlite:{file}")
    assert dumps[0].read_bytes() == dumps[1].read_bytes()


@pytest.fixture
def schema() -> Iterator[Schema]:
    """An empty PostgreSQL database."""
    schema = Schema()
    yield schema
    schema.drop()


def test_to_postgresql_and_back(used: Server, tmp_path: Path, schema: Schema) -> None:
    postgres = schema.url
    places = [database(used.data_dir), postgres, f"sqlite:{tmp_path}/back.db"]
    for old, new in itertools.pairwise(places):
        report = json.loads(run("copy", "--from", old, "--to", new, "--json").stdout)
        assert report["same"] is True
        assert report["written"] == report["entries"] > 20
    files = [tmp_path / f"{n}.jsonl" for n in range(3)]
    for place, file in zip(places, files, strict=True):
        run("dump", str(file), "--engine", place)
    assert len({file.read_bytes() for file in files}) == 1
    assert run("check", "--engine", postgres).stdout.startswith("sound")
    with serving(tmp_path, "--engine", postgres) as copy:
        before = get(used, "barrel/7")
        assert get(copy, "barrel/7") == before
        condition = {"value": "emptied", "options": {"ifVersionstamp": before["versionstamp"]}}
        assert put(copy, "barrel/7", condition)["versionstamp"] > before["versionstamp"]
    assert "data of its own" in run("copy", "--from", places[0], "--to", postgres, status=1).stderr


def test_a_copy_to_postgresql_that_was_killed_carries_on(many: Path, schema: Schema) -> None:
    def there() -> int:
        with contextlib.suppress(asyncpg.PostgresError):
            return int(schema.query("select count(*) from kvasir_entry")[0][0])
        return 0

    command = ["copy", "--from", f"sqlite:{many}", "--to", schema.url, "--json"]
    process = subprocess.Popen([KVASIR, *command], env=environment(), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: there() > 1_000, "some entries are copied")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    report = json.loads(run(*command).stdout)
    assert 0 < report["written"] < MANY - 500
    assert (report["same"], report["entries"], there()) == (True, MANY + 3, MANY + 4)


def test_memory_does_not_grow_with_the_data(many: Path, tmp_path: Path) -> None:
    async def copy() -> int:
        old, new = SqliteEngine(many), SqliteEngine(tmp_path / "new.db", durable=False)
        await old.open()
        await new.open()
        source = await EngineSource.of(old)
        tracemalloc.start()
        try:
            report = await fill(source, new, lambda _: None)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (report.entries, report.differences) == (MANY + 3, [])
        await new.close()
        await old.close()
        return peak

    # As objects, the entries take 50 MiB.
    assert asyncio.run(copy()) < 8 << 20


def test_a_second_dump_is_the_same_file(used: Server, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl.gz", "d.jsonl.gz")]
    old, new = database(used.data_dir), f"sqlite:{tmp_path}/new.db"
    run("dump", str(files[0]), "--engine", old)
    run("load", str(files[0]), "--engine", new)
    for file in files[1:]:
        run("dump", str(file), "--engine", new)
    assert len({file.read_bytes() for file in files[:2]}) == 1
    assert len({file.read_bytes() for file in files[2:]}) == 1
    assert gzip.decompress(files[2].read_bytes()) == files[0].read_bytes()
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_dump_neither_replaces_a_file_nor_leaves_half_of_one(used: Server, tmp_path: Path) -> None:
    file = tmp_path / "dump.jsonl"
    file.write_text("mine")
    refused = run("dump", str(file), "--engine", database(used.data_dir), status=2)
    assert "already exists" in refused.stderr
    assert file.read_text() == "mine"
    run("dump", str(tmp_path / "nowhere" / "dump"), "--engine", database(used.data_dir), status=2)
    assert [found.name for found in tmp_path.iterdir()] == ["dump.jsonl"]


def test_nothing_is_written_from_a_damaged_file(used: Server, tmp_path: Path) -> None:
    file = tmp_path / "dump.jsonl"
    run("dump", str(file), "--engine", database(used.data_dir))
    text = file.read_bytes()
    lines = text.count(b"\n")
    new = f"sqlite:{tmp_path}/new.db"
    file.write_bytes(text[:-30])
    assert (
        f"dump.jsonl, line {lines}: the dump is cut off here"
        in run("load", str(file), "--engine", new, status=1).stderr
    )
    file.write_bytes(text.replace(b"mead", b"beer", 1))
    assert "not as they were written" in run("load", str(file), "--engine", new, status=1).stderr
    packed = tmp_path / "dump.gz"
    packed.write_bytes(gzip.compress(text)[:-40])
    assert "cannot be decompressed" in run("load", str(packed), "--engine", new, status=1).stderr
    run("load", str(tmp_path / "nowhere"), "--engine", new, status=2)
    assert not (tmp_path / "new.db").exists()


def test_a_pipe_that_breaks_leaves_something_that_no_server_takes(used: Server, tmp_path: Path) -> None:
    file = tmp_path / "dump.jsonl"
    new = f"sqlite:{tmp_path}/new.db"
    run("dump", str(file), "--engine", database(used.data_dir))
    load = [str(KVASIR), "load", "-", "--engine", new]
    text = file.read_bytes()
    broken = subprocess.run(load, input=text[: len(text) // 2], env=environment(), capture_output=True, check=False)
    assert broken.returncode == 1
    assert b"standard input, line" in broken.stderr
    assert "run it again" in run("serve", "--engine", new, "--data-dir", str(tmp_path), status=1).stderr
    for command in (["dump", str(tmp_path / "half")], ["copy", "--from", new, "--to", f"sqlite:{tmp_path}/third.db"]):
        options = ["--engine", new] if command[0] == "dump" else []
        refused = run(*command, *options, status=1).stderr
        assert "the source database is an incomplete copy" in refused
    assert not {"half", "third.db"} & {found.name for found in tmp_path.iterdir()}
    run("load", str(file), "--engine", new)
    run("check", "--engine", new)


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("copy", "--from", "memory:", "--to", "sqlite:new.db"), 2, "--from: the engine memory:"),
        (("copy", "--from", "sqlite:old.db", "--to", "memory:"), 2, "--to: the engine memory:"),
        (("copy", "--from", "sqlite:typo.db", "--to", "sqlite:new.db"), 1, "typo.db"),
        (("copy", "--from", "sqlite:old.db", "--to", "sqlite:./old.db"), 2, "same database"),
        (("copy", "--from", "sqlite:old.db", "--to", "disk:new"), 2, "sqlite:"),
        (("copy", "--from", "sqlite:empty.db", "--to", "sqlite:new.db"), 1, "empty"),
        (("copy", "--from", "sqlite:old.db", "--to", "sqlite:other.db"), 1, "data of its own"),
        (("load", "dump", "--engine", "sqlite:other.db"), 1, "data of its own"),
        (("dump", "new", "--engine", "memory:"), 2, "memory:"),
        (("dump", "new", "--engine", "sqlite:typo.db"), 1, "typo.db"),
        (("dump", "-", "--json", "--engine", "sqlite:old.db"), 2, "--json"),
    ],
)
def test_mistakes_change_nothing(tmp_path: Path, arguments: tuple[str, ...], status: int, word: str) -> None:
    async def made(name: str, *, empty: bool = False) -> None:
        engine = SqliteEngine(tmp_path / name)
        await engine.open()
        if not empty:
            await bootstrap.bootstrap(engine, Config(), wall_clock)
        await engine.close()

    for name in ("old.db", "other.db"):
        asyncio.run(made(name))
    asyncio.run(made("empty.db", empty=True))
    run("dump", "dump", "--engine", "sqlite:old.db", cwd=tmp_path)
    before = {file.name for file in tmp_path.iterdir()}
    done = run(*arguments, status=status, cwd=tmp_path)
    assert word in done.stderr
    made_by_it = {file.name for file in tmp_path.iterdir()} - before
    assert not {name for name in made_by_it if not name.startswith("new.db")}
    assert "new.db" not in made_by_it or "empty" in word


def test_urls_of_a_copy_may_be_variables(used: Server, tmp_path: Path) -> None:
    old, new = database(used.data_dir), f"sqlite:{tmp_path}/new.db"
    done = run("copy", "--json", KVASIR_COPY_FROM=old, KVASIR_COPY_TO=new)
    assert json.loads(done.stdout)["same"] is True
    # An option takes precedence, as for all settings, and an empty variable counts as unset.
    typo = run("copy", "--from", "sqlite:typo.db", status=1, KVASIR_COPY_FROM=old, KVASIR_COPY_TO=new)
    assert "typo.db" in typo.stderr
    run("copy", status=2, KVASIR_COPY_FROM=old, KVASIR_COPY_TO="")
    said = run("copy", "--help", COLUMNS="200").stdout
    for name in ("KVASIR_COPY_FROM", "KVASIR_COPY_TO"):
        assert f"[env var: {name}]" in said


def test_what_it_reports(many: Path, tmp_path: Path) -> None:
    command = ["copy", "--from", f"sqlite:{many}", "--to", f"sqlite:{tmp_path}/new.db"]
    quiet = run(*command, "--quiet", "--json")
    assert quiet.stderr == ""
    assert json.loads(quiet.stdout)["same"] is True
    said = run(*command)
    assert said.stdout == ""
    assert said.stderr.endswith(
        "copied 2 spaces with 100,003 entries (Kvasir's own included): 0 entries written, 0 removed\n"
    )


def test_a_terminal_shows_a_bar(many: Path, tmp_path: Path) -> None:
    mine, its = pty.openpty()
    command = [str(KVASIR), "copy", "--from", f"sqlite:{many}", "--to", f"sqlite:{tmp_path}/new.db"]
    process = subprocess.Popen(command, env=environment(TERM="xterm", COLUMNS="100"), stderr=its)
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # the other side is closed
        while read := os.read(mine, 65_536):
            shown += read
    os.close(mine)
    assert process.wait() == 0
    assert "━".encode() in shown
    assert b"/200,006" in shown.replace(b"/200006", b"/200,006")
