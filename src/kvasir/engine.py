"""The seam between the store and whatever makes bytes durable. Read this first.

An engine knows spaces, aliases, packed keys, JSON texts as opaque bytes, and the clock it was made with. It knows
no dialect, no caller and no rights. Promises, for every implementation:

* A read shows one committed snapshot, which includes every write acknowledged before the call by any process.
* Writes are serialisable. What `write` returned is durable (the memory engine: visible).
* An entry or space whose `expires_at` is not after the clock's "now" does not exist for any operation. "Now" is what
  the clock says, never a later instant seen before: else nothing would expire for a while after a clock that was ahead
  has been corrected.
* Sequences and versionstamps are 63-bit numbers that within a space only grow, in commit order, and are never given
  twice, not even after a restart or after restoring an older copy of the database. In the memory and SQLite engines
  this holds across spaces, too; in PostgreSQL, whose spaces do not wait for each other, only the clock orders them.
* Their upper bits are a Unix millisecond (`kvasir.keys.millisecond_of`): the clock's at the time of the write, or a
  later one if earlier numbers were ahead of the clock.
* `created_at` never contradicts creation order within a space, even if the clock is set back.
* Failures: `Unavailable` (nothing happened), `UnknownOutcome` (a commit failed half-way), `NotFound` (the space is
  gone). Anything else is a bug. Cancelling a call never harms the engine; its write may or may not happen.

All calls are made from one event loop. `kvasir.server.create_engine` makes them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol

from kvasir.errors import KvasirError
from kvasir.model import (
    Alias,
    Changes,
    Children,
    Commit,
    Conflict,
    Entry,
    Gauges,
    Joined,
    KeyRange,
    Page,
    Query,
    Space,
    Stats,
    Write,
    WriterStats,
)

#: Returns Unix milliseconds.
Clock = Callable[[], int]

#: Numbers of loaded entries are below this: half of what 63 bits have room for, so that later writes get higher ones.
#: The clock reaches it in the year 2109.
LOADED_BELOW = 1 << 62

Outcome = Commit | Conflict | KvasirError


class Waiter(Protocol):
    """Who waits for the outcomes of writes: an asyncio future, or what takes the place of one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, outcomes: list[Outcome], /) -> None:
        """Called on the event loop, when the writes are durable."""

    def set_exception(self, error: KvasirError, /) -> None:
        """Called on the event loop, when the whole lot failed."""


class Watch(Protocol):
    """Tells the changes of some keys as they are committed, by whatever process.

    The first `Changes` comes at once and is empty: what its `upto` leaves out will be told, or `resync` says that this
    cannot be. Changes of one key come in their order. Whoever reads slowly gets the newest state of each key; beyond a
    bound, `resync`. A write of several keys is told as a whole, unless one of its keys has changed since.
    """

    def __aiter__(self) -> Watch: ...

    async def __anext__(self) -> Changes:
        """Wait for the next. Raises what `fail` was given, and `StopAsyncIteration` once it is closed.

        Cancelling this loses nothing.
        """
        ...

    def fail(self, error: KvasirError) -> None:
        """End the watch: its reader gets this error."""

    def close(self) -> None:
        """End the watch. Must be called."""


