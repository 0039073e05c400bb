"""A tour of the client's public types, checked by `mypy --strict` and run by a test: one stock, two kinds of program.

It needs KVASIR_URL, KVASIR_KEY and KVASIR_STORE.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from kvasir_client import (
    AsyncClient,
    Client,
    Committed,
    ConditionNotMet,
    Entry,
    Event,
    Key,
    KvasirError,
    NotFound,
    Raw,
    Space,
    Store,
    UnknownOutcome,
)
from kvasir_client.mapping import StoreMapping

STOCK: Key = ("stock", "mead")


def order(kv: Store, number: int, bottles: int) -> bool:
    """Take bottles out of the stock and write an order, both or neither; whether there were enough."""
    left: Entry | None = kv.get(STOCK)
    if left is None or left.value < bottles:
        return False
    try:
        with kv.transaction() as t:
            t.check(STOCK, left.versionstamp)
            t.increment(STOCK, -bottles)
            t.set(("orders", f"{number:06}"), {"of": "mead", "bottles": bottles}, ttl=timedelta(days=30))
    except ConditionNotMet as refused:
        print("somebody was faster:", [failed.present for failed in refused.failed])
        return order(kv, number, bottles)
    except UnknownOutcome:
        return kv.get(("orders", f"{number:06}")) is not None
    done: Committed | None = t.committed
    print("left:", done and done.results[0])
    return True


def blocking() -> None:
    """Threads share such a client."""
    with Client(timeout=10.0, attempts=3) as client:
        spaces: list[Space] = list(client.spaces("store"))
        print(len(spaces) > 0)
        kv = client.store()
        versionstamp: str = kv.set(
            STOCK, 10, expires_at=datetime.now(UTC) + timedelta(hours=1), metadata={"by": "bottle"}
        )
        print(order(kv, 1, 4), order(kv, 2, 7))
        try:
            kv.set(STOCK, Raw(b"100"), if_version=versionstamp)
        except ConditionNotMet as refused:
            present: str | None = refused.present
            print(present != versionstamp)
        count: int = kv.count("orders")
        names: dict[str, int] = kv.update("names", lambda value: {**value, "mead": count}, default={})
        print(names)
        mapping = StoreMapping(kv, "orders")
        print(list(mapping), mapping["000001"])
        removed: int = kv.delete_prefix("orders", expect=count)
        print(removed, [child.part for child in kv.children()])


async def asynchronous() -> None:
    """The same words."""
    async with AsyncClient() as client:
        kv = client.store()
        entries: list[Entry | None] = await kv.get_many([STOCK, "names", "absent"])
        print([entry and entry.value for entry in entries])
        async for entry in kv.scan(values=False):
            print(entry.key, entry.expires_at is not None)
        try:
            await client.store("no such store").get("k")
        except NotFound as error:
            failure: KvasirError = error
            print(failure.code, failure.reason)
        print(await kv.delete(STOCK), await kv.delete("names"))


def shown(event: Event) -> str:
    """An event of `watch` as a line."""
    return f"{event.kind} {event.key} {event.entry.value if event.entry else ''}"


if __name__ == "__main__":
    blocking()
    asyncio.run(asynchronous())
