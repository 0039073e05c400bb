"""Reading and writing keys of a real server, by both clients."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from kvasir_client import (
    Client,
    ConditionNotMet,
    Invalid,
    NotFound,
    Raw,
    Store,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from kvasir_client.transport import CONNECTIONS, Address

from clients.python.tests.conftest import Connect
from tests.support.cli import Commands
from tests.support.serving import Server, free_ports

#: No path can express some of these.
KEYS = ["a", ("a",), ("a/b", ""), (".", "..", "%2F"), ("\x00", "é\n", "𝄞"), ["list"], ('"', "?&#+")]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_any_key_and_any_value(kv: Store, key: str | tuple[str, ...]) -> None:
    value = {"name": "mead", "price": 9.5, "of": [None, True, "é\u2028", 2**63]}
    versionstamp = kv.set(key, value)
    entry = kv.get(key)
    assert entry is not None
    assert entry.value == value
    assert entry.key == ((key,) if isinstance(key, str) else tuple(key))
    assert entry.versionstamp == versionstamp
    assert (entry.expires_at, entry.metadata, entry.refresh) == (None, None, None)
    assert abs(entry.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert kv.delete(key) is True
    assert kv.delete(key) is False
    assert kv.get(key) is None


DEEP = b"[" * 512 + b"]" * 512


@pytest.mark.parametrize(
    "text", [b"9.50", b'{"b": 1,\n "a": 1e+00}', b'"\\u00e9"', b" [ ] ", b'\n"\xc3\xa9"\r\n', DEEP]
)
def test_raw_text_is_stored_as_it_is_wherever_it_goes(kv: Store, text: bytes) -> None:
    kv.set("k", Raw(text))
    kv.set("with long metadata", Raw(text), metadata={"m": "x" * 5_000})
    with kv.transaction() as t:
        t.set("in a transaction", Raw(text))
    entries = list(kv.scan())
    assert [entry.raw for entry in entries] == [text] * 3


@pytest.mark.parametrize(
    "text", [b'{"a": 1.50}', b'{"a":\n1e2,\r\n"\xc3\xa9": [ ]}', b'{"a": "' + b"x" * 5_000 + b'"}']
)
def test_metadata_is_stored_as_it_is(kv: Store, text: bytes) -> None:
    kv.set("a", 1, metadata=Raw(text))
    with kv.transaction() as t:
        t.set("b", 1, metadata=Raw(text))
    kv.set("c", 1)
    entries = [kv.get("a"), kv.get("b"), *kv.scan()]
    assert [entry.raw_metadata for entry in entries if entry] == [text, text, text, text, b""]


@pytest.mark.parametrize(
    "text", [b'1},{"type":"delete","key":["victim"]', b"", b"1 2", b"NaN", b"\xff", b"[" * 100_000]
)
def test_raw_text_is_one_json_value_wherever_it_goes(kv: Store, text: bytes) -> None:
    """In a transaction, what follows a first value would be mutations of a stranger's."""
    kv.set("victim", 1)
    with pytest.raises(Invalid), kv.transaction() as t:
        t.set("k", Raw(text))
    with pytest.raises(Invalid):
        kv.set("k", Raw(text))
    with pytest.raises(Invalid):
        kv.set("k", Raw(text), metadata={"long": "x" * 5_000})
    assert [entry.key for entry in kv.scan()] == [("victim",)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes", object()])
def test_what_json_cannot_express_is_not_sent(kv: Store, value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        kv.set("k", value)
    assert kv.get("k") is None


def test_lives(kv: Store) -> None:
    kv.set("ttl", 1, ttl="1h")
    kv.set("delta", 1, ttl=timedelta(hours=1), refresh=True)
    end = datetime(2100, 1, 1, tzinfo=UTC)
    kv.set("at", 1, expires_at=end)
    ttl, delta, at = (kv.get(name, extend=False) for name in ("ttl", "delta", "at"))
    assert ttl
    assert delta
    assert at
    assert at.expires_at == end
    for entry in (ttl, delta):
        assert entry.expires_at is not None
        assert abs(entry.expires_at - entry.created_at - timedelta(hours=1)) < timedelta(minutes=1)
    assert (ttl.refresh, delta.refresh) == (None, timedelta(hours=1))
    with pytest.raises(Invalid, match="one of them"):
        kv.set("both", 1, ttl="1h", expires_at=end)


def test_reading_extends_a_sliding_life_unless_told_not_to(kv: Store) -> None:
    kv.set("k", 1, ttl="1h", refresh=True)
    first = kv.get("k", extend=False)
    again = kv.get("k", extend=False)
    assert first == again
    kv.get("k")
    later = kv.get("k", extend=False)
    assert first
    assert later
    assert first.expires_at
    assert later.expires_at
    assert later.expires_at > first.expires_at


def test_metadata_may_have_any_letters(kv: Store) -> None:
    metadata = {"colour": "grün", "𝄞": [1, {"x": None}]}
    kv.set("k", 1, metadata=metadata)
    entry = kv.get("k")
    assert entry is not None
    assert entry.metadata == metadata


def test_metadata_may_be_text(kv: Store) -> None:
    text = '\r\n{"colour":\n"grün𝄞\x7f"%s}'
    expected = {"colour": "grün𝄞\x7f"}
    for more in ("", ', "long":"%s"' % ("é" * 5_000)):
        kv.set("k", 1, metadata=Raw((text % more).encode()))
        with kv.transaction() as t:
            t.set("t", 1, metadata=Raw((text % more).encode()))
        for key in ("k", "t"):
            entry = kv.get(key)
            assert entry
            assert entry.metadata is not None
            assert entry.metadata["colour"] == expected["colour"]
            assert ("long" in entry.metadata) == bool(more)
    for wrong in (b"[]", b"1", b"", b'{"n":NaN}', b'{}},{"type":"delete","key":["k"]', b"{" * 5_000, b'{"n":"\xff"}'):
        with pytest.raises(Invalid):
            kv.set("k", 2, metadata=Raw(wrong))
        with pytest.raises(Invalid), kv.transaction() as t:
            t.set("k", 2, metadata=Raw(wrong))
    entry = kv.get("k")
    assert entry
    assert entry.value == 1


def test_conditions(kv: Store) -> None:
    first = kv.set("k", 1, if_absent=True)
    with pytest.raises(ConditionNotMet) as refused:
        kv.set("k", 2, if_absent=True)
    assert refused.value.present == first
    second = kv.set("k", 2, if_version=first)
    with pytest.raises(ConditionNotMet) as refused:
        kv.set("k", 3, if_version=first)
    assert refused.value.present == second
    with pytest.raises(ConditionNotMet) as refused:
        kv.delete("k", if_version=first)
    assert refused.value.present == second
    assert kv.delete("k", if_version=second) is True
    with pytest.raises(ConditionNotMet) as refused:
        kv.set("k", 4, if_present=True)
    assert refused.value.present is None
    with pytest.raises(Invalid, match="one"):
        kv.set("k", 5, if_present=True, if_absent=True)


@pytest.mark.parametrize("versionstamp", ["", 'a", "b', "a\nb", "é"])
def test_what_is_no_versionstamp_meets_no_condition(kv: Store, versionstamp: str) -> None:
    kv.set("k", 1)
    for metadata in (None, {"long": "x" * 5_000}):
        with pytest.raises(Invalid, match="versionstamp"):
            kv.set("k", 2, if_version=versionstamp, metadata=metadata)
    with pytest.raises(Invalid, match="versionstamp"):
        kv.delete("k", if_version=versionstamp)
    with pytest.raises(Invalid, match="versionstamp"):
        kv.transaction().check("k", versionstamp)
    entry = kv.get("k")
    assert entry
    assert entry.value == 1


def test_failures_are_those_of_the_server(client: Client, connect: Connect, server: Server) -> None:
    with pytest.raises(NotFound, match="no-such-store"):
        client.store("no-such-store").get("k")
    with pytest.raises(NotFound) as gone:
        client.store("01J00000000000000000000000").get("k")
    assert gone.value.reason == "store_not_found"
    with pytest.raises(Unauthenticated):
        connect(server.url, key="kv_wrong").store("default").get("k")
    with pytest.raises(TooLarge) as large:
        client.store("default").set("k", "x" * 2_000_000)
    assert large.value.status == 413


def test_a_store_by_name_by_ulid_and_by_variable(
    client: Client, server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.store("default").set("by-name", 1)
    assert client.store(server.store).get("by-name")
    assert client.store(server.store.lower()).get("by-name")
    for name, value in (("URL", server.url), ("KEY", server.key), ("STORE", "default")):
        monkeypatch.setenv(f"KVASIR_{name}", value)
    assert connect().store().get("by-name")
    monkeypatch.delenv("KVASIR_STORE")
    with pytest.raises(Invalid, match="KVASIR_STORE"):
        connect().store()


def test_a_name_may_mean_another_store_later(client: Client) -> None:
    client.create_store("phoenix")
    kv = client.store("phoenix")
    kv.set("k", 1)
    client.store("phoenix").end()
    made = client.create_store("phoenix")
    with pytest.raises(NotFound):
        kv.get("k")
    assert kv.get("k") is None
    assert kv.show().id == made.id


def test_spaces(client: Client) -> None:
    made = client.create_store("listed")
    assert client.create_store("listed") == made
    application = client.create_store("app", "application")
    assert application.kind == "application"
    names = {space.name for space in client.spaces()}
    assert {"listed", "app", "default"} <= names
    assert [space.name for space in client.spaces("application")] == ["app"]
    client.store("app").set("k", 1)
    assert client.store("app").show().entries == 1


def test_who_asks(client: Client, server: Server) -> None:
    about = client.about()
    assert about["caller"]["role"] == "owner"
    assert about["caller"]["organisation"] == server.organisation
    assert client.console_link().startswith(f"{server.url}/console/#code=")


def test_an_update_is_made_anew_when_others_are_faster(kv: Store, server: Server) -> None:
    """And keeps what it does not change."""
    kv.set("n", 0)

    def add() -> None:
        with Client(server.url, key=server.key) as other:
            store = other.store(kv.show().id)
            for _ in range(25):
                store.update("n", lambda n: n + 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        kv.update("n", lambda n: n + 1)
    for thread in threads:
        thread.join()
    entry = kv.get("n")
    assert entry is not None
    assert entry.value == 125


def test_an_update_of_what_is_not_there(kv: Store) -> None:
    with pytest.raises(NotFound, match="default"):
        kv.update("k", lambda v: v)
    assert kv.update("k", lambda v: [*v, 1], default=[]) == [1]
    assert kv.update("k", lambda v: [*v, 2], default=[]) == [1, 2]


def test_a_server_that_is_away_is_unavailable(connect: Connect) -> None:
    (port,) = free_ports(1)
    kv = connect(f"http://127.0.0.1:{port}", key="kv_x", attempts=2).store("01J00000000000000000000000")
    with pytest.raises(Unavailable, match="cannot be reached"):
        kv.get("k")
    with pytest.raises(Unavailable):
        kv.set("k", 1)


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:8901", "ftp://host", "http://", "http://u:p@host", "http://host/?a=b", "http://host?"),
        *("http://host/#", "http://ho st", "http://a..b:1", "http://h\n.example", "http://host:99999"),
        f"http://{'a' * 64}.example",
    ],
)
def test_what_is_no_address(connect: Connect, url: str) -> None:
    with pytest.raises(Invalid, match="address"):
        connect(url, key="kv_x")


@pytest.mark.parametrize("url", ["HTTPS://kvasir.example/KV/", " https://kvasir.example/KV\n"])
def test_certificates_are_checked_however_the_address_is_written(url: str) -> None:
    address = Address(url, None)
    assert address.url == "https://kvasir.example/KV"
    assert address.options(1.0, True, 1)["verify"] is True


def test_another_path_is_no_absent_key(connect: Connect, client: Client, kv: Store, server: Server) -> None:
    kv.set("k", 1)
    with pytest.raises(NotFound, match="path"):
        connect(f"{server.url}/v1", key=server.key).store(kv.show().id).get("k")


def test_what_is_too_long_for_an_address(kv: Store) -> None:
    with pytest.raises(TooLarge):
        kv.get("é" * 12_000)
    with pytest.raises(TooLarge):
        list(kv.scan(metadata={"m": "x" * 70_000}))
    for number in (1_500, 9_000):
        with pytest.raises(TooLarge):
            next(iter(kv.watch(keys=[f"some-longer-key-{n:06}" for n in range(number)])))


def test_many_watches_leave_requests_their_connections(connect: Connect, kv: Store, server: Server) -> None:
    one = connect(server.url, key=server.key, timeout=5.0, attempts=1).store(kv.show().id)
    watches = [one.watch(str(n)) for n in range(CONNECTIONS + 5)]
    assert {next(events).kind for events in watches} == {"ready"}
    one.set("k", 1)
    for events in watches:
        events.close()


def test_a_client_that_is_closed(connect: Connect, server: Server) -> None:
    client = connect(server.url, key=server.key)
    client.close()
    with pytest.raises(Invalid, match="closed"):
        client.about()


FORKED = """
import os, sys
from kvasir_client import Client
kv = Client().store("default")
for name in "ab":
    kv.set(name, name * 20_000)
kv.get("a")
child = os.fork()
name = "a" if child else "b"
right = all(kv.get(name).value == name * 20_000 for _ in range(50))
if not child:
    os._exit(not right)
sys.exit(not right or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

FORKED_THREADS = """
import os, sys, threading
from kvasir_client import Client
kv = Client(timeout=10).store("default")
for n in range(8):
    kv.set(str(n), n)
wrong = []
def ask(n):
    for _ in range(5):
        try:
            found = kv.get(str(n)).value
        except Exception as error:
            found = error
        if found != n:
            wrong.append(found)
def all_at_once():
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
all_at_once()
for _ in range(20):
    child = os.fork()
    all_at_once()
    if not child:
        os._exit(bool(wrong))
    if os.waitpid(child, 0)[1]:
        wrong.append(child)
sys.exit(bool(wrong))
"""


@pytest.mark.parametrize("program", [FORKED, FORKED_THREADS], ids=["one thread", "threads"])
def test_a_forked_process_has_connections_of_its_own(server: Server, program: str) -> None:
    variables = {"KVASIR_URL": server.url, "KVASIR_KEY": server.key, "NO_PROXY": "*"}
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | variables, timeout=120, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("key", ["a b", "a\r\nX: y", "é"])
def test_what_is_no_access_key(connect: Connect, key: str) -> None:
    with pytest.raises(Invalid, match="access key"):
        connect("http://127.0.0.1:1", key=key)


def test_nothing_that_is_printed_holds_the_access_key(connect: Connect) -> None:
    client = connect("http://127.0.0.1:1", key="kv_secret", attempts=1)
    with pytest.raises(Unavailable) as failure:
        client.store("s").get("k")
    assert "kv_secret" not in repr(client) + repr(client.store("s")) + repr(failure.value)


def test_a_key_with_a_limit_sees_its_part_alone(client: Client, connect: Connect, server: Server) -> None:
    commands = Commands(server)
    secret = commands.text("key", "create", "--name", "n", "--role", "viewer", "--store", "default", "--prefix", "a")
    store = connect(server.url, key=secret).store("default")
    client.store("default").set(("a", "b"), 1)
    assert store.get(("a", "b"))
    assert [space.name for space in connect(server.url, key=secret).spaces()] == ["default"]


# -- many keys -----------------------------------------------------------------------------------------------------


def test_many_keys_in_one_snapshot_and_in_order(kv: Store) -> None:
    kv.set("a", 1)
    kv.set("b", Raw(b"2.50"))
    found = kv.get_many(["b", ("no", "such"), "a", "b"])
    assert [entry and entry.raw for entry in found] == [b"2.50", None, b"1", b"2.50"]
    assert kv.get_many([]) == []


def test_a_transaction_happens_as_a_whole(kv: Store) -> None:
    kv.set("gone", 1)
    kv.set(("old", "2"), 2)
    kv.set("n", 5, metadata={"keep": True})
    with kv.transaction() as t:
        t.check("n", present=True)
        t.check("new")
        t.set("new", Raw(b"9.50"), ttl="1h", metadata={"m": 1}, refresh=True)
        t.increment("n", 2**62)
        t.touch("n", ttl="1h")
        t.delete("gone")
        t.delete_prefix("old", expect=1)
    assert t.committed is not None
    assert t.committed.results == (None, 5 + 2**62, 1, 1, 1)
    new, n = kv.get_many(["new", "n"])
    assert new
    assert n
    assert (new.raw, new.metadata, new.versionstamp) == (b"9.50", {"m": 1}, t.committed.versionstamp)
    assert (n.value, n.metadata, n.expires_at is not None) == (5 + 2**62, {"keep": True}, True)
    assert kv.count("old") == 0


def test_a_transaction_that_is_refused_says_everything_that_failed(kv: Store) -> None:
    there = kv.set("there", 1)
    t = kv.transaction()
    t.check("there")
    t.check("absent", present=True)
    t.check("there", there)
    t.set("new", 1)
    with pytest.raises(ConditionNotMet) as refused:
        t.commit()
    assert [(each.key, each.present) for each in refused.value.failed] == [(("there",), there), (("absent",), None)]
    assert t.committed is None
    assert kv.get("new") is None


def test_an_exception_within_a_transaction_sends_nothing(kv: Store) -> None:
    with contextlib.suppress(ZeroDivisionError), kv.transaction() as t:
        t.set("k", 1)
        _ = 1 // 0
    assert kv.get("k") is None
    with kv.transaction():
        pass


def test_increments_are_exact(kv: Store) -> None:
    assert kv.increment("n") == 1
    assert kv.increment("n", 2**62) == 2**62 + 1
    assert kv.increment("n", -(2**62)) == 1
    assert kv.increment("other", 5, initial=100, ttl="1h") == 105
    other = kv.get("other")
    assert other
    assert other.expires_at
    with pytest.raises(Invalid):
        kv.increment("n", 2**63 - 1)
    with pytest.raises(ConditionNotMet):
        kv.increment("no", if_present=True)
    kv.set("text", "x")
    with pytest.raises(Invalid):
        kv.increment("text")
    assert [entry and entry.value for entry in kv.get_many(["n", "no", "text"])] == [1, None, "x"]


def test_a_touch_changes_the_life_alone(kv: Store) -> None:
    versionstamp = kv.set("k", 1, ttl="1h", metadata={"m": 1})
    end = datetime(2100, 1, 1, tzinfo=UTC)
    assert kv.touch("k", expires_at=end) is True
    assert kv.touch("k", ttl="1h", extend=True) is True
    entry = kv.get("k")
    assert entry
    assert (entry.expires_at, entry.versionstamp, entry.metadata) == (end, versionstamp, {"m": 1})
    assert kv.touch("k") is True
    entry = kv.get("k")
    assert entry
    assert entry.expires_at is None
    assert kv.touch("absent", ttl="1h") is False


def test_an_update_keeps_life_and_metadata(kv: Store) -> None:
    kv.set("k", 1, ttl="1h", refresh=True, metadata={"m": 1})
    before = kv.get("k", extend=False)
    assert kv.update("k", lambda n: n + 1) == 2
    after = kv.get("k", extend=False)
    assert before
    assert after
    assert after.value == 2
    assert (after.expires_at, after.refresh, after.metadata) == (before.expires_at, before.refresh, {"m": 1})


def test_an_update_keeps_what_others_change_meanwhile(kv: Store, server: Server) -> None:
    """A sliding life that is read and touched all the time, and metadata."""
    kv.set("k", 0, ttl="1h", refresh=True, metadata={"m": 1})
    ends = [datetime(2100, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(60)]

    def touch() -> None:
        with Client(server.url, key=server.key) as other:
            store = other.store(kv.show().id)
            for end in ends:
                store.touch("k", expires_at=end)
                store.get("k")

    thread = threading.Thread(target=touch)
    thread.start()
    for _ in range(60):
        kv.update("k", lambda n: n + 1)
    thread.join()
    entry = kv.get("k", extend=False)
    assert entry
    assert (entry.value, entry.metadata, entry.refresh) == (60, {"m": 1}, timedelta(hours=1))
    assert entry.expires_at == ends[-1]


def test_metadata_that_no_header_holds_goes_another_way(kv: Store) -> None:
    metadata = {"long": "é" * 5_000}
    first = kv.set("k", 1, metadata=metadata, if_absent=True, ttl="1h")
    with pytest.raises(ConditionNotMet) as refused:
        kv.set("k", 1, metadata=metadata, if_absent=True)
    assert refused.value.present == first
    kv.set("k", 2, metadata=metadata | {"n": 1}, if_version=first, keep=["expiry"])
    entry = kv.get("k")
    assert entry
    assert (entry.value, entry.metadata, entry.expires_at is not None) == (2, metadata | {"n": 1}, True)


def filled(kv: Store, number: int) -> list[tuple[str, ...]]:
    """So many keys of two parts, in order."""
    keys = [("p" if n % 2 else "q", f"{n:05}") for n in range(number)]
    for begin in range(0, number, 500):
        with kv.transaction() as t:
            for key in keys[begin : begin + 500]:
                t.set(key, int(key[1]), metadata={"even": not int(key[1]) % 2})
    return sorted(keys)


def test_scanning_pages_by_itself(kv: Store) -> None:
    keys = filled(kv, 2_500)
    assert [entry.key for entry in kv.scan()] == keys
    assert [entry.value for entry in kv.scan("p", limit=3)] == [1, 3, 5]
    assert [entry.value for entry in kv.scan(order="newest", limit=1_001)][-1] == 2_500 - 1_001
    assert {entry.raw for entry in kv.scan(("q",), values=False)} == {b""}
    assert len(list(kv.scan(metadata={"even": False}, limit=2_000))) == 1_250
    assert list(kv.scan("no")) == []
    now = datetime.now(UTC) + timedelta(hours=1)
    assert list(kv.scan(created_from=now)) == []
    assert len(list(kv.scan(created_to=now, values=False))) == 2_500
    assert (kv.count(), kv.count("p"), kv.count(("p", "00001"))) == (2_500, 1_250, 1)


def test_leaving_a_scan_early(kv: Store) -> None:
    filled(kv, 1_500)
    for entry in kv.scan():
        assert entry.key[0] == "p"
        break
    assert kv.count() == 1_500


def test_the_parts_below_a_prefix(kv: Store) -> None:
    for key in ("a", ("a", "b"), ("a", "b", "c"), ("x", "y"), ("a/b",)):
        kv.set(key, 1)
    assert [(child.part, child.entry, child.below) for child in kv.children()] == [
        ("a", True, True), ("a/b", True, False), ("x", False, True),
    ]  # fmt: skip
    assert [child.part for child in kv.children("a")] == ["b"]
    assert list(kv.children(("a", "b", "c"))) == []
    filled(kv, 2_500)
    assert len(list(kv.children("p"))) == 1_250
    assert [child.part for child in kv.children("p", limit=2)] == ["00001", "00003"]


def test_a_prefix_is_removed_if_there_are_as_many_as_expected(kv: Store) -> None:
    filled(kv, 10)
    with pytest.raises(ConditionNotMet) as refused:
        kv.delete_prefix("p", expect=4)
    assert refused.value.count == 5
    assert kv.delete_prefix("p", expect=5) == 5
    with pytest.raises(Invalid, match="everything"):
        kv.delete_prefix(())
    assert kv.delete_prefix((), everything=True) == 5
    assert kv.count() == 0