class Engine(Protocol):
    """One database, as seen by one process."""

    writer: WriterStats
    #: The time that decides about expiry, or an estimate of it that is never ahead.
    clock: Clock

    async def open(self) -> None:
        """Open the database; create it or migrate it if necessary. Must be awaited before anything else.

        Raises `Unavailable` if that is impossible, for example because a newer version has made the database.
        """

    async def close(self) -> None:
        """Finish every accepted write, then close the database."""

    # -- entries ------------------------------------------------------------------------------------------

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        """The entries of these keys in one snapshot, in the order of `keys`; None where there is none.

        Raises `TooLarge` if the values found, each counted once, have more than `max_bytes` bytes in all; it fetches no
        more than that. It does not try `get_nowait` first: a caller that wants to has done so.
        `space` is the number of a space found alive (see `epoch`); what an ended or expired one returns is undefined.
        The same holds for `page` and `count`.
        """
        ...

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None] | None:
        """What `get` returns, if that takes no waiting; None says nothing about the entries."""
        ...

    def write(self, writes: Sequence[Write]) -> Awaitable[list[Outcome]]:
        """Apply independent writes in order, with one durable commit for all; returns one outcome each.

        The writes of one call to one space share a versionstamp. One that fails changes nothing and leaves the others
        alone. Raises `Unavailable` or `UnknownOutcome` if all of them failed. An engine may commit the writes to
        different spaces separately; then a failure for one space is the outcome of its writes.
        """
        ...

    def submit(self, writes: Sequence[Write], waiter: Waiter) -> None:
        """Like `write`, with a waiter in the place of what `write` returns.

        Raises `Unavailable`, and nothing was done, if the queue is full or the engine is closing.
        """

    @property
    def write_nowait(self) -> Callable[[Sequence[Write]], list[Outcome]] | None:
        """`write` without any waiting; None for an engine whose writes have to wait."""
        ...

    async def page(self, space: int, query: Query) -> Page:
        """A page of one snapshot. Its cost is bounded by the number of entries in `query.range`.

        It holds the event loop for a few milliseconds at a time at most. Once the call is cancelled, the work ends
        within a second. The same holds for `count`.
        """
        ...

    async def count(self, space: int, range: KeyRange | None = None) -> int:
        """How many entries an unlimited `page` of this range has."""
        ...

    async def children(
        self, space: int, prefix: bytes, *, after: bytes | None = None, limit: int | None = None
    ) -> Children:
        """The next parts below a packed prefix (b"": the first parts of all keys) in key order, in one snapshot.

        Costs a seek or two for each, whatever lies below them. `after`: the `next` of an earlier page, or the key of a
        child and FF, or the start of one; the page begins behind it. At most `limit` of them.
        """
        ...

    def scan(
        self, space: int, range: KeyRange | None = None, joined: bool = False, /
    ) -> AsyncGenerator[list[Entry] | Joined, None]:
        """Entries of one snapshot in key order, in batches of at most about a MiB; the snapshot is that of the first.

        With `joined`, an engine that can joins as many of them as it can.

        Close it (`aclosing`). While it is open the database keeps what it shows, so it may last `snapshot_seconds` and
        cost `snapshot_log_bytes`; then it soon raises `Unavailable` with the code "snapshot_ended". So does the first
        batch if too many are open.
        """
        ...

    async def watch(self, space: int, ranges: Sequence[KeyRange], since: int | None = None) -> Watch:
        """Watch the keys in these ranges. `since`: the `upto` up to which the caller has been told before."""
        ...

    async def load(self, space: int, entries: Sequence[Entry]) -> None:
        """Add entries of another database as they are, versionstamps and times included, in one durable commit.

        Their keys differ. An entry whose key exists replaces the living entry and keeps its place; all others come last
        in creation order, in the order given. They keep their `sequence` if it is free and follows those of the space,
        and get a later one otherwise. Later writes get higher numbers than all of these; so this raises `Invalid`, and
        loads nothing, if one of them is not below `LOADED_BELOW`. Raises `NotFound` if the space is gone. Like a write,
        it moves the epoch in the system space.
        """
        ...

    # -- spaces -------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, aliases: Sequence[Alias]) -> Space:
        """Create a space under these aliases; the engine chooses `space.number`.

        If a living space already has one of the aliases, nothing is created and that space is returned (the caller
        tells it by its `id`). Durable like a write.
        """
        ...

    async def resolve(self, alias: Alias) -> Space | None:
        """The living space under an alias."""
        ...

    async def get_space(self, id: str) -> Space | None:
        """The living space with this ULID."""
        ...

    async def aliases(self, id: str) -> list[Alias]:
        """The aliases of a living space, sorted."""
        ...

    async def alter_space(
        self, id: str, *, name: str | None = None, add: Sequence[Alias] = (), remove: Sequence[Alias] = ()
    ) -> Space | None:
        """Rename a space and change its aliases in one commit. Moves the epoch.

        Returns the space afterwards, or the living space that already has one of the added aliases (then nothing
        changed), or None if there is no living space with this ULID.
        """
        ...

    async def end_space(self, id: str) -> bool:
        """End a space, its aliases and all its keys, at once for every reader. Moves the epoch. False: it was gone."""
        ...

    async def list_spaces(
        self, *, organisation: str | None = None, kind: str | None = None, after: str = "", limit: int | None = None
    ) -> list[Space]:
        """Living spaces by ascending ULID, beginning after the given one. The system space is never among them."""
        ...

    async def count_spaces(self, kind: str, organisation: str | None = None) -> tuple[int, int]:
        """(living spaces of this kind, of this organisation if given; living entries in them) in one snapshot."""
        ...

    # -- the whole ----------------------------------------------------------------------------------------

    async def epoch(self) -> int:
        """A number that changes whenever cached facts may be out of date: at any write to the system space and whenever
        a space is altered or ended, by any process. Cheap enough to ask on every request."""
        ...

    def epoch_nowait(self) -> int | None:
        """What `epoch` returns, if that takes no waiting; else None."""
        ...

    async def sweep(self) -> int:
        """Remove what has expired or ended, in one small step; how many entries and spaces, 0 when nothing is left.

        A durable engine also does this by itself, in the background.
        """
        ...

    async def check(self) -> list[str]:
        """Examine the whole database; returns one sentence for every fault. Empty: it is sound."""
        ...

    async def milliseconds_ahead(self) -> int:
        """How far what new entries get, numbers and `created_at`, is ahead of the clock; at most ten seconds old.

        0 is the rule. More follows from the promises above after the clock was ahead for a while, or after a load.
        """
        ...

    async def stats(self) -> Stats:
        """Figures for `/metrics`; may be up to ten seconds old."""
        ...

    def gauges(self) -> Gauges:
        """How things are in this process, for `/metrics`. Takes no waiting."""
        ...
