"""The seam between the store and whatever makes bytes durable. Read this first.

An engine knows spaces, aliases, packed keys, JSON texts as opaque bytes, and the clock it was made with. It knows
no dialect, no caller and no rights. Promises, for every implementation:

* Reads show one committed snapshot, which includes every write acknowledged before the call, by any process.
* Writes are serialisable. What `write` returned is durable (the memory engine: visible).
* An entry or space whose `expires_at` is not after the clock's "now" does not exist, for any operation. "Now" is what
  the clock says, never a later instant remembered: a clock set right again does not stop entries from expiring.
* Sequences and versionstamps are 63-bit numbers that within a space only grow, in commit order, and are never given
  twice, not even after a restart or the restore of an older copy of the database. In the memory and SQLite engines
  this holds across spaces, too; with PostgreSQL, whose spaces do not wait for each other, the clock alone orders those.
* Their upper bits are a Unix millisecond (`kvasir.keys.millisecond_of`): the clock's at the time of the write, or a
  later one if earlier numbers were ahead of the clock.
* `created_at` never runs against creation order within a space, even if the clock does.
* Failures: `Unavailable` (nothing happened), `UnknownOutcome` (a commit failed half-way), `NotFound` (the space is
  gone). Anything else is a bug. Cancelling a call never harms the engine: its write may or may not happen.

All calls are made from one event loop. `kvasir.server.create_engine` makes them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from kvasir.errors import KvasirError
from kvasir.model import Alias, Commit, Conflict, Entry, KeyRange, Page, Query, Space, Stats, Write, WriterStats

#: Gives Unix milliseconds.
Clock = Callable[[], int]

#: Numbers of loaded entries are below this: half of what 63 bits have room for, so that later writes get higher ones.
#: The clock reaches it in the year 2109.
LOADED_BELOW = 1 << 62


Outcome = Commit | Conflict | KvasirError


class Engine(Protocol):
    """One database, as seen by one process."""

    writer: WriterStats
    #: What decides about expiry, as closely as this process can tell without asking; never ahead of it.
    clock: Clock

    async def open(self) -> None:
        """Open the database, create it or bring it to the present schema. Must be awaited before anything else."""

    async def close(self) -> None:
        """Finish every accepted write, then let go of the database."""

    # -- entries ------------------------------------------------------------------------------------------

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        """The entries of these keys in one snapshot, in the order of `keys`; None where there is none.

        Raises `TooLarge` if the values found, each counted once, have more than `max_bytes` bytes in all; it fetches no
        more than that. It does not try `get_nowait` first; whoever is in a hurry has done so.
        `space` is the number of a space found alive (see `epoch`); what an ended or expired one still gives is
        undefined. The same holds for `page` and `count`.
        """
        ...

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None] | None:
        """What `get` gives, if that takes no waiting; None says nothing about the entries."""
        ...

    def write(self, writes: Sequence[Write]) -> Awaitable[list[Outcome]]:
        """Apply independent writes in order, with one durable commit for all; one outcome each.

        The writes of one call to one space share one versionstamp. A failed one changes nothing and leaves the others
        alone. Raises `Unavailable` or `UnknownOutcome` when the whole lot failed. An engine may commit the writes to
        different spaces apart from each other; then a failure of one space is the outcome of its writes.
        """
        ...

    @property
    def write_nowait(self) -> Callable[[Sequence[Write]], list[Outcome]] | None:
        """What `write` gives, without any waiting; None for an engine whose writes wait for something."""
        ...

    async def page(self, space: int, query: Query) -> Page:
        """A page of one snapshot. Costs no more than the entries in `query.range` explain."""
        ...

    async def count(self, space: int, range: KeyRange | None = None) -> int:
        """How many entries `page` would give for this range."""
        ...

    async def load(self, space: int, entries: Sequence[Entry]) -> None:
        """Put entries of another database there as they are, versionstamps and times included, in one durable commit.

        Keys differ. A living entry with the key is replaced in its place; all others come last in creation order, in
        the order given. Their `sequence` stays what it is if it is free and follows those of the space; otherwise a
        later one is given. Whatever is written afterwards gets numbers above all of these; so `Invalid` is raised, and
        nothing is loaded, if one of them is not below `LOADED_BELOW`. Raises `NotFound` if the space is gone. Like a
        write, it moves the epoch in the system space.
        """

    # -- spaces -------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, aliases: Sequence[Alias]) -> Space:
        """Create a space under these aliases; `space.number` is given by the engine.

        If one of the aliases is taken by a living space, nothing is created and that space is returned
        (the caller sees it by its `id`). Durable like a write.
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

        Returns the space afterwards, or the living space that already has one of the added aliases (nothing changed
        then), or None if `id` is gone.
        """
        ...

    async def end_space(self, id: str) -> bool:
        """End a space with its aliases and all its keys, at once for every reader. Moves the epoch. False: was gone."""
        ...

    async def list_spaces(
        self, *, organisation: str | None = None, kind: str | None = None, after: str = "", limit: int | None = None
    ) -> list[Space]:
        """Living spaces by ascending ULID, after the ULID given. The system space is never among them."""
        ...

    async def count_spaces(self, kind: str, organisation: str | None = None) -> tuple[int, int]:
        """(living spaces of this kind, and of this organisation if given; living entries in them) in one snapshot."""
        ...

    # -- the whole ----------------------------------------------------------------------------------------

    async def epoch(self) -> int:
        """A number that changes whenever something may no longer be cached: any write to the system space,
        any altered or ended space, by any process. Cheap enough to ask on every request."""
        ...

    def epoch_nowait(self) -> int | None:
        """What `epoch` gives, if it takes no waiting at all."""
        ...

    async def sweep(self) -> int:
        """Reclaim what expired or ended, in one small step; how many entries and spaces went, 0 when all are gone.

        A durable engine also does it by itself, in the background.
        """
        ...

    async def check(self) -> list[str]:
        """Examine the whole database; one sentence for every fault found. Empty: it is sound."""
        ...

    async def stats(self) -> Stats:
        """Figures for `/metrics`; may be up to ten seconds old."""
        ...
