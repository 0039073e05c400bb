"""Tells every process on a database, for the price of a memory read, what cannot have changed since it last looked.

A small file, mapped by every process, holds numbers: one for the epoch, one for ranges of keys, and one for each of
some thousand buckets that keys fall into. A number is even while nothing goes on. A writer makes those of what its
transaction changes odd before its COMMIT, and even again, with a new value, afterwards and before anyone is told of the
commit. So whoever sees the even number again that stood there when something was read knows that it is still so.
A writer that dies in between leaves numbers odd: then everybody asks the database, until a writer has put them right.

The sweep makes no number odd, for what has expired is dead to everybody without it. Only a clock that is set back would
bring it to life again, so the file also holds the moment up to which the sweep may have removed what had expired.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

EPOCH = 0
RANGES = 1
_KEYS = 2
_CELLS = 8_192
#: No cell but a moment in Unix ms, which any number may be.
SWEPT = _CELLS
_NUMBERS = _CELLS + 1
_ODD = int.from_bytes((1).to_bytes(8, sys.byteorder) * _CELLS, sys.byteorder)


def cell_of(space: int, key: bytes) -> int:
    """The cell of a key's bucket, the same in every process."""
    return _KEYS + crc32(key, space & 0xFFFFFFFF) % (_CELLS - _KEYS)


class Cells:
    """One process's view of the numbers. `begin` and `end` need the writers' lock."""

    def __init__(self, database: Path) -> None:
        """Open the file beside the database; make it if there is none."""
        descriptor = os.open(f"{database}-cells", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size < _NUMBERS * 8:
                # Written, not merely made longer: to fill a hole when the disk is full would kill the process.
                os.pwrite(descriptor, bytes(_NUMBERS * 8 - size), size)
            self._map = mmap.mmap(descriptor, _NUMBERS * 8)
        finally:
            os.close(descriptor)
        self.numbers = memoryview(self._map).cast("Q")

    def begin(self, cells: Iterable[int]) -> None:
        """What these cells stand for is about to change."""
        numbers = self.numbers
        for cell in cells:
            numbers[cell] |= 1

    def end(self, cells: Iterable[int]) -> None:
        """It has changed, or perhaps not: either way each is a new even number."""
        numbers = self.numbers
        for cell in cells:
            numbers[cell] = (numbers[cell] | 1) + 1

    def swept(self, moment: int) -> None:
        """The transaction under way removes what had expired by this moment. Needs the writers' lock."""
        # If the clock was set back, what an earlier sweep removed may still be among the copies: then they all end.
        ended = (RANGES,) if moment < self.numbers[SWEPT] else ()
        self.begin(ended)
        self.numbers[SWEPT] = max(moment, 0)
        self.end(ended)

    def odd(self) -> list[int]:
        """The cells of commits under way; with the writers' lock: of commits whose writer died or does not know."""
        return [cell for cell, number in enumerate(self.numbers[:_CELLS]) if number & 1]

    def any_odd(self) -> bool:
        """Whether there is an odd one, in a fiftieth of the time."""
        return bool(int.from_bytes(self._map[: _CELLS * 8], sys.byteorder) & _ODD)

    def put_right(self) -> None:
        """Make even what a writer that died has left odd."""
        self.end(self.odd())

    def close(self) -> None:
        """Let go of the file."""
        self.numbers.release()
        self._map.close()
