"""The administrative commands, as a person or a script runs them, against a database that a server is using."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvasir
from tests.support.cli import Commands, run
from tests.support.http_client import client
from tests.support.nemesis import client as nemesis
from tests.support.organisations import ORGANISATION
from tests.support.serving import KVASIR, Server, serving


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("workers"), "--workers", "2") as server:
        yield server


@pytest.fixture
def commands(two_workers: Server) -> Commands:
    return Commands(two_workers)


def statuses(server: Server, secret: str, path: str = "", *, times: int = 24) -> set[int]:
    """The statuses of several requests."""
    address = server.url + (path or f"/o/{server.organisation}/store")
    return {client.get(address, headers={"Authorization": f"Bearer {secret}"}).status_code for _ in range(times)}


def test_version_is_told() -> None:
    assert run("--version").stdout == f"kvasir {kvasir.__version__}\n"


def test_the_heavy_modules_stay_unloaded_until_needed() -> None:
    """So that `kvasir --version` and every other command starts quickly."""
    code = "import sys, kvasir.cli; print(sorted({'httptools', 'apsw', 'cryptography', 'jwt'} & set(sys.modules)))"
    python = KVASIR.with_name("python")
    assert subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_command_shows_help() -> None:
    done = run(status=2)
    assert "serve" in done.stdout + done.stderr


def test_a_key_lives_from_create_to_revoke_in_every_worker(commands: Commands) -> None:
    secret = commands.text("key", "create", "--name", "phone", "--role", "viewer")
    assert re.fullmatch(r"kv_[\w-]{43}", secret)
    assert statuses(commands.server, secret) == {200}
    (listed,) = [key for key in commands.json("key", "list") if key["name"] == "phone"]
    assert listed["role"] == "viewer"
    assert secret not in commands("key", "list").stdout + commands("key", "list", "--json").stdout
    commands("key", "revoke", listed["id"])
    assert statuses(commands.server, secret) == {401}
    assert "kvasir key list" in commands("key", "revoke", listed["id"], status=1).stderr


def test_the_secret_alone_is_on_standard_output(commands: Commands) -> None:
    done = commands("key", "create", "--name", "script", "--role", "developer")
    assert re.fullmatch(r"kv_[\w-]{43}\n", done.stdout)
    assert "once" in done.stderr


def test_a_key_with_every_limit(commands: Commands) -> None:
    store = commands.text("store", "create", "limited")
    made = commands.json(
        "key", "create", "--name", "n", "--role", "developer", "--store", "limited", "--prefix", "a/b",
        "--expires-in", "30d",
    )  # fmt: skip
    assert (made["stores"], made["prefix"], made["role"]) == ([store], ["a", "b"], "developer")
    assert made["expires_at"][:4] >= made["created_at"][:4]
    headers = {"Authorization": f"Bearer {made['key']}"}

    def put(store: str, key: str) -> int:
        url = f"{commands.server.url}/store/{store}/kv/{key}"
        return client.put(url, headers=headers, json={"value": 1}).status_code

    assert put(store, "a/b/c") == 200
    assert put(store, "a/c") == 403
    assert put(commands.server.store, "a/b/c") == 404


def test_a_prefix_as_json(commands: Commands) -> None:
    made = commands.json("key", "create", "--name", "n", "--role", "viewer", "--prefix", '["a/b", ""]')
    assert made["prefix"] == ["a/b", ""]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--role", "root", "--name", "n"), "owner, admin"),
        (("--role", "viewer", "--name", ""), "name"),
        (("--role", "viewer", "--name", "n", "--expires-in", "soon"), "30d"),
        (("--role", "viewer", "--name", "n", "--expires-in", "0d"), "30d"),
        (("--role", "viewer", "--name", "n", "--prefix", "a//b"), "empty"),
        (("--role", "viewer", "--name", "n", "--prefix", "[1]"), "JSON"),
        (("--role", "viewer", "--name", "n", "--prefix", "[]"), "at least one"),
        (("--role", "viewer"), "--name"),
        (("--rolle", "viewer"), "--rolle"),
    ],
)
def test_key_create_with_mistakes(commands: Commands, arguments: tuple[str, ...], word: str) -> None:
    before = commands.json("key", "list")
    assert word in commands("key", "create", *arguments, status=2).stderr
    assert commands.json("key", "list") == before


def test_a_key_cannot_be_limited_to_an_unknown_store(commands: Commands) -> None:
    done = commands("key", "create", "--name", "n", "--role", "viewer", "--store", "nowhere", status=1)
    assert "nowhere" in done.stderr


def test_stores(commands: Commands) -> None:
    store = commands.text("store", "create", "mine")
    assert commands.text("store", "create", "mine") == store
    url = f"{commands.server.url}/store/{store}/kv/greeting"
    assert client.put(url, headers=commands.server.headers, json={"value": 1}).status_code == 200
    (listed,) = [one for one in commands.json("store", "list") if one["name"] == "mine"]
    assert (listed["id"], listed["entries"], listed["organisation"]) == (store, 1, ORGANISATION)
    assert store in commands("store", "list").stdout
    assert "--yes" in commands("store", "delete", "mine", status=2).stderr
    commands("store", "delete", "mine", "--yes")
    assert statuses(commands.server, commands.server.key, f"/store/{store}/kv/greeting") == {404}
    assert "store list" in commands("store", "delete", "mine", "--yes", status=1).stderr


def test_only_stores_are_deleted_as_stores(commands: Commands) -> None:
    application = commands.json("application", "create", "--name", "app", "--id", "7")["id"]
    with nemesis(commands.server.nemesis_url) as caller:
        caller.session("sitting")
    (session,) = [each["id"] for each in commands.json("session", "list") if each["name"] == "sitting"]
    for id, word in (
        (application, "the application 'app'; `kvasir application delete`"),
        (session, "the session 'sitting'; `kvasir session end`"),
    ):
        assert word in commands("store", "delete", id, "--yes", status=1).stderr
    assert application in {each["id"] for each in commands.json("application", "list")}
    assert session in {each["id"] for each in commands.json("session", "list")}
    commands("application", "delete", "7", "--yes")
    commands("session", "end", session, "--yes")


def test_a_store_is_deleted_by_its_ulid(commands: Commands) -> None:
    store = commands.text("store", "create", "by id")
    commands("store", "delete", store, "--yes")
    assert "by id" not in commands("store", "list").stdout


def test_store_names_have_a_limit(commands: Commands) -> None:
    commands("store", "create", "n" * 255)
    assert "255" in commands("store", "create", "n" * 256, status=2).stderr
    assert "1 to 255" in commands("store", "create", "", status=2).stderr


def test_another_organisation(commands: Commands) -> None:
    other = "01JZX0W7M2Q4T8V6B3N5C9D1EG"
    commands("store", "create", "theirs", "--organisation", other)
    assert [one["name"] for one in commands.json("store", "list", "--organisation", other)] == ["theirs"]
    assert "theirs" not in commands("store", "list").stdout
    commands("store", "delete", "theirs", "--yes", status=1)
    assert "ULID" in commands("store", "list", "--organisation", "acme", status=2).stderr


def test_check_finds_the_data_sound(commands: Commands) -> None:
    found = commands.json("check")
    assert found["sound"] is True
    told = f"{found['spaces']:,} spaces? with {found['entries']:,} entries \\(Kvasir's own included\\)"
    assert re.fullmatch(f"sound: {told}\n", commands("check").stdout)


def test_a_dump_that_cannot_be_opened_is_named_as_it_was_typed(commands: Commands, tmp_path: Path) -> None:
    nowhere = tmp_path / "no" / "dump"
    said = f"kvasir: {nowhere}: there is no directory {nowhere.parent}; make it first, or choose another place\n"
    assert commands("dump", str(nowhere), status=2).stderr == said
    for name in ("missing", "missing.gz"):
        said = f"kvasir: {tmp_path}/{name}: no such file or directory; check the name\n"
        assert commands("load", str(tmp_path / name), status=2).stderr == said


@pytest.mark.only_sqlite("copies its file")
def test_what_a_database_holds_is_told_in_the_same_words_by_all(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        here = server.database_options
        held = f"1 space with {Commands(server).json('check')['entries']} entries (Kvasir's own included)"
        assert run("check", *here).stdout == f"sound: {held}\n"
        assert run("dump", str(tmp_path / "dump"), *here).stderr == f"dumped {held}\n"
        assert f": {held}; " in run("backup", str(tmp_path / "copy.db"), *here).stderr
        assert f" {held}, " in run("status", "--url", server.url, KVASIR_KEY=server.key).stdout
    done = run("restore", str(tmp_path / "copy.db"), "--data-dir", str(tmp_path / "restored"))
    assert f": {held}; " in done.stderr
    done = run("load", str(tmp_path / "dump"), "--data-dir", str(tmp_path / "loaded"))
    assert done.stderr.startswith(f"loaded {held}: ")


@pytest.mark.only_sqlite("a database that is not there is a missing file")
def test_a_directory_without_data(tmp_path: Path) -> None:
    for command in (("key", "list"), ("store", "list"), ("check",)):
        done = run(*command, "--data-dir", str(tmp_path / "typo"), status=1)
        assert "typo" in done.stderr
    assert not (tmp_path / "typo").exists()


def test_the_memory_engine_cannot_be_administered(tmp_path: Path) -> None:
    assert "memory:" in run("key", "list", "--engine", "memory:", status=2, cwd=tmp_path).stderr


@pytest.mark.only_sqlite("about its file")
def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "kvasir.db").write_bytes(b"something else\n" * 1_000)
    assert "no SQLite database, or is damaged" in run("check", "--data-dir", str(tmp_path), status=1).stderr
    assert [file.name for file in tmp_path.iterdir()] == ["kvasir.db"]


@pytest.mark.only_sqlite("names its file")
def test_settings_reach_the_commands_by_variable_and_file(commands: Commands, tmp_path: Path) -> None:
    data = str(commands.server.data_dir)
    by_variable = run("store", "list", "--json", cwd=tmp_path, KVASIR_DATA_DIR=data)
    (tmp_path / "kvasir.toml").write_text(f"data_dir = '{data}'")
    by_file = run("store", "list", "--json", cwd=tmp_path)
    assert by_variable.stdout == by_file.stdout == commands("store", "list", "--json").stdout
    by_engine = run("store", "list", "--json", "--engine", f"sqlite:{data}/kvasir.db", cwd=tmp_path)
    assert by_engine.stdout == by_file.stdout


@pytest.mark.only_sqlite("about its file")
def test_a_database_elsewhere_needs_no_data_directory_here(commands: Commands, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    engine = f"sqlite:{commands.server.data_dir}/kvasir.db"
    for command in (("check",), ("store", "list"), ("key", "list")):
        run(*command, "--engine", engine, cwd=here)
    assert list(here.iterdir()) == []
