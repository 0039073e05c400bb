"""The methods: what each does with the store, and items in the form of this API. Their table is in `methods`.

An application may also have entries from other APIs. An entry is an item here if its key has a single part, which
matches the documented expression, and its value is short enough; others do not exist for this API.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from kvasir import keys
from kvasir.beside.thread import rendered
from kvasir.dialects.http import Request
from kvasir.dialects.ignored import Known, Look, Notes, noting_aside
from kvasir.dialects.voximplant.errors import FAILURES, MISSING, RANGE, ApiError, recoded
from kvasir.dialects.voximplant.parameters import INT64, INTEGER, KEY, Cursor, Parameters, text_of
from kvasir.dialects.voximplant.settings import Settings
from kvasir.errors import TooLarge
from kvasir.model import Commit, Condition, Conflict, Delete, Entry, Mutation, Principal, Query, Set, Space, Touch
from kvasir.store.store import Store

#: Entries read at a time while a listing looks for items: it bounds the memory, since each may be as long as the store
#: allows, however little of it is shown.
SCAN_ENTRIES = 100

#: A list in a parameter up to so many characters is read on the event loop.
LIGHT_CHARACTERS = 4_096

#: A character has at most 12 bytes of JSON text (an escaped surrogate pair), so longer texts need not be decoded.
MAX_BYTES_PER_CHARACTER = 12

_encode = msgspec.json.Encoder().encode

T = TypeVar("T")


class Call(Struct, frozen=True, gc=False):
    """One authenticated request to an application that exists."""

    store: Store
    settings: Settings
    principal: Principal
    space: Space
    parameters: Parameters
    #: What it has that has no effect
    notes: Notes | None = None
    #: The request itself; None for one that is answered at once
    request: Request | None = None

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """While it lasts, nothing is written yet: if the client leaves, the call ends."""
        if self.request is None:
            yield
            return
        self.request.reads_only()
        yield
        self.request.writes()

    async def write(self, *mutations: Mutation, when: Sequence[Condition] = ()) -> Commit | Conflict:
        """See `Store.write`."""
        return await self.store.write(self.principal, self.space, *mutations, when=when)


# -- the documented five ------------------------------------------------------------------------------------------


async def set_item(call: Call) -> bytes:
    """Create or replace an item; the response is the item as it is now."""
    setting = Setting(call)
    return setting.response(await call.write(setting.mutation, when=setting.conditions))


class Setting:
    """A SetKeyValueItem: what it writes, and the response to its outcome."""

    __slots__ = ("_key", "_parameters", "_value", "conditions", "mutation")

    def __init__(self, call: Call) -> None:
        self._parameters = parameters = call.parameters
        self._key, self._value = parameters.key(), parameters.value()
        packed = keys.pack((self._key,))
        expires_at = parameters.expiry(call.store.now(call.space))
        self.mutation = Set(packed, msgspec.json.encode(self._value), expires_at=expires_at)
        self.conditions = parameters.conditions(packed)

    def response(self, outcome: Commit | Conflict) -> bytes:
        """The body of the response. Raises `ApiError` for a condition that was not met."""
        if isinstance(outcome, Conflict):
            raise self._parameters.unmet(outcome)
        return result(item(self._key, self._value, self.mutation.expires_at, outcome.versionstamp))


async def get_item(call: Call) -> bytes:
    """One item."""
    key = call.parameters.key()
    (entry,) = await call.store.get(call.principal, call.space, (keys.pack((key,)),))
    return found(key, entry, call.settings)


def get_item_nowait(call: Call) -> bytes | None:
    """What `get_item` gives, if that takes no waiting; otherwise None."""
    key = call.parameters.key()
    entries = call.store.get_nowait(call.principal, call.space, (keys.pack((key,)),))
    return None if entries is None else found(key, entries[0], call.settings)


async def delete_item(call: Call) -> bytes:
    """Delete the item of a key, if there is one: the response is 1 either way."""
    packed = keys.pack((call.parameters.key(),))
    outcome = await call.write(Delete(packed), when=call.parameters.conditions(packed))
    if isinstance(outcome, Conflict):
        raise call.parameters.unmet(outcome)
    return result(1)


async def list_items(call: Call) -> bytes:
    """A page of the items whose keys begin with a pattern."""
    return await _page(call, call.parameters.pattern("key", required=True), values=True)


async def list_keys(call: Call) -> bytes:
    """The same without values, and every key if there is no pattern."""
    return await _page(call, call.parameters.pattern("key", required=False), values=False)


async def _page(call: Call, pattern: str, *, values: bool) -> bytes:
    """With an offset, total_count takes a walk over all matching items; a cursor already contains it.

    A page with too many bytes is refused, not shortened: who pages by offset would miss items.
    """
    count, offset, cursor = call.parameters.count(), call.parameters.offset(), call.parameters.cursor()
    room = call.store.limits.page_bytes
    found: list[tuple[str, Item | None]] = []
    seen = 0
    async for key, entry in _items(call, pattern, cursor.key if cursor else None):
        if offset <= seen and len(found) < count:
            room -= len(entry.value) if values else 0
            if room < 0 and found:
                raise too_large_page(call)
            found.append((key, read(key, entry, call.settings, values=values)))
        seen += 1
        if cursor and seen > count:
            break
    total = cursor.total if cursor else seen
    more = bool(found) and seen > offset + len(found)
    return listing([item for _, item in found], total, Cursor(total, found[-1][0]) if more else None)


async def _items(call: Call, pattern: str, after: str | None = None) -> AsyncIterator[tuple[str, Entry]]:
    """The items whose keys match a pattern, by ascending key, read in small pages."""
    is_match = matches(pattern, call.settings)
    query = Query(keys.text_range(pattern), order="key", limit=SCAN_ENTRIES)
    if after is not None:
        query = msgspec.structs.replace(query, after=keys.pack((after,)))
    while True:
        page = await call.store.page(call.principal, call.space, query)
        for entry in page.entries:
            key = key_of(entry, call.settings)
            if key is not None and is_match(key):
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
    packed, now = keys.pack((key,)), call.store.now(call.space)
    expires_at = parameters.expiry(now)
    renews = parameters.has("ttl", "expires_at")

    def change(entry: Entry | None) -> Set:
        if entry is None:
            return Set(packed, b'"%d"' % by, expires_at=expires_at)
        text = shown(entry.value, call.settings)
        if text is None or INTEGER.fullmatch(text) is None:
            raise parameters.invalid("value", "the value of the key is not an integer")
        if not -INT64 <= (total := int(text) + by) < INT64:
            raise ApiError(RANGE, "the sum", -INT64, INT64 - 1, field="by")
        value = b'"%d"' % total if entry.value[:1] == b'"' else b"%d" % total
        if renews or not entry.slides:
            return Set(packed, value, entry.metadata, expires_at=expires_at if renews else entry.expires_at)
        return Set(packed, value, entry.metadata, ttl=entry.refresh, refresh=True)

    entry, commit = await call.store.update(call.principal, call.space, packed, change)
    written = change(entry)
    ends = written.expires_at if written.ttl is None else now + written.ttl
    # Never None, since `change` always returns a mutation.
    stamp = cast("Commit", commit).versionstamp
    return result(item(key, text_of(written.value), ends, stamp))


async def touch(call: Call) -> bytes:
    """Change the expiry of an item, but neither its value nor its version."""
    key = call.parameters.key()
    packed = keys.pack((key,))
    expires_at = call.parameters.expiry(call.store.now(call.space))

    def change(entry: Entry | None) -> Touch:
        if read(key, entry, call.settings) is None:
            raise missing_key(call.settings)
        return Touch(packed, expires_at)

    entry, _ = await call.store.update(call.principal, call.space, packed, change)
    # Never None, or `change` would have raised.
    touched = msgspec.structs.replace(cast("Entry", entry), expires_at=expires_at)
    return found(key, touched, call.settings)


#: What an item that is set may have, alone or among others.
ITEM: Known = dict.fromkeys(("key", "value", "ttl", "expires_at", "if_version", "if_absent"))


async def set_items(call: Call) -> bytes:
    """Create or replace the items of the JSON array `items`, all or none, each with its own conditions."""
    sets, conditions = await _heeding(call, _read_sets, "items", call.store.now(call.space))
    outcome = await call.write(*(mutation for _, mutation in sets.values()), when=conditions)
    if isinstance(outcome, Conflict):
        raise sets[outcome.key][0].unmet(outcome)
    stamp = outcome.versionstamp

    def response() -> bytes:
        return result(
            [
                item(parameters.key(), parameters.value(), mutation.expires_at, stamp)
                for parameters, mutation in sets.values()
            ]
        )

    return await rendered(outcome.counts, response)


async def _heeding(call: Call, read: Callable[..., T], name: str, *arguments: Any) -> T:
    """What `read` makes of a JSON array among the parameters, before anything is written; aside if it is long."""
    text, notes = call.parameters.required(name), cast("Notes", call.notes)  # as no such request is answered at once
    some = (call.parameters, call.store.limits.batch_keys)
    if len(text) <= LIGHT_CHARACTERS:
        return read(text, *some, *arguments, notes.look)
    with call.preparing():
        return await noting_aside(notes, read, text, *some, *arguments)


def _read_sets(
    _: str, given: Parameters, most: int, now: int, look: Look
) -> tuple[dict[bytes, tuple[Parameters, Set]], list[Condition]]:
    """The items of a request by their packed keys, with what sets them; and all their conditions."""
    sets, conditions = dict[bytes, tuple[Parameters, Set]](), list[Condition]()
    for index, parameters in enumerate(given.items("items", most)):
        look(parameters.texts, ITEM, f"items[{index}].")
        packed = keys.pack((parameters.key(),))
        if packed in sets:
            raise parameters.invalid("key", "it occurs twice")
        value = msgspec.json.encode(parameters.value())
        sets[packed] = parameters, Set(packed, value, expires_at=parameters.expiry(now))
        conditions += parameters.conditions(packed)
    return sets, conditions


def _read_keys(_: str, given: Parameters, most: int, __: Look) -> list[str]:
    return given.keys("keys", most)


async def delete_items(call: Call) -> bytes:
    """Delete the keys of the JSON array `keys`, or the items under `prefix`, in one transaction.

    If there are more items under the prefix than one transaction may have, the first ones go, and `more` says so.
    """
    parameters, max_keys = call.parameters, call.store.limits.batch_keys
    parameters.only_one("keys", "prefix")
    more = False
    if parameters.has("keys"):
        doomed = await _heeding(call, _read_keys, "keys")
    else:
        doomed = []
        with call.preparing():
            async for key, _ in _items(call, parameters.pattern("prefix", required=True)):
                if more := len(doomed) == max_keys:
                    break
                doomed.append(key)
    if not doomed:
        return result({"deleted": 0, "more": False})
    outcome = await call.write(*(Delete(keys.pack((key,))) for key in dict.fromkeys(doomed)))
    # Never a Conflict, since there are no conditions.
    return result({"deleted": sum(cast("Commit", outcome).counts), "more": more})


# -- items --------------------------------------------------------------------------------------------------------


class Item(Struct, frozen=True, gc=False):
    """KeyValueItems and KeyValueKeys of the reference, and what Kvasir adds to them. Times are Unix seconds."""

    key: str
    value: str | UnsetType
    #: 0: never. Always an integer; the Go and Java clients read nothing else.
    expires_at: int
    version: str
    updated_at: int
    #: Left out if the item was written without being read.
    created_at: int | UnsetType = UNSET


def item(
    key: str, value: str | UnsetType, expires_at: int | None, versionstamp: int, created_at: int | None = None
) -> Item:
    """An item; the times given are in Unix milliseconds."""
    return Item(
        key,
        value,
        (expires_at or 0) // 1000,
        keys.versionstamp_text(versionstamp),
        keys.millisecond_of(versionstamp) // 1000,
        UNSET if created_at is None else created_at // 1000,
    )


def key_of(entry: Entry, settings: Settings) -> str | None:
    """The key of an entry that is an item here; None if it is none. Cheap: listings call it for every entry."""
    parts = keys.unpack(entry.key)
    key = parts[0]
    if len(parts) != 1 or not 0 < len(key) <= settings.key_characters or KEY.fullmatch(key) is None:
        return None
    # No text has more characters than bytes, so most values need not be decoded.
    is_short = len(entry.value) <= settings.value_characters or shown(entry.value, settings) is not None
    return key if is_short else None


def read(key: str, entry: Entry | None, settings: Settings, *, values: bool = True) -> Item | None:
    """The entry of a key as an item; None if there is none or its value is too long for this API."""
    if entry is None or (value := shown(entry.value, settings)) is None:
        return None
    return item(key, value if values else UNSET, entry.expires_at, entry.versionstamp, entry.created_at)


def found(key: str, entry: Entry | None, settings: Settings) -> bytes:
    """The response with an item. Raises `ApiError` if `read` gives none."""
    if entry is None or (value := shown(entry.value, settings)) is None:
        raise missing_key(settings)
    return result(item(key, value, entry.expires_at, entry.versionstamp, entry.created_at))


def shown(value: bytes, settings: Settings) -> str | None:
    """A stored JSON text as a value of this API; None if it is too long for one."""
    max_characters = settings.value_characters
    if len(value) <= max_characters:  # no text has more characters than bytes
        return text_of(value)
    if len(value) > MAX_BYTES_PER_CHARACTER * max_characters + 2:
        return None
    text = text_of(value)
    return text if len(text) <= max_characters else None


def matches(pattern: str, settings: Settings) -> Callable[[str], bool]:
    """Whether a pattern matches a key, of those that begin with it."""
    if settings.pattern == "prefix" or not pattern or pattern.endswith(":"):
        return lambda _: True
    return lambda key: key == pattern or key.startswith(f"{pattern}:")


def too_large_page(call: Call) -> ApiError:
    """The error for a page whose values have too many bytes."""
    allowed = call.store.limits.page_bytes
    detail = f"the values of {call.parameters.count()} items have more than {allowed:,} bytes; ask for fewer"
    return ApiError(FAILURES[TooLarge], field="count", detail=detail, reason=TooLarge.code)


def missing_key(settings: Settings) -> ApiError:
    """The error for a key that does not exist; `reason` distinguishes it from a malformed key."""
    failure = recoded(MISSING, settings.missing_key_code)
    return ApiError(failure, "key", field="key", reason="not_found")


def result(value: object) -> bytes:
    """The body of a successful response."""
    return b'{"result":%b}' % _encode(value)


def listing(items: Sequence[Item | None], total: int, following: Cursor | None) -> bytes:
    """The body of a list: `result` as documented.

    The Node client loses an array in `result` but keeps other fields, hence the same array again in `items`.
    """
    array = _encode(items)
    more = b"" if following is None else b',"next_cursor":' + _encode(following.text())
    counts = b',"count":%d,"total_count":%d' % (len(items), total)
    return b'{"result":' + array + b',"items":' + array + counts + more + b"}"
