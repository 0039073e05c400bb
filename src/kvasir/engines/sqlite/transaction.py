"""What one transaction of the writer does to the tables. Runs in the writer's thread; never begins or commits one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from kvasir.engine import Clock, Outcome
from kvasir.engines.integers import incremented
from kvasir.engines.numbering import next_sequence
from kvasir.engines.sqlite import bulk, changelog, listing, spaces
from kvasir.engines.sqlite.seqlocks import EPOCH, RANGES, lock_of
from kvasir.engines.watching import DELETE as DELETED
from kvasir.engines.watching import EXPIRY, RANGE, SET, Logged
from kvasir.errors import space_gone
from kvasir.model import (
    SYSTEM_SPACE,
    Alias,
    Check,
    Commit,
    Condition,
    Conflict,
    Delete,
    DeleteRange,
    Entry,
    Increment,
    Mutation,
    Set,
    Space,
    Unmet,
    Write,
)

META = "SELECT last, latest FROM meta"
SAVE_META = "UPDATE meta SET last = ?, latest = ?, epoch = epoch + ?"
IS_ALIVE = "SELECT 1 FROM space WHERE number = ? AND (expires_at IS NULL OR expires_at > ?)"

VALUE = "SELECT value FROM entry WHERE sequence = ?"
LOOK = "SELECT sequence, versionstamp, expires_at FROM entry WHERE space = ? AND key = ?"
INSERT = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
REPLACE = "UPDATE entry SET value = ?, versionstamp = ?, expires_at = ?, refresh = ?, metadata = ? WHERE sequence = ?"
REPLACE_KEEPING = """
    UPDATE entry SET value = ?, versionstamp = ?, expires_at = iif(?, expires_at, ?), refresh = iif(?, refresh, ?),
        metadata = iif(?, metadata, ?)
    WHERE sequence = ?"""
TOUCH = "UPDATE entry SET expires_at = ? WHERE sequence = ?"
DELETE = "DELETE FROM entry WHERE sequence = ?"
COUNT_RANGE = listing.COUNT
DELETE_RANGE = "DELETE FROM entry WHERE space = :space AND key >= :start AND key < :end"
DELETE_SPACE = "DELETE FROM entry WHERE space = :space"

LAST_IN_SPACE = "SELECT max(sequence) FROM entry INDEXED BY entry_order WHERE space = ?"
IS_TAKEN = "SELECT 1 FROM entry WHERE sequence = ?"
LOAD_OVER = """
    UPDATE entry SET value = ?, versionstamp = ?, created_at = ?, expires_at = ?, refresh = ?, metadata = ?
    WHERE sequence = ?"""

ADD_SPACE = "INSERT INTO space VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
ADD_ALIAS = "INSERT OR REPLACE INTO alias VALUES (?, ?, ?, ?)"
REMOVE_ALIAS = "DELETE FROM alias WHERE kind = ? AND organisation = ? AND handle = ? AND space = ?"
RENAME = "UPDATE space SET name = ? WHERE number = ?"
REMOVE_SPACE = (
    "DELETE FROM alias WHERE space = ?",
    "DELETE FROM space WHERE number = ?",
    "INSERT INTO ended VALUES (?)",
)


class Transaction:
    """The writer's view of the database between BEGIN and COMMIT."""

    def __init__(self, connection: apsw.Connection, clock: Clock) -> None:
        self.connection = connection
        #: For what every group does: to make a cursor costs a third of a small statement.
        self.cursor = connection.cursor()
        self.clock = clock
        self._last = 0
        self._latest = 0
        #: The seqlocks (see `seqlocks`) of everything that this transaction changes
        self.changes: set[int] = set()
        self._alive: set[int] = set()
        #: What it changes, for those who watch; None: nobody does
        self.log: list[Logged] | None = None
        self._first = 0

    def read_meta(self, *, watched: bool) -> None:
        """Read the numbers that the last transaction left. To be called right after BEGIN."""
        rows: Any = self.cursor.execute(META).fetchall()
        self._last, self._latest = rows[0]
        self._first = self._last
        self.log = [] if watched else None
        self.changes.clear()
        self._alive.clear()

    def save_meta(self) -> None:
        """Save the numbers for the next transaction. To be called right before COMMIT."""
        self.cursor.execute(SAVE_META, (self._last, self._latest, int(EPOCH in self.changes)))
        if (row := self.logged) is not None:
            changelog.append(self.cursor, row)

    @property
    def logged(self) -> changelog.Row | None:
        """What the present transaction has logged; None: nothing."""
        if self.log is None or self._last == self._first:
            return None
        return changelog.Row(self._first, self._last, self.log)

    def _next(self, now: int) -> int:
        self._last = next_sequence(self._last, now)
        return self._last

    # -- entries ------------------------------------------------------------------------------------------

    def stamp(self) -> int:
        """A new versionstamp, for writes that belong together."""
        return self._next(self.clock())

    def write(self, write: Write, stamp: int) -> Outcome:
        """Apply one write. If this raises, the caller undoes what it changed."""
        now = self.clock()
        if not self._is_alive(write.space, now):
            return space_gone()
        unmet = [one for condition in write.conditions if (one := self._unmet(write.space, condition, now))]
        unmet += [one for mutation in write.mutations if (one := self._unexpected(write.space, mutation, now))]
        if unmet:
            return Conflict(tuple(unmet))
        counts = tuple([self._mutate(write.space, mutation, stamp, now) for mutation in write.mutations])
        if write.space == SYSTEM_SPACE:
            self.changes.add(EPOCH)
        return Commit(stamp, counts)

    def set_many(self, rows: list[bulk.Row], stamps: list[int]) -> list[Outcome]:
        """Apply unconditional Sets of different keys, each with its versionstamp, in few statements (see `bulk`)."""
        now = self.clock()
        states = bulk.look(self.cursor, rows, now)
        if bulk.GONE in states:
            return self._set_living(rows, stamps, states)
        self._latest = created_at = max(self._latest, now)
        self.changes.update([lock_of(space, mutation.key) for space, mutation in rows])
        first = self._next(now)
        self._last += 2 * len(rows)
        bulk.apply(self.cursor, rows, states, stamps, first, now, created_at)
        if self.log is not None:
            pairs = zip(rows, stamps, strict=True)
            self.log += [(SET, space, stamp, mutation.key, None) for (space, mutation), stamp in pairs]
        return [Commit(stamp, (int(state == bulk.ALIVE),)) for stamp, state in zip(stamps, states, strict=True)]

    def _set_living(self, rows: list[bulk.Row], stamps: list[int], states: str) -> list[Outcome]:
        """The same, where some of the spaces are gone."""
        kept = [index for index, state in enumerate(states) if state != bulk.GONE]
        done = iter(self.set_many([rows[index] for index in kept], [stamps[index] for index in kept]) if kept else ())
        return [space_gone() if state == bulk.GONE else next(done) for state in states]

    def _is_alive(self, space: int, now: int) -> bool:
        if space not in self._alive:
            if not self.cursor.execute(IS_ALIVE, (space, now)).fetchall():
                return False
            self._alive.add(space)
        return True

    def _look(self, space: int, key: bytes) -> tuple[int, int, int | None] | None:
        rows: Any = self.cursor.execute(LOOK, (space, key)).fetchall()
        return rows[0] if rows else None

    def _unmet(self, space: int, condition: Condition, now: int) -> Unmet | None:
        row = self._look(space, condition.key)
        actual = row[1] if row and (row[2] is None or row[2] > now) else None
        met = actual == condition.versionstamp if isinstance(condition, Check) else actual is not None
        return None if met else Unmet(condition, actual)

    def _unexpected(self, space: int, mutation: Mutation, now: int) -> Unmet | None:
        if mutation.__class__ is not DeleteRange or mutation.expect is None:
            return None
        count = listing.count(self.connection, space, mutation.range, now)
        return None if count == mutation.expect else Unmet(mutation, count=count)

    def _mutate(self, space: int, mutation: Mutation, stamp: int, now: int) -> int:
        if isinstance(mutation, DeleteRange):
            self.changes.add(RANGES)
            count = self._delete_range(space, mutation, now)
            if count and self.log is not None:
                self.log.append((RANGE, space, stamp, *listing.bounds(mutation.range)))
            return count
        self.changes.add(lock_of(space, mutation.key))
        row = self._look(space, mutation.key)
        alive = row is not None and (row[2] is None or row[2] > now)
        if isinstance(mutation, Set):
            self._set(space, mutation, row, alive, stamp, now)
        elif isinstance(mutation, Increment):
            return self._increment(space, mutation, row, alive, stamp, now)
        elif isinstance(mutation, Delete):
            if row:
                self.connection.execute(DELETE, row[:1])
            if alive:
                self._log(DELETED, space, stamp, mutation.key)
        elif row and alive and not (mutation.extend and _not_later(mutation.expires_at, row[2])):
            self.connection.execute(TOUCH, (mutation.expires_at, row[0]))
            self._log(EXPIRY, space, stamp, mutation.key)
        return int(alive)

    def _log(self, kind: int, space: int, stamp: int, key: bytes) -> None:
        if self.log is not None:
            self.log.append((kind, space, stamp, key, None))

    def _set(
        self, space: int, mutation: Set, row: tuple[int, int, int | None] | None, alive: bool, stamp: int, now: int
    ) -> None:
        expires_at = mutation.expires_at if mutation.ttl is None else now + mutation.ttl
        refresh = expires_at - now if mutation.refresh and expires_at is not None else None
        self._log(SET, space, stamp, mutation.key)
        if row and alive:
            if mutation.keep_expiry or mutation.keep_metadata:
                keep = (mutation.keep_expiry, expires_at, mutation.keep_expiry, refresh)
                values = (mutation.value, stamp, *keep, mutation.keep_metadata, mutation.metadata, row[0])
                self.connection.execute(REPLACE_KEEPING, values)
                return
            self.connection.execute(REPLACE, (mutation.value, stamp, expires_at, refresh, mutation.metadata, row[0]))
            return
        if row:
            self.connection.execute(DELETE, row[:1])
        # Creation times follow creation order, whatever the clock does; expiry obeys the clock alone.
        self._latest = created_at = max(self._latest, now)
        self.connection.execute(
            INSERT,
            (self._next(now), space, mutation.key, mutation.value, stamp, created_at,
             expires_at, refresh, mutation.metadata),
        )  # fmt: skip

    def _increment(
        self,
        space: int,
        mutation: Increment,
        row: tuple[int, int, int | None] | None,
        alive: bool,
        stamp: int,
        now: int,
    ) -> int:
        value = self.connection.execute(VALUE, row[:1]).get if row and alive else None
        total = incremented(value, mutation.delta, mutation.initial)
        counted = Set(mutation.key, b"%d" % total, None, None, mutation.expires_at, False, True, True)
        self._set(space, counted, row, alive, stamp, now)
        return total

    def _delete_range(self, space: int, mutation: DeleteRange, now: int) -> int:
        start, end = listing.bounds(mutation.range)
        values = {"space": space, "start": start, "end": end, "now": now}
        count = int(self.connection.execute(COUNT_RANGE, values).get)
        self.connection.execute(DELETE_RANGE if mutation.range else DELETE_SPACE, values)
        return count

    def load(self, space: int, entries: Sequence[Entry]) -> None:
        """See `Engine.load`. Raises `NotFound`."""
        now = self.clock()
        if not self._is_alive(space, now):
            raise space_gone()
        last = self.connection.execute(LAST_IN_SPACE, (space,)).get or 0
        # Loaded entries keep their versionstamps; to those who watch, the load has one of its own.
        stamp = self._next(now)
        for entry in entries:
            self.changes.add(lock_of(space, entry.key))
            self._log(SET, space, stamp, entry.key)
            last = self._load(space, entry, last, now)
            self._last = max(self._last, last, entry.versionstamp)
            self._latest = max(self._latest, entry.created_at)
        if space == SYSTEM_SPACE:
            self.changes.add(EPOCH)

    def _load(self, space: int, entry: Entry, last: int, now: int) -> int:
        """Load one entry; returns the last sequence in the space afterwards."""
        row = self._look(space, entry.key)
        rest = (entry.created_at, entry.expires_at, entry.refresh, entry.metadata)
        if row and (row[2] is None or row[2] > now):
            self.connection.execute(LOAD_OVER, (entry.value, entry.versionstamp, *rest, row[0]))
            return last
        if row:
            self.connection.execute(DELETE, row[:1])
        sequence = max(entry.sequence, last + 1)
        # Other engines may give the same number in two spaces; here a number identifies a row.
        while self.connection.execute(IS_TAKEN, (sequence,)).fetchone():
            sequence += 1
        self.connection.execute(INSERT, (sequence, space, entry.key, entry.value, entry.versionstamp, *rest))
        return sequence

    # -- spaces -------------------------------------------------------------------------------------------

    def create_space(self, space: Space, aliases: Sequence[Alias]) -> Space:
        """See `Engine.create_space`."""
        now = self.clock()
        for alias in aliases:
            if taken := spaces.resolve(self.connection, alias, now):
                return taken
        created = msgspec.structs.replace(space, number=self._next(now))
        self.connection.execute(
            ADD_SPACE,
            (created.number, created.id, created.organisation, created.kind, created.name, created.created_at,
             created.expires_at, created.clear_every, created.attributes),
        )  # fmt: skip
        for alias in aliases:
            self.connection.execute(ADD_ALIAS, (*alias, created.number))
        return created

    def alter_space(self, id: str, name: str | None, add: Sequence[Alias], remove: Sequence[Alias]) -> Space | None:
        """See `Engine.alter_space`."""
        now = self.clock()
        space = spaces.by_id(self.connection, id, now)
        if space is None:
            return None
        for alias in add:
            taken = spaces.resolve(self.connection, alias, now)
            if taken and taken.id != id:
                return taken
        for alias in remove:
            self.connection.execute(REMOVE_ALIAS, (*alias, space.number))
        for alias in add:
            self.connection.execute(ADD_ALIAS, (*alias, space.number))
        if name is not None:
            self.connection.execute(RENAME, (name, space.number))
            space = msgspec.structs.replace(space, name=name)
        self.changes.add(EPOCH)
        return space

    def end_space(self, id: str) -> bool:
        """See `Engine.end_space`. The entries go later, in the sweep."""
        space = spaces.by_id(self.connection, id, self.clock())
        if space is None:
            return False
        self.remove_space(space.number)
        self.changes.add(EPOCH)
        return True

    def remove_space(self, number: int) -> None:
        """End a space and its aliases. Its entries await the sweep."""
        for statement in REMOVE_SPACE:
            self.connection.execute(statement, (number,))
        self._alive.discard(number)


def _not_later(new: int | None, old: int | None) -> bool:
    return old is None or (new is not None and new <= old)
