"""Ends watches whose reader may no longer see what is watched. One task looks after all of a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from kvasir.engine import Engine, Watch
from kvasir.errors import KvasirError, Unavailable
from kvasir.model import KeyRange, Principal, Space
from kvasir.store.permissions import READERS, confine, require

if TYPE_CHECKING:
    from kvasir.store.store import Store

log = logging.getLogger("kvasir.store")

#: How often it looks whether anything may have been revoked or ended.
SECONDS = 0.5
#: So many are looked at together: what each of them asks the database for the engine asks in one round trip.
TOGETHER = 100

Recheck = Callable[[], Awaitable[Principal]]


class _Guarded(Struct, eq=False):
    watch: Watch
    principal: Principal
    space: Space
    ranges: Sequence[KeyRange]
    recheck: Recheck | None
    #: Whether it has been looked at since its caller was authenticated
    checked: bool = False


class WatchGuard:
    """The open watches of one store."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine
        self._guarded: set[_Guarded] = set()
        self._epoch = -1
        self._task: asyncio.Task[None] | None = None

    async def watch(
        self,
        principal: Principal,
        space: Space,
        ranges: Sequence[KeyRange],
        since: int | None,
        recheck: Recheck | None,
    ) -> Watch:
        """See `Store.watch`."""
        watch = await self._engine.watch(space.number, ranges, since)
        guarded = _Guarded(watch, principal, space, ranges, recheck)
        self._guarded.add(guarded)
        if self._task is None:
            self._task = asyncio.create_task(self._look_after())
        return _Closing(watch, lambda: self._guarded.discard(guarded))

    async def _look_after(self) -> None:
        while self._guarded:
            await asyncio.sleep(SECONDS)
            try:
                epoch = await self._store.refresh()
            except KvasirError:
                continue  # the database is away; its watches say so themselves
            except Exception:  # whatever it is, what is revoked later must end, too
                log.exception("watches could not be looked at; this is tried again")
                continue
            changed = epoch != self._epoch
            self._epoch = epoch
            # Unless something has changed, only what ends by itself needs a look.
            due = [
                each
                for each in self._guarded
                if changed or not each.checked or each.principal.expires_at or each.space.expires_at
            ]
            for start in range(0, len(due), TOGETHER):
                some = due[start : start + TOGETHER]
                await asyncio.gather(*(self._look_at(each, changed=changed or not each.checked) for each in some))
        self._task = None

    async def _look_at(self, guarded: _Guarded, *, changed: bool) -> None:
        """End a watch if its caller may not see it any more."""
        try:
            await self._check(guarded, changed=changed)
            guarded.checked = True
        except Unavailable:
            guarded.checked = False  # next time
        except KvasirError as error:
            self._guarded.discard(guarded)
            guarded.watch.fail(error)
        except Exception:
            log.exception("a watch could not be looked at; this is tried again")
            guarded.checked = False

    async def _check(self, guarded: _Guarded, *, changed: bool) -> None:
        """Raise what the caller would get if it asked now."""
        # Whether a credential has expired is judged where it is checked: by a clock that may be another than ours.
        if (changed or guarded.principal.expires_at is not None) and guarded.recheck is not None:
            guarded.principal = await guarded.recheck()
            require(guarded.principal, READERS)
            for each in guarded.ranges:
                confine(guarded.principal, each)
        if changed or guarded.space.expires_at is not None:
            await self._store.open(guarded.principal, guarded.space.id)


class _Closing:
    """A watch that is no longer looked after once it is closed."""

    def __init__(self, watch: Watch, on_close: Callable[[], None]) -> None:
        self._watch = watch
        self._on_close = on_close
        self.fail = watch.fail
        self._next = watch.__anext__

    def __aiter__(self) -> _Closing:
        return self

    async def __anext__(self):  # type: ignore[no-untyped-def]
        return await self._next()

    def close(self) -> None:
        self._on_close()
        self._watch.close()
