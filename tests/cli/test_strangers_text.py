"""Names that strangers chose, in what the commands print: no name fakes a row, and --json has each exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Commands
from tests.support.http_client import client
from tests.support.nemesis import client as nemesis
from tests.support.serving import serving

NAME = "a\x1b[2J\x07\n01JZX0W7M2Q4T8V6B3N5C9D1EF  fake  0\r\x9b31m\u202eb"
SHOWN = r"a\x1b[2J\x07\n01JZX0W7M2Q4T8V6B3N5C9D1EF  fake  0\r\x9b31m\u202eb"


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """The commands on a database in which every name is a trap; its server has ended."""
    directory: Path = tmp_path_factory.mktemp("traps")
    with serving(directory) as server, nemesis(server.nemesis_url) as caller:
        made = client.post(f"{server.url}/o/{server.organisation}/store", headers=server.headers, json={"name": NAME})
        assert made.status_code == 200
        caller.session(NAME, shared=True)
        run = Commands(server)
        run("application", "create", "--name", "myapp")
        run("key", "create", "--role", "viewer", "--name", NAME, "--prefix", NAME)
        run("service-account", "create", "--role", "Developer", "--description", NAME)
        return run


@pytest.mark.parametrize("group", ["store", "session", "key", "service-account"])
def test_a_name_is_one_cell_of_one_row(commands: Commands, group: str) -> None:
    lines = commands.text(group, "list").split("\n")
    found = commands.json(group, "list")
    assert len(lines) == 1 + len(found)
    assert sum(SHOWN in line for line in lines) == 1
    assert all(line.isprintable() for line in lines)
    assert NAME in {each.get("name", each.get("description")) for each in found}


def test_the_json_of_a_terminal_is_harmless_too(commands: Commands) -> None:
    assert all(line.isprintable() for line in commands.text("session", "list", "--json").split("\n"))
    assert all(line.isprintable() for line in commands.text("session", "show", NAME).split("\n"))


def test_messages_about_a_name_are_one_line(commands: Commands) -> None:
    (key,) = [each["id"] for each in commands.json("key", "list") if each["name"] == NAME]
    assert commands("key", "revoke", key).stderr == f"revoked {key} ({SHOWN})\n"
    store = commands("store", "share", "default", "--session", NAME, status=1).stderr
    assert store.count("\n") == 1
    assert store[:-1].isprintable()
