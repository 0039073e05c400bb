"""Spaces: what there is, made, shown, renamed and ended.

A session's token is a secret of its users, whatever the role of who asks: no answer has one.
"""

from __future__ import annotations

from typing import Any

from kvasir.control import applications, stores
from kvasir.dialects.http import Response
from kvasir.dialects.native import bodies, rendering
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.parameters import PAGE_DEFAULT
from kvasir.errors import Invalid
from kvasir.model import Principal, Space
from kvasir.store.store import Store

#: The kinds of aliases that are shown. Any other may be a token.
SHOWN_ALIASES = frozenset({"store", "application", "application-name", "session-name"})


async def list_all(services: Services, call: Call) -> Response:
    """A page of the spaces that the principal may know of, by ascending id."""
    limit = call.query.get("limit", PAGE_DEFAULT)
    found = await services.store.list_spaces(
        call.principal, call.query.get("kind"), after=call.query.get("after", "").upper(), limit=limit + 1
    )
    page = found[:limit]
    shown = [await _members(services.store, call.principal, space) for space in page]
    return call.answer(rendering.document(spaces=shown, next=page[-1].id if len(found) > limit else None))


async def create(services: Services, call: Call) -> Response:
    """201, or 200 with the one that has the name."""
    limits = services.store.limits
    body = await bodies.read(await call.request.body(limits.query_body_bytes), bodies.NewSpace, limits)
    store, id = services.store, services.store.new_id()
    if body.kind == "store":
        space = await stores.create(store, call.principal, body.name, id=id)
    else:
        space = (await applications.create(store, call.principal, body.name, id=id)).space
    shown = await _members(store, call.principal, space)
    location = ("Location", f"/v1/spaces/{space.id}")
    return call.answer(rendering.json(shown), 201 if space.id == id else 200, (location,))


async def show(services: Services, call: Call) -> Response:
    """One space, with the number of its entries that the principal may read."""
    space = await call.space(services)
    shown = await _members(services.store, call.principal, space)
    shown["count"] = await services.store.count(call.principal, space, call.principal.keys)
    return call.answer(rendering.json(shown))


async def rename(services: Services, call: Call) -> Response:
    """A store or an application; a session keeps its name."""
    space = await call.space(services)
    limits = services.store.limits
    name = (await bodies.read(await call.request.body(limits.query_body_bytes), bodies.NewName, limits)).name
    if space.kind == "store":
        renamed = await stores.rename(services.store, call.principal, space, name)
    elif space.kind == "application":
        renamed = await applications.rename(services.store, call.principal, space, name)
    else:
        raise Invalid(f"a {space.kind} keeps the name that it was made with")
    return call.answer(rendering.json(await _members(services.store, call.principal, renamed)))


async def end(services: Services, call: Call) -> Response:
    """All its keys with it, at once."""
    await services.store.end(call.principal, await call.space(services))
    return call.answer(b"", 204)


async def _members(store: Store, principal: Principal, space: Space) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": space.id,
        "kind": space.kind,
        "name": space.name,
        "created_at": rendering.instant(space.created_at),
        "expires_at": rendering.instant(space.expires_at),
    }
    if space.kind != "session":
        shown["aliases"] = [
            {"kind": kind, "name": handle}
            for kind, _, handle in await store.aliases(principal, space)
            if kind in SHOWN_ALIASES
        ]
    return shown
