"""`export`: the entries of one snapshot as lines of JSON. The last line says how many there were, so that a stream that
was cut is told from a whole one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence

import msgspec

from kvasir.dialects.http import Response, Stream
from kvasir.dialects.native import listings, rendering, streams
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.problems import HEADERS
from kvasir.errors import KvasirError
from kvasir.keys import unpack
from kvasir.model import Entry, Joined, KeyRange, Space

NDJSON = "application/x-ndjson"

#: Entries in one piece: few enough for a processor's cache, and for blocks of memory that are used again.
TOGETHER = 100

#: See `Joined`: what is between two fields, and how many an entry has.
DEL, FIELDS = b"\x7f", 7


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


#: Lines with places for columns: of entries without metadata that do not expire, as most are; of others.
_PLAIN = [
    *(b'{"key":["', b"", b'"],"text":"', b"", b'","metadata":null,"refresh":null,"created_at":', b""),
    *(b',"expires_at":null,"versionstamp":"', b"", b'"}\n'),
]
_WHOLE = [
    *(b'{"key":["', b"", b'"],"text":"', b"", b'","metadata":', b"", b',"refresh":', b"", b',"created_at":', b""),
    *(b',"expires_at":', b"", b',"versionstamp":"', b"", b'"}\n'),
]


def joined_lines(batch: Joined) -> bytes:
    """Each entry as one line, without a step of the interpreter for each."""
    count = batch.count
    keys, texts, stamps, created_at, expires_at, refresh, metadata = _columns(batch.text)
    created = map(INSTANTS.__getitem__, created_at)
    if not (any(expires_at) or any(refresh) or any(metadata)):
        return _filled(_PLAIN, count, keys, texts, created, stamps)
    metadata = [each.replace(b"\n", b" ").replace(b"\r", b" ") for each in batch.text.split(DEL)[FIELDS - 1 :: FIELDS]]
    expires = map(INSTANTS.__getitem__, expires_at)
    return _filled(_WHOLE, count, keys, texts, _or_null(metadata), _or_null(refresh), created, expires, stamps)


def _columns(text: bytes) -> list[list[bytes]]:
    """The fields of `Joined`, keys and texts as `_keys` and `_texts` have them, metadata as either."""
    # FF is in no UTF-8, but in keys whose parts have NUL in them. (To look for two bytes takes twenty times as long.)
    if b"\xff" not in text:
        fields = _texts(text)
        keys = DEL.join(fields[::FIELDS])
        if b"\\\\" not in keys:
            return [_parted(keys), *(fields[at::FIELDS] for at in range(1, FIELDS))]
    plain = text.split(DEL)
    others = [plain[at::FIELDS] for at in range(2, FIELDS)]
    return [_keys(DEL.join(plain[::FIELDS])), _texts(DEL.join(plain[1::FIELDS])), *others]


def _filled(line: list[bytes], count: int, *columns: Iterable[bytes]) -> bytes:
    pieces = line * count
    for at, column in enumerate(columns):
        pieces[2 * at + 1 :: len(line)] = column
    return b"".join(pieces)


def _or_null(column: list[bytes]) -> list[bytes]:
    return [each or b"null" for each in column]


class Instants(dict[bytes, bytes]):
    """JSON of instants in decimal, as many as `rendering.quoted_instant` remembers: what is here costs no call."""

    def __missing__(self, decimal: bytes) -> bytes:
        if len(self) >= 4096:
            self.clear()
        told = self[decimal] = rendering.quoted_instant(int(decimal) if decimal else None)
        return told


INSTANTS = Instants()


def _keys(joined: bytes) -> list[bytes]:
    """The parts of each key as JSON, without the first and the last quote."""
    # In a packed key, 00 is followed by 02, or by FF where the text has it.
    if b"\\" in joined or b"\x00\xff" in joined:
        return [rendering.json(unpack(key))[2:-2] for key in joined.split(DEL)]
    return _parted(rendering.json(joined.decode())[1:-1])


def _parted(keys: bytes) -> list[bytes]:
    """The same of keys that are JSON already. Where no text has a backslash, each one begins an escape."""
    return keys[6:-6].replace(b"\\u0000\\u0002", b'","').split(b"\\u0000\x7f\\u0002")


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
