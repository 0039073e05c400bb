"""What `Engine.page` and `Engine.count` promise, on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from kvasir.engine import Engine
from kvasir.keys import prefix_range, text_range, under
from kvasir.model import Delete, DeleteRange, Entry, KeyRange, Query
from tests.support.clock import START
from tests.support.lab import Lab, commit, k, new_space, put, there

#: Created in this order, which is neither that of the keys nor its reverse.
NAMES = ("d", "a", "e", "b", "c")


async def filled(engine: Engine, lab: Lab, names: Sequence[str] = NAMES) -> int:
    """A space with one entry a millisecond, from START on."""
    space = (await new_space(engine)).number
    for name in names:
        await commit(engine, space, put(k(name), f'"{name}"'.encode()))
        lab.clock.now += 1
    return space


def names(entries: Sequence[Entry]) -> str:
    return "".join(entry.key[1:-1].decode() for entry in entries)


@pytest.mark.parametrize(
    ("order", "expected"), [("newest", "cbead"), ("oldest", "daebc"), ("key", "abcde")], ids=["newest", "oldest", "key"]
)
def test_the_three_orders_and_every_cut(lab: Lab, order: str, expected: str) -> None:
    async def story(engine: Engine) -> None:
        space = await filled(engine, lab)
        whole = await engine.page(space, Query(order=order))  # type: ignore[arg-type]
        assert (names(whole.entries), whole.more) == (expected, False)
        positions = [entry.key if order == "key" else entry.sequence for entry in whole.entries]
        for limit in (1, 2, 4, 5, 6, None):
            for skip in (0, 1, 4, 5, 6):
                for at in range(5):
                    after = await engine.page(
                        space,
                        Query(order=order, limit=limit, skip=skip, after=positions[at]),  # type: ignore[arg-type]
                    )
                    rest = expected[at + 1 :][skip:]
                    assert names(after.entries) == rest[:limit]
                    assert after.more == (len(rest) > len(rest[:limit]))
                    before = await engine.page(
                        space,
                        Query(order=order, limit=limit, skip=skip, before=positions[at]),  # type: ignore[arg-type]
                    )
                    rest = expected[:at][::-1][skip:]
                    assert names(before.entries) == rest[:limit][::-1]
                    assert before.more == (len(rest) > len(rest[:limit]))

    lab.run(story)


@pytest.mark.parametrize("order", ["newest", "oldest", "key"])
def test_a_cursor_stays_good_when_its_entry_goes_and_others_come(lab: Lab, order: str) -> None:
    async def story(engine: Engine) -> None:
        space = await filled(engine, lab, "gbfcead")
        seen: list[bytes] = []
        position: int | bytes | None = None
        more = True
        while more:
            page = await engine.page(space, Query(order=order, limit=2, after=position))  # type: ignore[arg-type]
            seen += [entry.key for entry in page.entries]
            more = page.more
            last = page.entries[-1]
            position = last.key if order == "key" else last.sequence
            # The entry under the cursor goes, others come: what was there all along keeps its turn.
            if len(seen) <= 8:
                await commit(engine, space, Delete(last.key), put(k("come", str(len(seen)))))
        assert len(seen) == len(set(seen))
        assert set(seen) >= {k(name) for name in "gbfcead"}

    lab.run(story)


def test_positions_that_never_were_cut_all_the_same(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await filled(engine, lab)
        assert names((await engine.page(space, Query(order="key", after=k("b", "x")))).entries) == "cde"
        assert names((await engine.page(space, Query(order="key", before=k("b", "x")))).entries) == "ab"
        assert names((await engine.page(space, Query(order="newest", after=1))).entries) == ""
        assert names((await engine.page(space, Query(order="oldest", after=1))).entries) == "daebc"
        assert names((await engine.page(space, Query(order="newest", before=1))).entries) == "cbead"
        assert names((await engine.page(space, Query(order="oldest", before=(1 << 63) - 1))).entries) == "daebc"

    lab.run(story)


def test_an_overwritten_entry_keeps_its_place_and_one_set_anew_moves_to_the_front(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await filled(engine, lab)
        await commit(engine, space, put(k("a"), b"2"))
        assert names((await engine.page(space, Query())).entries) == "cbead"
        await commit(engine, space, Delete(k("a")))
        await commit(engine, space, put(k("a")))
        assert names((await engine.page(space, Query())).entries) == "acbed"

    lab.run(story)


def test_entries_of_a_listing_are_whole_and_values_stay_out_on_request(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(k("a"), b'"v"', metadata=b'{"m":1}', ttl=50, refresh=True))
        entry = await there(engine, space, k("a"))
        for order in ("newest", "oldest", "key"):
            (shown,) = (await engine.page(space, Query(order=order))).entries
            assert shown == entry
            (bare,) = (await engine.page(space, Query(order=order, values=False, limit=5))).entries
            assert bare.value == b""
            assert all(getattr(bare, f) == getattr(entry, f) for f in entry.__struct_fields__ if f != "value")

    lab.run(story)


def test_created_bounds_are_inclusive(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await filled(engine, lab)
        for low, high, expected in (
            (START + 1, START + 3, "bea"),
            (START + 4, None, "c"),
            (START + 5, None, ""),
            (None, START, "d"),
            (None, START - 1, ""),
            (START + 3, START + 1, ""),
            (0, 1 << 60, "cbead"),
            (-1, None, "cbead"),
            (253_402_300_799_999, None, ""),
            (None, -1, ""),
        ):
            for limit in (None, 5, 100):
                query = Query(created_from=low, created_to=high, limit=limit)
                page = await engine.page(space, query)
                assert (names(page.entries), page.more) == (expected, False), query

    lab.run(story)


def test_metadata_must_contain_what_is_asked(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        texts = {
            "a": b'{"n":3,"o":{"x":1,"y":[1,2]},"s":"caf\xc3\xa9"}',
            "b": b'{"n":3.0,"o":{"x":1.0}}',
            "c": b'{"n":true,"o":[]}',
            "d": b'{"n":"3","o":null}',
            "e": None,
        }
        await commit(engine, space, *(put(k(name), metadata=text) for name, text in texts.items()))
        for wanted, expected in (
            (b"{}", "abcde"),
            (b" { } ", "abcde"),
            (b'{"n":3}', "ab"),
            (b'{"n":3.0}', "ab"),
            (b'{"n":true}', "c"),
            (b'{"n":1}', ""),
            (b'{"n":"3"}', "d"),
            (b'{"o":{}}', "ab"),
            (b'{"o":{"x":1}}', "ab"),
            (b'{"o":{"y":[1,2]}}', "a"),
            (b'{"o":{"y":[2,1]}}', ""),
            (b'{"o":{"y":[1]}}', ""),
            (b'{"o":null}', "d"),
            (b'{"o":[]}', "c"),
            (b'{"z":null}', ""),
            (b'{"s":"caf\\u00e9"}', "a"),
        ):
            page = await engine.page(space, Query(metadata=wanted, order="key"))
            assert names(page.entries) == expected, wanted
            page = await engine.page(space, Query(metadata=wanted, order="newest", limit=100))
            assert names(page.entries) == expected[::-1], wanted

    lab.run(story)


def test_metadata_may_be_as_deep_as_json_may(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        deep = b'{"a":' * 500 + b"[" * 11 + b"]" * 11 + b"}" * 500
        await commit(engine, space, put(k("a"), metadata=deep))
        assert len((await engine.page(space, Query(metadata=deep))).entries) == 1

    lab.run(story)


def test_filters_meet_cursors_limits_and_skips(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        for n in range(30):
            await commit(engine, space, put(k("p" if n % 3 else "q", str(n)), metadata=b'{"odd":%d}' % (n % 2)))
            lab.clock.now += 1
        members = [n for n in range(30) if n % 3 and n % 2 and 4 <= n <= 25]
        base = {
            "range": prefix_range(["p"]),
            "metadata": b'{"odd":1}',
            "created_from": START + 4,
            "created_to": START + 25,
        }
        seen: list[str] = []
        page = await engine.page(space, Query(order="oldest", limit=2, skip=1, **base))  # type: ignore[arg-type]
        while True:
            seen += [entry.key.split(b"\x02")[2][:-1].decode() for entry in page.entries]
            if not page.more:
                break
            after = page.entries[-1].sequence
            page = await engine.page(space, Query(order="oldest", limit=2, after=after, **base))  # type: ignore[arg-type]
        assert seen == [str(n) for n in members[1:]]

    lab.run(story)


AWKWARD = [
    k("a"), k("a", "b"), k("a", "b", "c"), k("a", ""), k("a", "\x00"), k("ab"), k("a\x00"), k("a\x00", "b"), k(""),
    k("", "a"), k("\x00"), k("b"), k("a\x00\x00"), k("a", "\U0010ffff"), k("a\U0010ffff"), k("\U0010ffff"), k("à"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("key_range", "members"),
    [
        (
            prefix_range(["a"]),
            {k("a"), k("a", "b"), k("a", "b", "c"), k("a", ""), k("a", "\x00"), k("a", "\U0010ffff")},
        ),
        (prefix_range(["a", "b"]), {k("a", "b"), k("a", "b", "c")}),
        (prefix_range(["a\x00"]), {k("a\x00"), k("a\x00", "b")}),
        (prefix_range([""]), {k(""), k("", "a")}),
        (prefix_range(["zz"]), set()),
        (prefix_range([]), set(AWKWARD)),
        (text_range("a"), {key for key in AWKWARD if key[1:2] == b"a"}),
        (text_range("a\x00"), {k("a\x00"), k("a\x00", "b"), k("a\x00\x00")}),
        (text_range(""), set(AWKWARD)),
        (KeyRange(k("a"), k("a")), set()),
        (KeyRange(k("b"), k("a")), set()),
        (KeyRange(k("a"), k("a", "b")), {k("a"), k("a", ""), k("a", "\x00")}),
    ],
)
def test_membership_is_the_same_for_page_count_and_delete(
    lab: Lab, key_range: KeyRange | None, members: set[bytes]
) -> None:
    async def story(engine: Engine) -> None:
        space, other = (await new_space(engine, 1)).number, (await new_space(engine, 2)).number
        for number in (space, other):
            await commit(engine, number, *map(put, AWKWARD))
            await commit(engine, number, *(put(key + b"\x02gone\x00", ttl=1) for key in AWKWARD))
        lab.clock.now += 1
        for order in ("newest", "oldest", "key"):
            for limit in (None, 100):
                page = await engine.page(space, Query(range=key_range, order=order, limit=limit))
                assert {entry.key for entry in page.entries} == members
                assert len(page.entries) == len(members)
        assert await engine.count(space, key_range) == len(members)
        assert (await commit(engine, space, DeleteRange(key_range))).counts == (len(members),)
        assert await engine.count(space, key_range) == 0
        assert await engine.count(space) == len(AWKWARD) - len(members)
        assert await engine.count(other) == len(AWKWARD)

    lab.run(story)


def test_a_page_far_from_the_newest_entries_is_found_too(lab: Lab) -> None:
    """An engine may first look at what is newest; a range that lies elsewhere must still be answered in full."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, *(put(k("old", str(n))) for n in range(30)))
        for batch in range(5):
            await commit(engine, space, *(put(k("new", f"{batch}-{n}")) for n in range(1_000)))
        await commit(engine, space, put(k("old", "last")))
        under = prefix_range(["old"])
        for order in ("newest", "oldest", "key"):
            page = await engine.page(space, Query(range=under, order=order, limit=20))
            assert (len(page.entries), page.more) == (20, True)
            position = page.entries[-1].key if order == "key" else page.entries[-1].sequence
            rest = await engine.page(space, Query(range=under, order=order, limit=20, after=position))
            assert (len(rest.entries), rest.more) == (11, False)
            back = await engine.page(space, Query(range=under, order=order, limit=20, before=position))
            assert [entry.key for entry in back.entries] == [entry.key for entry in page.entries[:-1]]
        assert await engine.count(space, under) == 31
        assert names((await engine.page(space, Query(limit=1, values=False))).entries) == "old\x00\x02last"

    lab.run(story)


