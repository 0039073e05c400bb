"""The process beside the server that reads what is large: what goes through it, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import json
import os
import pickle
import pkgutil
import re
import signal
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

import kvasir.dialects
from kvasir import errors, limits
from kvasir.access.service_tokens import BadToken, Flaw
from kvasir.beside import process
from kvasir.beside.process import NEAR_BYTES, aside
from kvasir.dialects.native import routes as native
from kvasir.dialects.native.preconditions import ConditionNotMet
from kvasir.dialects.versori import routes as versori
from kvasir.dialects.voximplant.errors import RANGE, ApiError
from kvasir.errors import Invalid, KvasirError, TooLarge, Unavailable
from kvasir.limits import Limits
from tests.hostile.gauges import family
from tests.support import beside, nemesis_replay, versori_replay
from tests.support.all_aside import PROGRAM
from tests.support.serving import Server, serving, wait_until

TRANSCRIPTS = Path(__file__).parent / "nemesis" / "transcripts"

#: As long as a text must be for the process.
FAR = "x" * (NEAR_BYTES + 1)


def called(function: Any, *arguments: Any, text: Any = FAR) -> Any:
    return asyncio.run(aside(function, text, *arguments))


@pytest.fixture
def pid() -> int:
    """Of the process, which has started."""
    return int(called(beside.process_id))


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# -- what goes through it -------------------------------------------------------------------------------------


def test_what_is_short_is_read_in_this_process_and_what_is_longer_in_another() -> None:
    process.stop()
    assert called(beside.process_id, text="x" * NEAR_BYTES) == os.getpid()
    assert process.pid() is None, "no server pays for a process that it does not need"
    assert called(beside.process_id) == process.pid() != os.getpid()


def test_every_loop_of_a_process_shares_the_other(pid: int) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(called(beside.process_id))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [pid] * 4


def test_large_texts_come_through_as_they_are() -> None:
    text = os.urandom(1 << 24)
    assert called(beside.same, "ä", None, [text, text], text=text) == (text, "ä", None, [text, text])


def test_who_is_served_by_the_event_loop_goes_first() -> None:
    assert called(beside.niceness) >= os.nice(0) + 5


MADE: dict[type[Exception], Exception] = {
    Invalid: Invalid("message", fields=(("options.expireIn", "must be > 0"),), code="too_large"),
    TooLarge: TooLarge("message", fields=(("a", "b"),), subject="key", index=7),
    ApiError: ApiError(RANGE, "count", 1, 5, field="count", detail="so few", reason="r", version=None),
    BadToken: BadToken(Flaw.FORMAT),
    ConditionNotMet: ConditionNotMet("message", versionstamp=7),
    native.MethodNotAllowed: native.MethodNotAllowed("PUT", {}),
    versori.MethodNotAllowed: versori.MethodNotAllowed("PUT", {"GET": "GetKV"}),
}


def failures() -> list[Exception]:
    """One of every class that a dialect, or what it stands on, raises."""
    classes: set[type[Exception]] = set()
    for module in [errors, *map(importlib.import_module, DIALECTS)]:
        found = [each for each in vars(module).values() if isinstance(each, type)]
        classes |= {each for each in found if issubclass(each, Exception) and each.__module__.startswith("kvasir.")}
    ordered = sorted(classes, key=lambda each: f"{each.__module__}.{each.__qualname__}")
    return [MADE[each] if each in MADE else each("message") for each in ordered]


DIALECTS = [module.name for module in pkgutil.walk_packages(kvasir.dialects.__path__, "kvasir.dialects.")]


@pytest.mark.parametrize("error", failures(), ids=lambda error: type(error).__name__)
def test_a_refusal_comes_through_whole(error: Exception) -> None:
    if isinstance(error, KvasirError):
        error.message = f"keys[3]: {error.message}"  # as who knows more adds to it
    with pytest.raises(type(error)) as caught:
        called(beside.fail, error)
    assert type(caught.value) is type(error)
    assert vars(caught.value) == vars(error)
    assert str(caught.value) == str(error)


def test_a_fault_of_ours_tells_where_it_was() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        called(beside.divide)
    assert "in divide" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="Unfit") as caught_unfit:
        called(beside.fail_unfit)
    assert "in fail_unfit" in caught_unfit.value.__notes__[0]


def test_what_cannot_be_asked_is_a_fault_and_harms_nobody() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        called(lambda text: text)
    assert called(beside.same) == (FAR,)


def test_refusals_are_counted_in_the_server() -> None:
    before = limits.refusals["value_bytes"]
    for _ in range(2):
        with pytest.raises(TooLarge):
            called(beside.too_large, Limits(value_bytes=10))
    assert limits.refusals["value_bytes"] == before + 2


def test_what_nobody_waits_for_any_more_is_neither_begun_nor_kept(tmp_path: Path) -> None:
    begun, go, left, kept = (tmp_path / name for name in ("begun", "go", "left", "kept"))

    async def story() -> None:
        first = asyncio.ensure_future(aside(beside.wait_for, FAR, begun, go))
        await asyncio.to_thread(wait_until, begun.exists, "the first has begun")
        body = beside.Body()
        leaving = asyncio.ensure_future(aside(beside.note, FAR, left, body))
        staying = asyncio.ensure_future(aside(beside.note, FAR, kept))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        is_kept = weakref.ref(body)
        del body, leaving
        assert is_kept() is None
        go.touch()
        await staying
        assert await first == "done"

    asyncio.run(story())
    assert kept.exists()
    assert not left.exists()


# -- what becomes of it ---------------------------------------------------------------------------------------


def test_what_was_in_hand_when_it_is_killed_is_done_by_the_next(tmp_path: Path, pid: int) -> None:
    begun = tmp_path / "begun"

    async def story() -> str:
        asking = asyncio.ensure_future(aside(beside.hang_once, FAR, begun))
        await asyncio.to_thread(wait_until, begun.exists, "it has begun")
        os.kill(pid, signal.SIGKILL)
        return await asking

    assert asyncio.run(story()) == "done"
    assert process.pid() not in (None, pid)
    assert not is_running(pid)


def test_a_request_that_kills_every_process_is_given_up() -> None:
    with pytest.raises(Unavailable, match="nothing was done"):
        called(beside.end_itself)
    assert called(beside.same) == (FAR,)


def test_without_another_process_it_is_told_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    process.stop()
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(Unavailable, match="nothing was done"):
        called(beside.same)


def test_what_is_in_hand_when_it_is_told_to_stop_is_given_up(tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    async def story() -> None:
        asking = asyncio.ensure_future(aside(beside.hang_once, FAR, begun))
        await asyncio.to_thread(wait_until, begun.exists, "it has begun")
        process.stop()
        with pytest.raises(Unavailable):
            await asking

    asyncio.run(story())
    assert process.pid() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_goes_on_when_everybody_is_told_to_stop(tmp_path: Path, number: signal.Signals, pid: int) -> None:
    """As systemd and a terminal do."""
    begun, go = tmp_path / "begun", tmp_path / "go"

    async def story() -> str:
        asking = asyncio.ensure_future(aside(beside.wait_for, FAR, begun, go))
        await asyncio.to_thread(wait_until, begun.exists, "it has begun")
        os.kill(pid, number)
        go.touch()
        return await asking

    assert asyncio.run(story()) == "done"
    assert process.pid() == pid


# -- at the wire ----------------------------------------------------------------------------------------------

LARGE = json.dumps(["x"] * 50_000).encode()


def put(server: Server, value: bytes = LARGE) -> int:
    target = f"{server.url}/v1/spaces/{server.store}/entries/large"
    return httpx.put(target, content=value, headers=server.headers, timeout=60, trust_env=False).status_code


def processes_of(server: Server) -> list[int]:
    return [pid for pid in family(server.pid) if pid != server.pid]


def test_a_server_has_one_process_from_its_first_large_request_on(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert put(server, b"[" + b"1," * 20_000 + b"1]") == 201
        assert processes_of(server) == []
        assert [put(server), put(server)] == [200, 200]
        (pid,) = processes_of(server)
        assert server.stop() == 0
        assert not is_running(pid)


def test_what_was_in_hand_at_the_wire_is_answered_when_the_process_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server, ThreadPoolExecutor(1) as others:
        assert put(server) == 201
        (first,) = processes_of(server)
        os.kill(first, signal.SIGSTOP)
        putting = others.submit(put, server)
        wait_until(lambda: held(server) > 0, "the server has the body")
        os.kill(first, signal.SIGKILL)
        assert putting.result() == 200
        (second,) = processes_of(server)
        assert second != first


def held(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics", headers=server.headers, trust_env=False).text
    found = re.search(r"^kvasir_held_body_bytes\S* (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_process_outlives_a_server_that_is_killed(tmp_path: Path, workers: str) -> None:
    with serving(tmp_path, "--workers", workers) as server:
        assert put(server) == 201
        pids = processes_of(server)
        assert len(pids) == (1 if workers == "1" else 3)
        os.kill(server.pid, signal.SIGKILL)  # itself alone, and no other process of its
        server.wait()
        wait_until(lambda: not any(map(is_running, pids)), "all of them have ended")


# -- the recorded conversations, with everything that they send read by the process ---------------------------


@pytest.fixture(scope="module")
def all_aside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"PYTHONPATH": str(Path(__file__).parents[1])}
    with serving(tmp_path_factory.mktemp("aside"), program=PROGRAM, env=env) as server:
        yield server


@pytest.mark.parametrize("name", versori_replay.NAMES)
def test_a_recorded_conversation_of_versori(all_aside: Server, name: str) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", all_aside.port, timeout=30)) as connection:

        def send(method: str, target: str, body: bytes) -> tuple[int, str]:
            connection.request(method, target, body or None, {"Authorization": f"JWT {all_aside.key}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

        body = json.dumps({"name": f"transcript {name}"}).encode()
        _, created = send("POST", f"/api/v2/o/{all_aside.organisation}/store", body)
        versori_replay.replay(name, send, store=json.loads(created)["id"], organisation=all_aside.organisation)


@pytest.mark.parametrize("name", ["session"])
def test_a_recorded_conversation_of_nemesis(all_aside: Server, name: str) -> None:
    replay = nemesis_replay.Replay(lambda connection, message: connection.send(message))
    with connect(all_aside.nemesis_url, compression=None, subprotocols=None) as connection:
        replay.run(TRANSCRIPTS / f"{name}.txt", connection)
    assert replay.compared > 0
    assert processes_of(all_aside)
