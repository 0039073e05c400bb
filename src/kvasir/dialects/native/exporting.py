"""`export`: the entries of one snapshot as lines of JSON. The last line says how many there were, so that a stream that
was cut is told from a whole one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import msgspec

from kvasir.dialects.http import Response, Stream
from kvasir.dialects.native import listings, rendering, streams
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.problems import HEADERS
from kvasir.errors import KvasirError
from kvasir.keys import unpack
from kvasir.model import Entry, KeyRange, Space

NDJSON = "application/x-ndjson"


async def export(services: Services, call: Call) -> Response:
    """A stream of lines, as fast as the client takes them."""
    space = await call.space(services)
    range = listings.range_of(call, services.store.limits)
    chunks = await streams.begin(_lines(services, call, space, range))
    return Stream(200, b"", call.operation.name, headers=HEADERS, content_type=NDJSON, chunks=chunks)


async def _lines(services: Services, call: Call, space: Space, range: KeyRange | None) -> AsyncGenerator[bytes, None]:
    limits = services.store.limits
    count = 0
    with services.slots.take(call.principal, "exports", limits.credential_exports):
        async with contextlib.aclosing(services.store.scan(call.principal, space, range)) as batches:
            try:
                async for batch in batches:
                    if count:
                        await call.recheck(services)
                    count += len(batch)
                    yield b"".join([line(entry) for entry in batch])
            except KvasirError as error:
                if count:
                    # No end follows, whether or not a reader knows this line.
                    yield b'{"error":%b}\n' % msgspec.json.encode({"code": error.reason, "detail": error.message})
                raise
    yield b'{"end":{"entries":%d}}\n' % count


def line(entry: Entry) -> bytes:
    """An entry as one line."""
    return b"{%b}\n" % members(entry)


def members(entry: Entry, *, text: bool = True) -> bytes:
    """The members of an entry, with the stored text as a JSON string: line ends and long digits survive any reader."""
    return b'"key":%b,%b"metadata":%b,"refresh":%b,"created_at":%b,"expires_at":%b,"versionstamp":"%020x"' % (
        rendering.json(unpack(entry.key)),
        b'"text":%b,' % rendering.json(entry.value.decode()) if text else b"",
        b"null" if entry.metadata is None else entry.metadata.replace(b"\n", b" ").replace(b"\r", b" "),
        b"null" if entry.refresh is None else b"%d" % entry.refresh,
        rendering.quoted_instant(entry.created_at),
        rendering.quoted_instant(entry.expires_at),
        entry.versionstamp,
    )