@pytest.mark.parametrize(
    "bounds", [{}, {"created_from": START}, {"created_to": START + 5}, {"created_from": START + 1}]
)
def test_a_page_of_many_keys_far_from_the_front_is_found_too(lab: Lab, bounds: dict[str, int]) -> None:
    """More keys than an engine sorts without a second thought, and as many others before them in listing order."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        for name in ("a", "b"):
            await commit(engine, space, *(put(k(name, str(n))) for n in range(1_200)))
            lab.clock.now += 1
        for name, order in (("a", "newest"), ("b", "oldest"), ("b", "newest"), ("a", "oldest")):
            under: dict[str, Any] = {"range": prefix_range([name]), "order": order} | bounds
            late = name == "a" and bounds.get("created_from") == START + 1
            expected = [] if late else [k(name, str(n)) for n in range(1_200)]
            if order == "newest":
                expected.reverse()
            page = await engine.page(space, Query(limit=10, skip=3, **under))
            assert [entry.key for entry in page.entries] == expected[3:13]
            assert page.more == (not late)
            if page.entries:
                before = await engine.page(space, Query(limit=10, before=page.entries[-1].sequence, **under))
                assert [entry.key for entry in before.entries] == expected[2:12]
                after = await engine.page(space, Query(limit=10, after=page.entries[-1].sequence, **under))
                assert [entry.key for entry in after.entries] == expected[13:23]

    lab.run(story)


def test_a_page_is_bounded_in_bytes_and_goes_on(lab: Lab) -> None:
    """Every listing of every order comes to the same entries, however little room a page has."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        sizes = [1, 5_000, 1, 1, 9_000, 20_000, 1, 300, 4_000, 70_000]
        metadata = b'{"m":[' + b"1," * 400 + b'1],"n":1}'
        for n, size in enumerate(sizes):
            wanted = metadata if n % 2 else b'{"n":1}'
            await commit(engine, space, put(k("p", str(9 - n)), b'"' + b"x" * size + b'"', metadata=wanted))
        for base in (
            Query(),
            Query(order="oldest"),
            Query(order="key"),
            Query(range=under(k("p"))),
            Query(metadata=b'{"n":1.0}'),
            Query(order="oldest", range=under(k("p")), metadata=b'{"n":1}'),
            Query(created_from=START - 10**6, order="oldest"),
        ):
            whole = (await engine.page(space, base)).entries
            assert len(whole) == len(sizes)
            for limit in (None, 3):
                for backwards in (False, True):
                    await walk(engine, space, replace(base, limit=limit, max_bytes=10_000), whole, backwards=backwards)
        bare = await engine.page(space, Query(values=False, limit=100))
        assert not bare.more

    lab.run(story)


