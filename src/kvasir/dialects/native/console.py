"""One-time links, by which a browser signs in to the console: whoever has a credential makes them."""

from __future__ import annotations

from kvasir.control import console_links
from kvasir.dialects.http import Response
from kvasir.dialects.native import bodies, rendering
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.credentials import key_members
from kvasir.errors import Forbidden, NotFound
from kvasir.store.permissions import READERS, require

#: Bytes of a body with a code
BODY_BYTES = 1_024


async def create_link(services: Services, call: Call) -> Response:
    """A link with the caller's own rights. The code is in this answer, and nowhere else."""
    _require_console(services)
    require(call.principal, READERS)
    asker = await services.auth.access_key(call.request.header("authorization"))
    if asker is not None and asker.made_by is not None:
        # Else a key that was stolen from a browser would live on in others, one after the other.
        raise Forbidden("an access key that came by a link makes no links; use the one that it came from")
    digest = None if asker is None else asker.digest
    code, expires_at = await console_links.create(services.engine, services.auth.clock(), call.principal, digest)
    body = rendering.document(code=code, path=console_links.PATH.format(code), expires_at=rendering.instant(expires_at))
    return call.answer(body, 201)


async def exchange(services: Services, call: Call) -> Response:
    """An access key for a code, once."""
    _require_console(services)
    asked = await bodies.read(await call.request.body(BODY_BYTES), bodies.ConsoleCode, services.store.limits)
    now, id = services.auth.clock(), services.store.new_id()
    key, secret = await console_links.exchange(services.engine, now, id, asked.code, services.trail)
    return call.answer(rendering.json(key_members(key) | {"key": secret}), 201)


def _require_console(services: Services) -> None:
    if not services.console:
        raise NotFound("the console of this server is off; start it with --console on", code="console_off")
