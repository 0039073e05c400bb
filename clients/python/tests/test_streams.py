"""Export, import and watching, by both clients, against a real server."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kvasir_client import (
    Client,
    ConditionNotMet,
    Event,
    Invalid,
    NotFound,
    Raw,
    Store,
    Timeout,
    Unauthenticated,
    Unavailable,
)

from clients.python.tests.conftest import Connect
from clients.python.tests.support.cutting import cutting
from tests.support.cli import Commands
from tests.support.serving import Server, serving, wait_until

END = datetime(2100, 1, 1, tzinfo=UTC)


def fill(kv: Store) -> None:
    kv.set(("a", "1"), Raw(b'{"n":\n 9.50}'), metadata={"m": "\n"})
    kv.set(("a", "2"), "é", ttl="1h", refresh=True)
    kv.set("b", 2**70, expires_at=END)


def seen(kv: Store) -> list[tuple[object, ...]]:
    return [(e.key, e.raw, e.metadata, e.refresh, e.expires_at) for e in kv.scan()]


def test_what_is_exported_is_what_is_imported(client: Client, kv: Store, tmp_path: Path) -> None:
    fill(kv)
    file = tmp_path / "all.ndjson"
    assert kv.export(file) == 3
    assert kv.export(str(tmp_path / "a"), prefix="a") == 2
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0]["text"] == '{"n":\n 9.50}'
    assert lines[-1] == {"end": {"entries": 3}}
    other = client.store(client.create_store(f"copy of {kv.show().name}").id)
    loaded = other.load(file)
    assert (loaded.set, loaded.kept, loaded.refused, loaded.whole) == (3, 0, 0, True)
    assert seen(other) == seen(kv)
    buffer = io.BytesIO()
    assert other.export(buffer, "b") == 1
    assert other.delete_prefix((), everything=True) == 3
    assert other.load(io.BytesIO(buffer.getvalue())).set == 1
    assert list(other.export_pieces("no")) == [b'{"end":{"entries":0}}\n']


def test_a_file_keeps_its_place_and_mode(kv: Store, tmp_path: Path) -> None:
    fill(kv)
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("older")
    file.chmod(0o640)
    link.symlink_to(file)
    kv.export(link)
    assert link.is_symlink()
    assert len(file.read_text().splitlines()) == 4
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    kv.export(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_a_pipe_is_written_to(kv: Store, tmp_path: Path) -> None:
    fill(kv)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    kv.export(pipe)
    reader.join()
    assert len(read[0].splitlines()) == 4


def test_what_an_import_reads(kv: Store, tmp_path: Path) -> None:
    line = '{"key":["é"],"value":1}\n'
    path = tmp_path / "lines"
    path.write_text(line, encoding="utf-8")
    sources: list[Any] = [line.encode(), [line.encode()], [line], io.StringIO(line), io.BytesIO(line.encode()), path]
    with path.open(encoding="utf-8") as text:
        for source in [*sources, str(path), text]:
            assert kv.load(source).set == 1
    with pytest.raises(TypeError, match="not int"):
        kv.load(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bytes"):
        kv.export(io.StringIO())  # type: ignore[arg-type]


def test_lines_by_hand_and_those_that_are_refused(kv: Store) -> None:
    lines = [b'{"key":["x"],"value":1.50,"ttl":"1h"}\n', b"no\n", b'{"key":[],"value":1}\n', b'{"key":["y"],"value":2}']
    loaded = kv.load(lines, dry_run=True)
    assert (loaded.set, loaded.refused) == (2, 2)
    assert kv.count() == 0
    loaded = kv.load(lines)
    assert (loaded.set, loaded.kept, loaded.refused, loaded.whole) == (2, 0, 2, None)
    assert [refusal.line for refusal in loaded.refusals] == [2, 3]
    assert all(refusal.reason for refusal in loaded.refusals)
    x = kv.get("x")
    assert x
    assert x.raw == b"1.50"


def test_what_becomes_of_keys_that_exist(kv: Store) -> None:
    kv.set("old", 1)
    lines = [b'{"key":["old"],"value":2}\n', b'{"key":["new"],"value":2}\n']
    loaded = kv.load(lines, mode="keep")
    assert (loaded.set, loaded.kept) == (1, 1)
    with pytest.raises(ConditionNotMet, match="line 1"):
        kv.load(lines, mode="fail")
    many = [b'{"key":["many","%d"],"value":1}\n' % n for n in range(1_500)]
    with pytest.raises(ConditionNotMet, match=r"lines up to \d+ stay imported") as refused:
        kv.load([*many, lines[0]], mode="fail")
    assert refused.value.details["imported"]["set"] == kv.count("many") >= 500
    assert [entry.value for entry in kv.scan("old")] == [1]
    assert kv.load(lines).set == 2


def test_a_cut_export_is_known_as_cut(connect: Connect, kv: Store, server: Server, tmp_path: Path) -> None:
    kv.load(b'{"key":["k","%d"],"value":"%b"}\n' % (n, b"x" * 500) for n in range(2_000))
    with cutting(server.port, 1, longest=(10**9, 200_000)) as proxy:
        through = connect(f"http://127.0.0.1:{proxy.port}", key=server.key).store(kv.show().id)
        file = tmp_path / "cut.ndjson"
        with pytest.raises(Unavailable, match="not whole"):
            through.export(file)
    assert list(tmp_path.iterdir()) == []


def test_failures_of_streams(client: Client, kv: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        list(client.store("no-such-store").export_pieces())
    with pytest.raises(FileNotFoundError):
        kv.load(tmp_path / "none")
    with pytest.raises(NotFound):
        next(iter(client.store("01J00000000000000000000000").watch()))
    with pytest.raises(Invalid):
        next(iter(kv.watch("a", keys=["b"])))


# -- watching ------------------------------------------------------------------------------------------------------


@contextmanager
def watching(events: Iterator[Event]) -> Iterator[Iterator[Event]]:
    """Events behind the first one, `ready`."""
    first = next(events)
    assert first.kind == "ready"
    assert first.versionstamp is not None
    try:
        yield events
    finally:
        events.close()  # type: ignore[attr-defined]


def test_every_kind_of_change_is_told(kv: Store) -> None:
    with watching(kv.watch("a")) as events:
        kv.set("other", 1)
        versionstamp = kv.set(("a", "1"), Raw(b"9.50"), ttl="1h", metadata={"m": 1})
        event = next(events)
        assert (event.kind, event.key, event.versionstamp) == ("set", ("a", "1"), versionstamp)
        assert event.entry == kv.get(("a", "1"))
        kv.touch(("a", "1"), expires_at=END)
        event = next(events)
        assert (event.kind, event.key, event.expires_at) == ("expiry", ("a", "1"), END)
        kv.touch(("a", "1"))
        event = next(events)
        assert (event.kind, event.expires_at) == ("expiry", None)
        kv.delete(("a", "1"))
        event = next(events)
        assert (event.kind, event.key, event.entry) == ("delete", ("a", "1"), None)
        kv.set(("a", "2"), "x" * 100_000)
        event = next(events)
        assert (event.kind, event.key, event.entry) == ("set", ("a", "2"), None)
        kv.delete_prefix("a")
        event = next(events)
        assert (event.kind, event.key) == ("delete_prefix", ("a",))


def test_watching_some_keys(kv: Store) -> None:
    with watching(kv.watch(keys=["x", ("y", "z")])) as events:
        kv.set("y", 0)
        with kv.transaction() as t:
            t.set("x", 1)
            t.set("w", 2)
            t.set(("y", "z"), 3)
        assert t.committed
        found = [next(events), next(events)]
    assert {event.key for event in found} == {("x",), ("y", "z")}
    assert {event.versionstamp for event in found} == {t.committed.versionstamp}


def test_a_lost_connection_misses_nothing(connect: Connect, kv: Store, server: Server) -> None:
    with cutting(server.port, 1, longest=(10**9, 10**9)) as proxy:
        through = connect(f"http://127.0.0.1:{proxy.port}", key=server.key).store(kv.show().id)
        with watching(through.watch()) as events:
            kv.set("k", 1)
            assert next(events).key == ("k",)
            for n in range(2, 5):
                proxy.sever()
                kv.set("k", n)
                kv.set(("n", str(n)), n)
                told: list[Event] = []
                while not told or told[-1].key != ("n", str(n)):
                    told.append(next(events))
                kinds = [event.kind for event in told]
                assert kinds[0] == "ready"
                assert "resync" not in kinds
                assert [event.entry.value for event in told if event.entry] == [n, n]


def test_a_watch_ends_with_its_store(client: Client, kv: Store) -> None:
    named = client.store(kv.show().name)
    with watching(named.watch()) as events:
        kv.end()
        with pytest.raises(NotFound) as gone:
            next(events)
    assert gone.value.reason == "store_not_found"
    client.create_store(kv._do.space.given)
    assert named.count() == 0


def test_a_watch_ends_with_its_access_key(connect: Connect, kv: Store, server: Server) -> None:
    commands = Commands(server)
    made = commands.json("key", "create", "--name", "watcher", "--role", "viewer")
    with watching(connect(server.url, key=made["key"]).store(kv.show().id).watch()) as events:
        commands("key", "revoke", made["id"])
        with pytest.raises(Unauthenticated):
            next(events)


def test_the_first_connection_must_succeed(connect: Connect) -> None:
    with pytest.raises(Unavailable):
        next(iter(connect("http://127.0.0.1:1", key="kv_x", attempts=1).store("01J00000000000000000000000").watch()))


def test_a_sliding_life_is_told(kv: Store) -> None:
    kv.set("k", 1, ttl="1h", refresh=True)
    with watching(kv.watch()) as events:
        kv.get("k")
        event = next(events)
        assert event.kind == "expiry"
        assert event.expires_at
        assert event.expires_at - datetime.now(UTC) > timedelta(minutes=50)


def test_a_watch_in_another_thread_ends_when_the_client_is_closed(server: Server) -> None:
    """At once, and not when the server next says something."""
    client = Client(server.url, key=server.key, attempts=1)
    events = client.store("default").watch("never")
    assert next(events).kind == "ready"
    found: list[Exception] = []

    def follow() -> None:
        try:
            next(events)
        except Exception as error:  # whatever it is
            found.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    wait_until(lambda: getattr(events, "gi_running", True), "the thread reads")
    client.close()
    thread.join(10)  # a comment comes after 15 s
    assert [type(each) for each in found] == [Invalid]


def test_a_server_that_stands_still_is_noticed_in_time(connect: Connect, tmp_path: Path) -> None:
    """Before a stream begins. Then it may be silent, as long as its comments take."""
    with serving(tmp_path) as server:
        kv = connect(server.url, key=server.key, timeout=2.0, attempts=1).store("default")
        kv.count()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for stream in (kv.watch(), kv.export_pieces()):
                began = time.monotonic()
                with pytest.raises(Timeout):
                    next(stream)
                assert time.monotonic() - began < 20  # it would be 45 or 60
        finally:
            os.kill(server.pid, signal.SIGCONT)
        events = kv.watch()
        assert next(events).kind == "ready"
        later = threading.Timer(3.0, lambda: kv.set("late", 1))
        later.start()
        assert next(events).key == ("late",)
        later.join()
        events.close()
