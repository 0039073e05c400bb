"""What the store has -> JSON. Pure. Values and metadata are copied, never parsed and printed again."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from kvasir.dialects import timestamps
from kvasir.keys import unpack
from kvasir.model import Entry

json = msgspec.json.Encoder().encode


def instant(milliseconds: int | None) -> str | None:
    """A date-time with milliseconds and Z."""
    # Through another API something may end after the last date-time.
    return None if milliseconds is None else timestamps.render(min(milliseconds, timestamps.LATEST)).decode()


@lru_cache(maxsize=4096)  # entries that are read together were mostly written together
def quoted_instant(milliseconds: int | None) -> bytes:
    """The same as JSON."""
    return b"null" if milliseconds is None else b'"%b"' % timestamps.render(min(milliseconds, timestamps.LATEST))


def entry(entry: Entry, *, value: bool = True) -> bytes:
    """A whole entry; without `value`, all the rest of it."""
    return b'{"key":%b,%b"versionstamp":"%020x","created_at":%b,"expires_at":%b,"refresh":%b,"metadata":%b}' % (
        json(unpack(entry.key)),
        b'"value":%b,' % entry.value if value else b"",
        entry.versionstamp,
        quoted_instant(entry.created_at),
        quoted_instant(entry.expires_at),
        b"null" if entry.refresh is None else b"%d" % entry.refresh,
        b"null" if entry.metadata is None else entry.metadata,
    )


def document(**members: Any) -> bytes:
    """A JSON object."""
    return json(members)
