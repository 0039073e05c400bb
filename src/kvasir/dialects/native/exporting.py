"""`export`: the entries of one snapshot as lines of JSON. The last line says how many there were, so that a stream that
was cut is told from a whole one."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncGenerator, Sequence
from functools import lru_cache

import msgspec

from kvasir.dialects.http import Response, Stream
from kvasir.dialects.json_keys import DEL, insides
from kvasir.dialects.native import listings, problems, rendering, streams
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.problems import HEADERS
from kvasir.errors import KvasirError
from kvasir.keys import unpack
from kvasir.model import Entry, Joined, KeyRange, Space

NDJSON = "application/x-ndjson"

#: Entries in one piece: few enough for a processor's cache, and for blocks of memory that are used again.
TOGETHER = 100

#: Unix milliseconds have so many digits from 2001 to 2286.
DIGITS = 13

#: What is between values
RS = b"\x1e"

#: What JSON may have, besides quotes, that has to be escaped in a JSON string
ESCAPED = (b"\\", b"\n", b"\r", b"\t")

NUMBERS = msgspec.json.Decoder(list[int])

#: What is between facts in `Joined`
FF = b"\xff"

#: What a line tells of an entry besides key and text, up to the versionstamp
FACTS_TOLD = b'"metadata":%b,"refresh":%b,"created_at":%b,"expires_at":%b,"versionstamp":"'

#: Metadata may have line ends between its members.
ONE_LINE = bytes.maketrans(b"\n\r", b"  ")


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
        async with contextlib.aclosing(services.store.scan(call.principal, space, key_range, joined=True)) as batches:
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
                    problem = problems.problem(error, call.operation.name, call.request.id)
                    yield b'{"error":%b}\n' % msgspec.json.encode(problem)
                raise
    yield b'{"end":{"entries":%d}}\n' % count


#: Lines as `members` has them; what is empty are key, text, facts and versionstamp.
LINE = [b'"}\n{"key":["', b"", b'"],"text":"', b"", b"", b""]


def joined_lines(batch: Joined) -> bytes:
    """Each entry as one line, without a step of the interpreter for each."""
    pieces = LINE * batch.count
    pieces[1::6] = insides(batch.keys)
    pieces[3::6] = _texts(batch.values, batch.count)
    pieces[4::6] = map(FACTS.__getitem__, batch.facts.split(FF))
    pieces[5::6] = _hex(batch.versionstamps)
    # The end of each line is the beginning of the next one.
    pieces[0] = LINE[0].removeprefix(b'"}\n')
    pieces.append(b'"}\n')
    return b"".join(pieces)


def _hex(versionstamps: bytes) -> list[bytes]:
    """The last 16 digits of each, as `kvasir.keys.versionstamp_text` has them; the four before are 0.

    Made together: the database takes twice as long for a text of 20 digits as for a decimal one.
    """
    numbers = NUMBERS.decode(b"[%b]" % versionstamps)
    return struct.pack(f">{len(numbers)}Q", *numbers).hex(",", 8).encode().split(b",")


class Facts(dict[bytes, bytes]):
    """What is between text and versionstamp in lines, by the facts of `Joined`; what is remembered costs no call."""

    def __missing__(self, facts: bytes) -> bytes:
        created_at, *others = facts.split(b",", 3)
        expires_at, refresh, metadata = others or (b"", b"", b"")
        told = b'",' + (FACTS_TOLD + b"0000") % (
            metadata.translate(ONE_LINE) or b"null",
            refresh or b"null",
            _instant(created_at),
            _instant(expires_at),
        )
        if not metadata:
            if len(self) >= 4096:
                self.clear()
            self[facts] = told
        return told


def _instant(decimal: bytes) -> bytes:
    """The JSON of an instant in decimal."""
    if len(decimal) == DIGITS and decimal.isdigit():
        return b'%b%bZ"' % (_second(decimal[:-3]), decimal[-3:])
    return rendering.quoted_instant(int(decimal) if decimal else None)


@lru_cache(maxsize=4096)
def _second(decimal: bytes) -> bytes:
    """The JSON of a second in decimal, up to the point."""
    return rendering.quoted_instant(int(decimal) * 1_000)[: -len('000Z"')]


FACTS = Facts()


def lines(batch: Sequence[Entry]) -> bytes:
    """Each entry as one line. In half the time that one after the other takes: keys and texts are encoded together."""
    keys = DEL.join([entry.key for entry in batch])
    if keys.count(DEL) != len(batch) - 1:
        return b"".join([b"{%b}\n" % members(entry) for entry in batch])
    texts = _texts(RS.join([entry.value for entry in batch]), len(batch))
    told = zip(insides(keys), texts, batch, strict=True)
    return b"".join([b'{"key":["%b"],"text":"%b",%b}\n' % (key, text, _facts(entry)) for key, text, entry in told])


def _texts(joined: bytes, count: int) -> list[bytes]:
    """So many values as JSON strings without the quotes. RS is between them."""
    if not any(map(joined.__contains__, ESCAPED)):
        return joined.replace(b'"', b'\\"').split(RS)
    told = rendering.json(joined.decode())[1:-1].split(b"\\u001e")
    # A value that spells out \u001e itself makes too many parts: then one by one.
    return told if len(told) == count else [rendering.json(text.decode())[1:-1] for text in joined.split(RS)]


def members(entry: Entry, *, text: bool = True) -> bytes:
    """The members of an entry, with the stored text as a JSON string: line ends and long digits survive any reader."""
    told = b'"text":%b,' % rendering.json(entry.value.decode()) if text else b""
    return b'"key":%b,%b%b' % (rendering.json(unpack(entry.key)), told, _facts(entry))


def _facts(entry: Entry) -> bytes:
    told = FACTS_TOLD % (
        b"null" if entry.metadata is None else entry.metadata.translate(ONE_LINE),
        b"null" if entry.refresh is None else b"%d" % entry.refresh,
        rendering.quoted_instant(entry.created_at),
        rendering.quoted_instant(entry.expires_at),
    )
    return b'%b%020x"' % (told, entry.versionstamp)
