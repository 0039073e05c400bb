"""The organisation of the first start, and the name of the database that follows from it."""

from __future__ import annotations

import msgspec

from kvasir.engine import Engine
from kvasir.errors import NotFound
from kvasir.keys import pack, versionstamp_text
from kvasir.model import SYSTEM_SPACE, Entry

FIRST = pack(["first-organisation"])


async def first_organisation(engine: Engine) -> str:
    """The ULID of the organisation of the first start. Raises `NotFound` before that."""
    return msgspec.json.decode((await _first(engine)).value, type=str)


async def _first(engine: Engine) -> Entry:
    entry = (await engine.get(SYSTEM_SPACE, [FIRST]))[0]
    if entry is None:
        raise NotFound("the database is empty; `kvasir serve` fills it at its first start")
    return entry


async def origin(engine: Engine) -> str:
    """Names the first start of a database; copies of it have the same. Raises `NotFound` before that."""
    first = await _first(engine)
    return f"{msgspec.json.decode(first.value, type=str)}-{versionstamp_text(first.versionstamp)}"
