"""Examines a whole database: SQLite's own integrity check, then what only Kvasir knows must hold."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import msgspec

from kvasir import keys
from kvasir.errors import KvasirError

#: Faults listed before the check says that there are more.
MOST_FAULTS = 100

ORPHANED_ENTRIES = """
    SELECT count(*) FROM entry
    WHERE space NOT IN (SELECT number FROM space) AND space NOT IN (SELECT space FROM ended)"""
ORPHANED_ALIASES = "SELECT count(*) FROM alias WHERE space NOT IN (SELECT number FROM space)"
BEYOND_THE_LAST = "SELECT count(*) FROM entry, meta WHERE max(sequence, versionstamp) > last"
EVERYTHING = "SELECT sequence, key, value, metadata FROM entry ORDER BY sequence"


def check(connection: apsw.Connection) -> list[str]:
    """One sentence for every fault; empty if the database is sound. One snapshot."""
    with connection:
        faults: list[str] = []
        for fault in _faults(connection):
            faults.append(fault)
            if len(faults) == MOST_FAULTS:
                return [*faults, "and perhaps more"]
    return faults


def _faults(connection: apsw.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"SQLite finds: {line}"
    for sql, what in (
        (ORPHANED_ENTRIES, "entries belong to no space"),
        (ORPHANED_ALIASES, "aliases of no space"),
        (BEYOND_THE_LAST, "entries are newer than the last number handed out"),
    ):
        count = connection.execute(sql).get
        if count:
            yield f"{count} {what}"
    for sequence, key, value, metadata in connection.execute(EVERYTHING):
        if fault := _entry_fault(key, value, metadata):
            yield f"entry {sequence}: {fault}"


def _entry_fault(key: bytes, value: bytes, metadata: bytes | None) -> str | None:
    try:
        if keys.pack(keys.unpack(key)) != key:
            return "its key is not in the packed form"
    except (ValueError, KvasirError):
        return "its key is not in the packed form"
    try:
        msgspec.json.decode(value)
        if metadata is not None and not isinstance(msgspec.json.decode(metadata), dict):
            return "its metadata is no JSON object"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "its value or metadata is no JSON"
    return None
