"""An answer on its way piece by piece: taken from the dialect as fast as the client takes it, and ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from kvasir.dialects.http import Stream
from kvasir.errors import KvasirError

if TYPE_CHECKING:
    from kvasir.listeners.http.request import Request

log = logging.getLogger("kvasir.http")


class Streaming:
    """The task that sends one stream. Its connection has sent the head already."""

    def __init__(self, request: Request, stream: Stream) -> None:
        self._request, self._stream = request, stream
        self.is_endless, self._begun = stream.endless, False
        self._room: asyncio.Future[None] | None = None
        self.task = asyncio.get_running_loop().create_task(self._send())

    def wake(self) -> None:
        """There may be room for more."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def cancel(self) -> None:
        """The client is gone. A task that is cancelled before its first step would never close the pieces."""
        if self._begun:
            self.task.cancel()

    async def _send(self) -> None:
        request, owner, self._begun = self._request, self._request.owner, True
        try:
            async with contextlib.aclosing(self._stream.chunks) as chunks:
                if owner.is_gone(request):
                    return
                if not request.is_head:
                    async for chunk in chunks:
                        owner.send(request, chunk)
                        while not owner.has_room(request):
                            self._room = asyncio.get_running_loop().create_future()
                            await self._room
        except KvasirError as error:
            log.warning("request %s: the answer was cut off: %s", request.id, error.message)
            owner.cut(request)
        except Exception:
            # What has been sent must not pass for the whole: the connection or the stream ends without its end.
            log.exception("request %s: the answer was cut off", request.id)
            owner.cut(request)
        else:
            owner.end(request)
