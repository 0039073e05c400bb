"""What a failure of SQLite means: whether there is no room left, and whether a commit that failed can still happen.

A commit appends the changed pages to the write-ahead log, the commit record last, syncs the log, and only then
publishes it in the index that readers look at.
"""

from __future__ import annotations

import errno
import logging
import time

import apsw

log = logging.getLogger("kvasir.sqlite")

#: Why a file cannot grow, by the system's error number. SQLite itself knows only the first of them as "full".
NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the database has reached the largest size that the system allows for a file",
}

#: Failures that come after the commit record was written, and before it was published.
UNPUBLISHED = {apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_SHMSIZE}

#: A warning that does not change is logged this often.
REPEAT_SECONDS = 60.0


def no_room(error: BaseException, connection: apsw.Connection) -> str | None:
    """Why there is no room, if that is what a statement on this connection failed for."""
    if isinstance(error, apsw.FullError):
        return NO_ROOM[errno.ENOSPC]
    if not isinstance(error, apsw.IOError):
        return None
    try:
        return NO_ROOM.get(connection.system_errno)
    except apsw.ConnectionClosedError:
        return None


def was_not_written(error: Exception) -> bool:
    """Whether a commit that failed for want of room failed before its record was in the log: it never happened."""
    return isinstance(error, apsw.FullError) or getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE


def explain(error: Exception, connection: apsw.Connection) -> str:
    """What the callers of a transaction that was undone are told."""
    if reason := no_room(error, connection):
        return f"{reason}; nothing was written, make room and try again"
    log.error("a transaction failed and was undone: %s: %s", type(error).__name__, error)
    return "the database cannot be written just now; nothing was written, try again"


class Complaint:
    """Something that goes wrong again and again; logged when it changes, or has not been logged for a while."""

    def __init__(self) -> None:
        self._text = ""
        self._logged_at = 0.0
        #: Whether it was said that it goes wrong, and not yet that it is over
        self.goes_on = False

    def about(self, text: str) -> None:
        """It has gone wrong."""
        now = time.monotonic()
        if text != self._text or now - self._logged_at >= REPEAT_SECONDS:
            self._text, self._logged_at, self.goes_on = text, now, True
            log.warning("%s", text)

    def over(self, text: str) -> None:
        """It has gone well; to be called if it `goes_on`."""
        self.goes_on = False
        log.warning("%s", text)
