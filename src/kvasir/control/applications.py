"""Applications of the Voximplant API: spaces found by an integer id or a name. Touches no entries."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec
from msgspec import Struct

from kvasir.errors import Conflicting, Invalid, NotFound
from kvasir.model import Alias, Principal, Space
from kvasir.store.store import Store

#: AddApplication documents [a-z][a-z0-9-]{1,64}, but examples in the reference have capitals. Never a dot, which
#: separates the parts of a full name, nor only digits, which would be an id.
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,64}")
#: Ids are signed 64-bit numbers in the Go and Java clients.
LARGEST_ID = 2**63 - 1


class Application(Struct, frozen=True):
    """An application and the space that holds its keys."""

    application_id: int
    space: Space


class _Attributes(Struct, frozen=True):
    application_id: int


@lru_cache(maxsize=1_024)  # asked with every request, about few applications
def by_id(organisation: str, application_id: int | str) -> Alias:
    """The alias of the application with this id; as a text it must be written as a number is, or nothing has it."""
    return ("application", organisation, str(application_id))


def by_name(organisation: str, name: str) -> Alias:
    """The alias of the application with this name: the short one, without the account."""
    return ("application-name", organisation, name)


async def create(
    store: Store, principal: Principal, name: str, application_id: int | None = None, *, id: str = ""
) -> Application:
    """Create an application, or return the one that already has this name (and this id, if one is given).

    `id`: the ULID that its space is to have. Without an `application_id` it gets the one after the highest. Raises
    `Invalid` for a bad name or id and `Conflicting` for an id or a name that belongs to another application.
    """
    _check_name(name)
    if application_id is not None and not 0 < application_id <= LARGEST_ID:
        raise Invalid(f"an application's id must be a number from 1 to {LARGEST_ID}")
    while True:
        number = application_id or 1 + max(
            (each.application_id for each in await list_all(store, principal)), default=0
        )
        attributes = msgspec.json.encode(_Attributes(number))
        wanted = Space(id, 0, principal.organisation, "application", name, 0, attributes=attributes)
        aliases = [by_name(principal.organisation, name), by_id(principal.organisation, number)]
        made = of_space(await store.create(principal, wanted, aliases))
        if made.space.name == name and application_id in (None, made.application_id):
            return made
        if application_id is not None:
            raise Conflicting(
                f"the application {made.space.name!r} has the id {made.application_id}: choose another id or name"
            )
        # Another process has just taken the number: try the next one.


def _check_name(name: str) -> None:
    if NAME.fullmatch(name) is None:
        wrong = "must be a letter, then up to 64 letters, digits, - or _ (ASCII)"
        raise Invalid(f"an application's name {wrong}", fields=(("name", wrong),))


async def rename(store: Store, principal: Principal, space: Space, name: str) -> Space:
    """Call an application by another name; its number stays.

    Raises `Invalid` for a bad name and `Conflicting` for one that another application has.
    """
    _check_name(name)
    organisation = space.organisation
    old = () if name == space.name else (by_name(organisation, space.name),)
    renamed = await store.alter(principal, space, name, add=[by_name(organisation, name)], remove=old)
    if renamed.id != space.id:
        raise Conflicting(f"there is an application {name!r} already; choose another name")
    return renamed


async def list_all(store: Store, principal: Principal) -> list[Application]:
    """The applications that the principal may know of, oldest first."""
    return [of_space(space) for space in await store.list_spaces(principal, "application")]


async def find(store: Store, principal: Principal, name_or_id: str) -> Application:
    """The application with this id or name. Raises `NotFound`."""
    organisation = principal.organisation
    alias = by_id(organisation, int(name_or_id)) if name_or_id.isdecimal() else by_name(organisation, name_or_id)
    try:
        return of_space(await store.resolve(principal, alias))
    except NotFound:
        raise NotFound(f"there is no application {name_or_id!r}; `kvasir application list` shows them") from None


def of_space(space: Space) -> Application:
    """The application that a space of this kind is."""
    return Application(msgspec.json.decode(space.attributes, type=_Attributes).application_id, space)
