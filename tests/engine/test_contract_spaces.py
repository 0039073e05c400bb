"""What engines promise about spaces, their aliases and the epoch."""

from __future__ import annotations

import asyncio

import pytest

from kvasir.engine import Engine
from kvasir.errors import NotFound
from kvasir.model import SYSTEM_SPACE, Commit, Delete, Present, Query, Write
from tests.support.lab import Lab, alias, commit, k, new_space, one, put, there, ulid, write
from tests.support.organisations import ORGANISATION

A = k("a")
ELSEWHERE = "01HFZZZZZZZZZZZZZZZZZZZZZZ"


def test_a_space_is_found_by_its_id_and_each_of_its_aliases(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        aliases = [
            ("application", ORGANISATION, "7"),
            ("application-name", ORGANISATION, "näme"),
            ("session-token", "", "7"),
        ]
        space = await new_space(engine, kind="application", aliases=aliases)
        assert (space.id, space.organisation, space.kind, space.name) == (
            ulid(1),
            ORGANISATION,
            "application",
            "space-1",
        )
        assert space.attributes == b'{"facts":[1, 2.50]}'
        assert space.number != 0
        assert await engine.get_space(space.id) == space
        assert [await engine.resolve(each) for each in aliases] == [space] * 3
        assert await engine.aliases(space.id) == sorted(aliases)
        for near in (("application", ELSEWHERE, "7"), ("application", ORGANISATION, "8"), ("store", ORGANISATION, "7")):
            assert await engine.resolve(near) is None
        assert await engine.get_space(ulid(2)) is None
        assert await engine.aliases(ulid(2)) == []

    lab.run(story)


def test_of_several_taken_aliases_the_first_one_asked_for_counts(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        one, other, free = alias("1"), alias("2"), alias("3")
        first = await new_space(engine, aliases=[one])
        second = await new_space(engine, 2, aliases=[other])
        third = await new_space(engine, 3)
        for aliases, holder in (([free, other, one], second), ([one, free, other], first)):
            assert (await new_space(engine, 4, aliases=aliases)).id == holder.id
            altered = await engine.alter_space(third.id, add=aliases)
            assert altered is not None
            assert altered.id == holder.id
        assert await engine.resolve(free) is None

    lab.run(story)


def test_a_taken_alias_gives_its_space_and_creates_nothing(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        first = await new_space(engine, 1, aliases=[alias("x")])
        assert await new_space(engine, 2, aliases=[alias("y"), alias("x")]) == first
        assert await engine.resolve(alias("y")) is None
        assert await engine.get_space(ulid(2)) is None
        assert await engine.list_spaces() == [first]
        elsewhere = await new_space(engine, 3, organisation=ELSEWHERE, aliases=[alias("x", organisation=ELSEWHERE)])
        assert elsewhere.id == ulid(3)

    lab.run(story)


def test_aliases_and_name_change_as_one(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        first = await new_space(engine, 1, aliases=[alias("x"), alias("y")])
        second = await new_space(engine, 2, aliases=[alias("z")])
        await commit(engine, first.number, put(A))
        altered = await engine.alter_space(
            first.id, name="neu", add=[alias("w"), alias("x")], remove=[alias("y"), alias("z")]
        )
        assert altered is not None
        assert (altered.id, altered.number, altered.name) == (first.id, first.number, "neu")
        assert await engine.get_space(first.id) == altered
        assert await engine.aliases(first.id) == [alias("w"), alias("x")]
        assert await engine.resolve(alias("y")) is None
        # Another space's alias is neither taken over nor removed.
        assert await engine.resolve(alias("z")) == second
        assert (
            await engine.alter_space(first.id, name="no", add=[alias("v"), alias("z")], remove=[alias("x")]) == second
        )
        assert await engine.get_space(first.id) == altered
        assert await engine.aliases(first.id) == [alias("w"), alias("x")]
        await there(engine, first.number, A)
        assert await engine.alter_space(ulid(9), name="no") is None

    lab.run(story)


@pytest.mark.parametrize("odd", ["\x00", f"{ulid(1)}\x00", "space-1\x00", "\ud800", f"{ulid(1)}\udfff", ""])
def test_what_cannot_be_a_name_leads_to_no_space(lab: Lab, odd: str) -> None:
    """Callers ask for whatever was in their URL, and databases do not know every text."""

    async def story(engine: Engine) -> None:
        space = await new_space(engine)
        assert await engine.get_space(odd) is None
        assert await engine.aliases(odd) == []
        assert await engine.alter_space(odd, name="x") is None
        assert await engine.alter_space(odd, add=[alias("x")], remove=[alias("space-1")]) is None
        assert await engine.end_space(odd) is False
        for near in (("store", ORGANISATION, odd), ("store", odd, "space-1"), (odd, ORGANISATION, "space-1")):
            assert await engine.resolve(near) is None
            if "\x00" in odd:
                assert await engine.alter_space(space.id, remove=[near]) == space
        assert await engine.resolve(alias("space-1")) == space

    lab.run(story)


def test_an_ended_space_is_gone_with_its_aliases_and_keys(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await new_space(engine, 1)
        other = await new_space(engine, 2)
        for each in (space, other):
            await commit(engine, each.number, *(put(k(str(n))) for n in range(500)))
        assert await engine.end_space(space.id) is True
        assert await engine.end_space(space.id) is False
        assert await engine.get_space(space.id) is None
        assert await engine.resolve(alias("space-1")) is None
        assert await engine.aliases(space.id) == []
        assert await engine.list_spaces() == [other]
        assert await engine.count_spaces("store") == (1, 500)
        assert await engine.alter_space(space.id, name="x") is None
        (outcome,) = await engine.write([Write(space.number, (put(A),))])
        assert isinstance(outcome, NotFound)
        heir = await new_space(engine, 3, aliases=[alias("space-1")])
        assert heir.id == ulid(3)
        assert heir.number > space.number
        assert await engine.count(heir.number) == 0
        while await engine.sweep():
            pass
        stats = await engine.stats()
        assert stats.spaces >= 2
        assert (stats.log_bytes is not None) == (lab.kind == "sqlite")
        assert stats.log_bytes is None or 0 < stats.log_bytes < stats.database_bytes
        assert await engine.count(other.number) == 500

    lab.run(story)


def test_spaces_are_listed_by_id_in_pages_by_owner_and_kind(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        for n in (3, 1, 5, 2, 4):
            kind = "session" if n == 4 else "store"
            owner = ELSEWHERE if n == 5 else ORGANISATION
            await new_space(engine, n, kind=kind, organisation=owner)

        async def ids(**options: object) -> list[int]:
            return [int(space.id[4:]) for space in await engine.list_spaces(**options)]  # type: ignore[arg-type]

        assert await ids() == [1, 2, 3, 4, 5]
        assert await ids(organisation=ORGANISATION) == [1, 2, 3, 4]
        assert await ids(kind="store") == [1, 2, 3, 5]
        assert await ids(organisation=ORGANISATION, kind="store", after=ulid(1)) == [2, 3]
        assert await ids(limit=2) == [1, 2]
        assert await ids(limit=2, after=ulid(2)) == [3, 4]
        assert await ids(after=ulid(5)) == []
        assert await ids(kind="system") == []
        assert await engine.count_spaces("store") == (4, 0)
        assert await engine.count_spaces("store", ORGANISATION) == (3, 0)
        assert await engine.count_spaces("store", ELSEWHERE) == (1, 0)
        assert await engine.count_spaces("session") == (1, 0)
        assert await engine.count_spaces("application") == (0, 0)

    lab.run(story)


def test_the_epoch_moves_whenever_something_may_no_longer_be_cached(lab: Lab) -> None:
    async def story(first: Engine, second: Engine) -> None:
        space = await new_space(first)
        seen = {await first.epoch()}

        async def moved() -> bool:
            here, there = await first.epoch(), await second.epoch()
            assert here == there
            new = here not in seen
            seen.add(here)
            return new

        await moved()
        assert not await moved()
        await commit(second, SYSTEM_SPACE, put(A))
        assert await moved()
        await commit(first, SYSTEM_SPACE, Delete(A))
        assert await moved()
        assert await second.alter_space(space.id, name="x") is not None
        assert await moved()
        assert await first.alter_space(space.id, add=[alias("y")]) is not None
        assert await moved()
        assert await second.end_space(space.id)
        assert await moved()

    lab.run_pair(story)


def test_writes_to_other_spaces_leave_the_epoch_alone(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await new_space(engine)
        before = await engine.epoch()
        await commit(engine, space.number, put(A))
        await write(engine, SYSTEM_SPACE, put(A), when=[Present(k("nothing"))])
        assert await engine.alter_space(ulid(9), name="x") is None
        assert not await engine.end_space(ulid(9))
        assert await engine.epoch() == before

    lab.run(story)


def test_an_epoch_seen_never_comes_back(durable_lab: Lab) -> None:
    seen: list[int] = []

    async def story(engine: Engine) -> None:
        seen.append(await engine.epoch())
        await commit(engine, SYSTEM_SPACE, put(A))
        seen.append(await engine.epoch())

    durable_lab.run(story)
    durable_lab.run(story)
    assert seen[0] != seen[1]
    assert seen[1] == seen[2]
    assert len(set(seen)) == 3


def test_spaces_and_what_is_in_them_are_one_for_every_process(lab: Lab) -> None:
    async def story(first: Engine, second: Engine) -> None:
        space = await new_space(first)
        assert await second.resolve(alias("space-1")) == space
        assert await new_space(second, 2, aliases=[alias("space-1")]) == space
        await commit(second, space.number, put(A))
        assert (await there(first, space.number, A)).value == b"1"
        assert len((await first.page(space.number, Query())).entries) == 1
        assert await second.end_space(space.id)
        assert await first.get_space(space.id) is None
        (outcome,) = await first.write([Write(space.number, (put(A),))])
        assert isinstance(outcome, NotFound)

    lab.run_pair(story)


def test_two_processes_never_both_get_an_alias(lab: Lab) -> None:
    async def story(first: Engine, second: Engine) -> None:
        for n in range(30):
            wanted = [alias(f"x{n}"), alias(f"y{n}")]
            spaces = await asyncio.gather(
                *(new_space(engine, 100 * n + i, aliases=wanted[:: 1 - 2 * (i % 2)])
                  for i, engine in enumerate([first, second] * 4))
            )  # fmt: skip
            assert len({space.id for space in spaces}) == 1
            assert await first.aliases(spaces[0].id) == sorted(wanted)
            ended = await asyncio.gather(*(engine.end_space(spaces[0].id) for engine in [first, second] * 2))
            assert ended.count(True) == 1
        assert await first.list_spaces() == []

    lab.run_pair(story)


def test_a_write_and_the_end_of_its_space_exclude_each_other(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space, heir = await new_space(engine, 1), await new_space(engine, 2)
        outcomes = await engine.write([Write(space.number, (put(A),)), Write(heir.number, (put(A),))])
        assert all(isinstance(outcome, Commit) for outcome in outcomes)
        await engine.end_space(space.id)
        outcomes = await engine.write([Write(space.number, (put(A),)), Write(heir.number, (Delete(A),))])
        assert isinstance(outcomes[0], NotFound)
        assert isinstance(outcomes[1], Commit)
        assert await one(engine, heir.number, A) is None

    lab.run(story)
