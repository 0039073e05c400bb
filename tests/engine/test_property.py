"""Whatever one does to them, the durable engines and the memory engine tell the same story.

Hypothesis draws the operations; the memory engine is the truth. Numbers differ (sequences, versionstamps, space
numbers), so both sides are compared by what a caller can tell: order, equality and every other field.
`KVASIR_EXAMPLES=50` makes fifty times as many examples.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvasir.engine import Engine, Outcome, Watch
from kvasir.engines.memory import MemoryEngine
from kvasir.engines.sqlite import SqliteEngine
from kvasir.keys import pack, prefix_range, text_range
from kvasir.model import (
    SYSTEM_SPACE,
    Change,
    Check,
    Child,
    Commit,
    Condition,
    Conflict,
    Delete,
    DeleteRange,
    Entry,
    Increment,
    KeyRange,
    Mutation,
    Page,
    Present,
    Query,
    Set,
    Space,
    Touch,
    Write,
)
from tests.support.clock import START, ManualClock
from tests.support.lab import Schema, alias, joined, scanned, ulid
from tests.support.organisations import ORGANISATION
from tests.support.postgres import postgres_engine

EXAMPLES = 100 * int(os.environ.get("KVASIR_EXAMPLES", "1"))

PART = st.sampled_from(["", "a", "b", "ab", "a\x00", "\x00", "\U0010ffff"])
KEY = st.lists(PART, min_size=1, max_size=3).map(pack)
RANGE = (
    st.none()
    | st.lists(PART, max_size=2).map(prefix_range)
    | PART.map(text_range)
    | st.tuples(KEY, KEY).map(lambda keys: KeyRange(min(keys), max(keys)))
)
VALUE = st.sampled_from([b"1", b" 41\n", b"9223372036854775807", b'"text"', b'{"b":1,"a":[1.50]}', b"null"])
METADATA = st.sampled_from([None, b"{}", b'{"m":1}', b'{"m":1.0,"o":{"x":[1]}}', b'{"m":true}'])
WANTED = st.sampled_from([None, None, b"{}", b'{"m":1}', b'{"o":{}}', b'{"m":true}'])
#: Milliseconds from now; the clock moves in steps of the same size, so that expiry is met to the millisecond.
SOON = st.integers(1, 6)
INSTANT = st.none() | st.integers(-2, 8)
ALIAS = st.sampled_from([alias("x"), alias("y"), alias("z", "session", "")])

MUTATION = st.one_of(
    st.tuples(st.just("set"), KEY, VALUE, METADATA, st.none() | SOON, st.booleans()),
    st.tuples(st.just("set until"), KEY, VALUE, METADATA, st.integers(-1, 6), st.booleans()),
    st.tuples(st.just("keep"), KEY, VALUE, METADATA, st.none() | SOON, st.booleans(), st.booleans()),
    st.tuples(st.just("increment"), KEY, st.sampled_from([1, -3, 0, 1 << 62]), st.sampled_from([0, 7]), INSTANT),
    st.tuples(st.just("increment"), KEY, st.sampled_from([1, -3]), st.just(0), st.none()),
    st.tuples(st.just("delete expected"), RANGE, st.integers(0, 3)),
    st.tuples(st.just("delete"), KEY),
    st.tuples(st.just("delete range"), RANGE),
    st.tuples(st.just("touch"), KEY, INSTANT, st.booleans()),
)
CONDITION = st.one_of(
    st.tuples(st.just("present"), KEY),
    st.tuples(st.just("absent"), KEY),
    st.tuples(st.just("unchanged"), KEY),
    st.tuples(st.just("changed"), KEY),
)
WRITE = st.tuples(st.lists(CONDITION, max_size=2), st.lists(MUTATION, max_size=4))
#: One unconditional Set, of which there are many in real life.
PLAIN = st.tuples(
    st.just([]), st.tuples(st.just("set"), KEY, VALUE, METADATA, st.none() | SOON, st.booleans()).map(lambda one: [one])
)


class Side:
    """One engine, and which of its numbers stand for which of the other side's."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        #: Space numbers by the machine's own names
        self.spaces: dict[int, int] = {0: SYSTEM_SPACE}
        #: The last versionstamp seen of each key, for conditions
        self.stamps: dict[tuple[int, bytes], int] = {}
        #: The newest versionstamp given, by space where only writes of one space are in order
        self.highest: defaultdict[int, int] = defaultdict(int)


