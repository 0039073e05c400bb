"""The operations on spaces, as steps, and how the name of a store becomes its ULID. Does no I/O."""

from __future__ import annotations

import re
from typing import Any, Literal

from kvasir_client.answers import Retries, exchange, read, unreadable
from kvasir_client.entries import Space
from kvasir_client.errors import Invalid, NotFound
from kvasir_client.times import instant
from kvasir_client.wire import Give, Request, Steps, with_json

Kind = Literal["store", "application", "session"]

#: The server's code for a space that is not there, as opposed to a key.
GONE = "store_not_found"

PAGE = "1000"

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE)


class Reference:
    """A space by its name or ULID; what a name means is asked once and remembered."""

    def __init__(self, given: str) -> None:
        if not given:
            raise Invalid("the name of a store must not be empty")
        self.given = given
        self._id: str | None = None
        self.forget()

    def resolve(self, retries: Retries) -> Steps[str]:
        """The ULID. Raises `NotFound` if no store, and no application, has the name."""
        if self._id is None:
            for kind in ("store", "application"):
                found = [space.id for space in (yield from _named(kind, self.given, retries))]
                if found:
                    self._id = found[0]
                    return found[0]
            raise NotFound(f"there is no store named {self.given!r} that this access key may use", reason=GONE)
        return self._id

    def forget(self) -> None:
        """Ask anew next time: the store has gone, and another one may have its name by then."""
        self._id = self.given.upper() if _ULID.fullmatch(self.given) else None


def _named(kind: str, name: str, retries: Retries) -> Steps[list[Space]]:
    after = ""
    while True:
        page, after = yield from _page(kind, after, retries)
        found = [space for space in page if space.name == name]
        if found or not after:
            return found


def _page(kind: str | None, after: str, retries: Retries) -> Steps[tuple[list[Space], str]]:
    query = [("limit", PAGE)]
    if kind:
        query.append(("kind", kind))
    if after:
        query.append(("after", after))
    request = Request("GET", "/v1/spaces", tuple(query))
    answer = yield from exchange(request, retries)
    return read(answer, request, lambda found: ([_space(each) for each in found["spaces"]], found["next"] or ""))


def list_all(kind: Kind | None, retries: Retries) -> Steps[None]:
    """Gives spaces."""
    after = ""
    while True:
        page, after = yield from _page(kind, after, retries)
        for space in page:
            yield Give(space)
        if not after:
            return


def create(name: str, kind: str, retries: Retries) -> Steps[Space]:
    """Make a store or an application, unless there is one of this name."""
    request = with_json("POST", "/v1/spaces", {"name": name, "kind": kind}, writes=True)
    answer = yield from exchange(request, retries)
    return read(answer, request, _space)


def show(reference: Reference, retries: Retries) -> Steps[Space]:
    """A space with the number of its entries."""
    id = yield from reference.resolve(retries)
    request = Request("GET", f"/v1/spaces/{id}")
    answer = yield from exchange(request, retries)
    return read(answer, request, _space)


def end(reference: Reference, retries: Retries) -> Steps[None]:
    """End a space with all its entries."""
    id = yield from reference.resolve(retries)
    request = Request("DELETE", f"/v1/spaces/{id}", writes=True)
    answer = yield from exchange(request, retries)
    if answer.status != 204:
        raise unreadable(answer, request)
    reference.forget()


def about(retries: Retries) -> Steps[dict[str, Any]]:
    """What the server says of itself and of who asks."""
    request = Request("GET", "/v1")
    answer = yield from exchange(request, retries)
    return read(answer, request, dict[str, Any])


def console_link(retries: Retries) -> Steps[str]:
    """The path of a one-time link to the console."""
    request = Request("POST", "/v1/console/links", writes=True)
    answer = yield from exchange(request, retries)
    return read(answer, request, lambda found: str(found["path"]))


def _space(found: Any) -> Space:
    expires_at = found.get("expires_at")
    return Space(
        found["id"],
        found["kind"],
        found["name"],
        instant(found["created_at"]),
        instant(expires_at) if expires_at else None,
        found.get("count"),
    )
