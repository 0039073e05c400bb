"""A database becomes a copy of another one: from every engine to every engine, at once or in several runs."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from kvasir.config.table import Config
from kvasir.control import access_keys, bootstrap, copy_mark
from kvasir.engine import Engine
from kvasir.errors import Conflicting, KvasirError, NotFound, Unavailable, UnknownOutcome
from kvasir.keys import pack
from kvasir.model import SYSTEM_SPACE, Alias, Delete, DeleteRange, Entry, Mutation, Page, Query, Space, Touch
from kvasir.transfer import source as sources
from kvasir.transfer.source import EngineSource
from kvasir.transfer.target import EXPIRING_NOW_MS, Report, fill
from tests.support.clock import START
from tests.support.lab import ENGINES, Lab, alias, commit, k, new_space, put, there, ulid
from tests.support.organisations import ORGANISATION

A, B, C, D = k("a"), k("b"), k("c"), k("d")
SECRET = "a secret of an access key, long enough"


class Pair:
    """Two empty databases that share a time."""

    def __init__(self, old: str, new: str, folder: Path) -> None:
        self.labs = []
        for name, kind in (("old", old), ("new", new)):
            (folder / name).mkdir()
            self.labs.append(Lab(kind, folder / name))

    def clock(self) -> int:
        return self.labs[0].clock.now

    def wait(self, milliseconds: int) -> None:
        for lab in self.labs:
            lab.clock.now += milliseconds

    def run(self, story: Callable[[Engine, Engine], Awaitable[None]]) -> None:
        """Tell the story; both databases must be sound afterwards."""

        async def outer(old: Engine) -> None:
            new = self.labs[1].engine()
            await new.open()
            try:
                await story(old, new)
                assert await new.check() == []
            finally:
                await new.close()

        self.labs[0].run(outer)

    async def fill(self, old: Engine, new: Engine) -> Report:
        return await fill(await EngineSource.of(old), new, lambda _: None)


@pytest.fixture(params=itertools.product(ENGINES, ENGINES), ids="-to-".join)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    """From every engine to every engine."""
    old, new = request.param
    return Pair(old, new, tmp_path)


@pytest.fixture
def toys(tmp_path: Path) -> Pair:
    """For what does not depend on the engine."""
    return Pair("memory", "memory", tmp_path)


async def furnished(engine: Engine, pair: Pair) -> list[Space]:
    """A database with something of every kind."""
    await bootstrap.bootstrap(engine, Config(organisation_id=ORGANISATION, admin_key=SECRET), pair.clock)
    store = await new_space(engine, 1)
    session = await new_space(
        engine, 2, kind="session", aliases=[alias("t", "session-token", ""), alias("näme")], expires_at=START + 10**10
    )
    application = await new_space(engine, 3, kind="application", aliases=[], clear_every=86_400_000)
    for space in (store, session, application):
        for n in range(150):
            metadata = b'{"n": %d.0}' % n if n % 2 else None
            await commit(engine, space.number, put(k("k", str(n % 100)), b'{"n": %d.50}' % n, metadata=metadata))
            pair.wait(n % 3)
    await commit(engine, store.number, put(A, expires_at=START + 10**9), put(B, ttl=10**9, refresh=True))
    await commit(engine, store.number, Delete(k("k", "7")), put(pack(["\x00", "ключ"]), '"\u2028\\u0000"'.encode()))
    await commit(engine, store.number, Touch(A, START + 2 * 10**9), put(C, b'"' + b"x" * 300_000 + b'"'))
    return [store, session, application]


async def contents(engine: Engine, *, sequences: bool) -> dict[str, tuple[Space, list[Alias], list[Entry]]]:
    """Everything that can be seen of a database except the numbers of its spaces."""
    found = {}
    spaces = [*await engine.list_spaces(), Space("system", SYSTEM_SPACE, "", "", "", 0)]
    for space in spaces:
        entries = (await engine.page(space.number, Query(order="oldest"))).entries
        if not sequences:
            entries = [msgspec.structs.replace(entry, sequence=0) for entry in entries]
        aliases = await engine.aliases(space.id)
        kept = [entry for entry in entries if entry.key != copy_mark.COPY_MARK]
        found[space.id] = (msgspec.structs.replace(space, number=0), aliases, kept)
    return found


def test_everything_is_there_and_life_goes_on(pair: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        spaces = await furnished(old, pair)
        report = await pair.fill(old, new)
        # The entries of three spaces and of the system space; the fourth space, the store default, is empty.
        everything = await contents(old, sequences=False)
        assert report == Report(4, count := sum(len(entries) for _, _, entries in everything.values()), count)
        assert await contents(new, sequences=False) == everything
        assert await bootstrap.bootstrap(new, Config(), pair.clock) is None
        key = await access_keys.find_key(new, access_keys.digest_of(SECRET))
        assert key is not None
        assert key.organisation == ORGANISATION
        for space in spaces:
            there_too = await new.get_space(space.id)
            assert there_too is not None
            newest = max(entry.versionstamp for _, _, entries in everything.values() for entry in entries)
            assert (await commit(new, there_too.number, put(D))).versionstamp > newest
            assert (await new.page(there_too.number, Query(limit=1))).entries[0].key == D

    pair.run(story)


def test_a_second_run_transfers_what_has_changed(pair: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        store, session, application = await furnished(old, pair)
        await pair.fill(old, new)
        pair.wait(1_000)
        await commit(old, store.number, put(k("k", "3"), b"3"), Delete(k("k", "4")), put(A, expires_at=START + 10**9))
        await commit(old, store.number, Delete(k("k", "5")))
        await commit(old, store.number, put(k("k", "5"), b"5"), put(D), Touch(B, None))
        await old.alter_space(store.id, name="new name", add=[alias("new")])
        await old.end_space(session.id)
        await new_space(old, 4, aliases=[alias("t", "session-token", ""), alias("näme")])
        await commit(old, application.number, DeleteRange(None), put(A))
        report = await pair.fill(old, new)
        assert report.differences == []
        # Replaced, twice with another expiry, created again, new; and the one of the application.
        assert (report.written, report.removed) == (6, 2 + 100)
        assert await contents(new, sequences=False) == await contents(old, sequences=False)
        assert (await pair.fill(old, new)).written == 0

    pair.run(story)


def test_sequences_stay_what_they_are_where_no_two_spaces_share_one(tmp_path: Path) -> None:
    pair = Pair("sqlite", "sqlite", tmp_path)

    async def story(old: Engine, new: Engine) -> None:
        await furnished(old, pair)
        await pair.fill(old, new)
        assert await contents(new, sequences=True) == await contents(old, sequences=True)

    pair.run(story)


def test_the_same_numbers_in_two_spaces_are_copied_in_their_order(tmp_path: Path) -> None:
    pair = Pair("memory", "sqlite", tmp_path)

    async def story(old: Engine, new: Engine) -> None:
        await bootstrap.bootstrap(old, Config(), pair.clock)
        for n in (1, 2, 3):
            number = (await new_space(old, n)).number
            entries = [Entry(k(str(at)), b"1", START << 20, (START << 20) + at, START) for at in range(700)]
            await old.load(number, entries)
        report = await pair.fill(old, new)
        assert report.differences == []
        assert await contents(new, sequences=False) == await contents(old, sequences=False)

    pair.run(story)


def test_random_histories_with_runs_in_between(toys: Pair) -> None:
    dice = random.Random(5)
    keys = [k(str(n)) for n in range(40)]

    async def story(old: Engine, new: Engine) -> None:
        await bootstrap.bootstrap(old, Config(), toys.clock)
        number = (await new_space(old)).number
        for _ in range(60):
            for _ in range(dice.randrange(30)):
                key = dice.choice(keys)
                expires_at = toys.clock() + dice.randrange(5_000) if dice.random() < 0.4 else None
                changes: list[Mutation] = [put(key, expires_at=expires_at), Delete(key), Touch(key, expires_at)]
                change = dice.choice(changes)
                await commit(old, number, change)
                toys.wait(dice.choice([0, 0, 1, 700]))
            assert (await toys.fill(old, new)).differences == []
            # What was about to expire may have been left out.
            toys.wait(EXPIRING_NOW_MS)
            assert await contents(new, sequences=False) == await contents(old, sequences=False)

    toys.run(story)


def test_what_has_expired_is_not_copied(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await bootstrap.bootstrap(old, Config(), toys.clock)
        number = (await new_space(old, 1)).number
        await new_space(old, 2, expires_at=START + 5)
        await commit(old, number, put(A, ttl=5), put(B, ttl=sources.EXPIRING_SOON_MS + 6))
        toys.wait(5)
        report = await toys.fill(old, new)
        assert report.spaces == 2
        assert await new.get_space(ulid(2)) is None
        copied = await new.get_space(ulid(1))
        assert copied is not None
        assert [entry.key for entry in (await new.page(copied.number, Query())).entries] == [B]

    toys.run(story)


class Leaky:
    """An engine that loses something of what it is given to load."""

    def __init__(self, engine: Engine, leak: Callable[[Sequence[Entry]], list[Entry]]) -> None:
        self._engine = engine
        self._leak = leak

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    async def load(self, space: int, entries: Sequence[Entry]) -> None:
        await self._engine.load(space, self._leak(entries))


def giving_out(engine: Engine, at: int, error: KvasirError) -> Leaky:
    """An engine that fails from the n-th load on."""
    calls = itertools.count(1)

    def leak(entries: Sequence[Entry]) -> list[Entry]:
        if next(calls) >= at:
            raise error
        return list(entries)

    return Leaky(engine, leak)


def but(entry: Entry, **changes: object) -> Entry:
    return msgspec.structs.replace(entry, **changes)


@pytest.mark.parametrize(
    "leak",
    [
        lambda entry: but(entry, value=b"2"),
        lambda entry: but(entry, versionstamp=entry.versionstamp + 1),
        lambda entry: but(entry, created_at=entry.created_at + 1),
        lambda entry: but(entry, expires_at=None),
        lambda entry: but(entry, refresh=None),
        lambda entry: but(entry, metadata=b'{"m":1 }'),
        lambda entry: None,
    ],
    ids=["value", "versionstamp", "created_at", "expires_at", "refresh", "metadata", "entry"],
)
def test_any_difference_is_found_and_named(toys: Pair, leak: Callable[[Entry], Entry | None]) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await bootstrap.bootstrap(old, Config(), toys.clock)
        whole, other = await new_space(old, 1), await new_space(old, 2)
        for space in (whole, other):
            await commit(old, space.number, put(B), put(C))
        await commit(old, other.number, put(A, metadata=b'{"m":1}', ttl=10**9, refresh=True))

        def leaking(entries: Sequence[Entry]) -> list[Entry]:
            return [one for entry in entries if (one := leak(entry) if entry.key == A else entry)]

        report = await toys.fill(old, Leaky(new, leaking))  # type: ignore[arg-type]
        assert [space.id for space in report.differences] == [other.id]
        with pytest.raises(Unavailable, match="run it again"):
            await bootstrap.bootstrap(new, Config(), toys.clock)
        assert (await toys.fill(old, new)).differences == []

    toys.run(story)


def test_the_order_of_creation_is_compared_too(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await bootstrap.bootstrap(old, Config(), toys.clock)
        space = await new_space(old)
        await commit(old, space.number, put(A), put(B))
        report = await toys.fill(old, Leaky(new, lambda entries: list(reversed(entries))))  # type: ignore[arg-type]
        assert space in report.differences

    toys.run(story)


def test_writers_are_noticed_and_a_run_without_them_repairs_it(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await bootstrap.bootstrap(old, Config(), toys.clock)
        first, second = await new_space(old, 1), await new_space(old, 2)
        await commit(old, first.number, put(A), put(B))
        meddled = False

        async def meddle(space: int, entries: Sequence[Entry], load: Callable[..., Awaitable[None]] = new.load) -> None:
            nonlocal meddled
            await load(space, entries)
            if not meddled and entries[0].key == A:
                meddled = True
                await commit(old, first.number, put(A, b"2"))
                await old.end_space(second.id)

        new.load = meddle  # type: ignore[method-assign]
        report = await toys.fill(old, new)
        assert [space.id for space in report.differences] == [first.id, second.id]
        assert (await toys.fill(old, new)).differences == []
        assert await contents(new, sequences=False) == await contents(old, sequences=False)

    toys.run(story)


@pytest.mark.parametrize("at", range(1, 12))
def test_the_next_run_makes_up_for_an_interruption_anywhere(
    toys: Pair, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvasir.transfer.target.BATCH_ENTRIES", 40)

    async def story(old: Engine, new: Engine) -> None:
        await furnished(old, toys)
        with pytest.raises(Unavailable, match="gone"):
            await toys.fill(old, giving_out(new, at, Unavailable("gone")))  # type: ignore[arg-type]
        there_already = (await new.stats()).entries
        report = await toys.fill(old, new)
        assert report.differences == []
        assert report.removed == 0
        assert report.written <= report.entries - max(0, there_already - 1)
        assert await contents(new, sequences=True) == await contents(old, sequences=True)

    toys.run(story)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            Unavailable("the disk is full; nothing was written, make room and try again"),
            "the disk is full. The target database is",
        ),
        (UnknownOutcome("the disk failed"), "the disk failed. The target database may be"),
    ],
)
def test_a_target_that_gives_out_half_way_is_told_to_be_incomplete(
    toys: Pair, monkeypatch: pytest.MonkeyPatch, error: KvasirError, told: str
) -> None:
    monkeypatch.setattr("kvasir.transfer.target.BATCH_ENTRIES", 40)

    async def story(old: Engine, new: Engine) -> None:
        await furnished(old, toys)
        with pytest.raises(Unavailable) as caught:
            await toys.fill(old, giving_out(new, 3, error))  # type: ignore[arg-type]
        assert caught.value.message.startswith(f"{told} incomplete")
        assert "nothing was written" not in caught.value.message
        assert (await new.stats()).entries > 40
        assert (await toys.fill(old, new)).differences == []

    toys.run(story)


def test_a_database_with_data_of_its_own_is_left_alone(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await furnished(old, toys)
        await bootstrap.bootstrap(new, Config(), toys.clock)
        before = await contents(new, sequences=True)
        with pytest.raises(Conflicting, match="data of its own"):
            await toys.fill(old, new)
        assert await contents(new, sequences=True) == before

    toys.run(story)


def test_a_copy_of_another_database_is_left_alone(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await furnished(old, toys)
        await toys.fill(old, new)
        stranger = Lab("memory", Path()).engine()
        await bootstrap.bootstrap(stranger, Config(), toys.clock)
        before = await contents(new, sequences=True)
        with pytest.raises(Conflicting, match="copy of another"):
            await toys.fill(stranger, new)
        assert await contents(new, sequences=True) == before

    toys.run(story)


def test_a_copy_on_which_a_server_has_started_is_left_alone(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await furnished(old, toys)
        await toys.fill(old, new)
        await bootstrap.bootstrap(new, Config(), toys.clock)
        with pytest.raises(Conflicting, match="data of its own"):
            await toys.fill(old, new)

    toys.run(story)


def test_a_copy_stops_once_another_program_uses_the_target(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await furnished(old, toys)

        def intrude(entries: Sequence[Entry]) -> list[Entry]:
            asyncio.get_running_loop().create_task(commit(new, SYSTEM_SPACE, Delete(copy_mark.COPY_MARK)))
            return list(entries)

        class Slow(Leaky):
            async def load(self, space: int, entries: Sequence[Entry]) -> None:
                await super().load(space, entries)
                await asyncio.sleep(0)

        with pytest.raises(Conflicting, match="another program"):
            await toys.fill(old, Slow(new, intrude))  # type: ignore[arg-type]
        assert await new.get_space(ulid(3)) is None

    toys.run(story)


def test_an_empty_database_cannot_be_copied(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        with pytest.raises(NotFound):
            await toys.fill(old, new)

    toys.run(story)


def test_entries_come_in_pages_that_fit(toys: Pair) -> None:
    async def story(old: Engine, _: Engine) -> None:
        space = (await new_space(old)).number
        for n in range(200):
            await commit(old, space, put(k("small", str(n))))
        for n in range(300):
            await commit(old, space, put(k("large", str(n)), b'"' + b"x" * 100_000 + b'"'))
        pages: list[Page] = []
        page = old.page

        async def seen(space: int, query: Query) -> Page:
            pages.append(await page(space, query))
            return pages[-1]

        old.page = seen  # type: ignore[method-assign]
        assert [entry async for entry in sources.entries_of(old, space)] == (
            await page(space, Query(order="oldest"))
        ).entries
        assert max(len(one.entries) for one in pages) == sources.PAGE_ENTRIES
        sizes = sorted(sum(len(entry.value) for entry in one.entries) for one in pages)
        # Two pages are larger, the one with both small and large entries and the next; after that the size is known.
        assert sizes[-3] <= sources.PAGE_BYTES

    toys.run(story)


def test_reading_ends_and_gives_no_key_twice_whatever_writers_do(toys: Pair) -> None:
    async def story(old: Engine, _: Engine) -> None:
        space = (await new_space(old)).number
        keys = [k(str(n)) for n in range(100)]
        for key in keys:
            await commit(old, space, put(key))
        given = []
        async for entry in sources.entries_of(old, space):
            given.append(entry.key)
            await commit(old, space, Delete(keys[0]), put(k("new", str(len(given)))))
            await commit(old, space, put(keys[0]))
        assert given == keys

    toys.run(story)


def test_an_entry_created_again_in_the_same_place_is_found_by_its_time(pair: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await bootstrap.bootstrap(old, Config(), pair.clock)
        space = await new_space(old)
        await commit(old, space.number, put(A))
        await pair.fill(old, new)
        pair.wait(5_000)
        await commit(old, space.number, Delete(A))
        await commit(old, space.number, put(A))
        await pair.fill(old, new)
        copied = await new.get_space(space.id)
        assert copied is not None
        since = Query(created_from=pair.clock())
        assert [entry.key for entry in (await new.page(copied.number, since)).entries] == [A]

    pair.run(story)


def test_an_entry_that_expires_in_one_database_first_does_not_upset_the_others(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await bootstrap.bootstrap(old, Config(), toys.clock)
        space = await new_space(old)
        await commit(old, space.number, put(A, ttl=EXPIRING_NOW_MS), put(B), put(C))
        await toys.fill(old, new)
        toys.labs[1].clock.now += EXPIRING_NOW_MS
        report = await toys.fill(old, new)
        assert (report.written, report.removed, report.differences) == (0, 0, [])

    toys.run(story)


def test_an_alias_that_has_moved_to_another_space(toys: Pair) -> None:
    async def story(old: Engine, new: Engine) -> None:
        await bootstrap.bootstrap(old, Config(), toys.clock)
        first, second = await new_space(old, 1, aliases=[alias("x")]), await new_space(old, 2, aliases=[alias("y")])
        await toys.fill(old, new)
        await old.alter_space(first.id, remove=[alias("x")])
        await old.alter_space(second.id, add=[alias("x")], remove=[alias("y")])
        await old.alter_space(first.id, add=[alias("y")])
        assert (await toys.fill(old, new)).differences == []
        assert await contents(new, sequences=True) == await contents(old, sequences=True)
        await there(old, SYSTEM_SPACE, pack(["first-organisation"]))

    toys.run(story)
