"""The organisation created by the first start, and the name of the database that follows from it. Reads only."""

from __future__ import annotations

import msgspec

from kvasir.control import records
from kvasir.engine import Engine
from kvasir.errors import NotFound
from kvasir.keys import pack, versionstamp_text
from kvasir.model import Entry

#: Key of the record that the first start writes: the ULID of the organisation.
FIRST = pack(["first-organisation"])


async def first_organisation(engine: Engine) -> str:
    """The ULID of the first start's organisation. Raises `NotFound` before that."""
    return msgspec.json.decode((await _first(engine)).value, type=str)


async def origin(engine: Engine) -> str:
    """Identifies the first start of a database; its copies have the same. Raises `NotFound` before that."""
    first = await _first(engine)
    return f"{msgspec.json.decode(first.value, type=str)}-{versionstamp_text(first.versionstamp)}"


async def _first(engine: Engine) -> Entry:
    entry = await records.read(engine, FIRST)
    if entry is None:
        raise NotFound("the database is empty; the first start of `kvasir serve` fills it")
    return entry
