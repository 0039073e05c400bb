"""What is too long for the event loop: done beside it, piece by piece, and not at all for a client that has left."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from kvasir.beside import process, thread
from kvasir.beside.thread import LARGE_ANSWERS, in_thread, read_and_rendered
from kvasir.dialects.native.app import NativeDialect
from kvasir.model import Entry, Write
from tests.support.clock import ManualClock
from tests.support.request import FakeRequest
from tests.support.serving import wait_until
from tests.support.versori import Api, KnownCallers
from tests.support.voximplant import World

PATIENCE_SECONDS = 30


def test_the_loop_has_a_turn_between_two_pieces() -> None:
    """Else it would meet the interpreter's lock in the hands of the next piece behind every call of the system."""
    first_begun, go, second_begun = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        first_begun.set()
        assert go.wait(PATIENCE_SECONDS)

    async def story() -> None:
        pieces = [asyncio.ensure_future(in_thread(piece)) for piece in (first, second_begun.set)]
        await asyncio.to_thread(first_begun.wait, PATIENCE_SECONDS)
        go.set()
        assert not second_begun.wait(0.1)  # the loop stands still
        await asyncio.gather(*pieces)
        assert second_begun.is_set()

    asyncio.run(story())


def test_large_answers_that_are_asked_for_at_once_are_not_in_memory_at_once() -> None:
    """Else twenty clients would have hundreds of megabytes read before the first of them is answered."""
    go = threading.Event()
    alive: weakref.WeakSet[Held] = weakref.WeakSet()
    reads = 0

    class Held(list[Entry | None]):
        """What was read, which a weak reference can follow."""

        __hash__ = object.__hash__  # type: ignore[assignment]

    async def read() -> Held:
        nonlocal reads
        reads += 1
        held = Held([Entry(b"\x02a\x00", bytes(thread.LIGHT_BYTES + 1), 1, 1, 1, None, None, None)])
        alive.add(held)
        await asyncio.sleep(0)
        return held

    def render(entries: object) -> bytes:
        assert go.wait(PATIENCE_SECONDS)
        return b"answer"

    async def story() -> None:
        answers = [asyncio.ensure_future(read_and_rendered(read, render)) for _ in range(12)]
        for _ in range(50):  # turns of the loop: all have read, and what is let go of is gone
            await asyncio.sleep(0)
        assert reads == len(answers)
        assert len(alive) == LARGE_ANSWERS
        go.set()
        assert await asyncio.gather(*answers) == [b"answer"] * 12
        assert reads == 12 + 12 - LARGE_ANSWERS

    asyncio.run(story())
    gc.collect()
    assert not alive


def test_a_piece_that_nobody_waits_for_any_more_is_still_alone() -> None:
    begun, go = threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> None:
        begun.set()
        assert go.wait(PATIENCE_SECONDS)

    async def story() -> None:
        left = asyncio.ensure_future(in_thread(first))
        await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        given_up, kept = [asyncio.ensure_future(in_thread(lambda n=n: done.append(n))) for n in (1, 2)]  # type: ignore[misc]
        await asyncio.sleep(0)
        given_up.cancel()
        go.set()
        await kept
        assert done == [2]

    asyncio.run(story())


class Body:
    """Stands for a long one."""


def test_a_failure_keeps_nothing_that_was_worked_on() -> None:
    """Until the garbage collector looks for cycles, that is."""

    def failing(body: Body) -> Callable[[], None]:
        def work() -> None:
            raise ValueError(body)

        return work

    async def story() -> weakref.ref[Body]:
        body = Body()
        with pytest.raises(ValueError, match="Body"):
            await in_thread(failing(body))
        return weakref.ref(body)

    gc.disable()
    try:
        kept = asyncio.run(story())
        wait_until(lambda: kept() is None, "the thread has let go of it, too")
    finally:
        gc.enable()


class Told(FakeRequest):
    """Knows what a dialect has said last of what it does."""

    says = "nothing"

    def reads_only(self) -> None:
        self.says = "reads"

    def writes(self) -> None:
        self.says = "writes"


