"""Reads that arrive together share a round trip.

While a statement for a space is under way, the reads of that space gather; when it is back, all of them go out in the
next one. More statements at a time would carry fewer reads each, and each costs as much as many reads. A statement is
only sent after each of its reads was asked for, so none can be answered with the past.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from kvasir.engines.postgres.clock import ServerClock
from kvasir.engines.postgres.link import Link
from kvasir.errors import answer_too_long
from kvasir.model import SYSTEM_SPACE, Entry

ENTRY = "key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata"
#: What expires then is gone for this statement: the instant given, or the database's own, the same for all its rows.
NOW = "(select coalesce($2::bigint, kvasir_clock()))"
ALIVE = f"(expires_at is null or expires_at > {NOW})"

GET = f"select {ENTRY} from kvasir_entry where space = $1 and key = any($3) and {ALIVE}"  # noqa: S608
#: The values only if they have no more bytes than $4 in all, so that no more than that ever comes over the wire.
WEIGHED = GET.replace("key, value", "key, case when sum(octet_length(value)) over () <= $4 then value end")
EPOCH = f"select last, kvasir_clock() from kvasir_head where space = {SYSTEM_SPACE}"  # noqa: S608

#: Statements under way at a time, each for another space.
LANES = 8
#: A statement takes no further read once it asks for this many keys.
KEYS_A_STATEMENT = 256
#: A read of more keys than this goes by itself, so that small ones need not wait for it.
KEYS_ALONE = 64

Waiting = list[tuple[Sequence[bytes], "asyncio.Future[list[Entry | None]]"]]


class Gathering:
    """The reads of one process."""

    def __init__(self, link: Link, now: Callable[[], int | None], clock: ServerClock | None) -> None:
        self._link = link
        self._now = now
        self._clock = clock
        self._waiting: dict[int, Waiting] = {}
        self._askers: list[asyncio.Future[int]] = []
        self._flying: set[int] = set()
        self._asking = False
        self._woken = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """To be called on the event loop. To look for it at every read would cost a system call."""
        self._loop = asyncio.get_running_loop()

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None) -> list[Entry | None]:
        """See `Engine.get`."""
        if max_bytes is not None:
            rows = await self._link.fetch(WEIGHED, space, self._now(), keys, max_bytes)
            if any(row[1] is None for row in rows):
                raise answer_too_long(max_bytes)
            weighed = {row[0]: Entry(*row) for row in rows}
            return [weighed.get(key) for key in keys]
        if len(keys) > KEYS_ALONE:
            found = await self._ask(space, keys)
            return [found.get(key) for key in keys]
        future: asyncio.Future[list[Entry | None]] = self._loop.create_future()
        self._waiting.setdefault(space, []).append((keys, future))
        self._wake()
        return await future

    def epoch(self) -> asyncio.Future[int]:
        """See `Engine.epoch`."""
        future: asyncio.Future[int] = self._loop.create_future()
        self._askers.append(future)
        self._wake()
        return future

    def _wake(self) -> None:
        # At the end of this turn of the loop, when all that it brings is there.
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._woken = False
        if self._askers and not self._asking:
            self._asking = True
            askers, self._askers = self._askers, []
            self._begin(self._tell_epoch(askers))
        if self._waiting and len(self._flying) < LANES:
            free = (space for space in self._waiting if space not in self._flying)
            for space in list(itertools.islice(free, LANES - len(self._flying))):
                self._flying.add(space)
                self._begin(self._get(space, self._take(space)))

    def _begin(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, space: int) -> Waiting:
        waiting = self._waiting.pop(space)
        keys = 0
        for taken, (wanted, _) in enumerate(waiting):
            if keys >= KEYS_A_STATEMENT:
                # The rest stands behind the other spaces.
                self._waiting[space] = waiting[taken:]
                return waiting[:taken]
            keys += len(wanted)
        return waiting

    async def _tell_epoch(self, askers: list[asyncio.Future[int]]) -> None:
        try:
            ((epoch, now),) = await self._link.fetch(EPOCH)
            if self._clock is not None:
                self._clock.heard(now)
            _resolve(askers, epoch)
        except Exception as error:
            _fail(askers, error)
        finally:
            self._asking = False
            self._send()

    async def _ask(self, space: int, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        return {row[0]: Entry(*row) for row in await self._link.fetch(GET, space, self._now(), keys)}

    async def _get(self, space: int, reads: Waiting) -> None:
        try:
            found = await self._ask(space, list({key for wanted, _ in reads for key in wanted}))
            for wanted, future in reads:
                if not future.done():  # else the caller has left
                    future.set_result([found.get(key) for key in wanted])
        except Exception as error:
            _fail([future for _, future in reads], error)
        finally:
            self._flying.discard(space)
            self._send()


def _resolve(futures: list[asyncio.Future[int]], result: int) -> None:
    for future in futures:
        if not future.done():
            future.set_result(result)


def _fail(futures: Sequence[asyncio.Future[Any]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
