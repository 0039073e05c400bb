"""What `Engine.children` and `Engine.scan` promise, on every engine."""

from __future__ import annotations

import pytest

from kvasir.engine import Engine
from kvasir.keys import pack, prefix_range, unpack
from kvasir.model import Child, Children, Delete, KeyRange
from tests.support.lab import Lab, commit, joined, k, new_space, put, scanned, there, unnumbered


async def tree(engine: Engine, space: int, *prefix: str, limit: int | None = None) -> list[tuple[str, bool, bool]]:
    """The children of a prefix, page after page: part, entry, below."""
    found: list[tuple[str, bool, bool]] = []
    after: bytes | None = None
    while True:
        page = await engine.children(space, pack(prefix), after=after, limit=limit)
        assert limit is None or len(page.children) <= limit
        for child in page.children:
            *above, part = unpack(child.key)
            assert tuple(above) == prefix
            found.append((part, child.entry, child.below))
        if page.next is None:
            return found
        assert after is None or page.next > after
        after = page.next


KEYS = [
    ("a",), ("a", "b"), ("a", "b", "c"), ("a", ""), ("a", "\x00"), ("a\x00", "b"), ("a\x00",), ("ab", "x", "y"), ("",),
    ("", ""), ("b",), ("\U0010ffff",), ("z", "z"), ("à", "\x00", "q"),
]  # fmt: skip


def expected(prefix: tuple[str, ...]) -> list[tuple[str, bool, bool]]:
    depth = len(prefix)
    under = [key for key in KEYS if key[:depth] == prefix and len(key) > depth]
    return [
        (part, (*prefix, part) in KEYS, any(key[depth] == part and len(key) > depth + 1 for key in under))
        for part in sorted({key[depth] for key in under})
    ]


@pytest.mark.parametrize("limit", [None, 1, 2, 3, 100])
def test_children_are_the_parts_below_a_prefix_in_key_order(lab: Lab, limit: int | None) -> None:
    async def story(engine: Engine) -> None:
        space, other = (await new_space(engine, 1)).number, (await new_space(engine, 2)).number
        await commit(engine, space, *(put(pack(key)) for key in KEYS))
        await commit(engine, other, put(k("elsewhere")))
        for prefix in [(), ("a",), ("a", "b"), ("a\x00",), ("",), ("ab",), ("z",), ("à",), ("none",), ("b",)]:
            assert await tree(engine, space, *prefix, limit=limit) == expected(prefix)
        assert await tree(engine, other, limit=limit) == [("elsewhere", True, False)]

    lab.run(story)


