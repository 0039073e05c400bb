"""Access keys on the memory engine: who gets in, as whom, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kvasir import keys
from kvasir.access.authenticator import CACHED_CREDENTIALS, CREDENTIAL_CHARACTERS, Authenticator
from kvasir.config.table import Config
from kvasir.control import access_keys, bootstrap, organisation, stores
from kvasir.engine import Engine
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import Conflicting, Forbidden, Invalid, KvasirError, NotFound, Unauthenticated
from kvasir.limits import Limits
from kvasir.model import SYSTEM_SPACE, KeyRange, Principal, Query, Set, Space
from kvasir.store.store import Store
from tests.support.clock import ManualClock
from tests.support.organisations import ORGANISATION, OTHER

ADMIN_KEY = "an-admin-key-of-more-than-32-characters"


class House:
    """Engine, store and authentication of one process; a second one may share the engine."""

    def __init__(self, clock: ManualClock, engine: MemoryEngine | None = None) -> None:
        self.clock = clock
        self.engine = engine or MemoryEngine(clock)
        self.store = Store(self.engine, Limits(), clock)
        self.auth = Authenticator(self.store, self.engine)

    async def key(self, role: str = "developer", **more: Any) -> str:
        """Create an access key and return its secret."""
        secret = access_keys.new_secret()
        record = access_keys.AccessKey(
            id=more.pop("id", "key-" + secret[-8:]),
            organisation=more.pop("organisation", ORGANISATION),
            role=role,
            name="test",
            digest=access_keys.digest_of(secret),
            created_at=self.clock(),
            **more,
        )
        await access_keys.create_key(self.engine, record)
        return secret

    async def bearer(self, secret: str) -> Principal:
        return await self.auth.authenticate(f"Bearer {secret}", None)

    async def space(self, name: str = "a store", organisation: str = ORGANISATION) -> Space:
        owner = Principal(organisation, "owner", "test")
        space = Space("", 0, organisation, "store", name, 0)
        return await self.store.create(owner, space, [stores.by_name(organisation, name)])


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@pytest.fixture
def house(clock: ManualClock) -> House:
    return House(clock)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "JWT", "jwt", "Jwt"])
def test_either_scheme_in_any_case(house: House, scheme: str) -> None:
    async def work() -> None:
        secret = await house.key("viewer", id="k1")
        for header in (f"{scheme} {secret}", f"{scheme}   {secret} "):
            principal = await house.auth.authenticate(header, None)
            assert (principal.organisation, principal.role, principal.name) == (ORGANISATION, "viewer", "k1")

    run(work())


@pytest.mark.parametrize("cookie", ["cookie={}", "a=b; cookie={}; c=d", 'x=1;cookie="{}"'])
def test_the_cookie_named_cookie(house: House, cookie: str) -> None:
    async def work() -> None:
        secret = await house.key()
        assert (await house.auth.authenticate(None, cookie.format(secret))).role == "developer"

    run(work())


def test_no_valid_credential(house: House) -> None:
    async def work() -> None:
        secret = await house.key()
        await house.bearer(secret)
        for authorization, cookie in [
            (None, None),
            ("", ""),
            (None, f"Cookie={secret}"),
            (None, f"cookies={secret}"),
            (None, "cookie="),
            (secret, None),
            (f"Basic {secret}", None),
            (f"Bearer{secret}", None),
            ("Bearer", None),
            ("Bearer ", None),
            (f"Bearer {secret}x", None),
            (f"Bearer {secret[:-1]}", None),
            (f"Bearer {secret.upper()}", None),
            ("Bearer \udcff\udcfe", None),
            ("Bearer " + "x" * 100_000, None),
        ]:
            with pytest.raises(Unauthenticated) as refusal:
                await house.auth.authenticate(authorization, cookie)
            assert secret not in refusal.value.message

    run(work())


def test_the_longest_credential(house: House) -> None:
    async def work() -> None:
        longest = "x" * (CREDENTIAL_CHARACTERS - len("Bearer "))
        key = access_keys.AccessKey(
            id="long",
            organisation=ORGANISATION,
            role="viewer",
            name="n",
            digest=access_keys.digest_of(longest),
            created_at=0,
        )
        await access_keys.create_key(house.engine, key)
        assert (await house.bearer(longest)).name == "long"
        longer = msgspec.structs.replace(key, id="longer", digest=access_keys.digest_of(longest + "x"))
        await access_keys.create_key(house.engine, longer)
        with pytest.raises(Unauthenticated, match="longer than"):
            await house.bearer(longest + "x")

    run(work())


#: What each role may do: read, write, create and delete stores.
RIGHTS = {
    "owner": (True, True, True),
    "admin": (True, True, True),
    "developer": (True, True, False),
    "viewer": (True, False, False),
}


def test_every_role_has_a_row() -> None:
    assert set(RIGHTS) == set(access_keys.ROLES)


@pytest.mark.parametrize(("role", "rights"), RIGHTS.items())
def test_roles(house: House, role: str, rights: tuple[bool, bool, bool]) -> None:
    async def allowed(operation: Coroutine[Any, Any, Any]) -> bool:
        try:
            await operation
        except Forbidden:
            return False
        return True

    async def work() -> None:
        space = await house.space()
        who = await house.bearer(await house.key(role))
        reads, writes, manages = rights
        assert await allowed(house.store.get(who, space, [keys.pack(["a"])])) is reads
        assert await allowed(house.store.page(who, space, Query())) is reads
        assert await allowed(house.store.count(who, space)) is reads
        assert await allowed(house.store.list_spaces(who, "store")) is reads
        assert await allowed(house.store.write(who, space, Set(keys.pack(["a"]), b"1"))) is writes
        new = Space("", 0, ORGANISATION, "store", "new", 0)
        assert await allowed(house.store.create(who, new, [stores.by_name(ORGANISATION, "new")])) is manages
        assert await allowed(house.store.end(who, space)) is manages

    run(work())


def test_scope_to_stores(house: House) -> None:
    async def work() -> None:
        mine, other = await house.space("mine"), await house.space("other")
        who = await house.bearer(await house.key("owner", spaces=(mine.id,)))
        assert (await house.store.open(who, mine.id)).id == mine.id
        with pytest.raises(NotFound):
            await house.store.open(who, other.id)
        assert [space.id for space in await house.store.list_spaces(who, "store")] == [mine.id]
        with pytest.raises(Forbidden):
            await house.store.create(who, Space("", 0, ORGANISATION, "store", "new", 0), [])

    run(work())


def test_scope_to_a_key_prefix(house: House) -> None:
    async def work() -> None:
        space = await house.space()
        who = await house.bearer(await house.key("owner", prefix=("a", "b")))
        for inside in (["a", "b"], ["a", "b", "c"]):
            await house.store.write(who, space, Set(keys.pack(inside), b"1"))
            assert (await house.store.get(who, space, [keys.pack(inside)]))[0] is not None
        for outside in (["a"], ["a", "bc"], ["a", "a"], ["b"]):
            with pytest.raises(Forbidden):
                await house.store.write(who, space, Set(keys.pack(outside), b"1"))
            with pytest.raises(Forbidden):
                await house.store.get(who, space, [keys.pack(outside)])
        with pytest.raises(Forbidden):
            await house.store.count(who, space)
        assert await house.store.count(who, space, keys.prefix_range(["a", "b"])) == 2

    run(work())


def test_another_organisations_store_does_not_exist(house: House) -> None:
    async def work() -> None:
        theirs = await house.space("theirs", OTHER)
        who = await house.bearer(await house.key("owner"))
        with pytest.raises(NotFound) as theirs_answer:
            await house.store.open(who, theirs.id)
        with pytest.raises(NotFound) as nothing_answer:
            await house.store.open(who, ORGANISATION)
        assert theirs_answer.value.message == nothing_answer.value.message

    run(work())


def test_expiry_is_exact_even_for_a_cached_key(house: House) -> None:
    async def work() -> None:
        secret = await house.key(expires_at=house.clock() + 1_000)
        await house.bearer(secret)
        house.clock.advance(999)
        await house.bearer(secret)
        house.clock.advance(1)
        with pytest.raises(Unauthenticated, match="expired"):
            await house.bearer(secret)
        with pytest.raises(Unauthenticated, match="expired"):
            await House(house.clock, house.engine).bearer(secret)

    run(work())


def test_revocation_works_at_once_in_every_process(house: House, clock: ManualClock) -> None:
    async def work() -> None:
        elsewhere = House(clock, house.engine)
        secret = await house.key(id="k1")
        await house.bearer(secret)
        await elsewhere.bearer(secret)
        assert (await access_keys.revoke_key(elsewhere.engine, "k1")).id == "k1"
        for process in (house, elsewhere):
            with pytest.raises(Unauthenticated):
                await process.bearer(secret)
        with pytest.raises(NotFound):
            await access_keys.revoke_key(house.engine, "k1")

    run(work())


def test_a_key_revoked_while_it_is_looked_up_is_not_cached(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        secret = await house.key(id="k1")
        find_key = access_keys.find_key

        async def revoked_meanwhile(engine: Engine, digest: str) -> access_keys.AccessKey | None:
            found = await find_key(engine, digest)
            monkeypatch.setattr(access_keys, "find_key", find_key)
            await access_keys.revoke_key(engine, "k1")
            # Another request of this process clears the cache for the new epoch; this one must not put the key back.
            with pytest.raises(Unauthenticated):
                await house.bearer("unknown")
            return found

        monkeypatch.setattr(access_keys, "find_key", revoked_meanwhile)
        await house.bearer(secret)
        with pytest.raises(Unauthenticated):
            await house.bearer(secret)

    run(work())


def test_a_known_header_costs_no_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        secret = await house.key()
        first = await house.bearer(secret)

        async def never(space: int, wanted: Any) -> Any:
            raise AssertionError("read although the header is known")

        monkeypatch.setattr(house.engine, "get", never)
        assert await house.bearer(secret) is first

    run(work())


def test_the_cache_is_bounded(house: House) -> None:
    async def work() -> None:
        secret = await house.key()
        for blanks in range(CACHED_CREDENTIALS + 50):
            await house.auth.authenticate(f"Bearer {' ' * blanks}{secret}", None)
        assert len(house.auth._keys) == CACHED_CREDENTIALS

    run(work())


def test_nothing_is_left_of_a_revoked_or_replaced_key(house: House) -> None:
    async def work() -> None:
        await bootstrap.bootstrap(house.engine, settings(admin_key=ADMIN_KEY), house.clock)
        await house.key(id="k1")
        before = await house.engine.count(SYSTEM_SPACE)
        await bootstrap.bootstrap(house.engine, settings(admin_key=ADMIN_KEY + "2"), house.clock)
        assert await house.engine.count(SYSTEM_SPACE) == before
        await access_keys.revoke_key(house.engine, "k1")
        assert await house.engine.count(SYSTEM_SPACE) == before - 2

    run(work())


def test_bad_records_are_refused(house: House) -> None:
    async def work() -> None:
        good = access_keys.AccessKey(
            id="k1", organisation=ORGANISATION, role="viewer", name="n", digest=access_keys.digest_of("s"), created_at=0
        )
        for change in ({"role": "root"}, {"name": ""}, {"name": "n" * 256}):
            with pytest.raises(Invalid):
                await access_keys.create_key(house.engine, msgspec.structs.replace(good, **change))
        await access_keys.create_key(house.engine, msgspec.structs.replace(good, name="n" * 255))
        for change in ({"digest": "another"}, {"id": "another"}):
            with pytest.raises(Conflicting):
                await access_keys.create_key(house.engine, msgspec.structs.replace(good, **change))

    run(work())


def test_generated_secrets(house: House) -> None:
    secrets = {access_keys.new_secret() for _ in range(1_000)}
    assert len(secrets) == 1_000
    # 43 characters of base64url carry 256 bits.
    assert all(secret.startswith("kv_") and len(secret) == 3 + 43 for secret in secrets)


def test_only_a_hash_is_kept(house: House) -> None:
    async def work() -> None:
        secret = await house.key()
        page = await house.engine.page(SYSTEM_SPACE, Query())
        assert page.entries
        for entry in page.entries:
            assert secret.encode() not in entry.key + entry.value
            assert secret.removeprefix("kv_").encode() not in entry.key + entry.value

    run(work())


# -- the first start ------------------------------------------------------------------------------------------


def settings(**given: Any) -> Config:
    return Config(engine="memory:", data_dir=Path("nowhere"), **given)


def test_first_start(house: House) -> None:
    async def work() -> None:
        with pytest.raises(NotFound):
            await organisation.first_organisation(house.engine)
        first = await bootstrap.bootstrap(house.engine, settings(), house.clock)
        assert first is not None
        assert first.key is not None
        who = await house.bearer(first.key)
        assert (who.organisation, who.role) == (first.organisation, "owner")
        assert (await house.store.resolve(who, stores.by_name(first.organisation, "default"))).id == first.store
        assert await organisation.first_organisation(house.engine) == first.organisation
        # The second start creates nothing, not even a store that was deleted.
        await house.store.end(who, await house.store.open(who, first.store))
        assert await bootstrap.bootstrap(house.engine, settings(), house.clock) is None
        assert await house.engine.list_spaces() == []
        assert len(await access_keys.list_keys(house.engine, first.organisation)) == 1

    run(work())


def test_several_first_starts_at_once_make_one_organisation(house: House) -> None:
    async def work() -> None:
        starts = [bootstrap.bootstrap(house.engine, settings(), house.clock) for _ in range(5)]
        made = [first for first in await asyncio.gather(*starts) if first is not None]
        assert len(made) == 1
        assert [space.id for space in await house.engine.list_spaces()] == [made[0].store]

    run(work())


def test_first_starts_that_race_leave_one_store_and_one_key(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        read = house.engine.get
        both = asyncio.Barrier(2)

        async def together(space: int, wanted: Any) -> Any:
            found = await read(space, wanted)
            if found == [None]:
                await both.wait()
            return found

        monkeypatch.setattr(house.engine, "get", together)
        starts = [bootstrap.bootstrap(house.engine, settings(), house.clock) for _ in range(2)]
        made = [first for first in await asyncio.gather(*starts) if first is not None]
        assert len(made) == 1
        assert [space.id for space in await house.engine.list_spaces()] == [made[0].store]
        assert len(await access_keys.list_keys(house.engine, made[0].organisation)) == 1

    run(work())


def test_the_admin_key_and_the_organisation_are_fixed_by_settings(house: House) -> None:
    async def work() -> None:
        fixed = settings(admin_key=ADMIN_KEY, organisation_id=ORGANISATION)
        first = await bootstrap.bootstrap(house.engine, fixed, house.clock)
        assert first is not None
        assert (first.organisation, first.key) == (ORGANISATION, None)
        before = await house.engine.epoch()
        assert await bootstrap.bootstrap(house.engine, fixed, house.clock) is None
        assert await house.engine.epoch() == before
        who = await house.bearer(ADMIN_KEY)
        assert (who.organisation, who.role, who.name) == (ORGANISATION, "owner", "admin")

    run(work())


def test_a_changed_admin_key_replaces_the_previous_one(house: House) -> None:
    async def work() -> None:
        await bootstrap.bootstrap(house.engine, settings(admin_key=ADMIN_KEY), house.clock)
        await house.bearer(ADMIN_KEY)
        await bootstrap.bootstrap(house.engine, settings(admin_key=ADMIN_KEY + "2"), house.clock)
        await house.bearer(ADMIN_KEY + "2")
        with pytest.raises(Unauthenticated):
            await house.bearer(ADMIN_KEY)
        # Without the setting, the last admin key remains valid.
        await bootstrap.bootstrap(house.engine, settings(), house.clock)
        await house.bearer(ADMIN_KEY + "2")

    run(work())


def test_settings_that_contradict_the_database(house: House) -> None:
    async def work() -> None:
        await bootstrap.bootstrap(house.engine, settings(organisation_id=ORGANISATION), house.clock)
        with pytest.raises(Invalid, match=ORGANISATION):
            await bootstrap.bootstrap(house.engine, settings(organisation_id=OTHER), house.clock)
        secret = await house.key()
        with pytest.raises(Invalid, match="admin_key"):
            await bootstrap.bootstrap(house.engine, settings(admin_key=secret), house.clock)

    run(work())


def test_a_space_ended_while_it_is_opened_is_not_cached(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        space = await house.space()
        who = Principal(ORGANISATION, "owner", "test")
        await house.store.refresh()
        find = house.engine.get_space

        async def ended_meanwhile(id: str) -> Space | None:
            found = await find(id)
            await house.engine.end_space(id)
            await house.store.refresh()
            return found

        monkeypatch.setattr(house.engine, "get_space", ended_meanwhile)
        await house.store.open(who, space.id)
        monkeypatch.setattr(house.engine, "get_space", find)
        with pytest.raises(KvasirError):
            await house.store.open(who, space.id)

    run(work())


def test_a_prefix_becomes_its_key_range(house: House) -> None:
    async def work() -> None:
        who = await house.bearer(await house.key(prefix=("a",)))
        assert who.keys == KeyRange(keys.pack(["a"]), keys.pack(["a"]) + b"\xff")

    run(work())