class Executing(Executor):
    """Does the work at once, and notes what the request has said before."""

    def __init__(self) -> None:
        self.request: Told
        self.heard: list[str] = []

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.heard.append(self.request.says)
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


LONG = ["x"] * 3_000
ENTRIES = [{"key": [f"k{n}"], "value": LONG} for n in range(3)]
KEYS = [[f"k{n}"] for n in range(1_000)]
SETS = [{"type": "set", "key": [f"k{n}"], "value": LONG} for n in range(3)]


def _versori(clock: ManualClock, method: str, rest: str, body: Any) -> tuple[Any, Told]:
    api = Api(clock)
    target = f"/api/v2/store/{api.id}/kv/{rest}"
    return api, Told(method, target, json.dumps(body).encode(), {"authorization": "JWT owner"})


def _native(clock: ManualClock, method: str, rest: str, body: Any) -> tuple[Any, Told]:
    api = Api(clock)
    caller: Any = KnownCallers(api.store)
    api.dialect = NativeDialect(api.store, api.engine, caller, engine_name="x", durability="x")  # type: ignore[assignment]
    return api, Told(method, f"/v1/spaces/{api.id}/{rest}", json.dumps(body).encode(), {"authorization": "JWT owner"})


def _voximplant(_: ManualClock, method: str, name: str, body: Any) -> tuple[Any, Told]:
    world = World()
    headers = {"authorization": f"Bearer {world.token}", "content-type": "application/json"}
    text = json.dumps({"application_id": 1, **body}).encode()
    return world, Told(method, f"/platform_api/{name}", text, headers)


ITEMS = [{"key": f"k{n}", "value": "x" * 150} for n in range(1_000)]


@pytest.mark.parametrize(
    ("make", "method", "rest", "body"),
    [
        (_versori, "PUT", "a", {"value": LONG}),
        (_versori, "PUT", "batch", {"entries": ENTRIES}),
        (_versori, "PUT", "batch", {"value": LONG}),
        (_versori, "DELETE", "batch", {"keys": KEYS}),
        (_native, "PUT", "entries/a", LONG),
        (_native, "POST", "atomic", {"mutations": SETS}),
        (_voximplant, "POST", "SetKeyValueItems", {"items": ITEMS}),
        (_voximplant, "POST", "SetKeyValueItems", {"items": json.dumps(ITEMS)}),
        (_voximplant, "POST", "DelKeyValueItems", {"keys": json.dumps([f"k{n}" for n in range(1_000)])}),
    ],
)
def test_what_a_long_body_asks_to_write_is_read_aside_and_given_up_until_it_is_written(
    make: Callable[..., tuple[Any, Told]],
    method: str,
    rest: str,
    body: Any,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who leaves before that leaves no work behind; who leaves later does not take half of a write along."""
    api, request = make(clock, method, rest, body)
    executing = Executing()
    executing.request = request
    monkeypatch.setattr(thread._line, "executor", executing)
    monkeypatch.setattr(process._line, "executor", executing)
    written: list[str] = []
    write = api.store._engine.write

    def noted(writes: list[Write]) -> Any:
        written.append(request.says)
        return write(writes)

    monkeypatch.setattr(api.store._engine, "write", noted)
    response = asyncio.run(api.dialect(request))
    assert (response.status, response.outcome) in ((200, "ok"), (201, "ok"), (204, "ok")), response.body
    before = executing.heard[: len(executing.heard) - executing.heard.count("writes")]
    assert before
    assert set(before) == {"reads"}
    assert written == ["writes"]


def test_items_to_be_deleted_by_a_prefix_are_searched_only_while_somebody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.call("SetKeyValueItem", key="a:1", value="x")
    request = Told(
        "POST",
        "/platform_api/DelKeyValueItems",
        b"application_id=1&prefix=a:",
        {"authorization": f"Bearer {world.token}"},
    )
    said: dict[str, str] = {}

    def note(name: str, do: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            said[name] = request.says
            return do(*args, **kwargs)

        return noted

    for name in ("page", "write"):
        monkeypatch.setattr(world.store, name, note(name, getattr(world.store, name)))
    response = world.respond(request)
    assert b'"deleted":1' in response.body
    assert said == {"page": "reads", "write": "writes"}