def test_what_has_expired_is_no_child(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(
            engine, space,
            put(k("a"), ttl=5), put(k("a", "1")), put(k("b")), put(k("b", "1"), ttl=5), put(k("b", "1", "2"), ttl=5),
            put(k("c"), ttl=5), put(k("c", "x"), ttl=5), put(k("d"), ttl=5), put(k("e", "x"), ttl=6),
            put(k("e"), ttl=5),
        )  # fmt: skip
        before = [("a", True, True), ("b", True, True), ("c", True, True), ("d", True, False), ("e", True, True)]
        after = [("a", False, True), ("b", True, False), ("e", False, True)]
        for limit in (None, 1, 2):
            assert await tree(engine, space, limit=limit) == before
        lab.clock.now += 5
        for limit in (None, 1, 2):
            assert await tree(engine, space, limit=limit) == after

    lab.run(story)


def test_children_are_exact_among_many_expired_entries(lab: Lab) -> None:
    """More than a page steps over: some pages are short, yet nothing is missed, invented or told twice."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        for part in ("a", "b", "c", "d"):
            for batch in range(0, 12_000 if part in "bc" else 0, 1_000):
                await commit(engine, space, *(put(k(part, f"{n:06}"), ttl=5) for n in range(batch, batch + 1_000)))
        await commit(engine, space, put(k("a")), put(k("b")), put(k("b", "zz")), put(k("c"), ttl=5), put(k("c", "zz")))
        await commit(engine, space, put(k("d")))
        lab.clock.now += 5
        wanted = [("a", True, False), ("b", True, True), ("c", False, True), ("d", True, False)]
        for limit in (None, 1, 3):
            assert await tree(engine, space, limit=limit) == wanted
        await commit(engine, space, Delete(k("b", "zz")), Delete(k("c", "zz")))
        for limit in (None, 1, 3):
            assert await tree(engine, space, limit=limit) == [
                ("a", True, False),
                ("b", True, False),
                ("d", True, False),
            ]

    lab.run(story)


def test_a_page_of_children_goes_on_behind_a_part_that_is_gone(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, *(put(k(part, "x")) for part in "abcde"))
        page = await engine.children(space, b"", limit=2)
        assert [unpack(child.key) for child in page.children] == [["a"], ["b"]]
        await commit(engine, space, Delete(k("b", "x")), put(k("aa", "x")), put(k("bb")))
        page = await engine.children(space, b"", after=page.next, limit=2)
        assert [unpack(child.key) for child in page.children] == [["bb"], ["c"]]
        page = await engine.children(space, b"", after=k("d") + b"\xff")
        assert [unpack(child.key) for child in page.children] == [["e"]]
        assert (await engine.children(space, b"", after=k("e") + b"\xff")).children == []

    lab.run(story)


def test_a_position_beside_the_prefix_shows_nothing_of_what_is_there(lab: Lab) -> None:
    """Nobody is given such a position, but a client may make one."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        keys = [k("a"), k("a", "x"), k("a\0"), k("a\0", "x"), k("ab", "x"), k("b"), k("b", "x")]
        await commit(engine, space, *(put(key) for key in keys))
        for limit in (None, 1):
            for position in (k("a\0"), k("a\0", "x"), k("ab"), k("ab", "x"), k("b"), k("b", "x"), b"\x03"):
                assert await engine.children(space, k("a"), after=position, limit=limit) == Children([], None)
            for position in (b"", k(""), k("A", "x"), k("a")):
                page = await engine.children(space, k("a"), after=position, limit=limit)
                assert page == Children([Child(k("a", "x"), entry=True, below=False)], None)

    lab.run(story)


def test_children_begin_at_a_part_or_behind_its_place(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        keys = [k("a"), k("a\0"), k("ab", "x"), k("b"), k("b", "c"), k("b", "ca"), k("b", "d", "e"), k("c", "")]
        await commit(engine, space, *(put(key) for key in keys))
        for prefix, start, expected in (
            ("", "a", ["a", "a\0", "ab", "b", "c"]),
            ("", "a\0", ["a\0", "ab", "b", "c"]),
            ("", "aa", ["ab", "b", "c"]),
            ("", "ab", ["ab", "b", "c"]),
            ("", "b", ["b", "c"]),
            ("", "ba", ["c"]),
            ("", "d", []),
            ("", "", ["a", "a\0", "ab", "b", "c"]),
            ("b", "c", ["c", "ca", "d"]),
            ("b", "c\0", ["ca", "d"]),
            ("b", "e", []),
            ("c", "", [""]),
        ):
            packed = pack([prefix]) if prefix else b""
            for limit in (None, 1, 2):
                page = await engine.children(space, packed, after=packed + pack([start])[:-1], limit=limit)
                assert [unpack(child.key)[-1] for child in page.children] == expected[:limit], (prefix, start)
                if page.children and page.children[0].key == k("b"):
                    assert (page.children[0].entry, page.children[0].below) == (True, True)

    lab.run(story)


def test_a_scan_gives_whole_entries_in_key_order(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, *(put(pack(key), b'"v"', metadata=b'{"m":1}', ttl=9, refresh=True) for key in KEYS))
        entries = await scanned(engine, space)
        assert [entry.key for entry in entries] == sorted(pack(key) for key in KEYS)
        assert entries == [unnumbered(await there(engine, space, entry.key)) for entry in entries]
        assert await joined(engine, space) == entries
        below = await scanned(engine, space, prefix_range(["a"]))
        assert [entry.key for entry in below] == sorted(pack(key) for key in KEYS if key[0] == "a")
        lab.clock.now += 9
        assert await scanned(engine, space) == await joined(engine, space) == []

    lab.run(story)


ODD = [
    "key",
    "NUL",
    "02",
    "backslash",
    "value",
    "escaped 00",
    "escaped 02",
    "escaped 1e",
    "long value",
    "long metadata",
]


@pytest.mark.parametrize("odd", [None, *ODD, "all"])
def test_a_scan_gives_every_entry_whatever_it_is_like(lab: Lab, odd: str | None) -> None:
    """An engine may join plain entries: among them are some with what could be taken for a separator or an escape."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        puts = [put(k("k", f"{n:04}"), b'"%d"' % n) for n in range(1_203)]
        puts[7] = put(k("k", "0007", '"\x01\n\x03,u0000'), b'{"a":\r\n[1.0, "\\u0001,\\""]}', metadata=b'{"m":\n1}')
        puts[8] = put(k("k", "0008"), b'"\xc3\xa9"', ttl=9, refresh=True)
        if odd in ("key", "all"):
            puts[640] = put(k("k", "0640\x7f"))
        if odd in ("NUL", "all"):
            puts[9] = put(k("k", "0009", "\x00\x02,\\u0000"))
        if odd in ("02", "all"):
            puts[11] = put(k("k", "0011\x02"))
        if odd in ("escaped 00", "all"):
            puts[12] = put(k("k", "0012"), b'"\\u0000"', metadata=b'{"m":"\\u0000"}')
        if odd in ("escaped 02", "all"):
            puts[13] = put(k("k", "0013"), b'"\\u0002"', metadata=b'{"m":"\\u0002"}')
        if odd in ("escaped 1e", "all"):
            puts[14] = put(k("k", "0014\x1e"), b'"\\u001e"', metadata=b'{"m":"\\u001e"}')
        if odd in ("backslash", "all"):
            puts[10] = put(k("k", "0010", "\\u0000\x02", "\\", ""))
        if odd in ("value", "all"):
            puts[641] = put(k("k", "0641"), b'"\x7f"')
        if odd in ("long value", "all"):
            puts[642] = put(k("k", "0642"), b'"%b"' % (b"x" * 3_000))
        if odd in ("long metadata", "all"):
            puts[643] = put(k("k", "0643"), metadata=b'{"m":"%b"}' % (b"x" * 3_000))
        await commit(engine, space, *puts)
        entries = await scanned(engine, space)
        assert [entry.key for entry in entries] == sorted(put.key for put in puts)
        found = await engine.get(space, [put.key for put in puts])
        assert entries == sorted([unnumbered(entry) for entry in found if entry], key=lambda entry: entry.key)
        assert await joined(engine, space) == entries
        upto = KeyRange(k("k", "0003"), k("k", "1100"))
        assert [entry.key for entry in await scanned(engine, space, upto)] == [put.key for put in puts[3:1_100]]

    lab.run(story)


@pytest.mark.parametrize("odd", [False, True])
def test_a_scan_goes_on_behind_many_that_have_expired(lab: Lab, odd: bool) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        puts = [put(k(f"{n:04}"), ttl=None if n % 900 == 8 else 9) for n in range(2_703)]
        if odd:  # read one by one, on from where others were joined
            puts[908] = put(k("0908\x7f"))
        await commit(engine, space, *puts)
        lab.clock.now += 9
        left = [puts[n].key for n in (8, 908, 1_808)]
        assert [entry.key for entry in await joined(engine, space)] == left
        assert [entry.key for entry in await scanned(engine, space)] == left
        assert [entry.key for entry in await joined(engine, space, KeyRange(k("0010"), k("1500")))] == left[1:2]

    lab.run(story)
