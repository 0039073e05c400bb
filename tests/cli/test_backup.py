"""`kvasir backup` and `kvasir restore` as an operator runs them, beside servers that write; and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from kvasir.config.table import Config
from kvasir.control import bootstrap
from kvasir.engines.numbering import wall_clock
from kvasir.engines.sqlite import SqliteEngine
from kvasir.engines.sqlite.schema import MIGRATIONS
from kvasir.errors import Invalid, Unavailable
from kvasir.keys import pack
from kvasir.model import Entry
from kvasir.server import backup
from tests.support.cli import run
from tests.support.lab import new_space
from tests.support.nemesis import client as nemesis
from tests.support.serving import KVASIR, Server, environment, serving, wait_until

#: About files of SQLite's.
pytestmark = pytest.mark.only_sqlite

STORED = Path(__file__).parent.parent / "stored"


async def _large(file: Path) -> None:
    engine = SqliteEngine(file, durable=False)
    await engine.open()
    await bootstrap.bootstrap(engine, Config(), wall_clock)
    space = (await new_space(engine)).number
    now = wall_clock()
    for n in range(24):
        value = b'"' + b"x" * (1 << 19) + b'"'
        await engine.load(space, [Entry(pack([str(n)]), value, now << 20, (now << 20) + n, now)])
    await engine.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with 12 MiB, which take 12 s at a rate of 1 MiB a second."""
    directory = tmp_path_factory.mktemp("large")
    asyncio.run(_large(directory / "kvasir.db"))
    return directory


