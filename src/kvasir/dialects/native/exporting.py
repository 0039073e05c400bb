"""`export`: the entries of one snapshot as lines of JSON. The last line says how many there were, so that a stream that
was cut is told from a whole one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence

import msgspec

from kvasir.dialects.http import Response, Stream
from kvasir.dialects.native import listings, rendering, streams
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.problems import HEADERS
from kvasir.errors import KvasirError
from kvasir.keys import unpack
from kvasir.model import Entry, KeyRange, Space

NDJSON = "application/x-ndjson"

#: Entries in one piece: few enough for a processor's cache, and for blocks of memory that are used again.
TOGETHER = 100


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
                    count += len(batch)
                    for at in range(0, len(batch), TOGETHER):
                        yield lines(batch[at : at + TOGETHER])
            except KvasirError as error:
                if count:
                    # No end follows, whether or not a reader knows this line.
                    yield b'{"error":%b}\n' % msgspec.json.encode({"code": error.reason, "detail": error.message})
                raise
    yield b'{"end":{"entries":%d}}\n' % count


#: The line of an entry without metadata that does not expire, as most are.
_PLAIN = (
    b'{"key":[%b],"text":"%b","metadata":null,"refresh":null,'
    b'"created_at":%b,"expires_at":null,"versionstamp":"%020x"}\n'
)


def lines(batch: Sequence[Entry]) -> bytes:
    """Each entry as one line. In half the time that one after the other takes: keys and texts are encoded together."""
    keys, texts = _keys(batch), _texts(batch)
    if keys is None or texts is None:
        return b"".join([b"{%b}\n" % members(entry) for entry in batch])
    return b"".join(
        [
            _PLAIN % (key, text, rendering.quoted_instant(entry.created_at), entry.versionstamp)
            if entry.metadata is None and entry.refresh is None and entry.expires_at is None
            else b'{"key":[%b],"text":"%b",%b}\n' % (key, text, _facts(entry))
            for key, text, entry in zip(keys, texts, batch, strict=True)
        ]
    )


def _keys(batch: Sequence[Entry]) -> list[bytes] | None:
    """The parts of each key as JSON, without the brackets; None for keys that have to be unpacked one by one."""
    # In a packed key, 00 is followed by 02, or by FF where the text has it; so 00 03 02 is only between two keys. Where
    # no text has a backslash, each one in the JSON begins an escape.
    joined = b"\x03".join([entry.key for entry in batch])
    if b"\\" in joined or b"\x00\xff" in joined:
        return None
    told = rendering.json(joined[1:-1].decode())
    return told.replace(b"\\u0000\\u0002", b'","').replace(b"\\u0000\\u0003\\u0002", b'"\x00"').split(b"\x00")


def _texts(batch: Sequence[Entry]) -> list[bytes] | None:
    """Each value as the inside of a JSON string; None for values that have to be encoded one by one."""
    # No JSON text has a control character, but one may have this escape, which would be doubled and found again.
    joined = b"\x00".join([entry.value for entry in batch])
    if b"\\u0000" in joined:
        return None
    return rendering.json(joined.decode())[1:-1].split(b"\\u0000")


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
