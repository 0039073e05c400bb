"""`export`: the entries of one snapshot as lines of JSON. The last line says how many there were, so that a stream that
was cut is told from a whole one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import lru_cache

import msgspec

from kvasir.dialects.http import Response, Stream
from kvasir.dialects.native import listings, rendering, streams
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.problems import HEADERS
from kvasir.errors import KvasirError
from kvasir.keys import unpack
from kvasir.model import Columns, Entry, KeyRange, Space

NDJSON = "application/x-ndjson"

#: Entries in one piece: few enough for a processor's cache, and for blocks of memory that are used again.
TOGETHER = 100

#: Between the texts of a column; see `Columns`.
DEL = b"\x7f"


async def export(services: Services, call: Call) -> Response:
    """A stream of lines, as fast as the client takes them."""
    space = await call.space(services)
    key_range = listings.range_of(call, services.store.limits)
    chunks = await streams.begin(_pieces(services, call, space, key_range))
    return Stream(200, b"", call.operation.name, headers=HEADERS, content_type=NDJSON, chunks=chunks)


async def _pieces(
    services: Services, call: Call, space: Space, key_range: KeyRange | None
) -> AsyncGenerator[bytes, None]:
    limits = services.store.limits
    count = 0
    with services.slots.take(call.principal, "exports", limits.credential_exports):
        async with contextlib.aclosing(services.store.scan(call.principal, space, key_range)) as batches:
            try:
                async for batch in batches:
                    if count:
                        await call.recheck(services)
                    if isinstance(batch, Columns):
                        count += batch.count
                        yield joined_lines(batch)
                    else:
                        count += len(batch)
                        for at in range(0, len(batch), TOGETHER):
                            yield lines(batch[at : at + TOGETHER])
            except KvasirError as error:
                if count:
                    # No end follows, whether or not a reader knows this line.
                    yield b'{"error":%b}\n' % msgspec.json.encode({"code": error.reason, "detail": error.message})
                raise
    yield b'{"end":{"entries":%d}}\n' % count


#: Lines with places for columns: of entries without metadata that do not expire, as most are; of others.
_PLAIN = [
    *(b'{"key":["', b"", b'"],"text":"', b"", b'","metadata":null,"refresh":null,"created_at":', b""),
    *(b',"expires_at":null,"versionstamp":"', b"", b'"}\n'),
]
_WHOLE = [
    *(b'{"key":["', b"", b'"],"text":"', b"", b'","metadata":', b"", b',"refresh":', b"", b',"created_at":', b""),
    *(b',"expires_at":', b"", b',"versionstamp":"', b"", b'"}\n'),
]


def joined_lines(columns: Columns) -> bytes:
    """Each entry as one line, without a step of the interpreter for each."""
    count = columns.count
    keys, texts, stamps = _keys(columns.keys), _texts(columns.values), columns.versionstamps.split(b",")
    created = map(_instant, columns.created_at.split(b","))
    if len(columns.metadata) == len(columns.refresh) == len(columns.expires_at) == count - 1:
        return _filled(_PLAIN, count, keys, texts, created, stamps)
    metadata = columns.metadata.replace(b"\n", b" ").replace(b"\r", b" ").split(DEL)
    refresh, expires = columns.refresh.split(b","), map(_instant, columns.expires_at.split(b","))
    return _filled(_WHOLE, count, keys, texts, _or_null(metadata), _or_null(refresh), created, expires, stamps)


def _filled(line: list[bytes], count: int, *columns: Iterable[bytes]) -> bytes:
    pieces = line * count
    for at, column in enumerate(columns):
        pieces[2 * at + 1 :: len(line)] = column
    return b"".join(pieces)


def _or_null(column: list[bytes]) -> list[bytes]:
    return [each or b"null" for each in column]


@lru_cache(maxsize=4096)  # see `rendering.quoted_instant`
def _instant(decimal: bytes) -> bytes:
    return rendering.quoted_instant(int(decimal) if decimal else None)


def _keys(joined: bytes) -> list[bytes]:
    """The parts of each key as JSON, without the first and the last quote."""
    # In a packed key, 00 is followed by 02, or by FF where the text has it. Where no text has a backslash, each one in
    # the JSON begins an escape.
    if b"\\" in joined or b"\x00\xff" in joined:
        return [rendering.json(unpack(key))[2:-2] for key in joined.split(DEL)]
    told = rendering.json(joined[1:-1].decode())[1:-1]
    return told.replace(b"\\u0000\\u0002", b'","').split(b"\\u0000\x7f\\u0002")


def _texts(joined: bytes) -> list[bytes]:
    """Each value as the inside of a JSON string."""
    return rendering.json(joined.decode())[1:-1].split(DEL)


def lines(batch: Sequence[Entry]) -> bytes:
    """Each entry as one line. In half the time that one after the other takes: keys and texts are encoded together."""
    keys, values = DEL.join([entry.key for entry in batch]), DEL.join([entry.value for entry in batch])
    if not keys.count(DEL) == values.count(DEL) == len(batch) - 1:
        return b"".join([b"{%b}\n" % members(entry) for entry in batch])
    pairs = zip(_keys(keys), _texts(values), batch, strict=True)
    return b"".join([b'{"key":["%b"],"text":"%b",%b}\n' % (key, text, _facts(entry)) for key, text, entry in pairs])


def members(entry: Entry, *, text: bool = True) -> bytes:
    """The members of an entry, with the stored text as a JSON string: line ends and long digits survive any reader."""
    told = b'"text":%b,' % rendering.json(entry.value.decode()) if text else b""
    return b'"key":%b,%b%b' % (rendering.json(unpack(entry.key)), told, _facts(entry))


def _facts(entry: Entry) -> bytes:
    return b'"metadata":%b,"refresh":%b,"created_at":%b,"expires_at":%b,"versionstamp":"%020x"' % (
        b"null" if entry.metadata is None else entry.metadata.replace(b"\n", b" ").replace(b"\r", b" "),
        b"null" if entry.refresh is None else b"%d" % entry.refresh,
        rendering.quoted_instant(entry.created_at),
        rendering.quoted_instant(entry.expires_at),
        entry.versionstamp,
    )
