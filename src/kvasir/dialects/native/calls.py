"""One request to this API as its handlers see it, and what they need to serve it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kvasir.access.authenticator import Authenticator
from kvasir.control.audit import Audit
from kvasir.dialects.http import Request, Response
from kvasir.dialects.native import keytext, parameters
from kvasir.dialects.native.problems import HEADERS
from kvasir.dialects.native.routes import Operation
from kvasir.dialects.native.streams import Slots
from kvasir.engine import Engine
from kvasir.errors import Unauthenticated
from kvasir.keys import pack
from kvasir.model import Principal, Space
from kvasir.store.store import Store

if TYPE_CHECKING:
    from kvasir.dialects.native.stats import History
    from kvasir.dialects.native.watching import Watches


class Services(Struct, frozen=True):
    """What handlers work with."""

    store: Store
    engine: Engine
    auth: Authenticator
    #: What the server says about itself: version, engine, durability
    about: dict[str, str]
    slots: Slots
    watches: Watches
    history: History
    #: Whether there is a console
    console: bool
    #: The audit file, if there is one
    trail: Audit | None


class Call(Struct, frozen=True):
    """A request that has been routed, authenticated and whose query has been read."""

    request: Request
    operation: Operation
    principal: Principal
    #: The id in the path: of a space, an access key or a service account
    id: str
    #: The key in the path as it came, or ""
    raw_key: str
    query: dict[str, Any]

    def packed_key(self) -> bytes:
        """The packed key in the path or, in the general form, in the query."""
        named = "{key}" in self.operation.path
        return pack(keytext.of_path(self.raw_key) if named else parameters.key(self.query))

    async def authenticate(self, services: Services) -> Principal:
        """The principal again. Raises `Unauthenticated` if the credential is good no more."""
        # Never a cookie, which a browser sends by itself.
        return await services.auth.authenticate(self.request.header("authorization"), None)

    async def recheck(self, services: Services) -> None:
        """Look again whether what takes long may go on. Raises what a new request would."""
        principal = await self.authenticate(services)
        if principal != self.principal:
            raise Unauthenticated("what the credential allows has changed; send the request again")
        await services.store.open(principal, self.id)

    async def space(self, services: Services) -> Space:
        """The space in the path. Raises `NotFound` for one that the principal may not know of, too."""
        return await services.store.open(self.principal, self.id)

    def answer(
        self, body: bytes = b"", status: int = 200, headers: tuple[tuple[str, str], ...] = (), outcome: str = "ok"
    ) -> Response:
        """A response with the headers that every one has."""
        return Response(status, body, self.operation.name, outcome, headers, usual=HEADERS)


Handler = Callable[[Services, Call], Awaitable[Response]]
