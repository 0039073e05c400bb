"""Removes what has expired or ended, in steps of a few milliseconds. Runs in the thread of the writer, as its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import apsw

from kvasir.engines.sqlite import changelog
from kvasir.engines.sqlite.transaction import DELETE, Transaction

HAS_EXPIRED = f"""
    SELECT EXISTS (SELECT 1 FROM ended)
        OR EXISTS (SELECT 1 FROM entry INDEXED BY entry_expiry WHERE expires_at <= ?1)
        OR EXISTS (SELECT 1 FROM space INDEXED BY space_expiry WHERE expires_at <= ?1) OR {changelog.HAS_OLD}"""  # noqa: S608

EXPIRED_SPACES = "SELECT number FROM space WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
EXPIRED_ENTRIES = "SELECT sequence FROM entry WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
ENDED_SPACE = "SELECT space FROM ended LIMIT 1"
ENTRIES_OF = "SELECT sequence FROM entry INDEXED BY entry_order WHERE space = ? LIMIT ?"
FORGET_ENDED = "DELETE FROM ended WHERE space = ?"

#: A step holds up the writer for this long, at most twice that with its commit.
STEP_MILLISECONDS = 4.0
#: Rows fetched at a time; the stopwatch is looked at after each row.
ROWS = 256


def has_expired(connection: apsw.Connection, now: int) -> bool:
    """Whether a sweep would find anything."""
    return bool(connection.execute(HAS_EXPIRED, (now, changelog.oldest_kept(now))).get)


def sweep(transaction: Transaction) -> int:
    """One step; how many entries and spaces it removed. 0: nothing is left to do."""
    connection = transaction.connection
    deadline = time.perf_counter() + STEP_MILLISECONDS / 1000

    def delete_entry(sequence: int) -> None:
        connection.execute(DELETE, (sequence,))

    def forget_change(upto: int) -> None:
        connection.execute(changelog.REMOVE, (upto,))

    now = transaction.clock()
    swept = _remove(connection, EXPIRED_SPACES, now, transaction.remove_space, deadline)
    swept += _remove(connection, EXPIRED_ENTRIES, now, delete_entry, deadline)
    _remove(connection, changelog.OLD, changelog.oldest_kept(now), forget_change, deadline)
    while time.perf_counter() < deadline:
        ended: Any = connection.execute(ENDED_SPACE).fetchone()
        if ended is None:
            break
        removed = _remove(connection, ENTRIES_OF, ended[0], delete_entry, deadline)
        swept += removed
        if not removed and time.perf_counter() < deadline:
            connection.execute(FORGET_ENDED, ended)
    return swept


def _remove(connection: apsw.Connection, find: str, what: int, remove: Callable[[int], None], deadline: float) -> int:
    """Remove what a query finds, until the deadline; how many."""
    removed = 0
    row: Any
    while rows := connection.execute(find, (what, ROWS)).fetchall():
        for row in rows:
            if time.perf_counter() > deadline:
                return removed
            remove(row[0])
            removed += 1
    return removed