@pytest.fixture(scope="module")
def backed_up(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup, as a directory, of a server with an entry and a save."""
    put(server, "kept", 1)
    _save(server)
    directory = tmp_path_factory.mktemp("backups") / "first"
    done = run("backup", f"{directory}/", *server.database_options)
    assert "2 files of saves" in done.stderr
    return directory


def _save(server: Server) -> None:
    with nemesis(server.nemesis_url) as caller:
        caller.session()
        assert caller.do("SH_SAVE", name="evening")["st"] == 120
        assert caller.receive()["SH_SAVE_RSP"]["st"] == 121


def put(server: Server, key: str, value: Any) -> None:
    url = f"{server.url}/v1/spaces/{server.store}/entries/{key}"
    httpx.put(url, content=json.dumps(value), headers=server.headers, trust_env=False, timeout=60).raise_for_status()


def get(server: Server, key: str) -> Any:
    url = f"{server.url}/v1/spaces/{server.store}/entries/{key}"
    found = httpx.get(url, headers=server.headers, trust_env=False)
    return found.json() if found.status_code == 200 else None


def restore(source: Path, data_dir: Path) -> None:
    """As the command does it, in this process."""
    asyncio.run(backup.restore(Config(data_dir=data_dir), source, lambda *_: None, overwrite=False))


def back_up(data_dir: Path, target: Path) -> None:
    """As the command does it, in this process, into a file."""
    config = Config(data_dir=data_dir)
    with contextlib.closing(backup.snapshot(config)) as state:
        asyncio.run(backup.make(config, state, target, None, lambda *_: None, directory=False, overwrite=False))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def writing(server: Server) -> Iterator[list[int]]:
    """Four threads that write new keys all the time; the numbers of those that are acknowledged."""
    acknowledged: list[int] = []
    numbers = itertools.count()
    end = threading.Event()

    def write() -> None:
        while not end.is_set():
            number = next(numbers)
            put(server, f"busy/{number}", number)
            acknowledged.append(number)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_a_backup_under_load_holds_all_that_was_acknowledged_before(server: Server, tmp_path: Path) -> None:
    with writing(server) as acknowledged:
        wait_until(lambda: len(acknowledged) > 100, "a hundred writes are acknowledged")
        before = list(acknowledged)
        run("backup", str(tmp_path / "copy.db"), *server.database_options)
        wait_until(lambda: len(acknowledged) > len(before) + 10, "writes go on")
    assert mode(tmp_path / "copy.db") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]
    run("restore", str(tmp_path / "copy.db"), "--data-dir", str(tmp_path / "data"))
    assert run("check", "--data-dir", str(tmp_path / "data")).stdout.startswith("sound")
    with serving(tmp_path) as restored:
        listing = f"{restored.url}/v1/spaces/{server.store}/export"
        exported = httpx.get(listing, headers=restored.headers, trust_env=False).text.splitlines()
    found = {key[1] for line in exported if (key := json.loads(line).get("key")) and key[0] == "busy"}
    assert {str(number) for number in before} <= found


def test_a_directory_has_the_saves_too_and_is_a_data_directory(server: Server, backed_up: Path, tmp_path: Path) -> None:
    private = [mode(path) for path in (backed_up, *backed_up.rglob("*"))]
    assert set(private) == {0o700, 0o600}
    put(server, "kept", 2)
    run("restore", str(backed_up), "--data-dir", str(tmp_path / "data"))
    with serving(tmp_path) as restored:
        assert get(restored, "kept") == 1
        assert restored.store == server.store
    saves = {str(path.relative_to(backed_up)) for path in (backed_up / "saves").rglob("*")}
    assert len(saves) >= 5
    assert {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data" / "saves").rglob("*")} == saves


def test_a_file_leaves_the_saves_out_and_says_so(server: Server, backed_up: Path, tmp_path: Path) -> None:
    assert backed_up.exists()
    done = run("backup", str(tmp_path / "copy.db"), *server.database_options)
    assert "the saves of NemesisDB clients are not part of a file" in done.stderr


def test_nothing_is_overwritten_without_being_told(server: Server, backed_up: Path, tmp_path: Path) -> None:
    options = server.database_options
    copy = tmp_path / "copy.db"
    run("backup", str(copy), *options)
    first = copy.read_bytes()
    put(server, "later", 1)
    assert "copy.db is there already" in run("backup", str(copy), *options, status=1).stderr
    assert copy.read_bytes() == first
    run("backup", str(copy), *options, "--overwrite")
    assert copy.read_bytes() != first
    again = tmp_path / "again"
    run("backup", f"{again}/", *options)
    assert "is there already" in run("backup", str(again), *options, status=1).stderr
    run("backup", str(again), *options, "--overwrite")
    assert sorted(path.name for path in again.iterdir()) == ["backup.json", "kvasir.db", "saves"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    # A directory that no backup has made is nobody's to replace.
    assert "has no backup.json" in run("backup", str(tmp_path / "mine"), *options, "--overwrite", status=2).stderr
    assert (tmp_path / "mine" / "letter").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "copy.db", "mine"]

    run("restore", str(copy), "--data-dir", str(tmp_path / "data"))
    restored = tmp_path / "data" / "kvasir.db"
    before = restored.read_bytes()
    assert "is there already" in run("restore", str(backed_up), "--data-dir", str(tmp_path / "data"), status=1).stderr
    assert restored.read_bytes() == before
    run("restore", str(backed_up), "--data-dir", str(tmp_path / "data"), "--overwrite")
    assert restored.read_bytes() != before


@pytest.mark.parametrize("damage", [False, True])
def test_the_database_of_a_running_server_is_not_replaced(backed_up: Path, tmp_path: Path, damage: bool) -> None:
    with serving(tmp_path) as running:
        put(running, "here", 1)
        if damage:  # the moment when somebody will try
            with (running.data_dir / "kvasir.db").open("r+b") as file:
                file.write(bytes(100))
        done = run("restore", str(backed_up), *running.database_options, "--overwrite", status=1)
        assert "stop every server" in done.stderr
        assert get(running, "here") == 1
        assert not list(running.data_dir.glob("*.part*"))
        running.stop()
    run("restore", str(backed_up), "--data-dir", str(tmp_path / "data"), "--overwrite")
    with serving(tmp_path) as restored:
        assert [get(restored, key) for key in ("here", "kept")] == [None, 1]


def test_a_backup_cut_short_leaves_no_name_and_is_refused(large: Path, tmp_path: Path) -> None:
    command = [str(KVASIR), "backup", "copy.db", "--data-dir", str(large), "--max-rate", "4"]
    part = tmp_path / "copy.db.part"
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: part.exists() and part.stat().st_size > 1 << 20, "a part is copied")
        process.send_signal(signal.SIGSTOP)
        other = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert "another program is writing copy.db.part" in other.stderr
    finally:
        process.kill()
        process.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db.part"]
    assert "cut short" in run("restore", str(part), "--data-dir", str(tmp_path / "data"), status=2).stderr
    assert not (tmp_path / "data").exists()
    # The next one removes what that one has left.
    run("backup", "copy.db", "--data-dir", str(large), "--max-rate", "0", cwd=tmp_path)
    assert not part.exists()
    whole = (tmp_path / "copy.db").read_bytes()
    for length in (0, 1, 99, 4_096, 8_192, len(whole) // 2, len(whole) - 4_096, len(whole) - 1):
        part.write_bytes(whole[:length])
        with pytest.raises(Invalid, match="cut short"):
            restore(part, tmp_path / "data")
        assert not (tmp_path / "data").exists()


def test_an_interrupted_backup_removes_its_part(large: Path, tmp_path: Path) -> None:
    command = [str(KVASIR), "backup", "copy/", "--data-dir", str(large), "--max-rate", "4"]
    part = tmp_path / "copy.part" / "kvasir.db"
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: part.exists() and part.stat().st_size > 1 << 20, "a part is copied")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    finally:
        process.kill()
    assert not list(tmp_path.iterdir())


def test_a_damaged_backup_is_refused(large: Path, backed_up: Path, tmp_path: Path) -> None:
    run("backup", "copy.db", "--data-dir", str(large), "--max-rate", "0", cwd=tmp_path)
    damaged = bytearray((tmp_path / "copy.db").read_bytes())
    damaged[8_192:16_384] = os.urandom(8_192)
    (tmp_path / "copy.db").write_bytes(damaged)
    with pytest.raises(Unavailable, match="not sound"):
        restore(tmp_path / "copy.db", tmp_path / "d")
    copied = tmp_path / "copied"
    shutil.copytree(backed_up, copied)
    (data,) = [path for path in (copied / "saves").rglob("*") if path.is_file() and path.name != "md.json"]
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(Invalid, match="are not those that it lists"):
        restore(copied, tmp_path / "d")
    (copied / "backup.json").unlink()
    with pytest.raises(Invalid, match=r"has no backup\.json"):
        restore(copied, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def _damage(file: Path, word: bytes) -> None:
    """Change some bytes where this stands in a file, in such a way that they remain text."""
    content = bytearray(file.read_bytes())
    at = content.index(word)
    content[at : at + len(word)] = bytes(byte ^ 0x01 for byte in word)
    file.write_bytes(content)


def test_damage_that_leaves_pages_and_json_whole_is_refused(large: Path, tmp_path: Path) -> None:
    """Only a checksum can find it: the database is as sound as before, with another value in it."""
    run("backup", "copy/", "--data-dir", str(large), "--max-rate", "0", cwd=tmp_path)
    database = tmp_path / "copy" / "kvasir.db"
    whole = database.read_bytes()
    _damage(database, b"x" * 200)
    done = run("restore", "copy", "--data-dir", str(tmp_path / "data" / "new"), cwd=tmp_path, status=2)
    assert "copy/kvasir.db does not have the checksum that backup.json gives" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    # Who has changed it on purpose can say so.
    run("restore", "copy/kvasir.db", "--data-dir", str(tmp_path / "mine"), cwd=tmp_path)
    database.write_bytes(whole)
    run("restore", "copy", "--data-dir", str(tmp_path / "data"), cwd=tmp_path)
    assert run("check", "--data-dir", str(tmp_path / "data")).stdout.startswith("sound")
    database.unlink()
    with pytest.raises(Invalid, match=r"has no kvasir\.db"):
        restore(tmp_path / "copy", tmp_path / "d")


def test_damage_to_a_save_that_keeps_its_length_is_refused(backed_up: Path, tmp_path: Path) -> None:
    shutil.copytree(backed_up, tmp_path / "copy")
    (data,) = [path for path in (tmp_path / "copy" / "saves").rglob("*") if path.is_file() and path.name != "md.json"]
    _damage(data, data.read_bytes()[10:20])
    with pytest.raises(Invalid, match="are not those that it lists"):
        restore(tmp_path / "copy", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_the_checksums_are_those_that_other_tools_find(backed_up: Path) -> None:
    sums = json.loads((backed_up / "backup.json").read_bytes())["sha256"]
    files = {str(path.relative_to(backed_up)): path for path in backed_up.rglob("*") if path.is_file()}
    del files["backup.json"]
    assert sums == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def test_a_directory_of_an_earlier_version_has_no_checksums(backed_up: Path, tmp_path: Path) -> None:
    shutil.copytree(backed_up, tmp_path / "copy")
    listed = json.loads((tmp_path / "copy" / "backup.json").read_bytes())
    del listed["sha256"]
    (tmp_path / "copy" / "backup.json").write_text(json.dumps(listed))
    restore(tmp_path / "copy", tmp_path / "data")
    assert run("check", "--data-dir", str(tmp_path / "data")).stdout.startswith("sound")


class Full(apsw.Connection):
    """A database that is written on a disk with room for a hundred pages."""

    def __init__(self, path: str, *, flags: int) -> None:
        super().__init__(path, flags=flags)
        if flags == apsw.SQLITE_OPEN_READWRITE:
            self.pragma("max_page_count", 100)


def test_no_room_for_a_copy_says_nothing_against_what_is_copied(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apsw, "Connection", Full)
    with pytest.raises(Unavailable, match=r"the disk is full .*make room and try again"):
        restore(large / "kvasir.db", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    with pytest.raises(Unavailable, match=r"the disk is full .*make room and try again"):
        back_up(large, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [(apsw.FullError("planted"), "the disk is full"), (apsw.CorruptError("planted"), "is damaged or was cut short")],
)
def test_no_room_to_upgrade_a_copy_says_nothing_against_what_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: apsw.Error, told: str
) -> None:
    def migrate(_: apsw.Connection) -> None:
        raise error

    monkeypatch.setattr("kvasir.engines.sqlite.backup.migrate", migrate)
    with pytest.raises((Unavailable, Invalid), match=told):
        restore(STORED / "sqlite-version-3.db", tmp_path / "data")


@pytest.mark.parametrize("command", ["backup", "restore", "restore of a directory"])
def test_a_copy_that_may_not_grow_ends_in_one_sentence(large: Path, tmp_path: Path, command: str) -> None:
    """In a process whose files may have no more than 2 or 4 MiB; it depends on the shell."""
    command, _, directory = command.partition(" ")
    data = large if command == "backup" else tmp_path / "data"
    place = tmp_path / "b" if command == "backup" else large / "kvasir.db"
    if directory:
        place = tmp_path / "copy"
        run("backup", f"{place}/", "--data-dir", str(large), "--max-rate", "0")
    words = [str(KVASIR), command, str(place), "--data-dir", str(data)]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 4096; exec "$@"', "sh", *words],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("kvasir: the database has reached the largest size that the system allows for a file")
    assert done.stderr.endswith("make room and try again\n")
    assert not list(tmp_path.rglob("*.part"))


def test_a_backup_can_be_read_where_nothing_can_be_written(large: Path, tmp_path: Path) -> None:
    """It is one file, and restoring it leaves nothing beside it."""
    for target in ("copy.db", "copy/"):
        done = run("backup", f"{tmp_path}/medium/{target}", "--data-dir", str(large), status=1)
        named = f"{tmp_path}/medium/{target}".rstrip("/")
        assert done.stderr.startswith(f"kvasir: {named}: there is no directory {tmp_path}/medium; make it first")
    (tmp_path / "medium").mkdir()
    run("backup", str(tmp_path / "medium" / "copy.db"), "--data-dir", str(large), "--max-rate", "0")
    (tmp_path / "medium" / "copy.db").chmod(0o400)
    (tmp_path / "medium").chmod(0o500)
    done = run("restore", str(tmp_path / "medium" / "copy.db"), "--data-dir", str(tmp_path / "data"), "--json")
    assert json.loads(done.stdout)["entries"] == 24 + 3
    assert mode(tmp_path / "data" / "kvasir.db") == 0o600
    (tmp_path / "medium").chmod(0o700)
    assert [path.name for path in (tmp_path / "medium").iterdir()] == ["copy.db"]


def test_a_backup_of_an_earlier_version_is_upgraded(tmp_path: Path) -> None:
    run("restore", str(STORED / "sqlite-version-2.db"), "--data-dir", str(tmp_path / "data"))
    assert run("check", "--data-dir", str(tmp_path / "data")).stdout.startswith("sound")
    assert len(MIGRATIONS) > 2


def test_a_backup_upgrades_a_stopped_database_of_an_earlier_version_first(tmp_path: Path) -> None:
    database = tmp_path / "data" / "kvasir.db"
    database.parent.mkdir()
    shutil.copy(STORED / "sqlite-version-3.db", database)
    run("backup", str(tmp_path / "copy.db"), "--data-dir", str(database.parent))
    for file in (database, tmp_path / "copy.db"):
        with contextlib.closing(apsw.Connection(str(file))) as connection:
            assert connection.pragma("user_version") == len(MIGRATIONS)


def test_what_is_asked_of_the_wrong_engine(tmp_path: Path) -> None:
    engine = "postgresql://kvasir@127.0.0.1:1/kvasir"
    assert "pg_dump or pg_basebackup" in run("backup", str(tmp_path / "x"), "--engine", engine, status=2).stderr
    assert "pg_restore" in run("restore", str(tmp_path / "x"), "--engine", engine, status=2).stderr
    assert "no command can reach it" in run("backup", str(tmp_path / "x"), "--engine", "memory:", status=2).stderr
    assert "there is no database" in run("backup", str(tmp_path / "x"), "--data-dir", str(tmp_path), status=1).stderr
    assert "there is no backup" in run("restore", str(tmp_path / "x"), "--data-dir", str(tmp_path), status=1).stderr
    assert not list(tmp_path.iterdir())


def test_the_pace_is_kept_and_progress_told(large: Path, tmp_path: Path) -> None:
    done = run("backup", str(tmp_path / "copy.db"), "--data-dir", str(large), "--max-rate", "2")
    # 12 MiB at 2 MiB a second: there is time for one line, after five seconds or a little more.
    assert re.search(r"of about 12 MiB copied, \d+ s", done.stderr), done.stderr
