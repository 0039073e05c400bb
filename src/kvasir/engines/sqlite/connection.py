"""Connections to the database file, each for one thread and one purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import msgspec

from kvasir import jsontext

#: Bytes of the file that are read through the page cache of the operating system instead of a private copy.
MAPPED_BYTES = 64 << 30

#: How long a statement waits for a lock that a program other than Kvasir holds (Kvasir's writers queue elsewhere).
BUSY_MILLISECONDS = 5_000

#: A write-ahead log that has grown beyond this is cut back to it when it restarts. Below that it keeps its length,
#: since writing over a file is cheaper than making it longer.
LOG_BYTES = 32 << 20


def for_reading(path: Path) -> apsw.Connection:
    """A connection that never takes a write lock. The file must exist."""
    connection = _open(path, apsw.SQLITE_OPEN_READWRITE)
    connection.pragma("query_only", True)
    connection.pragma("mmap_size", MAPPED_BYTES)
    connection.create_scalar_function("metadata_contains", _metadata_contains, 2, deterministic=True)
    return connection


def for_writing(path: Path, *, durable: bool) -> apsw.Connection:
    """The connection of the one writer; creates the file."""
    connection = _open(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full" if durable else "normal")
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("journal_size_limit", LOG_BYTES)
        connection.pragma("cache_size", -16_384)
    except BaseException:
        connection.close(True)
        raise
    return connection


def _open(path: Path, flags: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    return connection


def _metadata_contains(*texts: Any) -> bool:
    metadata, wanted = texts
    return jsontext.contains(msgspec.json.decode(metadata or b"{}"), msgspec.json.decode(wanted))
