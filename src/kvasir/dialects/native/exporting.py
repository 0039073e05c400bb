"""`export`: the entries of one snapshot as lines of JSON. The last line says how many there were, so that a stream that
was cut is told from a whole one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from functools import lru_cache

import msgspec

from kvasir.dialects.http import Response, Stream
from kvasir.dialects.native import listings, rendering, streams
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.problems import HEADERS
from kvasir.errors import KvasirError
from kvasir.keys import unpack
from kvasir.model import Entry, Joined, KeyRange, Layout, Space

NDJSON = "application/x-ndjson"

#: Entries in one piece: few enough for a processor's cache, and for blocks of memory that are used again.
TOGETHER = 100

#: Unix milliseconds have so many digits from 2001 to 2286.
DIGITS = 13

#: What is around instants in `Joined`, and else in hardly any text
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
        async with contextlib.aclosing(services.store.scan(call.principal, space, key_range, LAYOUT)) as batches:
            try:
                async for batch in batches:
                    if count:
                        await call.recheck(services)
                    if isinstance(batch, Joined):
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


#: A line as `members` has it. What stands between the members is in no text.
LAYOUT = Layout(
    '{"key":',
    ',"text":',
    ',"metadata":',
    ',"refresh":',
    ',"created_at":',
    ',"expires_at":',
    ',"versionstamp":"',
    '"}\n',
)


def joined_lines(batch: Joined) -> bytes:
    """Each entry as one line, by `LAYOUT`, without a step of the interpreter for each."""
    pieces = batch.text.split(DEL)
    pieces[1::2] = map(INSTANTS.__getitem__, pieces[1::2])
    return b"".join(pieces)


class Instants(dict[bytes, bytes]):
    """JSON of instants in decimal, as many as `rendering.quoted_instant` remembers: what is here costs no call."""

    def __missing__(self, decimal: bytes) -> bytes:
        if len(self) >= 4096:
            self.clear()
        if len(decimal) == DIGITS and decimal.isdigit():
            told = b'%b%bZ"' % (_second(decimal[:-3]), decimal[-3:])
        else:
            told = rendering.quoted_instant(int(decimal))
        self[decimal] = told
        return told


@lru_cache(maxsize=4096)
def _second(decimal: bytes) -> bytes:
    """The JSON of a second in decimal, up to the point."""
    return rendering.quoted_instant(int(decimal) * 1_000)[: -len('000Z"')]


INSTANTS = Instants()


def lines(batch: Sequence[Entry]) -> bytes:
    """Each entry as one line. In half the time that one after the other takes: keys and texts are encoded together."""
    keys, values = DEL.join([entry.key for entry in batch]), DEL.join([entry.value for entry in batch])
    if not keys.count(DEL) == values.count(DEL) == len(batch) - 1:
        return b"".join([b"{%b}\n" % members(entry) for entry in batch])
    texts = rendering.json(values.decode())[1:-1].split(DEL)
    pairs = zip(_keys(keys), texts, batch, strict=True)
    return b"".join([b'{"key":["%b"],"text":"%b",%b}\n' % (key, text, _facts(entry)) for key, text, entry in pairs])


def _keys(joined: bytes) -> list[bytes]:
    """The parts of each key as JSON, without the first and the last quote."""
    # In a packed key, 00 is followed by 02, or by FF where the text has it.
    if b"\\" in joined or b"\x00\xff" in joined:
        return [rendering.json(unpack(key))[2:-2] for key in joined.split(DEL)]
    # Where no text has a backslash, each one begins an escape.
    keys = rendering.json(joined.decode())[1:-1]
    return keys[6:-6].replace(b"\\u0000\\u0002", b'","').split(b"\\u0000\x7f\\u0002")


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
