"""Settles what a writer has left behind that died, or whose commit failed half-way. Needs the writers' lock.

The frames of such a commit may lie in the write-ahead log, whole but not published, and the next time that SQLite
recovers the log, when nobody has it open any more, it would publish them.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite.schema import migrate
from kvasir.engines.sqlite.seqlocks import EPOCH, ONLY_COMMIT, Seqlocks

#: The smallest change. It is harmless: whoever sees the epoch move only reads again what it had cached.
MOVE_EPOCH = "UPDATE meta SET epoch = epoch + 1"


def overwrite_interrupted_commits(connection: apsw.Connection, seqlocks: Seqlocks) -> None:
    """Decide what becomes of a commit that nobody saw end: what readers do not see by now must never appear.

    A commit of our own takes its place.
    """
    seqlocks.write_begin((EPOCH,))  # the dead writer may not have held it
    connection.execute(MOVE_EPOCH)
    seqlocks.repair()


def migrate_noticeably(connection: apsw.Connection, seqlocks: Seqlocks) -> None:
    """Bring the database to the newest schema, so that the next process notices if this one dies on the way."""
    interrupted = seqlocks.any_held()
    seqlocks.write_begin(ONLY_COMMIT)
    try:
        migrate(connection)
    except apsw.Error:
        interrupted = True
        raise
    finally:
        if not interrupted:
            seqlocks.write_end(ONLY_COMMIT)


def hold_open(path: Path) -> apsw.Connection:
    """A connection that has the log open as it is now, for as long as this process lives.

    Else the writer might be the last to close the log after a failed commit, and whoever opened it next would find that
    commit there and show it.
    """
    connection = connections.for_reading(path)
    connection.pragma("schema_version")
    return connection
