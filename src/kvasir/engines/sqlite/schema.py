"""The tables and their history. Migrations are append-only: number N brings a database from version N to N + 1.

`entry.sequence` is the row id: the newest entries lie together on disk, and both indexes lead straight to the row.
"""

from __future__ import annotations

import apsw

from kvasir.engines.sqlite.connection import BUSY_MILLISECONDS
from kvasir.errors import Unavailable

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        last INTEGER NOT NULL,   -- the last sequence or versionstamp handed out
        latest INTEGER NOT NULL, -- the latest created_at given
        epoch INTEGER NOT NULL   -- moves when something may no longer be cached
    ) STRICT;
    INSERT INTO meta VALUES (1, 1, 0, 1);

    CREATE TABLE space (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        organisation TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        clear_every INTEGER,
        attributes BLOB NOT NULL
    ) STRICT;
    CREATE INDEX space_kind ON space (kind, organisation, id);
    CREATE INDEX space_expiry ON space (expires_at) WHERE expires_at IS NOT NULL;
    INSERT INTO space VALUES (1, '00000000000000000000000000', '', 'system', 'kvasir', 0, NULL, NULL, x'7b7d');

    CREATE TABLE door (
        kind TEXT NOT NULL,
        organisation TEXT NOT NULL,
        handle TEXT NOT NULL,
        space INTEGER NOT NULL,
        PRIMARY KEY (kind, organisation, handle)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX door_space ON door (space);

    CREATE TABLE entry (
        sequence INTEGER PRIMARY KEY,
        space INTEGER NOT NULL,
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        versionstamp INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        refresh INTEGER,
        metadata BLOB
    ) STRICT;
    CREATE UNIQUE INDEX entry_key ON entry (space, key);
    CREATE INDEX entry_order ON entry (space);
    CREATE INDEX entry_expiry ON entry (expires_at) WHERE expires_at IS NOT NULL;

    -- Numbers of spaces that have ended and whose entries await the sweep.
    CREATE TABLE ended (space INTEGER PRIMARY KEY) STRICT;
    """,
    """
    -- Entries whose sequence says an earlier instant than their created_at, as other databases had them. Listings by
    -- age look here for them; most databases have none.
    CREATE INDEX entry_lagging ON entry (space, created_at) WHERE created_at > sequence >> 20;
    """,
    """
    ALTER TABLE door RENAME TO alias;
    DROP INDEX door_space;
    CREATE INDEX alias_space ON alias (space);
    """,
    """
    -- What commits have changed, while somebody watches (see `changelog`).
    CREATE TABLE change (
        upto INTEGER PRIMARY KEY, -- the last number handed out when the transaction ended
        since INTEGER NOT NULL,   -- and when it began
        bytes INTEGER NOT NULL,   -- the length of all changes logged up to this row
        changes BLOB NOT NULL
    ) STRICT;
    """,
    """
    -- Changes are in another form now. Whoever watches sees a gap, and is told to read again.
    DELETE FROM change;
    """,
)


def migrate(connection: apsw.Connection) -> None:
    """Bring the database to the newest version, in one transaction.

    Raises `Unavailable` for one that is newer than this program, and for an older one that another program has open: a
    server of the earlier version would go on working with tables that it does not know.
    """
    version = connection.pragma("user_version")
    if not isinstance(version, int) or version > len(MIGRATIONS):
        raise Unavailable(
            f"the database has schema version {version}, made by a newer Kvasir;"
            f" this one knows up to {len(MIGRATIONS)}: run the newer one"
        )
    if version == len(MIGRATIONS):
        return
    if version:
        _refuse_company(connection)
    with connection:
        for migration in MIGRATIONS[version:]:
            connection.execute(migration)
        connection.pragma("user_version", len(MIGRATIONS))


def _refuse_company(connection: apsw.Connection) -> None:
    """Raise `Unavailable` if any other connection to the database is open: only the last one can leave WAL mode."""
    connection.set_busy_timeout(0)
    try:
        connection.pragma("journal_mode", "delete")
    except apsw.BusyError:
        raise Unavailable(
            "the database has to be migrated to the schema of this version, but another program has it open:"
            " stop every server and command of the earlier version, then start this one again"
        ) from None
    finally:
        connection.set_busy_timeout(BUSY_MILLISECONDS)
    connection.pragma("journal_mode", "wal")