async def walk(engine: Engine, space: int, query: Query, whole: list[Entry], *, backwards: bool) -> None:
    """Page through a listing, and find every entry once, on pages within the bound."""

    def position(entry: Entry) -> int | bytes:
        return entry.key if query.order == "key" else entry.sequence

    found: list[Entry] = []
    if backwards:
        query = replace(query, before=position(whole[-1]))
        whole = whole[:-1]
    while True:
        page = await engine.page(space, query)
        sizes = [len(entry.key) + len(entry.value) + len(entry.metadata or b"") for entry in page.entries]
        assert len(sizes) == 1 or sum(sizes) <= 10_000
        found = page.entries + found if backwards else found + page.entries
        if not page.more:
            break
        edge = position(page.entries[0 if backwards else -1])
        query = replace(query, before=edge) if backwards else replace(query, after=edge)
    assert found == whole


def test_a_listing_that_nobody_waits_for_ends(lab: Lab) -> None:
    """Work for a caller who has left ends soon: it keeps neither a thread nor a connection."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        metadata = b'{"m":[' + b"[]," * 4_000 + b"1]}"
        await commit(engine, space, *[put(k(str(n)), b"1", metadata=metadata) for n in range(1_000)])
        asked = replace(Query(limit=10), metadata=b'{"m":[' + b"[]," * 4_000 + b"2]}")
        left = [asyncio.ensure_future(engine.page(space, asked)) for _ in range(4)]
        await asyncio.sleep(0.1)
        for task in left:
            task.cancel()
        await asyncio.wait(left)
        await asyncio.wait_for(engine.count(space), 3)
        await asyncio.wait_for(engine.page(space, Query(order="key", limit=10)), 3)

    lab.run(story)


def test_a_slow_filter_lets_the_event_loop_go_on(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        slow = b'{"m":[' + b"[]," * 4_000 + b"%d]}"
        for n in range(10):
            await commit(engine, space, *(put(k("a", str(n), str(each)), metadata=slow % 0) for each in range(30)))
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1

        beating = asyncio.create_task(beat())
        try:
            page = await engine.page(space, Query(metadata=slow % 1))
        finally:
            beating.cancel()
        assert not page.entries
        assert beats >= 5

    lab.run(story)
