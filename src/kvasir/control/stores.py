"""Stores as people know them: by a name, unique in its organisation, or by their ULID. Touches no entries."""

from __future__ import annotations

import msgspec

from kvasir.errors import Conflicting, Invalid, NotFound
from kvasir.limits import Limits
from kvasir.model import Alias, Principal, Space
from kvasir.store.permissions import MANAGERS, WRITERS, require
from kvasir.store.store import Store


def by_name(organisation: str, name: str) -> Alias:
    """The alias of the store with this name."""
    return ("store", organisation, name)


def unmade(organisation: str, name: str) -> Space:
    """A store that has yet to be created: `Store.create` fills in the rest."""
    return Space("", 0, organisation, "store", name, 0)


def check_name(name: str, limits: Limits) -> None:
    """Raise `Invalid` unless this may be the name of a store, or the name a store is shared under."""
    if not 0 < len(name) <= limits.store_name_characters:
        wrong = f"must be a string of 1 to {limits.store_name_characters} characters"
        raise Invalid(f"name {wrong}", fields=(("name", wrong),))


async def create(store: Store, principal: Principal, name: str, *, id: str = "") -> Space:
    """The store of this name, created if there is none yet, with this ULID if one is given.

    Raises `Invalid` for a bad name.
    """
    check_name(name, store.limits)
    organisation = principal.organisation
    wanted = msgspec.structs.replace(unmade(organisation, name), id=id)
    return await store.create(principal, wanted, [by_name(organisation, name)])


async def rename(store: Store, principal: Principal, space: Space, name: str) -> Space:
    """Call a store by another name. Raises `Invalid` for a bad name and `Conflicting` for another store's."""
    check_name(name, store.limits)
    organisation = space.organisation
    old = () if name == space.name else (by_name(organisation, space.name),)
    renamed = await store.alter(principal, space, name, add=[by_name(organisation, name)], remove=old)
    if renamed.id != space.id:
        raise Conflicting(f"there is a store {name!r} already; choose another name")
    return renamed


async def resolve_or_create(store: Store, principal: Principal, name: str) -> Space:
    """The store of this name, created at its first use by any principal who may write, not only by one who may manage.

    For an API with one fixed store, which nobody creates explicitly. Raises `Forbidden` for one who may not write.
    """
    alias = by_name(principal.organisation, name)
    try:
        return await store.resolve(principal, alias)
    except NotFound:
        require(principal, WRITERS)
        role = principal.role if principal.role in MANAGERS else "admin"
        creator = msgspec.structs.replace(principal, role=role, keys=None)
        created = await store.create(creator, unmade(principal.organisation, name), [alias])
        return await store.open(principal, created.id)


async def find(store: Store, principal: Principal, name_or_id: str) -> Space:
    """The store with this name or ULID. Raises `NotFound`."""
    try:
        return await store.resolve(principal, by_name(principal.organisation, name_or_id))
    except NotFound:
        pass
    try:
        return await store.open(principal, name_or_id.upper())
    except NotFound:
        raise NotFound(f"there is no store {name_or_id!r}; `kvasir store list` shows them") from None
