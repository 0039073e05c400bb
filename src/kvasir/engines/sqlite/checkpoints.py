"""Keeps the write-ahead log short: copies it into the database file and gets SQLite to restart it.

SQLite restarts the log at a write that finds everything copied and nobody reading from it. Readers that follow each
other closely never leave such a moment, so once the log has some length the writer makes one.
"""

from __future__ import annotations

import time

import apsw

from kvasir.engines.sqlite import connection as connections

#: Pages in the log before the writer copies them into the database file.
COPY_PAGES = 2_000

#: Pages in the log before the writer waits until nobody reads from it. All writers wait meanwhile: for a time that
#: grows with the log, and after a vain wait not again before the log is twice as long.
WAIT_PAGES = 4 * COPY_PAGES
WAIT_PAGES_A_MILLISECOND = 40
WAIT_MILLISECONDS = 1_000
WAIT_PAUSE_SECONDS = 0.005

#: Or until one reader has kept the rest from being copied for so long, such as a backup: it will not end soon. That
#: time grows with the log, too.
HELD_PAGES_A_MILLISECOND = 320


class Checkpoints:
    """One process's share of that work, in the writer's thread."""

    def __init__(self) -> None:
        self._wait_at = WAIT_PAGES

    def run(self, connection: apsw.Connection, pages: int) -> None:
        """Copy the log, which has so many pages; restart it if it has grown long. Needs the writers' lock."""
        if pages < WAIT_PAGES:
            self._wait_at = WAIT_PAGES
        if pages < self._wait_at:
            copy(connection)
        else:
            self._wait_at = WAIT_PAGES if _restart(connection, pages) else 2 * pages


def copy(connection: apsw.Connection) -> None:
    """Copy as much as readers allow."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _restart(connection: apsw.Connection, pages: int) -> bool:
    """Copy the log and wait a moment until nobody reads from it: then the next write restarts it. False: in vain.

    Readers that come while nothing is written do without the log. SQLite's own way of waiting is of no use: it waits
    for one of the few slots for readers, which new readers keep taken, though asking again shows they do no harm.
    """
    held_since = began = time.monotonic()
    deadline = began + min(pages / WAIT_PAGES_A_MILLISECOND, WAIT_MILLISECONDS) / 1000
    held_seconds = pages / HELD_PAGES_A_MILLISECOND / 1000
    before = -1
    connection.set_busy_timeout(0)
    try:
        while (state := connection.execute("PRAGMA wal_checkpoint(RESTART)").get)[0]:
            _, in_log, copied = state
            now = time.monotonic()
            if copied != before or copied == in_log:
                before, held_since = copied, now
            if now > deadline or now - held_since > held_seconds:
                return False
            time.sleep(WAIT_PAUSE_SECONDS)
        return True
    finally:
        connection.set_busy_timeout(connections.BUSY_MILLISECONDS)