class Mirror:
    """What is known of a range of keys to somebody who has read it once and then been told of its changes."""

    def __init__(self, space: int, key_range: KeyRange) -> None:
        self.space = space
        self.range = key_range
        self.ranges = [key_range, KeyRange(MARKER, MARKER + b"\x00")]
        self.entries: dict[bytes, Entry] = {}
        self.watch: Watch | None = None
        self.upto = 0

    async def begin(self, side: Side, since: int | None) -> None:
        self.watch = await side.engine.watch(side.spaces[self.space], self.ranges, since)
        first = await anext(self.watch)
        assert first.changes == []
        self.upto = first.upto
        await self.read(side)

    async def read(self, side: Side) -> None:
        page = await side.engine.page(side.spaces[self.space], Query(range=self.range))
        self.entries = {entry.key: entry for entry in page.entries}

    async def follow(self, side: Side, now: int) -> None:
        number = side.spaces[self.space]
        last = (await write_marker(side.engine, number)).versionstamp
        if self.watch is None:  # its server is gone: it begins again with another
            self.watch = await side.engine.watch(number, self.ranges, self.upto)
        while self.upto < last:
            changes = await asyncio.wait_for(anext(self.watch), 10)
            assert changes.upto >= self.upto
            self.upto = changes.upto
            if changes.resync:
                await self.read(side)
            for change in changes.changes:
                self.apply(change)
        truth = (await side.engine.page(number, Query(range=self.range))).entries
        mine = [e for e in self.entries.values() if e.expires_at is None or e.expires_at > now]
        assert sorted(mine, key=lambda e: e.key) == sorted(truth, key=lambda e: e.key)

    def apply(self, change: Change) -> None:
        inside = self.range.start <= change.key < self.range.end
        if change.kind == "delete_range":
            assert change.end is not None
            self.entries = {key: e for key, e in self.entries.items() if not change.key <= key < change.end}
        elif change.kind == "delete":
            self.entries.pop(change.key, None)
        elif inside:
            assert change.entry is not None
            if change.kind == "expiry":
                assert change.key in self.entries
            self.entries[change.key] = change.entry


#: A key that no story touches
MARKER = pack(["marker", "of", "the", "end"])


async def write_marker(engine: Engine, space: int) -> Commit:
    (outcome,) = await engine.write([Write(space, (Set(MARKER, b"1"), Delete(MARKER)))])
    assert isinstance(outcome, Commit)
    return outcome


