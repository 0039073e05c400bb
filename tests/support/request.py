"""An HTTP request without a connection."""

from __future__ import annotations

from collections.abc import Mapping

from kvasir.dialects.http import Response
from kvasir.errors import KvasirError, TooLarge
from kvasir.listeners.http.heads import decoded


class FakeRequest:
    """A `kvasir.dialects.http.Request`; a body that is an error is raised when asked for."""

    id = "request-1"

    def __init__(
        self, method: str, target: str, body: bytes | KvasirError = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.raw_path, _, self.query = target.partition("?")
        self.method = method
        self.is_head = False
        self.path = decoded(self.raw_path)
        self.asked_for_body = False
        self._body = body
        self._headers = dict(headers or {})

    def header(self, name: str) -> str | None:
        return self._headers.get(name)

    def body_nowait(self, limit: int | None = None) -> bytes | None:
        too_long = limit is not None and not isinstance(self._body, KvasirError) and len(self._body) > limit
        return None if too_long or isinstance(self._body, KvasirError) else self._body

    def reads_only(self) -> None:
        """There is no client who could leave."""

    def writes(self) -> None:
        """There is no client who could leave."""

    def answer(self, response: Response) -> None:
        raise AssertionError("only what a listener has is answered without a coroutine")

    async def body(self, limit: int | None = None) -> bytes:
        self.asked_for_body = True
        if isinstance(self._body, KvasirError):
            raise self._body
        if limit is not None and len(self._body) > limit:
            raise TooLarge(f"the request body is longer than the {limit:,} bytes allowed")
        return self._body

    async def piece(self) -> bytes:
        piece, self._body = await self.body(), b""
        return piece
