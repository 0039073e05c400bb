"""Many entries: listed page by page, as a tree, counted, read by their keys, removed by a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from kvasir import jsontext
from kvasir.beside.process import aside
from kvasir.beside.thread import read_and_rendered, rendered
from kvasir.dialects.http import Response
from kvasir.dialects.native import bodies, cursor, parameters, rendering
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.parameters import PAGE_DEFAULT
from kvasir.dialects.native.preconditions import ConditionNotMet
from kvasir.errors import TooLarge
from kvasir.keys import pack, under, unpack
from kvasir.limits import Limits
from kvasir.model import Conflict, DeleteRange, Entry, KeyRange, Query


def prefix_of(call: Call, limits: Limits, *, needed: bool = False) -> bytes:
    """The packed prefix that a query names; b"" for every key."""
    packed = pack(parameters.prefix(call.query, needed=needed))
    bodies.check_prefix(packed, limits, "prefix")
    return packed


def range_of(call: Call, limits: Limits, *, needed: bool = False) -> KeyRange | None:
    """The keys that a query names by their prefix; None: every key."""
    packed = prefix_of(call, limits, needed=needed)
    return under(packed) if packed else None


async def list_entries(services: Services, call: Call) -> Response:
    """One page of one snapshot."""
    space = await call.space(services)
    asked, order = call.query, call.query.get("order", "key")
    prefix = prefix_of(call, services.store.limits)
    query = Query(
        range=under(prefix) if prefix else None,
        order=order,
        limit=asked.get("limit", PAGE_DEFAULT),
        after=cursor.decode(space.id, prefix, order, asked["cursor"], "cursor") if "cursor" in asked else None,
        created_from=asked.get("created_from"),
        created_to=asked.get("created_to"),
        metadata=asked.get("metadata"),
        values=asked.get("values", True),
    )
    page = await services.store.page(call.principal, space, query)
    next = b"null"
    if page.more and page.entries:
        last = page.entries[-1]
        next = rendering.json(cursor.encode(space.id, prefix, order, last.key if order == "key" else last.sequence))

    def shown() -> bytes:
        entries = b",".join([rendering.entry(entry, value=query.values) for entry in page.entries])
        return b'{"entries":[%b],"next":%b}' % (entries, next)

    return call.answer(await rendered(page.entries, shown))


async def children(services: Services, call: Call) -> Response:
    """The next parts below a prefix, exact at any size."""
    space = await call.space(services)
    prefix = prefix_of(call, services.store.limits)
    positions: list[bytes] = []
    if "from" in call.query:
        # Without its end a part stands before itself, and behind all that come before it.
        positions.append(prefix + pack([call.query["from"]])[:-1])
    if "after" in call.query:
        positions.append(cast("bytes", cursor.decode(space.id, prefix, "children", call.query["after"], "after")))
    found = await services.store.children(
        call.principal,
        space,
        prefix,
        after=max(positions, default=None),
        limit=call.query.get("limit", PAGE_DEFAULT),
    )
    shown = [{"part": unpack(child.key)[-1], "entry": child.entry, "below": child.below} for child in found.children]
    next = None if found.next is None else cursor.encode(space.id, prefix, "children", found.next)
    return call.answer(rendering.document(children=shown, next=next))


async def count(services: Services, call: Call) -> Response:
    """The exact number of entries."""
    space = await call.space(services)
    number = await services.store.count(call.principal, space, range_of(call, services.store.limits))
    return call.answer(b'{"count":%d}' % number)


async def get_many(services: Services, call: Call) -> Response:
    """The entries of many keys in one snapshot, in the order of the keys; null for one that is absent."""
    limits = services.store.limits
    space = await call.space(services)
    body = await call.request.body(limits.keys_body_bytes)
    packed = packed_keys(body, limits) if jsontext.is_light(body) else await aside(packed_keys, body, limits)
    extend = call.query.get("extend", True)

    async def read() -> Sequence[Entry | None]:
        return await services.store.get(call.principal, space, packed, extend=extend) if packed else ()

    return call.answer(await read_and_rendered(read, _shown))


def _shown(entries: Sequence[Entry | None]) -> bytes:
    return b'{"entries":[%b]}' % b",".join([b"null" if each is None else rendering.entry(each) for each in entries])


def packed_keys(text: bytes, limits: Limits) -> list[bytes]:
    """The keys that a body names. Raises `Invalid` and `TooLarge`."""
    keys = bodies.parse(text, bodies.Keys, limits).keys
    if len(keys) > limits.batch_keys:
        what = f"has {len(keys):,} items; at most {limits.batch_keys:,} are allowed, send the rest in another request"
        raise TooLarge(f"keys {what}", fields=(("keys", what),))
    packed = [pack(key) for key in keys]
    limits.check_keys(packed)
    return packed


async def delete_prefix(services: Services, call: Call) -> Response:
    """All of a prefix at once, if there are as many as expected."""
    space = await call.space(services)
    removal = DeleteRange(range_of(call, services.store.limits, needed=True), call.query.get("expect"))
    outcome = await services.store.write(call.principal, space, removal)
    if isinstance(outcome, Conflict):
        found = outcome.unmet[0].count
        raise ConditionNotMet(f"nothing was deleted: there are {found} entries, not {removal.expect}", count=found)
    return call.answer(b"", 204, (("Kvasir-Count", str(outcome.counts[0])),))
