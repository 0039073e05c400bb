"""The methods: what each does with the store. A row in `COMMANDS` is all that makes a method known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import cast

import msgspec
from msgspec import Struct

from kvasir import keys
from kvasir.dialects.voximplant import wire
from kvasir.dialects.voximplant.errors import RANGE, ApiError
from kvasir.dialects.voximplant.parameters import INT64, INTEGER, Cursor, Parameters, text_of
from kvasir.dialects.voximplant.settings import Settings
from kvasir.model import Commit, Condition, Conflict, Delete, Entry, Mutation, Principal, Query, Set, Space, Touch
from kvasir.store.permissions import READERS, WRITERS
from kvasir.store.store import Store

#: Entries read at a time while a listing looks for items: it bounds the memory, since each may be as long as the store
#: allows, however little of it is shown.
SCAN_ENTRIES = 100


class Call(Struct, frozen=True, gc=False):
    """One authenticated request to an application that exists."""

    store: Store
    settings: Settings
    principal: Principal
    space: Space
    parameters: Parameters

    async def write(self, *mutations: Mutation, when: Sequence[Condition] = ()) -> Commit | Conflict:
        """See `Store.write`."""
        return await self.store.write(self.principal, self.space, *mutations, when=when)


# -- the documented five ------------------------------------------------------------------------------------------


async def set_item(call: Call) -> bytes:
    """Create or replace an item; the response is the item as it is now."""
    parameters = call.parameters
    key, value = parameters.key(), parameters.value()
    packed = keys.pack((key,))
    expires_at = parameters.expiry(call.store.clock())
    mutation = Set(packed, msgspec.json.encode(value), expires_at=expires_at)
    outcome = await call.write(mutation, when=parameters.conditions(packed))
    if isinstance(outcome, Conflict):
        raise parameters.unmet(outcome)
    return wire.result(wire.item(key, value, expires_at, outcome.versionstamp))


def get_item(call: Call) -> bytes | Awaitable[bytes]:
    """One item."""
    key = call.parameters.key()
    packed = (keys.pack((key,)),)
    entries = call.store.get_nowait(call.principal, call.space, packed)
    return _item(call, key, packed) if entries is None else wire.found(key, entries[0], call.settings)


async def _item(call: Call, key: str, packed: Sequence[bytes]) -> bytes:
    (entry,) = await call.store.get(call.principal, call.space, packed)
    return wire.found(key, entry, call.settings)


async def delete_item(call: Call) -> bytes:
    """Delete the item of a key, if there is one: the response is 1 either way."""
    packed = keys.pack((call.parameters.key(),))
    outcome = await call.write(Delete(packed), when=call.parameters.conditions(packed))
    if isinstance(outcome, Conflict):
        raise call.parameters.unmet(outcome)
    return wire.result(1)


async def list_items(call: Call) -> bytes:
    """A page of the items whose keys begin with a pattern."""
    return await _page(call, call.parameters.pattern("key", required=True), values=True)


async def list_keys(call: Call) -> bytes:
    """The same without values, and every key if there is no pattern."""
    return await _page(call, call.parameters.pattern("key", required=False), values=False)


async def _page(call: Call, pattern: str, *, values: bool) -> bytes:
    """With an offset, total_count takes a walk over all matching items; a cursor already contains it."""
    count, offset, cursor = call.parameters.count(), call.parameters.offset(), call.parameters.cursor()
    found: list[tuple[str, Entry]] = []
    seen = 0
    async for key, entry in _items(call, pattern, cursor.key if cursor else None):
        if offset <= seen and len(found) < count:
            found.append((key, entry))
        seen += 1
        if cursor and seen > count:
            break
    total = cursor.total if cursor else seen
    more = bool(found) and seen > offset + len(found)
    items = [wire.read(key, entry, call.settings, values=values) for key, entry in found]
    return wire.listing(items, total, Cursor(total, found[-1][0]) if more else None)


async def _items(call: Call, pattern: str, after: str | None = None) -> AsyncIterator[tuple[str, Entry]]:
    """The items whose keys match a pattern, by ascending key, read in small pages."""
    matches = wire.matches(pattern, call.settings)
    query = Query(keys.text_range(pattern), order="key", limit=SCAN_ENTRIES)
    if after is not None:
        query = msgspec.structs.replace(query, after=keys.pack((after,)))
    while True:
        page = await call.store.page(call.principal, call.space, query)
        for entry in page.entries:
            key = wire.key_of(entry, call.settings)
            if key is not None and matches(key):
                yield key, entry
        if not page.more:
            return
        query = msgspec.structs.replace(query, after=page.entries[-1].key)


# -- beyond the documented ----------------------------------------------------------------------------------------


async def increment(call: Call) -> bytes:
    """Add `by` (1) to an item whose value is a decimal integer, as one atomic step; an absent item counts as 0.

    It keeps its expiry unless the request has ttl or expires_at, and stays a number if another API stored it as one.
    """
    parameters = call.parameters
    key, by = parameters.key(), parameters.integer("by", -INT64, INT64 - 1, 1)
    packed, now = keys.pack((key,)), call.store.clock()
    expires_at = parameters.expiry(now)
    renews = parameters.has("ttl", "expires_at")

    def change(entry: Entry | None) -> Set:
        if entry is None:
            return Set(packed, b'"%d"' % by, expires_at=expires_at)
        text = wire.shown(entry.value, call.settings)
        if text is None or INTEGER.fullmatch(text) is None:
            raise parameters.invalid("value", "the value of the key is not an integer")
        if not -INT64 <= (total := int(text) + by) < INT64:
            raise ApiError(RANGE, "the sum", -INT64, INT64 - 1, field="by")
        value = b'"%d"' % total if entry.value[:1] == b'"' else b"%d" % total
        if renews or entry.refresh is None:
            return Set(packed, value, entry.metadata, expires_at=expires_at if renews else entry.expires_at)
        return Set(packed, value, entry.metadata, ttl=entry.refresh, refresh=True)

    entry, commit = await call.store.update(call.principal, call.space, packed, change)
    written = change(entry)
    ends = written.expires_at if written.ttl is None else now + written.ttl
    # Never None, since `change` always returns a mutation.
    stamp = cast("Commit", commit).versionstamp
    return wire.result(wire.item(key, text_of(written.value), ends, stamp))


async def touch(call: Call) -> bytes:
    """Change the expiry of an item, but neither its value nor its version."""
    key = call.parameters.key()
    packed = keys.pack((key,))
    expires_at = call.parameters.expiry(call.store.clock())

    def change(entry: Entry | None) -> Touch:
        if wire.read(key, entry, call.settings) is None:
            raise wire.missing_key(call.settings)
        return Touch(packed, expires_at)

    entry, _ = await call.store.update(call.principal, call.space, packed, change)
    # Never None, or `change` would have raised.
    touched = msgspec.structs.replace(cast("Entry", entry), expires_at=expires_at)
    return wire.found(key, touched, call.settings)


async def set_items(call: Call) -> bytes:
    """Create or replace the items of the JSON array `items`, all or none, each with its own conditions."""
    store, sets = call.store, dict[bytes, tuple[Parameters, Set]]()
    conditions: list[Condition] = []
    for parameters in call.parameters.items("items", store.limits.batch_keys):
        packed = keys.pack((parameters.key(),))
        if packed in sets:
            raise parameters.invalid("key", "it occurs twice")
        value = msgspec.json.encode(parameters.value())
        sets[packed] = parameters, Set(packed, value, expires_at=parameters.expiry(store.clock()))
        conditions += parameters.conditions(packed)
    outcome = await call.write(*(mutation for _, mutation in sets.values()), when=conditions)
    if isinstance(outcome, Conflict):
        raise sets[outcome.key][0].unmet(outcome)
    return wire.result(
        [
            wire.item(parameters.key(), parameters.value(), mutation.expires_at, outcome.versionstamp)
            for parameters, mutation in sets.values()
        ]
    )


async def delete_items(call: Call) -> bytes:
    """Delete the keys of the JSON array `keys`, or the items under `prefix`, in one transaction.

    If there are more items under the prefix than one transaction may have, the first ones go, and `more` says so.
    """
    parameters, max_keys = call.parameters, call.store.limits.batch_keys
    parameters.only_one("keys", "prefix")
    more = False
    if parameters.has("keys"):
        doomed = parameters.keys("keys", max_keys)
    else:
        doomed = []
        async for key, _ in _items(call, parameters.pattern("prefix", required=True)):
            if more := len(doomed) == max_keys:
                break
            doomed.append(key)
    if not doomed:
        return wire.result({"deleted": 0, "more": False})
    outcome = await call.write(*(Delete(keys.pack((key,))) for key in dict.fromkeys(doomed)))
    # Never a Conflict, since there are no conditions.
    return wire.result({"deleted": sum(cast("Commit", outcome).counts), "more": more})


# -- the table ----------------------------------------------------------------------------------------------------


class Command(Struct, frozen=True):
    """A method of the API."""

    #: Returns the response body; an awaitable only if it has to wait.
    run: Callable[[Call], bytes | Awaitable[bytes]]
    #: Who may call it. Every published role may call all; "viewer" is Kvasir's own.
    roles: frozenset[str]


COMMANDS: dict[str, Command] = {
    "SetKeyValueItem": Command(set_item, WRITERS),
    "GetKeyValueItem": Command(get_item, READERS),
    "GetKeyValueItems": Command(list_items, READERS),
    "GetKeyValueKeys": Command(list_keys, READERS),
    "DelKeyValueItem": Command(delete_item, WRITERS),
    "IncrKeyValueItem": Command(increment, WRITERS),
    "TouchKeyValueItem": Command(touch, WRITERS),
    "SetKeyValueItems": Command(set_items, WRITERS),
    "DelKeyValueItems": Command(delete_items, WRITERS),
}
