"""From libpq's parameters to a connection, by every kind of address that a server can have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from kvasir.config.database_url import connection_parameters
from kvasir.engines.postgres.address import Host, connect_arguments, hosts
from kvasir.errors import Unavailable
from tests.support.lab import Schema
from tests.support.postgres import postgres_engine
from tests.support.serving import wait_until

pytestmark = pytest.mark.one_server("addresses of the server that the tests start")


@pytest.fixture
def schema() -> Iterator[Schema]:
    """An empty schema of the server that all tests share."""
    schema = Schema()
    yield schema
    schema.drop()


def opened(url: str) -> None:
    """Make a connection and the tables."""

    async def story() -> None:
        engine = postgres_engine(url, durable=False)
        await engine.open()
        await engine.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("address", "more"),
    [
        ("127.0.0.1:PORT", ""),
        ("[::1]:1,127.0.0.1:PORT", ""),
        ("[::1]:1,nowhere.invalid,127.0.0.1:PORT", ""),
        ("FOLDER:PORT", ""),
        ("127.0.0.1:1,FOLDER:PORT", ""),
        ("", "&host=FOLDER&port=PORT"),
        ("127.0.0.1:1", "&host=::1,127.0.0.1&port=PORT"),
        ("nowhere.invalid", "&host=::1,FOLDER&port=1,PORT"),
        ("127.0.0.1:PORT", "&sslmode=prefer&ssl_min_protocol_version=TLSv1.3&target_session_attrs=read-write"),
    ],
)
def test_a_server_is_reached_by_each_kind_of_address(schema: Schema, address: str, more: str) -> None:
    server = schema.server
    rest = f"kvasir@{address}/postgres?options={quote('-c search_path=' + schema.name)}{more}"
    rest = rest.replace("PORT", str(server.port)).replace("FOLDER", quote(str(server.folder), safe=""))
    opened(f"postgresql://{rest}")
    assert schema.query("select count(*) from kvasir_schema")[0][0] > 0


def test_the_name_and_the_password_arrive_as_they_are(schema: Schema) -> None:
    """With every character that means something in a URL; the driver mistakes `,` and `=` in names."""
    user, password = f"{schema.name} /@%:?#[]&+ü", "/@%:?#[],&=+ü 🍯"
    quoted = '"' + user + '"'
    schema.query(f"create role {quoted} superuser login password '{password}'")
    rules = schema.server.data / "pg_hba.conf"
    before = rules.read_text()

    def open_with(given: str) -> str:
        try:
            opened(schema.url.replace("kvasir@", f"{quote(user, safe='')}:{quote(given, safe='')}@"))
        except Unavailable as refusal:
            return refusal.message
        return "opened"

    try:
        # The first rule that fits counts.
        rules.write_text(f"host all {quoted} all scram-sha-256\n{before}")
        schema.query("select pg_reload_conf()")
        wait_until(lambda: open_with("topsecret") != "opened", "the server wants a password")
        refusal = open_with("topsecret")
        assert "password authentication failed" in refusal
        assert "topsecret" not in refusal
        assert open_with(password) == "opened"
    finally:
        rules.write_text(before)
        schema.query("select pg_reload_conf()")
        schema.query(f"drop owned by {quoted} cascade")
        schema.query(f"drop role {quoted}")


def test_files_for_tls_are_used(schema: Schema) -> None:
    """They alone reach the driver in a URL."""
    with pytest.raises(Unavailable, match="cannot be reached"):
        opened(schema.url + "&sslmode=require&sslrootcert=/there%26are/none%3F")
    parameters = connection_parameters("postgresql://u:topsecret@h/d?sslmode=allow&sslcert=/a%26b&sslkey=/c d")
    assert connect_arguments(parameters)["dsn"] == "postgresql://?sslcert=%2Fa%26b&sslkey=%2Fc%20d"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("u:p%40@h1,[::1]:2/d?user=x", [("h1", None), ("::1", 2)]),
        ("/d", [(None, None)]),
        ("h1,,%2Frun:7/d", [("h1", None), (None, None), ("/run", 7)]),
        ("/d?host=h1,h2&port=1,2", [("h1", 1), ("h2", 2)]),
        ("/d?host=h1,h2&port=1", [("h1", 1), ("h2", 1)]),
        ("/d?host=h1,h2&port=,2", [("h1", None), ("h2", 2)]),
        ("/d?host=h1,h2", [("h1", None), ("h2", None)]),
    ],
)
def test_hosts_are_tried_one_by_one(rest: str, expected: list[tuple[str | None, int | None]]) -> None:
    assert hosts(connection_parameters(f"postgresql://{rest}")) == [Host(name, port) for name, port in expected]


def test_parameters_have_other_names_in_the_driver() -> None:
    given = "postgresql://h1,h2/d?connect_timeout=7&application_name=mine&sslmode=verify_full&statement_timeout=5s"
    assert connect_arguments(connection_parameters(given)) == {
        "database": "d",
        "ssl": "verify-full",
        "timeout": 7.0,
        "target_session_attrs": "read-write",
        "server_settings": {"application_name": "mine", "statement_timeout": "5s"},
    }
    given = "postgresql://u:p@h/?fallback_application_name=mine&connect_timeout=0"
    assert connect_arguments(connection_parameters(given)) == {
        "user": "u",
        "password": "p",
        "timeout": 5.0,
        "server_settings": {"application_name": "mine"},
    }
    assert connect_arguments({})["server_settings"] == {"application_name": "kvasir"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGPORT", "abc"),
        ("PGHOST", "a..b"),
        ("PGSSLMODE", "foo"),
        ("PGTARGETSESSIONATTRS", "foo"),
    ],
)
def test_what_the_driver_cannot_use_of_the_environment_is_no_crash(
    schema: Schema, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(schema.server.port))
    monkeypatch.setenv(variable, value)
    with pytest.raises(Unavailable, match="PG… variable"):
        opened("postgresql://kvasir@/postgres")


def test_nobody_is_shown_the_password(caplog: pytest.LogCaptureFixture) -> None:
    engine = postgres_engine("postgresql://somebody:topsecret@127.0.0.1:1/d")
    with pytest.raises(Unavailable) as refusal:
        asyncio.run(engine.open())
    assert "topsecret" not in refusal.value.message + caplog.text


def test_hosts_are_tried_in_order_or_in_any_order() -> None:
    names = [f"node-{n}.example.org" for n in range(8)]
    url = f"postgresql://{','.join(names)}/kvasir"
    assert [host.name for host in hosts(connection_parameters(url))] == names
    anyhow = connection_parameters(f"{url}?load_balance_hosts=random")
    seen = [[host.name for host in hosts(anyhow)] for _ in range(20)]
    assert len({tuple(each) for each in seen}) > 1
    assert all(set(each) == set(names) for each in seen)
    assert "load_balance_hosts" not in str(connect_arguments(anyhow))
    with pytest.raises(ValueError, match="load_balance_hosts"):
        connection_parameters(f"{url}?load_balance_hosts=any")
