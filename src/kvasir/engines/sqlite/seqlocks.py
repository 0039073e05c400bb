"""Seqlocks in shared memory: they tell every process, for the price of a memory read, what has not changed.

A small file beside the database, mapped by every process, holds sequence counters: one for the epoch, one for ranges of
keys, and one for each of some thousand buckets that keys fall into. A counter is even while nothing is going on. Before
its COMMIT a writer makes the counters of everything its transaction changes odd (at least one); afterwards, and before
it reports the commit to anyone, it makes them even again, with new values. So a reader that finds the even value it saw
before it read something knows that it has not changed since. If a writer dies in between, counters stay odd: then
everyone asks the database, until another writer repairs them.

The sweep makes no counter odd, since what has expired does not exist for anyone. Only a clock that is set back could
bring it back to life, so the file also holds the moment up to which the sweep may have removed expired entries.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

#: What the file is called after the database. The name is older than the present one of its contents; another would
#: leave the old file behind beside every database.
SUFFIX = "-cells"

EPOCH = 0
RANGES = 1
_FIRST_BUCKET = 2
_LOCKS = 8_192
#: The place behind the counters: a moment in Unix milliseconds, which may be any number.
SWEPT_UNTIL = _LOCKS
#: Behind that, until when somebody watches, in milliseconds of the machine's monotonic clock, and a number that grows
#: with every commit that was logged for who watches.
WATCHED_UNTIL = _LOCKS + 1
LOGGED = _LOCKS + 2
_FILE_BYTES = (_LOCKS + 3) * 8
#: No lease is longer, so what a machine left here that has been started anew since is none.
_LONGEST_LEASE = 1_000_000
#: For a commit that changes nothing of what is cached, so that its interruption is noticed, too. It is a bucket, since
#: processes of earlier versions know nothing else; the few keys in it are asked of the database more often.
ONLY_COMMIT = (_FIRST_BUCKET,)
_ODD = int.from_bytes((1).to_bytes(8, sys.byteorder) * _LOCKS, sys.byteorder)


def lock_of(space: int, key: bytes) -> int:
    """The index of the seqlock for a key's bucket, the same in every process."""
    return _FIRST_BUCKET + crc32(key, space & 0xFFFFFFFF) % (_LOCKS - _FIRST_BUCKET)


class Seqlocks:
    """One process's view of them. Whoever changes anything holds the writers' lock; to read needs no lock."""

    def __init__(self, database: Path) -> None:
        """Open the file beside the database; make it if there is none. Raises OSError."""
        descriptor = os.open(f"{database}{SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            missing = _FILE_BYTES - (size := os.fstat(descriptor).st_size)
            # Written, not merely made longer: filling a hole when the disk is full would kill the process.
            if missing > 0 and os.pwrite(descriptor, bytes(missing), size) < missing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._map = mmap.mmap(descriptor, _FILE_BYTES)
        finally:
            os.close(descriptor)
        #: The counters by index, then the moment at `SWEPT_UNTIL`
        self.counters = memoryview(self._map).cast("Q")

    def write_begin(self, locks: Iterable[int]) -> None:
        """What these locks stand for is about to change."""
        counters = self.counters
        for lock in locks:
            counters[lock] |= 1

    def write_end(self, locks: Iterable[int]) -> None:
        """It has changed, or perhaps not: either way each counter gets a new even value."""
        counters = self.counters
        for lock in locks:
            counters[lock] = (counters[lock] | 1) + 1

    def sweep_begin(self, moment: int) -> None:
        """The present transaction removes what had expired by this moment."""
        # If the clock was set back, what an earlier sweep removed may still be cached: nothing cached is good any more.
        outdated = (RANGES,) if moment < self.counters[SWEPT_UNTIL] else ()
        self.write_begin(outdated)
        self.counters[SWEPT_UNTIL] = max(moment, 0)
        self.write_end(outdated)

    def watch(self, seconds: float) -> bool:
        """Say that somebody watches, for so long from now on. False: that was known."""
        was_known = self.watched()
        self.counters[WATCHED_UNTIL] = _monotonic() + int(seconds * 1000)
        return not was_known

    def watched(self) -> bool:
        """Whether commits have to be logged."""
        until = self.counters[WATCHED_UNTIL]
        return until > 0 and 0 < until - _monotonic() <= _LONGEST_LEASE

    def count_logged(self) -> int:
        """The holder of the writers' lock has committed a transaction that was logged. Returns the new count."""
        count = self.counters[LOGGED] = self.counters[LOGGED] + 1
        return count

    def held(self) -> list[int]:
        """The locks of commits under way; for the holder of the writers' lock: of interrupted commits."""
        return [lock for lock, counter in enumerate(self.counters[:_LOCKS]) if counter & 1]

    def any_held(self) -> bool:
        """Whether there are any, in a fiftieth of the time."""
        return bool(int.from_bytes(self._map[: _LOCKS * 8], sys.byteorder) & _ODD)

    def repair(self) -> None:
        """Release the locks that interrupted commits have left held."""
        self.write_end(self.held())

    def close(self) -> None:
        """Let go of the file."""
        self.counters.release()
        self._map.close()


class WritersLock:
    """While it is held, this is the only writer among all processes."""

    def __init__(self, database: Path) -> None:
        self._file = os.open(f"{database}-writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        if _flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        _flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


#: Unlike `fcntl.flock` it keeps the interpreter's lock, which the event loop would not give back for a while.
_flock = ctypes.PyDLL(None).flock


def _monotonic() -> int:
    return time.monotonic_ns() // 1_000_000
