"""Cross-origin requests of web pages (the Fetch standard, section 3.2), for the APIs whose credential is a header.

Wraps a dialect: answers preflights, which carry no credential, and adds headers to what the dialect answers, failures
too. Origins are compared whole: never as a prefix, and `null`, which any sandboxed page may have, is no origin.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

from kvasir.dialects.http import HttpDialect, Request, Response
from kvasir.errors import KvasirError

ALLOWED_METHODS = "GET, HEAD, PUT, POST, PATCH, DELETE"
ALLOWED_HEADERS = "Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, Kvasir-Metadata"
EXPOSED_HEADERS = "ETag, Retry-After, X-Request-Id, Kvasir-Created-At, Kvasir-Expires-At, Kvasir-Count, Kvasir-Warning"

#: Seconds for which a browser may remember the answer to a preflight.
MAX_AGE_SECONDS = 600

#: The operation of preflights, for metrics. Both dialects that are wrapped have it.
UNROUTED = "unrouted"

_VARY = ("Vary", "Origin")


class CrossOrigin:
    """A dialect that pages of these origins may use."""

    name: ClassVar[str] = "cors"
    operations: ClassVar[tuple[str, ...]] = ()

    def __init__(self, dialect: HttpDialect, origins: Iterable[str]) -> None:
        self._dialect = dialect
        self._origins = frozenset(origins)
        self.name = dialect.name  # type: ignore[misc]
        self.operations = dialect.operations  # type: ignore[misc]
        self.serves = dialect.serves

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:
        """See `HttpDialect`."""
        answer = self._dialect.too_much(request, response, error)
        return response if answer is response else _with(answer, self._headers(request))

    def answer_nowait(self, request: Request) -> bool:
        """See `HttpDialect`."""
        if _is_preflight(request):
            request.answer(self._preflight(request.header("origin") or ""))
            return True
        return self._dialect.answer_nowait(_Shared(request, self._headers(request)))

    async def __call__(self, request: Request) -> Response:
        return _with(await self._dialect(request), self._headers(request))

    def _headers(self, request: Request) -> tuple[tuple[str, str], ...]:
        origin = request.header("origin")
        if origin not in self._origins:
            return (_VARY,)
        return (("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", EXPOSED_HEADERS), _VARY)

    def _preflight(self, origin: str) -> Response:
        headers: tuple[tuple[str, str], ...] = (_VARY,)
        if origin in self._origins:
            headers = (
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Allow-Methods", ALLOWED_METHODS),
                ("Access-Control-Allow-Headers", ALLOWED_HEADERS),
                ("Access-Control-Max-Age", str(MAX_AGE_SECONDS)),
                _VARY,
            )
        return Response(204, b"", UNROUTED, "ok", headers)


class _Shared:
    """A request whose answer gets more headers."""

    def __init__(self, request: Request, headers: tuple[tuple[str, str], ...]) -> None:
        self._request = request
        self._headers = headers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def answer(self, response: Response) -> None:
        self._request.answer(_with(response, self._headers))


def _is_preflight(request: Request) -> bool:
    asked = request.header("access-control-request-method")
    return request.method == "OPTIONS" and asked is not None and request.header("origin") is not None


def _with(response: Response, headers: tuple[tuple[str, str], ...]) -> Response:
    return msgspec.structs.replace(response, headers=(*response.headers, *headers))