class BothEngines(RuleBasedStateMachine):
    """Every rule does one thing to both engines and compares all that can be told."""

    spaces = Bundle("spaces")

    #: Whether versionstamps grow in the whole database, which is more than every engine promises.
    ordered_across_spaces = True

    def __init__(self) -> None:
        super().__init__()
        self.prepare()
        self.clock = ManualClock()
        self.loop = asyncio.new_event_loop()
        self.truth = Side(MemoryEngine(self.clock))
        self.tried = Side(self.opened())
        #: The same database as another process sees it
        self.other: Engine = self.opened()
        self.ulids = 0
        self.mirrors: list[Mirror] = []
        self.ended: list[Mirror] = []

    def prepare(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kvasir-property-"))

    def made_engine(self) -> Engine:
        return SqliteEngine(self.folder / "kvasir.db", clock=self.clock)

    def clear_away(self) -> None:
        shutil.rmtree(self.folder)

    def opened(self) -> Engine:
        engine = self.made_engine()
        self.run(engine.open())
        return engine

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        try:
            assert self.run(self.tried.engine.check()) == []
        finally:
            self.run(self.tried.engine.close())
            self.run(self.other.close())
            self.loop.close()
            self.clear_away()

    def both(self, ask: Any) -> tuple[Any, Any]:
        """What `ask(side)` gives on the side of truth and on the side that is tried."""
        return self.run(ask(self.truth)), self.run(ask(self.tried))

    # -- spaces -------------------------------------------------------------------------------------------

    @initialize(target=spaces)
    def system(self) -> int:
        return 0

    @rule(target=spaces, aliases=st.lists(ALIAS, max_size=2), lives=st.none() | st.integers(1, 20))
    def create(self, aliases: list[Any], lives: int | None) -> int:
        self.ulids += 1
        expires_at = None if lives is None else self.clock.now + lives
        space = Space(ulid(self.ulids), 0, ORGANISATION, "store", f"n{self.ulids}", self.clock.now, expires_at)
        truth, tried = self.both(lambda side: side.engine.create_space(space, aliases))
        assert same_space(truth, tried)
        name = int(truth.id[4:])
        self.truth.spaces[name], self.tried.spaces[name] = truth.number, tried.number
        return name

    @rule(space=spaces)
    def end(self, space: int) -> None:
        truth, tried = self.both(lambda side: side.engine.end_space(ulid(space)))
        assert truth == tried

    @rule(
        space=spaces,
        name=st.sampled_from([None, "neu"]),
        add=st.lists(ALIAS, max_size=2),
        gone=st.lists(ALIAS, max_size=2),
    )
    def alter(self, space: int, name: str | None, add: list[Any], gone: list[Any]) -> None:
        truth, tried = self.both(lambda side: side.engine.alter_space(ulid(space), name=name, add=add, remove=gone))
        assert same_space(truth, tried)

    @rule(behind=ALIAS, space=spaces)
    def look_around(self, behind: Any, space: int) -> None:
        for ask in (
            lambda side: side.engine.resolve(behind),
            lambda side: side.engine.get_space(ulid(space)),
        ):
            assert same_space(*self.both(ask))
        assert len({str(aliases) for aliases in self.both(lambda side: side.engine.aliases(ulid(space)))}) == 1
        truth, tried = self.both(lambda side: side.engine.list_spaces(after=ulid(space), limit=3))
        assert len(truth) == len(tried)
        assert all(map(same_space, truth, tried))
        truth, tried = self.both(lambda side: side.engine.count_spaces("store"))
        assert truth == tried

    # -- entries ------------------------------------------------------------------------------------------

    @rule(space=spaces, writes=st.lists(WRITE, min_size=1, max_size=3))
    def write(self, space: int, writes: list[Any]) -> None:
        def made(side: Side) -> list[Write]:
            return [self.made(side, space, conditions, mutations) for conditions, mutations in writes]

        truth, tried = self.both(lambda side: side.engine.write(made(side)))
        assert [told(outcome) for outcome in truth] == [told(outcome) for outcome in tried]
        for side, outcomes in ((self.truth, truth), (self.tried, tried)):
            stamps = [outcome.versionstamp for outcome in outcomes if isinstance(outcome, Commit)]
            assert stamps == sorted(stamps)
            self.later(side, space, stamps)
        self.follow()

    @rule(
        space=spaces,
        others=spaces,
        crowd=st.lists(st.tuples(st.booleans(), WRITE | PLAIN | PLAIN), min_size=2, max_size=8),
    )
    def write_in_a_crowd(self, space: int, others: int, crowd: list[Any]) -> None:
        """Many callers at once, who share a commit where there is one."""

        async def ask(side: Side) -> list[Outcome]:
            works = [
                side.engine.write([self.made(side, others if other else space, conditions, mutations)])
                for other, (conditions, mutations) in crowd
            ]
            return [outcome for outcomes in await asyncio.gather(*works) for outcome in outcomes]

        truth, tried = self.both(ask)
        assert [told(outcome) for outcome in truth] == [told(outcome) for outcome in tried]
        for among in [(False, True)] if self.ordered_across_spaces or others == space else [(False,), (True,)]:
            stamps = [
                outcome.versionstamp
                for (other, _), outcome in zip(crowd, tried, strict=True)
                if other in among and isinstance(outcome, Commit)
            ]
            assert stamps == sorted(set(stamps))
            self.later(self.tried, others if among == (True,) else space, stamps)
        self.follow()

    def later(self, side: Side, space: int, stamps: list[int]) -> None:
        """These versionstamps are newer than all before them."""
        highest = side.highest
        of = 0 if self.ordered_across_spaces or side is self.truth else space
        assert all(stamp > highest[of] for stamp in stamps)
        highest[of] = max([highest[of], *stamps])

    def made(self, side: Side, space: int, conditions: list[Any], mutations: list[Any]) -> Write:
        def condition(kind: str, key: bytes) -> Condition:
            if kind == "present":
                return Present(key)
            stamp = side.stamps.get((space, key))
            return Check(key, None if kind == "absent" or stamp is None else stamp - (kind == "changed"))

        def mutation(kind: str, *values: Any) -> Mutation:
            now = self.clock.now
            if kind == "set":
                key, value, metadata, ttl, refresh = values
                return Set(key, value, metadata=metadata, ttl=ttl, refresh=refresh)
            if kind == "set until":
                key, value, metadata, instant, refresh = values
                return Set(key, value, metadata=metadata, expires_at=now + instant, refresh=refresh)
            if kind == "keep":
                key, value, metadata, ttl, keep_expiry, keep_metadata = values
                return Set(
                    key, value, metadata, ttl=ttl, refresh=True, keep_expiry=keep_expiry, keep_metadata=keep_metadata
                )
            if kind == "increment":
                key, delta, initial, instant = values
                return Increment(key, delta, initial, None if instant is None else now + instant)
            if kind == "delete expected":
                return DeleteRange(values[0], expect=values[1])
            if kind == "delete":
                return Delete(*values)
            if kind == "delete range":
                return DeleteRange(*values)
            key, instant, extend = values
            return Touch(key, None if instant is None else now + instant, extend)

        return Write(
            side.spaces[space],
            tuple(mutation(*drawn) for drawn in mutations),
            tuple(condition(*drawn) for drawn in conditions),
        )

    def living(self, space: int) -> bool:
        # What a space that is gone still gives is not promised.
        return space == 0 or self.run(self.truth.engine.get_space(ulid(space))) is not None

    @rule(space=spaces, keys=st.lists(KEY, max_size=4))
    def get(self, space: int, keys: list[bytes]) -> None:
        if self.living(space):
            truth, tried = self.both(lambda side: side.engine.get(side.spaces[space], keys))
            self.compare(space, truth, tried)
            at_once = self.tried.engine.get_nowait(self.tried.spaces[space], keys)
            assert at_once in (None, tried)

    @rule(
        space=spaces,
        key_range=RANGE,
        order=st.sampled_from(["newest", "oldest", "key"]),
        limit=st.none() | st.integers(1, 4),
        skip=st.integers(0, 2),
        created=st.tuples(st.none() | st.integers(0, 12), st.none() | st.integers(0, 30)),
        metadata=WANTED,
        backwards=st.booleans(),
        values=st.booleans(),
    )
    def walk(self, space: int, backwards: bool, skip: int, **options: Any) -> None:
        """Page after page, by the cursors each side gave, until the end."""
        if not self.living(space):
            return
        low, high = options.pop("created")
        query = Query(
            range=options.pop("key_range"),
            created_from=None if low is None else START + low,
            created_to=None if high is None else START + high,
            skip=skip,
            **options,
        )
        cursors: tuple[Any, Any] = (None, None)
        for _ in range(20):
            truth, tried = self.pages(space, query, cursors, backwards=backwards)
            self.compare(space, truth.entries, tried.entries)
            assert truth.more == tried.more
            if not truth.more or not truth.entries:
                break
            at = 0 if backwards and cursors != (None, None) else -1
            by_key = query.order == "key"
            one, other = truth.entries[at], tried.entries[at]
            cursors = (one.key, other.key) if by_key else (one.sequence, other.sequence)
            query = msgspec.structs.replace(query, skip=0)

    def pages(self, space: int, query: Query, cursors: tuple[Any, Any], *, backwards: bool) -> tuple[Page, Page]:
        def asked(cursor: Any) -> Query:
            place = {"before" if backwards else "after": cursor}
            return msgspec.structs.replace(query, **place)

        return (
            self.run(self.truth.engine.page(self.truth.spaces[space], asked(cursors[0]))),
            self.run(self.tried.engine.page(self.tried.spaces[space], asked(cursors[1]))),
        )

    @rule(space=spaces, key_range=RANGE)
    def count(self, space: int, key_range: KeyRange | None) -> None:
        if self.living(space):
            truth, tried = self.both(lambda side: side.engine.count(side.spaces[space], key_range))
            page = self.run(self.tried.engine.page(self.tried.spaces[space], Query(range=key_range)))
            assert truth == tried == len(page.entries)

    @rule(space=spaces, prefix=st.lists(PART, max_size=2), limit=st.none() | st.integers(1, 3))
    def children(self, space: int, prefix: list[str], limit: int | None) -> None:
        """Page after page. How long pages are is not promised where entries have expired."""
        if not self.living(space):
            return

        async def ask(side: Side) -> list[Child]:
            found: list[Child] = []
            after = None
            while True:
                page = await side.engine.children(side.spaces[space], pack(prefix), after=after, limit=limit)
                found += page.children
                if page.next is None:
                    return found
                after = page.next

        truth, tried = self.both(ask)
        assert truth == tried

    @rule(space=spaces, key_range=RANGE, how=st.sampled_from([scanned, joined]))
    def scan(self, space: int, key_range: KeyRange | None, how: Any) -> None:
        if not self.living(space):
            return

        async def ask(side: Side) -> list[Entry]:
            return cast("list[Entry]", await how(side.engine, side.spaces[space], key_range))

        truth, tried = self.both(ask)
        assert list(map(plain, truth)) == list(map(plain, tried))
        assert ranks(truth, "versionstamp") == ranks(tried, "versionstamp")

    @rule(space=spaces, key_range=RANGE, again=st.booleans())
    def watch(self, space: int, key_range: KeyRange | None, again: bool) -> None:
        """Look at everything that is watched, then follow what changes; perhaps from where an earlier watch was."""
        if self.living(space) and len(self.mirrors) < 4:
            whole = key_range or KeyRange(b"", b"\xff")
            mirror = Mirror(space, whole)
            self.mirrors.append(mirror)
            self.run(mirror.begin(self.tried, self.ended[-1].upto if again and self.ended else None))

    @rule()
    def stop_watching(self) -> None:
        if self.mirrors:
            mirror = self.mirrors.pop(0)
            if mirror.watch is not None:
                mirror.watch.close()
            self.ended.append(mirror)

    def follow(self) -> None:
        """What watches have told by now is what is there."""
        for mirror in self.mirrors:
            if self.living(mirror.space):
                self.run(mirror.follow(self.tried, self.clock.now))

    def compare(self, space: int, truth: Sequence[Entry | None], tried: Sequence[Entry | None]) -> None:
        """The same entries, but for their numbers, and these in the same order."""
        assert [entry and plain(entry) for entry in truth] == [entry and plain(entry) for entry in tried]
        for number in ("sequence", "versionstamp"):
            assert ranks(truth, number) == ranks(tried, number)
        for side, entries in ((self.truth, truth), (self.tried, tried)):
            side.stamps.update({(space, entry.key): entry.versionstamp for entry in entries if entry})

    # -- time and trouble ---------------------------------------------------------------------------------

    @rule(milliseconds=SOON)
    def wait(self, milliseconds: int) -> None:
        self.clock.now += milliseconds

    @rule()
    def sweep(self) -> None:
        while self.run(self.tried.engine.sweep()):
            pass

    @rule()
    def sweep_truth(self) -> None:
        self.run(self.truth.engine.sweep())

    @rule()
    def change_places(self) -> None:
        """Go on with the other process."""
        self.tried.engine, self.other = self.other, self.tried.engine

    @rule()
    def reopen(self) -> None:
        self.run(self.tried.engine.close())
        self.tried.engine = self.opened()
        for mirror in self.mirrors:
            mirror.watch = None

    @precondition(lambda self: self.ulids > 0)
    @rule()
    def check(self) -> None:
        assert self.run(self.tried.engine.check()) == []

    @invariant()
    def nothing_waits(self) -> None:
        assert self.tried.engine.writer.queue_depth == 0


def same_space(truth: Space | None, tried: Space | None) -> bool:
    if truth is None or tried is None:
        return truth is tried
    return msgspec.structs.replace(truth, number=0) == msgspec.structs.replace(tried, number=0)


def told(outcome: Outcome) -> object:
    """What an outcome tells, but for its versionstamps."""
    if isinstance(outcome, Commit):
        return outcome.counts
    if isinstance(outcome, Conflict):
        return [
            (type(unmet.condition), getattr(unmet.condition, "key", None), unmet.versionstamp is None, unmet.count)
            for unmet in outcome.unmet
        ]
    return type(outcome)


def plain(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, sequence=0, versionstamp=0)


def ranks(entries: Sequence[Entry | None], number: str) -> list[int]:
    numbers = [getattr(entry, number) for entry in entries if entry is not None]
    order = sorted(set(numbers))
    return [order.index(each) for each in numbers]


class WithPostgres(BothEngines):
    """The same story, told to PostgreSQL."""

    ordered_across_spaces = False

    def prepare(self) -> None:
        self.schema = Schema()

    def made_engine(self) -> Engine:
        return postgres_engine(self.schema.url, clock=self.clock, durable=False, connections=3)

    def clear_away(self) -> None:
        self.schema.drop()


TestBothEngines = BothEngines.TestCase
TestBothEngines.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TestWithPostgres = WithPostgres.TestCase
# Every example is a database of its own, which takes PostgreSQL a while.
TestWithPostgres.settings = settings(TestBothEngines.settings, max_examples=EXAMPLES // 4)
