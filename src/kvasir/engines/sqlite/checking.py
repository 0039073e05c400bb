"""Examines a whole database: SQLite's own integrity check, then what only Kvasir knows must hold."""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from kvasir.engines.soundness import entry_fault, list_fault

ORPHANED_ENTRIES = """
    SELECT count(*) FROM entry
    WHERE space NOT IN (SELECT number FROM space) AND space NOT IN (SELECT space FROM ended)"""
ORPHANED_ALIASES = "SELECT count(*) FROM alias WHERE space NOT IN (SELECT number FROM space)"
BEYOND_THE_LAST = "SELECT count(*) FROM entry, meta WHERE max(sequence, versionstamp) > last"
EVERYTHING = "SELECT sequence, key, value, metadata FROM entry ORDER BY sequence"


def check(connection: apsw.Connection) -> list[str]:
    """One sentence for every fault in one snapshot; empty if the database is sound."""
    with connection:
        faults: list[str] = []
        for fault in _faults(connection):
            if not list_fault(faults, fault):
                break
    return faults


def _faults(connection: apsw.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield f"SQLite finds: {line}"
    for sql, what in (
        (ORPHANED_ENTRIES, "entries belong to no space"),
        (ORPHANED_ALIASES, "aliases lead to no space"),
        (BEYOND_THE_LAST, "entries are newer than the last number handed out"),
    ):
        count = connection.execute(sql).get
        if count:
            yield f"{count} {what}"
    for sequence, key, value, metadata in connection.execute(EVERYTHING):
        if fault := entry_fault(key, value, metadata):
            yield f"entry {sequence}: {fault}"
